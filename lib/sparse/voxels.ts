/** Sets of voxels: where the rows of a sparse tensor lie, and the maps between them, each built once and shared by all layers and passes. */
import { onDevice } from "../tensor/device.ts";
import { beside, tidy } from "../tensor/scope.ts";
import { expectShape, type Tensor, tensor } from "../tensor/tensor.ts";

/** The most cells along an axis. */
export const MAX_SIDE = 1024;

const MAX_SAMPLES = 65536;

/** The voxels of a batch: N rows, those of a sample together. */
export interface Voxels {
  /** [N, 4] i32: sample, x, y, z. */
  readonly coords: Tensor;
  /** [B + 1] i32: sample b has the rows from offsets[b] to offsets[b + 1]. */
  readonly offsets: Tensor;
  /** The same on the host. */
  readonly starts: readonly number[];
  readonly N: number;
  readonly B: number;
  /** Rows of the largest sample. */
  readonly longest: number;
  /** Every x, y, z is below this; at least 1. */
  readonly side: number;
  /** What was built from the coordinates, by name: see {@linkcode mapOf}. */
  readonly maps: Record<string, unknown>;
}

/** A row of features for each voxel. */
export interface SparseTensor {
  /** [N, C]. */
  features: Tensor;
  voxels: Voxels;
}

/** Options of {@linkcode makeVoxels}. */
export interface VoxelOptions {
  /** Samples in the batch, the last of which may have no voxels; by default as many as the coordinates name. */
  B?: number;
}

/**
 * The voxels at `coords`, rows of (sample, x, y, z): samples in ascending order, no place of a sample twice, x, y, z from 0 to 1023. Within a
 * sample any order will do. They live as long as the enclosing step().
 */
export function makeVoxels(coords: Int32Array<ArrayBuffer>, { B }: VoxelOptions = {}): Voxels {
  if (coords.length % 4) throw new RangeError(`Cannot make voxels: there are ${coords.length} coordinates, it must be 4 a voxel`);
  const N = coords.length / 4, limit = B ?? MAX_SAMPLES;
  let side = 1, before = -1, rising = true;
  for (let n = 0; n < N; n++) {
    const b = coords[4 * n], x = coords[4 * n + 1], y = coords[4 * n + 2], z = coords[4 * n + 3], sample = n ? coords[4 * n - 4] : 0;
    if (b < sample) {
      throw new RangeError(`Cannot make voxels: row ${n} is of sample ${b}, it must be at least ${sample} like the row before`);
    }
    if (b >= limit) throw new RangeError(`Cannot make voxels: row ${n} is of sample ${b}, it must be below ${limit}`);
    if (Math.min(x, y, z) < 0 || Math.max(x, y, z) >= MAX_SIDE) {
      throw new RangeError(`Cannot make voxels: row ${n} is at (${x}, ${y}, ${z}), it must be from 0 to ${MAX_SIDE - 1} on each axis`);
    }
    side = Math.max(side, x + 1, y + 1, z + 1);
    const code = placeOf(coords, n);
    rising &&= code > before;
    before = code;
  }
  if (!rising) expectDistinct(coords);
  const starts = startsOf(coords, B ?? (N ? coords[4 * (N - 1)] + 1 : 0));
  return voxelsAt(tensor(coords, [N, 4], { dtype: "i32" }), starts, side);
}

/** The places (x, y, z) of each sample as rows of (sample, x, y, z), for {@linkcode makeVoxels}. */
export function batchCoords(samples: ArrayLike<number>[]): Int32Array<ArrayBuffer> {
  const out = new Int32Array(samples.reduce((size, places) => size + places.length / 3 * 4, 0));
  let at = 0;
  samples.forEach((places, b) => {
    for (let i = 0; i < places.length; i += 3, at += 4) {
      out[at] = b;
      for (let a = 0; a < 3; a++) out[at + 1 + a] = places[i + a];
    }
  });
  return out;
}

/** The number of a voxel among all of a batch. */
function placeOf(coords: Int32Array, n: number): number {
  return ((coords[4 * n] * MAX_SIDE + coords[4 * n + 1]) * MAX_SIDE + coords[4 * n + 2]) * MAX_SIDE + coords[4 * n + 3];
}

function expectDistinct(coords: Int32Array): void {
  const seen = new Map<number, number>();
  for (let n = 0; n < coords.length / 4; n++) {
    const place = placeOf(coords, n), first = seen.get(place);
    if (first !== undefined) {
      const [b, x, y, z] = coords.subarray(4 * n, 4 * n + 4);
      throw new RangeError(`Cannot make voxels: row ${n} is at (${x}, ${y}, ${z}) of sample ${b} like row ${first}, it must be there once`);
    }
    seen.set(place, n);
  }
}

/** Voxels whose coordinates are on the device and known to be right: [N, 4] i32, with the first row of each sample and the end. */
export function voxelsAt(coords: Tensor, starts: readonly number[], side: number): Voxels {
  const B = starts.length - 1, longest = starts.reduce((most, s, b) => b ? Math.max(most, s - starts[b - 1]) : 0, 0);
  expectShape("voxelsAt", "coords", coords, [starts[B], 4]);
  const offsets = beside(coords, () => tensor(starts, [B + 1], { dtype: "i32" }));
  return { coords, offsets, starts, N: starts[B], B, longest, side, maps: {} };
}

/** The first row of each sample, and the end, of rows of (sample, x, y, z). */
export function startsOf(coords: Int32Array, B: number): number[] {
  const starts = new Array<number>(B + 1).fill(0);
  for (let n = 0; n < coords.length; n += 4) starts[coords[n] + 1]++;
  for (let b = 0; b < B; b++) starts[b + 1] += starts[b];
  return starts;
}

/** The map `name` of `voxels`, built when it is first asked for, on their own device; its tensors live as long as the coordinates. */
export function mapOf<T>(voxels: Voxels, name: string, build: () => T): T {
  return (voxels.maps[name] ??= onDevice(voxels.coords.storage.device, () => beside(voxels.coords, () => tidy(build)))) as T;
}

/** Throws unless `x` has a row of C features for each voxel. */
export function expectFeatures(op: string, { features, voxels }: SparseTensor, C: number): void {
  expectShape(op, "features", features, [voxels.N, C]);
}
