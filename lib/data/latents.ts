/** Voxel features and latents of a dataset's objects, in the files of TRELLIS: see {@linkcode assetPaths}. */
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../io/atomic.ts";
import { assertFinite } from "../io/npy.ts";
import { readNpz, writeNpz } from "../io/npz.ts";
import type { DatasetItem } from "./dataset.ts";
import { assetPaths } from "./layout.ts";

/** Rows of values on the voxels of one object. */
export interface VoxelRows {
  /** [N, 3], from 0 to 255. */
  coords: Int32Array<ArrayBuffer>;
  /** [N, C]. */
  feats: Float32Array<ArrayBuffer>;
}

/** Mean and standard deviation of each channel of latents. */
export interface LatentStatistics {
  mean: number[];
  std: number[];
}

const VOXELS = { dtypes: ["u1"], shape: ["N", 3] } as const, ROWS = { dtypes: ["f2", "f4"], shape: ["N", "C"] } as const;

function rowsOf(path: string, coords: Uint8Array, feats: Float16Array | Float32Array): VoxelRows {
  assertFinite(path, feats);
  if (coords.length === 0) throw new Error(`Cannot use ${path}: it has 0 voxels, it must have one or more`);
  return { coords: Int32Array.from(coords), feats: Float32Array.from(feats) };
}

/** The bytes of coordinates, which must fit them. */
function bytesOf(path: string, { coords, feats }: VoxelRows): { bytes: Uint8Array<ArrayBuffer>; N: number; C: number } {
  const N = coords.length / 3, C = feats.length / N, wrong = coords.find((x) => x < 0 || x > 255);
  if (wrong !== undefined) throw new RangeError(`Cannot write ${path}: a voxel index is ${wrong}, it must be from 0 to 255`);
  assertFinite(path, feats);
  Deno.mkdirSync(dirname(path), { recursive: true });
  return { bytes: Uint8Array.from(coords), N, C };
}

/** Writes voxel features: `indices` uint8 [N, 3], `patchtokens` float16 [N, C]. Throws on values that are not finite. */
export function writeFeatures(path: string, rows: VoxelRows): void {
  const { bytes, N, C } = bytesOf(path, rows), data = Float16Array.from(rows.feats);
  assertFinite(path, data);
  writeNpz(path, { indices: { shape: [N, 3], data: bytes }, patchtokens: { shape: [N, C], data } });
}

/** Reads what {@linkcode writeFeatures} or TRELLIS wrote. */
export function readFeatures(path: string): VoxelRows {
  const { indices, patchtokens } = readNpz(path, { want: { indices: VOXELS, patchtokens: ROWS } });
  return rowsOf(path, indices.data, patchtokens.data);
}

/** Writes structured latents: `coords` uint8 [N, 3], `feats` float32 [N, C], not normalised. Throws on values that are not finite. */
export function writeLatents(path: string, rows: VoxelRows): void {
  const { bytes, N, C } = bytesOf(path, rows);
  writeNpz(path, { coords: { shape: [N, 3], data: bytes }, feats: { shape: [N, C], data: rows.feats } });
}

/** Reads what {@linkcode writeLatents} or TRELLIS wrote. */
export function readLatents(path: string): VoxelRows {
  const { coords, feats } = readNpz(path, { want: { coords: VOXELS, feats: ROWS } });
  return rowsOf(path, coords.data, feats.data);
}

/** Writes a sparse-structure latent: `mean` float32 [C, r, r, r]. Throws on values that are not finite. */
export function writeSsLatent(path: string, mean: Float32Array<ArrayBuffer>, C: number): void {
  const r = Math.round(Math.cbrt(mean.length / C));
  assertFinite(path, mean);
  Deno.mkdirSync(dirname(path), { recursive: true });
  writeNpz(path, { mean: { shape: [C, r, r, r], data: mean } });
}

/** Reads what {@linkcode writeSsLatent} or TRELLIS wrote: [C, r, r, r] and its number of channels. */
export function readSsLatent(path: string): { mean: Float32Array<ArrayBuffer>; C: number } {
  const { mean } = readNpz(path, { want: { mean: { dtypes: ["f4"], shape: ["C", "r", "r", "r"] } } });
  assertFinite(path, mean.data);
  return { mean: mean.data, C: mean.shape[0] };
}

/**
 * The latents `name` of an object, (z - mean) / std by channel. Throws where they have other channels than C, or voxels outside of a grid with R
 * cells a side.
 */
export function loadLatents(
  { root, sha256 }: DatasetItem,
  name: string,
  { C, R, normalization: { mean, std } }: { C: number; R: number; normalization: LatentStatistics },
): VoxelRows {
  const path = assetPaths(root, sha256).latents(name), { coords, feats } = readLatents(path), channels = 3 * feats.length / coords.length;
  if (channels !== C || mean.length !== C || std.length !== C) {
    throw new Error(`Cannot use ${path}: it has ${channels} channels, it must have the model's ${C}, and statistics as many`);
  }
  const outside = coords.find((x) => x >= R);
  if (outside !== undefined) throw new Error(`Cannot use ${path}: a voxel index is ${outside}, it must be below the model's ${R}`);
  return { coords, feats: feats.map((z, i) => (z - mean[i % C]) / std[i % C]) };
}

/** The rows of a grid that is `factor` times coarser: each voxel has the mean of those that lie in it, in ascending order of places. */
export function coarsenRows({ coords, feats }: VoxelRows, factor: number): VoxelRows {
  const N = coords.length / 3, C = feats.length / N, SIDE = 256, cells = new Map<number, number[]>();
  for (let n = 0; n < N; n++) {
    const [x, y, z] = [0, 1, 2].map((d) => Math.floor(coords[3 * n + d] / factor)),
      cell = (x * SIDE + y) * SIDE + z,
      rows = cells.get(cell);
    if (rows) rows.push(n);
    else cells.set(cell, [n]);
  }
  const ordered = [...cells].sort(([a], [b]) => a - b), out = new Float32Array(ordered.length * C);
  ordered.forEach(([, rows], i) => {
    for (const n of rows) for (let c = 0; c < C; c++) out[i * C + c] += feats[n * C + c] / rows.length;
  });
  const places = ordered.flatMap(([cell]) => [Math.floor(cell / SIDE / SIDE), Math.floor(cell / SIDE) % SIDE, cell % SIDE]);
  return { coords: Int32Array.from(places), feats: out };
}

/** Gathers statistics object by object, each of which counts alike however many values it has. */
export interface StatisticsSum {
  /** Adds an object with values [N, C], or [C, ...] with `channelsFirst`. */
  add(values: Float32Array): void;
  /** The mean of the objects' means; the root of the mean of their mean squares less its square, and at least 1e-6. */
  result(): LatentStatistics;
}

/** Statistics of latents with C channels. */
export function sumStatistics(C: number, { channelsFirst = false }: { channelsFirst?: boolean } = {}): StatisticsSum {
  const means = new Float64Array(C), squares = new Float64Array(C);
  let objects = 0;
  return {
    add(values) {
      const N = values.length / C, sum = new Float64Array(C), square = new Float64Array(C);
      for (let i = 0; i < values.length; i++) {
        const c = channelsFirst ? Math.floor(i / N) : i % C;
        sum[c] += values[i];
        square[c] += values[i] ** 2;
      }
      for (let c = 0; c < C; c++) {
        means[c] += sum[c] / N;
        squares[c] += square[c] / N;
      }
      objects++;
    },
    result() {
      if (objects === 0) throw new RangeError("Cannot take statistics of latents: there are 0 objects, it must be one or more");
      const mean = Array.from(means, (m) => m / objects);
      return { mean, std: mean.map((m, c) => Math.sqrt(Math.max(squares[c] / objects - m * m, 1e-12))) };
    },
  };
}

function statisticsPath(root: string, name: string): string {
  return join(root, "latents", name, "stats.json");
}

/** Writes `latents/<name>/stats.json`. */
export function writeStatistics(root: string, name: string, statistics: LatentStatistics): void {
  writeFileAtomic(statisticsPath(root, name), new TextEncoder().encode(JSON.stringify(statistics, null, 4) + "\n"));
}

/** Reads `latents/<name>/stats.json`: C finite means and C deviations above 0. */
export function readStatistics(root: string, name: string, C: number): LatentStatistics {
  const path = statisticsPath(root, name);
  try {
    const { mean, std } = JSON.parse(Deno.readTextFileSync(path)) as LatentStatistics;
    const isList = (list: unknown): list is number[] => Array.isArray(list) && list.length === C && list.every(Number.isFinite);
    if (isList(mean) && isList(std) && std.every((s) => s > 0)) return { mean, std };
    throw new Error(`its mean and std are not ${C} finite numbers each, the deviations above 0`);
  } catch (error) {
    throw new Error(
      `Cannot read the latents' statistics ${path}: ${(error as Error).message}; \`deno task encode\` writes them with the latents`,
      { cause: error },
    );
  }
}
