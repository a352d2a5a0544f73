/** Pictures of meshes and of Gaussians, for previews and for colours. */
import type { Image } from "../io/image.ts";
import { srgbToLinear } from "../render/srgb.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { type Camera, type Direction, orbitCamera } from "../render/camera.ts";
import { renderMesh } from "../render/render_mesh.ts";
import { rasterize, type Splats } from "../render/splat.ts";
import { step } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";

const RADIUS = 2.4, FOV = 36 * Math.PI / 180, CLAY = 0.6;

/** Views of a mesh on white, evenly around it from `from` on, `size` pixels a side; grey where it has no colours. */
export function meshPictures(mesh: Mesh, { count, from, size }: { count: number; from: Direction; size: number }): Image[] {
  const { positions, triangles, normals, colors } = mesh, linear = Float32Array.from({ length: 256 }, (_, c) => srgbToLinear(c / 255));
  const rgba = colors &&
    Float32Array.from({ length: colors.length / 3 * 4 }, (_, i) => i % 4 === 3 ? 1 : linear[colors[Math.floor(i / 4) * 3 + i % 4]]);
  const grey = colors ? 1 : CLAY, materials = [{ baseColor: [grey, grey, grey, 1] as const }];
  const cameras = turntable(count, from);
  return renderMesh({ positions, triangles, normals, colors: rgba, materials }, cameras, { size }).map((view) => onWhite(view.rgba, size));
}

/** Options of {@linkcode splatPictures}. */
export interface SplatPictureOptions {
  size: number;
  /** What every splat gains on the screen, pixels². */
  blur?: number;
}

/** Views drawn at a time: what bounds the memory of many pictures. */
const TOGETHER = 8;

/** Pictures of one scene of Gaussians: sRGB with straight alpha, as many as cameras. */
export function splatPictures(splats: Splats, cameras: readonly Camera[], { size: S, blur }: SplatPictureOptions): Image[] {
  const out: Image[] = [], area = S * S;
  for (let first = 0; first < cameras.length; first += TOGETHER) {
    const some = cameras.slice(first, first + TOGETHER);
    const y = step(() => noGrad(() => rasterize(splats, [some], { size: S, blur }).read())); // [V, 5, S, S]
    some.forEach((_, v) => {
      const data = new Uint8Array(area * 4), plane = (c: number): Float32Array => y.subarray((v * 5 + c) * area, (v * 5 + c + 1) * area);
      const alpha = plane(3);
      for (let c = 0; c < 3; c++) {
        const values = plane(c);
        for (let i = 0; i < area; i++) data[4 * i + c] = Math.round(255 * Math.min(1, alpha[i] > 0 ? values[i] / alpha[i] : 0));
      }
      for (let i = 0; i < area; i++) data[4 * i + 3] = Math.round(255 * Math.min(1, alpha[i]));
      out.push({ width: S, height: S, channels: 4, data });
    });
  }
  return out;
}

/** Cameras evenly around the origin from `from` on, each 36 degrees wide. */
export function turntable(count: number, from: Direction): Camera[] {
  return Array.from({ length: count }, (_, k) => {
    return orbitCamera({ yaw: from.yaw + 2 * Math.PI * k / count, pitch: from.pitch }, RADIUS, FOV);
  });
}

/** Colours on white, for a picture [S, S, 4] in straight alpha. */
export function pictureOnWhite({ width, height, data }: Image): Image {
  return onWhite(data, width, height);
}

function onWhite(rgba: ArrayLike<number>, width: number, height = width): Image {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const alpha = rgba[i * 4 + 3] / 255;
    for (let c = 0; c < 3; c++) data[i * 3 + c] = Math.round(rgba[i * 4 + c] * alpha + 255 * (1 - alpha));
  }
  return { width, height, channels: 3, data };
}
