/** Softmax attention in memory linear in the tokens (FlashAttention, Dao et al. 2022). */
import { DTYPE, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";

/** Options of the attention ops. */
export interface AttentionOptions {
  /** Multiplies the scores; `1 / √D` by default. */
  scale?: number;
}

type Strides = [batch: bigint, token: bigint, head: bigint];

/** [B, L, H, D] inside a packed tensor: its address and strides in elements. */
interface Part {
  address: bigint;
  strides: Strides;
}

/** Part `i` of `parts` in t [B, L, parts, H, D]. */
function partOf(t: Tensor, i: number, parts: number): Part {
  const L = t.shape[1], [H, D] = t.shape.slice(-2), row = parts * H * D;
  return { address: t.addr + BigInt(i * H * D * (t.bytes / Math.max(1, t.size))), strides: [BigInt(L * row), BigInt(row), BigInt(D)] };
}

/** Where q, k and v lie among the inputs. */
interface Layout {
  op: string;
  inputs: Tensor[];
  /** The parts of these tensors: one for each of q, k, v. */
  parts: (tensors: (Tensor | null)[]) => (Part | null)[];
  B: number;
  L: number;
  M: number;
  H: number;
  D: number;
}

const NOWHERE: Part = { address: 0n, strides: [0n, 0n, 0n] };

function run({ op, inputs, parts, B, L, M, H, D }: Layout, { scale = 1 / Math.sqrt(D) }: AttentionOptions): Tensor {
  const dtype = inputs[0].dtype;
  if (!isFloat(dtype)) throw new TypeError(`Cannot run ${op}: its input is ${dtype}, it must be f32, f16 or bf16`);
  for (const t of inputs) expectDtype(op, "every input", t, dtype);
  if (!(scale > 0)) throw new RangeError(`Cannot run ${op}: scale is ${scale}, it must be above 0`);
  if (D < 1 || D > 128 || (dtype !== "f32" && D % 8 !== 0)) {
    throw new RangeError(
      `Cannot run ${op}: the head width is ${D} in ${dtype}, it must be at most 128${dtype === "f32" ? "" : " and a multiple of 8"}`,
    );
  }
  for (const [name, value] of Object.entries({ B, L, M, H })) dim(op, name, value);
  const o = empty([B, L, H, D], dtype), lse = empty([B, H, L]), k = kernels(), code = DTYPE[dtype];
  const place = (t: Tensor): Part => partOf(t, 0, 1), [q, key, v] = parts(inputs) as Part[], out = place(o);
  k.k_attention_fwd(
    ...[out.address, lse.addr, q.address, key.address, v.address] as const,
    ...[B, L, M, H, D, ...out.strides, ...q.strides, ...key.strides, ...v.strides, scale, code, stream()] as const,
  );
  return record(op, o, inputs, [...inputs, o, lse], (dO) => {
    const grads = inputs.map((t) => t.requiresGrad ? empty(t.shape, dtype) : null), delta = empty([B, H, L]);
    const [dq, dk, dv] = parts(grads).map((p) => p ?? NOWHERE), [q, key, v] = parts(inputs) as Part[], out = place(o), dOut = place(dO);
    k.k_attention_bwd(
      ...[dq.address, dk.address, dv.address, dOut.address, out.address, lse.addr, q.address, key.address, v.address, delta.addr] as const,
      ...[B, L, M, H, D, ...dq.strides, ...dk.strides, ...dv.strides, ...dOut.strides, ...out.strides] as const,
      ...[...q.strides, ...key.strides, ...v.strides, scale, code, stream()] as const,
    );
    return grads;
  });
}

/** `softmax(scale q kᵀ) v` for each head: q [B, L, H, D], k and v [B, M, H, D] give [B, L, H, D]. D is at most 128, in 16 bits a multiple of 8. */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, L, H, D] = q.shape, M = k.shape[1];
  expectShape("attention", "q", q, [B, L, H, D]);
  expectShape("attention", "k", k, [B, M, H, D]);
  expectShape("attention", "v", v, [B, M, H, D]);
  return run({ op: "attention", inputs: [q, k, v], parts: (ts) => ts.map((t) => t && partOf(t, 0, 1)), B, L, M, H, D }, options);
}

/** {@linkcode attention} of a packed projection onto itself: qkv [B, L, 3, H, D] gives [B, L, H, D]. */
export function selfAttention(qkv: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, L, , H, D] = qkv.shape;
  expectShape("selfAttention", "qkv", qkv, [B, L, 3, H, D]);
  return run({ op: "selfAttention", inputs: [qkv], parts: ([t]) => [0, 1, 2].map((i) => t && partOf(t, i, 3)), B, L, M: L, H, D }, options);
}

/** {@linkcode attention} to a packed context: q [B, L, H, D] and kv [B, M, 2, H, D] give [B, L, H, D]. */
export function crossAttention(q: Tensor, kv: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, L, H, D] = q.shape, M = kv.shape[1];
  expectShape("crossAttention", "q", q, [B, L, H, D]);
  expectShape("crossAttention", "kv", kv, [B, M, 2, H, D]);
  const parts: Layout["parts"] = ([a, b]) => [a && partOf(a, 0, 1), b && partOf(b, 0, 2), b && partOf(b, 1, 2)];
  return run({ op: "crossAttention", inputs: [q, kv], parts, B, L, M, H, D }, options);
}
