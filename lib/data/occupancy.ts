/** Occupancy grids of a batch, and how well two of them agree. */
import { integer, type Random } from "./random.ts";

/** The eight symmetries that keep up and down: quarter turns about z, with and without a mirror. */
export const UPRIGHT_SYMMETRIES = 8;

/** Voxel (x, y, z) of a grid with side R under symmetry s, as an index into the grid. */
function place(R: number, s: number, x: number, y: number, z: number): number {
  const m = R - 1, a = s & 4 ? m - x : x;
  const [u, v] = [[a, y], [m - y, a], [m - a, m - y], [y, m - a]][s & 3];
  return (u * R + v) * R + z;
}

/** Grids [B, 1, R, R, R] of voxel lists [N, 3], 1 where occupied; with `random`, each in one of the eight upright symmetries. */
export function occupancyBatch(voxels: readonly Int32Array[], R: number, random?: Random): Float32Array<ArrayBuffer> {
  const out = new Float32Array(voxels.length * R ** 3);
  voxels.forEach((list, b) => {
    const s = random ? integer(random, 0, UPRIGHT_SYMMETRIES - 1) : 0;
    for (let i = 0; i < list.length; i += 3) out[b * R ** 3 + place(R, s, list[i], list[i + 1], list[i + 2])] = 1;
  });
  return out;
}

/** Voxels [N, 3] of a grid with side R, mirrored in the plane x = 0: the object that a mirrored picture shows. */
export function mirrorVoxels(voxels: Int32Array, R: number): Int32Array<ArrayBuffer> {
  return Int32Array.from(voxels, (v, i) => i % 3 === 0 ? R - 1 - v : v);
}

/** The indices [N, 3] of a grid's elements above `level`, x slowest. */
export function voxelsAbove(grid: ArrayLike<number>, R: number, level = 0): Int32Array<ArrayBuffer> {
  const found: number[] = [];
  for (let i = 0; i < grid.length; i++) if (grid[i] > level) found.push(Math.floor(i / (R * R)), Math.floor(i / R) % R, i % R);
  return Int32Array.from(found);
}

/** Intersection over union of two voxel lists [N, 3] in a grid with side R; 1 where both are empty. */
export function voxelIou(a: Int32Array, b: Int32Array, R: number): number {
  const grid = new Uint8Array(R ** 3), index = (v: Int32Array, i: number): number => (v[i] * R + v[i + 1]) * R + v[i + 2];
  for (let i = 0; i < a.length; i += 3) grid[index(a, i)] = 1;
  let both = 0;
  for (let i = 0; i < b.length; i += 3) both += grid[index(b, i)];
  const union = (a.length + b.length) / 3 - both;
  return union === 0 ? 1 : both / union;
}

/** `load` with its answers kept, up to `maxBytes` of them by the count of `bytesOf`; past that, nothing more is kept. */
export function remember<T extends ArrayBufferView>(load: (key: number) => T, maxBytes?: number): (key: number) => T;
/** The same for any other values. */
export function remember<T>(load: (key: number) => T, maxBytes: number | undefined, bytesOf: (value: T) => number): (key: number) => T;
export function remember<T>(
  load: (key: number) => T,
  maxBytes = 8 * 2 ** 30,
  bytesOf: (value: T) => number = (value) => (value as ArrayBufferView).byteLength,
): (key: number) => T {
  const known = new Map<number, T>();
  let bytes = 0;
  return (key) => {
    const found = known.get(key);
    if (found) return found;
    const value = load(key), size = bytesOf(value);
    if (bytes + size <= maxBytes) {
      known.set(key, value);
      bytes += size;
    }
    return value;
  };
}
