/** What the attention tests share: the definition in f64, sequences, and a way to call the kernels with other fields than the op's. */
import { K_ATTENTION, type KAttention } from "../../ffi/symbols.ts";
import { kernels } from "../../lib/tensor/tensor.ts";
import { type Input, random } from "../check.ts";

/** The rows of one sequence's queries and keys. */
export interface Span {
  queries: number[];
  keys: number[];
}

/** What {@linkcode reference} needs to know besides the values. */
export interface Sizes {
  spans: Span[];
  H: number;
  D: number;
  scale?: number;
}

function range(from: number, n: number): number[] {
  return Array.from({ length: n }, (_, i) => from + i);
}

/** The spans of dense [B, L, H, D] queries and [B, M, H, D] keys, as rows of [B L, H, D] and [B M, H, D]. */
export function denseSpans(B: number, L: number, M: number): Span[] {
  return range(0, B).map((b) => ({ queries: range(b * L, L), keys: range(b * M, M) }));
}

/** Lengths of sequences, and a map of their rows where they do not stand in order. */
export interface Lengths {
  lengths: number[];
  rows?: number[];
}

/** The spans of sequences. */
export function sequenceSpans(q: Lengths, k: Lengths = q): Span[] {
  const rows = ({ lengths, rows }: Lengths): number[][] => {
    let at = 0;
    return lengths.map((n) => range(at, (at += n, n)).map((r) => rows ? rows[r] : r));
  };
  const queries = rows(q), keys = rows(k);
  return queries.map((of, b) => ({ queries: of, keys: keys[b] }));
}

/** [B + 1] offsets of sequences. */
export function offsets(lengths: number[]): Input {
  const data = new Float32Array(lengths.length + 1);
  lengths.forEach((n, i) => data[i + 1] = data[i] + n);
  return { shape: [data.length], data, dtype: "i32" };
}

/** Row numbers as an input. */
export function rowMap(rows: number[]): Input {
  return { shape: [rows.length], data: Float32Array.from(rows), dtype: "i32" };
}

/** A permutation of 0 to n - 1, the same for the same n. */
export function permutation(n: number): number[] {
  const keys = random(n, n);
  return range(0, n).sort((a, b) => keys[a] - keys[b]);
}

/** Random values as an input. */
export function values(seed: number, shape: number[], size = 1): Input {
  return { shape, data: random(seed, shape.reduce((a, b) => a * b, 1)).map((x) => x * size) };
}

/** The definition, on q [N, H, D] and k, v [M, H, D]; rows in no span are zero. */
export function reference(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  { spans, H, D, scale = 1 / Math.sqrt(D) }: Sizes,
): Float64Array {
  const o = new Float64Array(q.length);
  for (const { queries, keys } of spans) {
    for (let h = 0; h < H; h++) {
      for (const row of queries) {
        const at = (row * H + h) * D,
          scores = keys.map((key) => {
            let s = 0;
            for (let d = 0; d < D; d++) s += q[at + d] * k[(key * H + h) * D + d];
            return s * scale;
          });
        const top = scores.reduce((x, y) => Math.max(x, y), -Infinity), p = scores.map((s) => Math.exp(s - top));
        const sum = p.reduce((x, y) => x + y, 0);
        keys.forEach((key, m) => {
          for (let d = 0; d < D; d++) o[at + d] += p[m] / sum * v[(key * H + h) * D + d];
        });
      }
    }
  }
  return o;
}

/** Slot `slot` of a packed [tokens, slots, H D] array; `width` is H D. */
export function unpack(x: Float64Array, slots: number, slot: number, width: number): Float64Array {
  return Float64Array.from({ length: x.length / slots }, (_, i) => x[(Math.floor(i / width) * slots + slot) * width + i % width]);
}

/** Runs `body` with these words in every k_attention that is passed to the kernels. */
export function withFields<T>(fields: Partial<Record<keyof KAttention | "struct_size", bigint>>, body: () => T): T {
  const k = kernels(),
    { k_attention_workspace, k_attention_fwd, k_attention_bwd } = k,
    names = ["struct_size", ...K_ATTENTION.map(([n]) => n)];
  const change = (problem: BigUint64Array<ArrayBuffer>): BigUint64Array<ArrayBuffer> => {
    for (const [name, value] of Object.entries(fields)) problem[names.indexOf(name)] = value;
    return problem;
  };
  k.k_attention_workspace = (bytes, problem) => k_attention_workspace(bytes, change(problem));
  k.k_attention_fwd = (problem, stream) => k_attention_fwd(change(problem), stream);
  k.k_attention_bwd = (problem, stream) => k_attention_bwd(change(problem), stream);
  try {
    return body();
  } finally {
    Object.assign(k, { k_attention_workspace, k_attention_fwd, k_attention_bwd });
  }
}

/** Lengths of windows, each of those that have blocks of their own on a GPU once, in a mixed order; and how many rows that is. */
export const SMALL = Array.from({ length: 97 }, (_, i) => i * 31 % 97), SMALL_ROWS = 96 * 97 / 2;
