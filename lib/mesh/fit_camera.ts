/** Finding from where a picture shows a mesh: the view whose outline is most like the picture's. */
import { extrinsicsOf, orbitCamera } from "../render/camera.ts";
import type { Mesh } from "./mesh.ts";
import { type MeshCamera, type Picture, type PictureSize, projectVertices, rasterizeDepth } from "./raster.ts";

/** Options of {@linkcode fitCamera}. */
export interface FitCameraOptions {
  /** Yaws tried at each pitch before the best are refined. */
  views?: number;
  /** Lowest and highest pitch tried, in radians. */
  pitchRange?: readonly [number, number];
  /** Distances of the camera from the origin, which set how strong the perspective is: the first for the grid, the others for the best view. */
  radii?: readonly number[];
}

/** A camera at radius (cos yaw cos pitch, sin yaw cos pitch, sin pitch) that looks at the origin; angles in radians. */
export interface View {
  yaw: number;
  pitch: number;
  radius: number;
}

/** What {@linkcode fitCamera} finds. */
export interface CameraFit extends View {
  /** Intersection over union of the outlines, 0 to 1. */
  iou: number;
  /** Shows the mesh where the picture shows the object. */
  camera: MeshCamera;
}

interface Outline {
  mask: Uint8Array;
  /** Square part of the picture that the mask covers, pixels. */
  left: number;
  top: number;
  side: number;
  /** Middle and size of the object in the picture, pixels. */
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Side of the masks that are compared, and the room around the object in them. */
const SIDE = 64, ROOM = 1.2;
const DEGREE = Math.PI / 180, PITCH_STEP = 20 * DEGREE;
const REFINED = 4, REFINE_STEPS = [8, 4, 2, 1, 0.5].map((degrees) => degrees * DEGREE);

/**
 * The view of a mesh that a picture shows, from the picture's alpha alone: yaws and pitches on a coarse grid, then the best few refined.
 * For each view the mesh's outline is laid over the picture's so that their bounding boxes have one middle and one area.
 * Throws a RangeError where the alpha is empty or full, or the mesh is empty.
 */
export function fitCamera(mesh: Mesh, picture: Picture, options: FitCameraOptions = {}): CameraFit {
  const { views = 24, pitchRange = [-15 * DEGREE, 75 * DEGREE], radii = [2, 1.6, 3, 6] } = options;
  if (mesh.triangles.length === 0) throw new RangeError("Cannot fit a camera: the mesh has 0 triangles, it must have at least 1");
  const outline = pictureOutline(picture);
  const score = (view: View): CameraFit => {
    const camera = framedCamera(mesh, view, { outline, picture });
    return { ...view, iou: outlineIou(mesh, camera, { outline, picture }), camera };
  };
  const coarse: CameraFit[] = [];
  const pitches = Math.max(1, Math.round((pitchRange[1] - pitchRange[0]) / PITCH_STEP));
  for (let p = 0; p < pitches; p++) {
    const pitch = pitchRange[0] + (p + 0.5) * (pitchRange[1] - pitchRange[0]) / pitches;
    for (let view = 0; view < views; view++) coarse.push(score({ yaw: 2 * Math.PI * view / views, pitch, radius: radii[0] }));
  }
  coarse.sort((a, b) => b.iou - a.iou);
  const best = mostAlike(coarse.slice(0, REFINED).map((start) => refine(start, score, pitchRange)));
  return mostAlike([best, ...radii.slice(1).map((radius) => refine(score({ ...best, radius }), score, pitchRange))]);
}

function mostAlike(fits: CameraFit[]): CameraFit {
  return fits.reduce((best, fit) => fit.iou > best.iou ? fit : best);
}

function refine(start: CameraFit, score: (view: View) => CameraFit, pitchRange: readonly [number, number]): CameraFit {
  let best = start;
  for (const step of REFINE_STEPS) {
    for (let moved = true; moved;) {
      const here = best;
      for (const [dYaw, dPitch] of [[step, 0], [-step, 0], [0, step], [0, -step]]) {
        const yaw = (here.yaw + dYaw + 2 * Math.PI) % (2 * Math.PI);
        const pitch = Math.min(Math.max(here.pitch + dPitch, pitchRange[0]), pitchRange[1]);
        const fit = score({ yaw, pitch, radius: here.radius });
        if (fit.iou > best.iou) best = fit;
      }
      moved = best !== here;
    }
  }
  return best;
}

/** The camera of a view, zoomed and shifted so that the mesh covers the object in the picture. */
function framedCamera(
  mesh: Mesh,
  { yaw, pitch, radius }: View,
  { outline, picture }: { outline: Outline; picture: PictureSize },
): MeshCamera {
  const extrinsics = extrinsicsOf(orbitCamera({ yaw, pitch }, radius, 1));
  const { x, y, inverseDepth } = projectVertices(mesh.positions, { extrinsics, intrinsics: [[1, 0, 0], [0, 1, 0], [0, 0, 1]] }, {
    width: 1,
    height: 1,
  });
  let left = Infinity, right = -Infinity, top = Infinity, bottom = -Infinity;
  for (let v = 0; v < x.length; v++) {
    if (inverseDepth[v] === 0) continue;
    left = Math.min(left, x[v]);
    right = Math.max(right, x[v]);
    top = Math.min(top, y[v]);
    bottom = Math.max(bottom, y[v]);
  }
  const zoom = Math.sqrt(outline.width * outline.height / Math.max((right - left) * (bottom - top), 1e-12));
  const cx = outline.x - zoom * (left + right) / 2, cy = outline.y - zoom * (top + bottom) / 2;
  const { width, height } = picture;
  return { extrinsics, intrinsics: [[zoom / width, 0, cx / width], [0, zoom / height, cy / height], [0, 0, 1]] };
}

function outlineIou(mesh: Mesh, camera: MeshCamera, { outline, picture }: { outline: Outline; picture: PictureSize }): number {
  const projection = projectVertices(mesh.positions, camera, picture), scale = SIDE / outline.side;
  projection.x.forEach((x, v) => projection.x[v] = (x - outline.left) * scale);
  projection.y.forEach((y, v) => projection.y[v] = (y - outline.top) * scale);
  const depth = rasterizeDepth(projection, mesh.triangles, { width: SIDE, height: SIDE });
  let both = 0, either = 0;
  for (let i = 0; i < depth.length; i++) {
    const a = depth[i] > 0, b = outline.mask[i] === 1;
    if (a && b) both++;
    if (a || b) either++;
  }
  return both / either;
}

function pictureOutline({ data, width, height }: Picture): Outline {
  let left = width, right = -1, top = height, bottom = -1, covered = 0;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (data[4 * (row * width + column) + 3] < 128) continue;
      covered++;
      left = Math.min(left, column);
      right = Math.max(right, column);
      top = Math.min(top, row);
      bottom = row;
    }
  }
  if (covered === 0 || covered === width * height) {
    const got = covered === 0 ? "empty" : "opaque everywhere";
    throw new RangeError(`Cannot fit a camera: the picture's alpha is ${got}, it must cut out the object`);
  }
  const w = right + 1 - left, h = bottom + 1 - top, side = ROOM * Math.max(w, h), x = left + w / 2, y = top + h / 2;
  const mask = new Uint8Array(SIDE * SIDE);
  for (let i = 0; i < mask.length; i++) {
    const column = Math.floor(x + side * ((i % SIDE + 0.5) / SIDE - 0.5)),
      row = Math.floor(y + side * ((Math.floor(i / SIDE) + 0.5) / SIDE - 0.5));
    if (column < 0 || row < 0 || column >= width || row >= height) continue;
    mask[i] = data[4 * (row * width + column) + 3] < 128 ? 0 : 1;
  }
  return { mask, left: x - side / 2, top: y - side / 2, side, x, y, width: w, height: h };
}
