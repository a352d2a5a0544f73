/** Colours for a mesh without any: from a picture where it shows the mesh, from the mesh's own symmetry and neighbourhood elsewhere. */
import { diffuseColors, mirrorColors, type PartialColors } from "./fill_colors.ts";
import type { Mesh } from "./mesh.ts";
import { type MeshCamera, type Picture, projectVertices, rasterizeDepth } from "./raster.ts";

/** Options of {@linkcode projectColors}. */
export interface ProjectColorsOptions {
  /** Whether an unseen vertex may take the colour of its mirror image, where the mesh is its own mirror image in x or y. */
  mirror?: boolean;
}

/** How far behind the nearest surface a vertex is still seen, world units. */
const DEPTH_SLACK = 0.015;
/** Least cosine between a seen vertex's normal and the way to the camera. */
const MIN_FACING = 0.15;
const DEPTH_SIDE = 512;

/**
 * A colour for each vertex, [V,3] sRGB. A vertex that the camera sees and that faces it takes the picture's colour, if the picture is opaque
 * there. Of the others, those whose mirror image is seen take its colour; the rest get a smooth blend from their neighbours inwards, and parts
 * of the mesh without one coloured vertex get the mean colour. Throws a RangeError where the camera sees no vertex in the opaque picture.
 */
export function projectColors(
  mesh: Mesh,
  picture: Picture,
  camera: MeshCamera,
  { mirror = true }: ProjectColorsOptions = {},
): Uint8Array<ArrayBuffer> {
  const colors = new Float32Array(mesh.positions.length), known = new Uint8Array(colors.length / 3);
  takeSeenColors(mesh, picture, camera, { colors, known });
  if (!known.includes(1)) {
    throw new RangeError("Cannot project colours: the camera sees 0 vertices in the opaque part of the picture, it must see some");
  }
  if (mirror) mirrorColors(mesh, { colors, known });
  diffuseColors(mesh, { colors, known });
  return Uint8Array.from(colors, (c) => Math.round(c));
}

/** A view of a mesh's colours. */
export interface ColorView {
  picture: Picture;
  camera: MeshCamera;
}

/**
 * A colour for each vertex, [V,3] sRGB, from pictures all around: of all that show a vertex the mean, by the square of the cosine at which it is
 * seen. Vertices that none shows get a blend from their neighbours inwards. Throws a RangeError where no vertex is seen in an opaque part.
 */
export function bakeColors(mesh: Mesh, views: readonly ColorView[]): Uint8Array<ArrayBuffer> {
  const colors = new Float32Array(mesh.positions.length),
    known = new Uint8Array(colors.length / 3),
    weights = new Float32Array(known.length);
  for (const { picture, camera } of views) {
    forEachSeen(mesh, picture, camera, (v, rgb, facing) => {
      const weight = facing ** 2;
      weights[v] += weight;
      known[v] = 1;
      for (let k = 0; k < 3; k++) colors[3 * v + k] += (rgb[k] - colors[3 * v + k]) * weight / weights[v];
    });
  }
  if (!known.includes(1)) {
    throw new RangeError(`Cannot bake colours: in ${views.length} views 0 vertices are seen in an opaque part, it must be some`);
  }
  diffuseColors(mesh, { colors, known });
  return Uint8Array.from(colors, (c) => Math.round(c));
}

function takeSeenColors(mesh: Mesh, picture: Picture, camera: MeshCamera, { colors, known }: PartialColors): void {
  forEachSeen(mesh, picture, camera, (v, rgb) => {
    colors.set(rgb, 3 * v);
    known[v] = 1;
  });
}

/** Calls `take` with each vertex that the camera sees, that faces it, and where the picture is opaque: its colour there and the cosine. */
function forEachSeen(mesh: Mesh, picture: Picture, camera: MeshCamera, take: (v: number, rgb: Float32Array, facing: number) => void): void {
  const scale = DEPTH_SIDE / Math.max(picture.width, picture.height), rgb = new Float32Array(3);
  const size = { width: Math.ceil(picture.width * scale), height: Math.ceil(picture.height * scale) };
  const projection = projectVertices(mesh.positions, camera, size), { x, y, inverseDepth } = projection;
  const nearest = rasterizeDepth(projection, mesh.triangles, size), eye = cameraCenter(camera);
  for (let v = 0; v < inverseDepth.length; v++) {
    const column = Math.floor(x[v]), row = Math.floor(y[v]);
    if (inverseDepth[v] === 0 || column < 0 || row < 0 || column >= size.width || row >= size.height) continue;
    const front = nearest[row * size.width + column];
    if (front === 0 || 1 / inverseDepth[v] > 1 / front + DEPTH_SLACK) continue;
    const cosine = facing(mesh, v, eye);
    if (cosine >= MIN_FACING && samplePicture(picture, x[v] / size.width, y[v] / size.height, rgb)) take(v, rgb, cosine);
  }
}

/** Writes the colour at u, v in 0 to 1, between its four nearest pixels; false, and nothing, where one of them is not opaque. */
function samplePicture({ data, width, height }: Picture, u: number, v: number, out: Float32Array): boolean {
  const x = Math.min(Math.max(u * width - 0.5, 0), width - 1), y = Math.min(Math.max(v * height - 0.5, 0), height - 1);
  const left = Math.floor(x), top = Math.floor(y), right = Math.min(left + 1, width - 1), bottom = Math.min(top + 1, height - 1);
  const pixels = [top * width + left, top * width + right, bottom * width + left, bottom * width + right];
  if (pixels.some((p) => data[4 * p + 3] < 128)) return false;
  const s = x - left, t = y - top, weights = [(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t];
  for (let k = 0; k < 3; k++) out[k] = pixels.reduce((sum, p, i) => sum + weights[i] * data[4 * p + k], 0);
  return true;
}

function cameraCenter({ extrinsics: e }: MeshCamera): number[] {
  return [0, 1, 2].map((k) => -(e[0][k] * e[0][3] + e[1][k] * e[1][3] + e[2][k] * e[2][3]));
}

function facing({ positions, normals }: Mesh, v: number, eye: number[]): number {
  let dot = 0, squared = 0;
  for (let k = 0; k < 3; k++) {
    const toEye = eye[k] - positions[3 * v + k];
    dot += normals[3 * v + k] * toEye;
    squared += toEye * toEye;
  }
  return dot / Math.sqrt(squared);
}
