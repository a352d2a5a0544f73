/** A plain depth rasterizer, for asking what of a mesh a camera sees. */

import { type Camera, extrinsicsOf, intrinsicsOf } from "../render/camera.ts";

/** A pinhole camera whose picture need not be square or centred. */
export interface MeshCamera {
  /** World to camera, 4 rows of 4: x to the right, y down, z forward. */
  extrinsics: readonly (readonly number[])[];
  /** [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]: u = fx x / z + cx is 0 at the left edge of the picture and 1 at the right, v likewise downwards. */
  intrinsics: readonly (readonly number[])[];
}

/** Width and height of a picture in pixels. */
export interface PictureSize {
  width: number;
  height: number;
}

/** A picture [height,width,4]: RGBA, 8 bits each, alpha not multiplied in. */
export interface Picture extends PictureSize {
  data: ArrayLike<number>;
}

/** Where a mesh's vertices are in a picture. */
export interface Projection {
  /** [V], pixels from the left edge */
  x: Float32Array;
  /** [V], pixels from the top edge */
  y: Float32Array;
  /** [V], 1 / distance along the camera's z; 0 behind the camera */
  inverseDepth: Float32Array;
}

/** Vertices nearer than this along z count as behind the camera. */
const NEAR = 1e-3;

/** A camera that renders square images. */
export function meshCamera(camera: Camera): MeshCamera {
  return { extrinsics: extrinsicsOf(camera), intrinsics: intrinsicsOf(camera.fov) };
}

/** Vertices [V,3] seen by a camera. */
export function projectVertices(positions: Float32Array, { extrinsics, intrinsics }: MeshCamera, size: PictureSize): Projection {
  const V = positions.length / 3, x = new Float32Array(V), y = new Float32Array(V), inverseDepth = new Float32Array(V);
  const [right, down, forward] = extrinsics, [[fx, , cx], [, fy, cy]] = intrinsics;
  for (let v = 0; v < V; v++) {
    const px = positions[3 * v], py = positions[3 * v + 1], pz = positions[3 * v + 2];
    const depth = forward[0] * px + forward[1] * py + forward[2] * pz + forward[3];
    if (depth < NEAR) continue;
    const inverse = 1 / depth;
    x[v] = size.width * (fx * (right[0] * px + right[1] * py + right[2] * pz + right[3]) * inverse + cx);
    y[v] = size.height * (fy * (down[0] * px + down[1] * py + down[2] * pz + down[3]) * inverse + cy);
    inverseDepth[v] = inverse;
  }
  return { x, y, inverseDepth };
}

/** The largest 1 / depth at each pixel's centre, [height,width], 0 where there is no triangle. Triangles partly behind the camera are left out. */
export function rasterizeDepth({ x, y, inverseDepth }: Projection, triangles: Uint32Array, { width, height }: PictureSize): Float32Array {
  const nearest = new Float32Array(width * height);
  for (let t = 0; t < triangles.length; t += 3) {
    const a = triangles[t], b = triangles[t + 1], c = triangles[t + 2];
    if (inverseDepth[a] === 0 || inverseDepth[b] === 0 || inverseDepth[c] === 0) continue;
    const ax = x[a], ay = y[a], bx = x[b], by = y[b], cx = x[c], cy = y[c];
    const left = Math.max(Math.ceil(Math.min(ax, bx, cx) - 0.5), 0), right = Math.min(Math.floor(Math.max(ax, bx, cx) - 0.5), width - 1);
    const top = Math.max(Math.ceil(Math.min(ay, by, cy) - 0.5), 0), bottom = Math.min(Math.floor(Math.max(ay, by, cy) - 0.5), height - 1);
    const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (left > right || top > bottom || area === 0) continue;
    for (let row = top; row <= bottom; row++) {
      for (let column = left; column <= right; column++) {
        const px = column + 0.5, py = row + 0.5;
        const wb = ((px - ax) * (cy - ay) - (py - ay) * (cx - ax)) / area;
        const wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) / area;
        if (wb < 0 || wc < 0 || wb + wc > 1) continue;
        const inverse = (1 - wb - wc) * inverseDepth[a] + wb * inverseDepth[b] + wc * inverseDepth[c];
        if (inverse > nearest[row * width + column]) nearest[row * width + column] = inverse;
      }
    }
  }
  return nearest;
}
