/** What the surface of a mesh is like in each voxel: features to encode structured latents from where no image model is at hand. */
import type { Material, RenderMesh, Texture } from "../render/mesh.ts";
import { linearToSrgb, srgbToLinear } from "../render/srgb.ts";

/** Columns of {@linkcode appearanceFeatures}. */
export const APPEARANCE_CHANNELS = 9;

/** What counts of a piece of surface with no area (a voxel that is only touched), or one that alpha cuts away: next to nothing. */
const FAINT = 1e-9;
const LINEAR: Float64Array = Float64Array.from({ length: 256 }, (_, c) => srgbToLinear(c / 255));

type Point = [x: number, y: number, z: number];

/**
 * The features [N, 9] of voxels [N, 3] in a grid with `R` cells a side over [-0.5, 0.5]^3: means, by area, over the surface inside of each
 * voxel's cube, all from -1 to 1. Columns 0 to 2: colour without light, 2 c - 1 of the sRGB of the mean linear colour. 3 to 5: unit normal of the
 * triangles, so shorter than 1 where the surface bends. 6 to 8: place from the voxel's centre, times 2 R. A voxel that no surface reaches has the
 * mean of its neighbours' colours and normals.
 */
export function appearanceFeatures(mesh: RenderMesh, voxels: Int32Array, R: number): Float32Array<ArrayBuffer> {
  const N = voxels.length / 3, C = APPEARANCE_CHANNELS, sums = new Float64Array(N * C), weights = new Float64Array(N);
  const rowOf = new Int32Array(R ** 3).fill(-1), { positions, triangles } = mesh;
  const cell = (x: number, y: number, z: number): number => (x * R + y) * R + z;
  for (let n = 0; n < N; n++) rowOf[cell(voxels[3 * n], voxels[3 * n + 1], voxels[3 * n + 2])] = n;
  for (let t = 0; t < triangles.length; t += 3) {
    const corners = [0, 1, 2].map((k) => {
      return [0, 1, 2].map((d) => (Math.min(0.5, Math.max(-0.5, positions[triangles[t + k] * 3 + d])) + 0.5) * R) as Point;
    });
    const normal = unit(cross(corners)), colorAt = triangleColor(mesh, t, corners);
    const take = (piece: Point[], at: Point): void => {
      const n = rowOf[cell(...at)];
      if (n < 0) return;
      for (let i = 2; i < Math.max(3, piece.length); i++) {
        const part = [piece[0], piece[i - 1] ?? piece[0], piece[i] ?? piece[0]], area = Math.hypot(...cross(part)) / 2;
        const center = [0, 1, 2].map((d) => (part[0][d] + part[1][d] + part[2][d]) / 3) as Point;
        const [r, g, b, opaque] = colorAt(center), weight = opaque ? area + FAINT : FAINT;
        weights[n] += weight;
        const values = [r, g, b, ...normal, ...center.map((x, d) => 2 * (x - at[d]) - 1)];
        for (let c = 0; c < C; c++) sums[n * C + c] += weight * values[c];
      }
    };
    cutIntoCells(corners, R, take);
  }
  const out = new Float32Array(N * C);
  for (let n = 0; n < N; n++) {
    const [m, weight] = weights[n] > 0 ? [sums.subarray(n * C, n * C + C), weights[n]] : aroundOf(n, { voxels, rowOf, R, sums, weights });
    for (let c = 0; c < C; c++) out[n * C + c] = c < 3 ? 2 * linearToSrgb(m[c] / weight) - 1 : m[c] / weight;
  }
  return out;
}

/** The sums and weight of the 26 neighbours of voxel n, without their places. */
function aroundOf(
  n: number,
  { voxels, rowOf, R, sums, weights }: {
    voxels: Int32Array;
    rowOf: Int32Array;
    R: number;
    sums: Float64Array;
    weights: Float64Array;
  },
): [ArrayLike<number>, number] {
  const C = APPEARANCE_CHANNELS, out = new Float64Array(C), [x, y, z] = voxels.subarray(3 * n, 3 * n + 3);
  let weight = FAINT;
  for (let i = 0; i < 27; i++) {
    const at = [x + Math.floor(i / 9) - 1, y + Math.floor(i / 3) % 3 - 1, z + i % 3 - 1];
    if (at.some((v) => v < 0 || v >= R)) continue;
    const m = rowOf[(at[0] * R + at[1]) * R + at[2]];
    if (m < 0) continue;
    weight += weights[m];
    for (let c = 0; c < 6; c++) out[c] += sums[m * C + c];
  }
  return [out, weight];
}

/** Calls `take` with what lies of a convex polygon in each closed unit cell that it touches: axis after axis it is cut into slices. */
function cutIntoCells(polygon: Point[], R: number, take: (piece: Point[], at: Point) => void, at: number[] = []): void {
  const axis = at.length;
  if (axis === 3) return take(polygon, at as Point);
  let low = Infinity, high = -Infinity;
  for (const p of polygon) {
    low = Math.min(low, p[axis]);
    high = Math.max(high, p[axis]);
  }
  for (let i = Math.max(0, Math.ceil(low) - 1); i <= Math.min(R - 1, Math.floor(high)); i++) {
    const slice = clip(clip(polygon, axis, i, 1), axis, i + 1, -1);
    if (slice.length) cutIntoCells(slice, R, take, [...at, i]);
  }
}

/** What lies of a convex polygon at or beyond `border` along an axis, in direction `side` (Sutherland and Hodgman 1974). */
function clip(polygon: Point[], axis: number, border: number, side: 1 | -1): Point[] {
  const out: Point[] = [];
  let a = polygon[polygon.length - 1], da = a ? side * (a[axis] - border) : 0;
  for (const b of polygon) {
    const db = side * (b[axis] - border);
    if ((da < 0 && db > 0) || (da > 0 && db < 0)) {
      const s = da / (da - db), p: Point = [a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1]), a[2] + s * (b[2] - a[2])];
      p[axis] = border;
      out.push(p);
    }
    if (db >= 0) out.push(b);
    [a, da] = [b, db];
  }
  return out;
}

function cross([a, b, c]: Point[]): Point {
  const u = [b[0] - a[0], b[1] - a[1], b[2] - a[2]], v = [c[0] - a[0], c[1] - a[1], c[2] - a[2]];
  return [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
}

function unit(v: Point): Point {
  const length = Math.hypot(...v) || 1;
  return [v[0] / length, v[1] / length, v[2] / length];
}

/** The linear colour at places of the triangle that begins at index t, and whether anything is there: base colour times vertex colour times texture. */
function triangleColor(
  { triangles, uvs, colors, materials, materialOfTriangle }: RenderMesh,
  t: number,
  corners: Point[],
): (at: Point) => [r: number, g: number, b: number, opaque: boolean] {
  const material: Material | undefined = materials[materialOfTriangle?.[t / 3] ?? 0], weightsAt = barycentric(corners);
  const { baseColor = [1, 1, 1, 1], texture, alphaCutoff = 0 } = material ?? {};
  const mix = (values: Float32Array, width: number, c: number, w: number[]): number =>
    [0, 1, 2].reduce((sum, k) => sum + w[k] * values[triangles[t + k] * width + c], 0);
  return (at) => {
    const w = weightsAt(at), rgba = [...baseColor];
    if (colors) { for (let c = 0; c < 4; c++) rgba[c] *= mix(colors, 4, c, w); }
    if (texture && uvs) {
      const texel = sampleTexture(texture, mix(uvs, 2, 0, w), mix(uvs, 2, 1, w));
      for (let c = 0; c < 4; c++) rgba[c] *= texel[c];
    }
    return [rgba[0], rgba[1], rgba[2], rgba[3] >= alphaCutoff];
  };
}

/** The weights of a triangle's corners at places in its plane; a third each where it has no area. */
function barycentric([a, b, c]: Point[]): (at: Point) => number[] {
  const dot = (u: number[], v: number[]): number => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const from = (p: Point): number[] => [p[0] - a[0], p[1] - a[1], p[2] - a[2]], u = from(b), v = from(c);
  const uu = dot(u, u), uv = dot(u, v), vv = dot(v, v), area = uu * vv - uv * uv;
  if (!(area > 1e-12 * uu * vv)) return () => [1 / 3, 1 / 3, 1 / 3];
  return (at) => {
    const p = from(at), pu = dot(p, u), pv = dot(p, v), s = (vv * pu - uv * pv) / area, q = (uu * pv - uv * pu) / area;
    return [1 - s - q, s, q];
  };
}

/** Linear RGBA of a texture between its four nearest texels. */
function sampleTexture({ width, height, data, wrap = "repeat" }: Texture, u: number, v: number): number[] {
  const x = u * width - 0.5, y = v * height - 0.5, left = Math.floor(x), top = Math.floor(y), s = x - left, q = y - top;
  const place = (i: number, size: number): number => wrap === "clamp" ? Math.min(size - 1, Math.max(0, i)) : ((i % size) + size) % size;
  const out = [0, 0, 0, 0];
  for (let k = 0; k < 4; k++) {
    const weight = (k & 1 ? s : 1 - s) * (k & 2 ? q : 1 - q);
    const at = 4 * (place(top + (k >> 1), height) * width + place(left + (k & 1), width));
    for (let c = 0; c < 4; c++) out[c] += weight * (c < 3 ? LINEAR[data[at + c]] : data[at + c] / 255);
  }
  return out;
}
