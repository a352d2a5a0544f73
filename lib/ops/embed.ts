/** Sinusoidal embeddings of times and positions. */
import { expectDtype, expectShape, type Tensor, tensor } from "../tensor/tensor.ts";
import { cos, mul, sin } from "./elementwise.ts";
import { concat, reshape } from "./movement.ts";

const MAX_PERIOD = 10000;
const { fround } = Math;

/** `[cos(t f_j), sin(t f_j)]` with `f_j = 10000^(-j / half)`, half = dim / 2: t [B] f32 gives [B, dim] f32. */
export function timestepEmbedding(t: Tensor, dim = 256): Tensor {
  expectShape("timestepEmbedding", "t", t, [t.size]);
  expectDtype("timestepEmbedding", "t", t, "f32");
  if (!Number.isInteger(dim / 2)) throw new RangeError(`Cannot run timestepEmbedding: dim is ${dim}, it must be even`);
  const half = dim / 2, log = fround(-Math.log(MAX_PERIOD));
  const frequencies = Float32Array.from({ length: half }, (_, j) => Math.exp(fround(fround(log * j) / half)));
  const phase = mul(reshape(t, [t.size, 1]), tensor(frequencies, [1, half]));
  return concat([cos(phase), sin(phase)], 1);
}

/**
 * The sines and cosines of the coordinates from 0 to count - 1: `[sin(p f), cos(p f)]` with the n = ⌊⌊C / 3⌋ / 2⌋ frequencies
 * `f_i = 10000^(-i / n)`, [count, 2 n] in f32, on the host.
 */
export function positionTable(count: number, C: number): Float32Array<ArrayBuffer> {
  const n = Math.floor(Math.floor(C / 3) / 2), out = new Float32Array(count * 2 * n);
  const frequencies = Float32Array.from({ length: n }, (_, i) => fround(1 / fround(MAX_PERIOD ** fround(i / n))));
  for (let p = 0; p < count; p++) {
    frequencies.forEach((f, i) => {
      out[2 * n * p + i] = Math.sin(fround(p * f));
      out[2 * n * p + n + i] = Math.cos(fround(p * f));
    });
  }
  return out;
}

/**
 * Of each position (x, y, z), whole numbers from 0, the sines and cosines of x, y and z as in {@linkcode positionTable}, then zeros: positions
 * [N, 3] give [N, C] in f32, on the host.
 */
export function absolutePositionEmbedding(positions: Int32Array, C: number): Float32Array<ArrayBuffer> {
  const N = positions.length / 3,
    out = new Float32Array(N * C),
    table = positionTable(positions.reduce((m, p) => Math.max(m, p + 1), 0), C);
  const width = 2 * Math.floor(Math.floor(C / 3) / 2);
  for (let i = 0; i < N; i++) {
    for (let axis = 0; axis < 3; axis++) {
      const p = positions[3 * i + axis];
      out.set(table.subarray(p * width, (p + 1) * width), i * C + axis * width);
    }
  }
  return out;
}
