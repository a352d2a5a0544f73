/** Small host-side pieces of a training loop: micro-batches, joined arrays, scalars, channel statistics. */
import { communicator } from "../dist/communicator.ts";
import { cast } from "../ops/cast.ts";
import { add, mul } from "../ops/elementwise.ts";
import { device } from "../tensor/device.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { OutOfMemoryError } from "../tensor/memory.ts";
import { Generator } from "../tensor/random.ts";
import { step, tidy } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Tensor, tensor, tensorFromBytes } from "../tensor/tensor.ts";

/** A list in `parts` runs of nearly equal length; none is empty. */
export function splitEvenly<T>(list: readonly T[], parts: number): T[][] {
  if (parts > list.length) {
    throw new RangeError(
      `Cannot split a batch: batch.split times the processes is ${parts}, it must be at most batch.size, ${list.length}`,
    );
  }
  return Array.from(
    { length: parts },
    (_, i) => list.slice(Math.floor(i * list.length / parts), Math.floor((i + 1) * list.length / parts)),
  );
}

/** What a process computes at a time: a part of a step's batch. */
export interface MicroBatch<T> {
  /** A number that no other part of any step has: what its random draws start from. */
  stream: number;
  list: T[];
}

/**
 * The parts of step `step`'s batch that fall to this process: the batch is cut into `split` parts for each rank. A run of n processes draws the numbers
 * of one process with n times the split.
 */
export function microBatches<T>(batch: readonly T[], split: number, step: number): MicroBatch<T>[] {
  const { rank, world } = communicator(), all = splitEvenly(batch, split * world);
  return all.slice(rank * split, (rank + 1) * split).map((list, k) => ({ stream: step * all.length + rank * split + k, list }));
}

/** How many samples {@linkcode inGroups} takes at a time. */
const TOGETHER = 16;

/**
 * `run` on runs of up to 16 elements of a list, without gradients, each in a step of its own; `first` is where the run begins. It gives the values
 * of its elements one after the other, equally many of each: here cut apart. A run that does not fit the memory limit is cut in two, and again.
 */
export function inGroups<T>(list: readonly T[], run: (group: T[], first: number) => Float32Array): Float32Array[] {
  const within = (group: T[], first: number): Float32Array[] => {
    let values: Float32Array;
    try {
      values = step(() => noGrad(() => run(group, first)));
    } catch (error) {
      if (!(error instanceof OutOfMemoryError) || group.length === 1) throw error;
      device().memory.trim();
      const half = group.length >> 1;
      return [...within(group.slice(0, half), first), ...within(group.slice(half), first + half)];
    }
    const n = values.length / group.length;
    return group.map((_, k) => values.slice(k * n, (k + 1) * n));
  };
  let first = 0;
  return (list.length ? splitEvenly(list, Math.ceil(list.length / TOGETHER)) : []).flatMap((group) => {
    first += group.length;
    return within(group, first - group.length);
  });
}

/** The means of records, key by key, over those that have the key. */
export function meanOf(records: readonly Record<string, number>[]): Record<string, number> {
  const sums = new Map<string, [sum: number, count: number]>();
  for (const record of records) {
    for (const [key, value] of Object.entries(record)) {
      const [sum, count] = sums.get(key) ?? [0, 0];
      sums.set(key, [sum + value, count + 1]);
    }
  }
  return Object.fromEntries([...sums].map(([key, [sum, count]]) => [key, sum / count]));
}

/** Values that are known once the device has come so far; asking for them waits for that. */
export type Later<T> = () => T;

/** The values of one-element tensors as they are now, to be asked for later. */
export function readScalars(tensors: Record<string, Tensor>): Later<Record<string, number>> {
  const all = Object.entries(tensors).map(([name, t]) => [name, t.readLater()] as const);
  return () => Object.fromEntries(all.map(([name, values]) => [name, values()[0]]));
}

/** The random generator of one training step: a function of (seed, step), so that a resumed run has no generator to restore. */
export function stepGenerator(seed: number, step: number): Generator {
  return new Generator(BigInt(seed + 1) << 40n | BigInt(step)); // + 1: initialisation and samples use the small seeds
}

/**
 * How blocks compute: in a dtype, or bf16 with linear layers in 8-bit floats where a model can, "fp8" with the forward products of the MLPs in bf16,
 * "fp8-all" without exception; "auto" goes by the model and the device.
 */
export type Precision = "auto" | FloatDType | "fp8" | "fp8-all";

/** What a model is told about its linear layers. */
export function layersInFp8(precision: Precision): boolean | "all" {
  return precision === "fp8-all" ? "all" : precision === "fp8";
}

/**
 * The dtype of a model's blocks: as asked, or f16 where the model says use_fp16 and the device is a GPU. The CPU computes in f32, and emulates the
 * rounding of fp8.
 */
export function trainingDtype(precision: Precision, useFp16: boolean): FloatDType {
  const cpu = device().name === "cpu";
  if (layersInFp8(precision)) return cpu ? "f32" : "bf16";
  if (precision === "auto") return useFp16 && !cpu ? "f16" : "f32";
  if (cpu && precision !== "f32") throw new RangeError(`Cannot train in ${precision} on the CPU: precision must be f32 or auto there`);
  return precision as FloatDType;
}

/** A count for people: "85.2 M". */
export function formatCount(count: number): string {
  return count >= 1e9
    ? `${(count / 1e9).toFixed(2)} G`
    : count >= 1e6
    ? `${(count / 1e6).toFixed(1)} M`
    : count >= 1e3
    ? `${(count / 1e3).toFixed(1)} k`
    : String(count);
}

/** Arrays one after the other. */
export function joinFloats(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

/** Values in [0, 1] as bytes. */
export function toBytes(values: Float32Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = Math.round(values[i] * 255);
  return out;
}

/** Bytes one after the other on the device. */
export function joinBytes(parts: readonly Uint8Array[], shape: readonly number[]): Tensor {
  const joined = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    joined.set(p, at);
    at += p.length;
  }
  return tensorFromBytes(joined, shape, "u8");
}

/** Bytes as values in [0, 1]. */
export function unitRange(bytes: Tensor): Tensor {
  return tidy(() => mul(cast(bytes, "f32"), 1 / 255));
}

/** Bytes one after the other as values in [0, 1]: a tensor of this shape. */
export function bytesTensor(parts: readonly Uint8Array[], shape: readonly number[]): Tensor {
  return tidy(() => unitRange(joinBytes(parts, shape)));
}

/** The sum of squared differences, or some sum from `enough` up where it is no less than that. */
export function byteDistance(a: Uint8Array, b: Uint8Array, enough: number = Infinity): number {
  let sum = 0;
  for (let i = 0; i < a.length && sum < enough;) {
    for (const end = Math.min(a.length, i + 256); i < end; i++) {
      const d = a[i] - b[i];
      sum += d * d;
    }
  }
  return sum;
}

/** Mean and standard deviation of each channel. */
export interface ChannelStatistics {
  mean: number[];
  std: number[];
}

/** Statistics over arrays [C, ...] with `C` channels. */
export function channelStatistics(arrays: readonly Float32Array[], C: number): ChannelStatistics {
  const sum = new Float64Array(C), squares = new Float64Array(C), per = arrays[0].length / C;
  for (const a of arrays) {
    for (let i = 0; i < a.length; i++) {
      const c = Math.floor(i / per);
      sum[c] += a[i];
      squares[c] += a[i] ** 2;
    }
  }
  const n = arrays.length * per, mean = Array.from(sum, (s) => s / n);
  return { mean, std: mean.map((m, c) => Math.sqrt(Math.max(squares[c] / n - m * m, 1e-12))) };
}

/** (x - mean) / std by channel of an array [C, ...]. */
export function normalizeChannels(x: Float32Array, { mean, std }: ChannelStatistics): Float32Array<ArrayBuffer> {
  const per = x.length / mean.length;
  return Float32Array.from(x, (v, i) => (v - mean[Math.floor(i / per)]) / std[Math.floor(i / per)]);
}

/** x std + mean by channel of a tensor [B, C, X, Y, Z]. */
export function denormalize(x: Tensor, { mean, std }: ChannelStatistics): Tensor {
  return tidy(() => add(mul(x, tensor(std, [1, std.length, 1, 1, 1])), tensor(mean, [1, mean.length, 1, 1, 1])));
}
