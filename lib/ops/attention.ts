/** Softmax attention without a mask, in memory linear in the tokens. Packed projections are read, and their gradients written, as they lie. */
import { DTYPE, DTYPE_BYTES, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";

/** Options of {@linkcode attention}, {@linkcode selfAttention} and {@linkcode crossAttention}. */
export interface AttentionOptions {
  /** Multiplies the scores `q kᵀ`; > 0, by default 1 / sqrt(D). */
  scale?: number;
}

/** Which input an operand is part of, and which of its slots it is: part 1 of [B, L, 3, H, D] is the keys of a packed projection. */
interface Part {
  input: number;
  slot: number;
}

/** An attention over parts of `inputs`. */
interface Problem {
  op: string;
  inputs: Tensor[];
  /** How many operands are packed in each input. */
  slots: number[];
  q: Part;
  k: Part;
  v: Part;
}

/** `softmax(scale q kᵀ) v` for each head: q [B, L, H, D], k and v [B, M, H, D] give [B, L, H, D]. D is at most 128, in 16 bits a multiple of 8. */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  expectRank("attention", "q", q, ["B", "L", "H", "D"]);
  expectRank("attention", "k", k, ["B", "M", "H", "D"]);
  const [B, , H, D] = q.shape;
  expectShape("attention", "k", k, [B, k.shape[1], H, D]);
  expectShape("attention", "v", v, k.shape);
  const parts = { q: { input: 0, slot: 0 }, k: { input: 1, slot: 0 }, v: { input: 2, slot: 0 } };
  return attend({ op: "attention", inputs: [q, k, v], slots: [1, 1, 1], ...parts }, options);
}

/** Attention of tokens to each other, from one packed projection: qkv [B, L, 3, H, D] gives [B, L, H, D]. See {@linkcode attention}. */
export function selfAttention(qkv: Tensor, options: AttentionOptions = {}): Tensor {
  expectRank("selfAttention", "qkv", qkv, ["B", "L", 3, "H", "D"]);
  const parts = { q: { input: 0, slot: 0 }, k: { input: 0, slot: 1 }, v: { input: 0, slot: 2 } };
  return attend({ op: "selfAttention", inputs: [qkv], slots: [3], ...parts }, options);
}

/** Attention of tokens to a context: q [B, L, H, D], packed kv [B, M, 2, H, D] give [B, L, H, D]. See {@linkcode attention}. */
export function crossAttention(q: Tensor, kv: Tensor, options: AttentionOptions = {}): Tensor {
  expectRank("crossAttention", "q", q, ["B", "L", "H", "D"]);
  expectRank("crossAttention", "kv", kv, ["B", "M", 2, "H", "D"]);
  const [B, , H, D] = q.shape;
  expectShape("crossAttention", "kv", kv, [B, kv.shape[1], 2, H, D]);
  const parts = { q: { input: 0, slot: 0 }, k: { input: 1, slot: 0 }, v: { input: 1, slot: 1 } };
  return attend({ op: "crossAttention", inputs: [q, kv], slots: [1, 2], ...parts }, options);
}

function attend({ op, inputs, slots, q, k, v }: Problem, { scale }: AttentionOptions): Tensor {
  const { dtype } = inputs[0];
  if (!isFloat(dtype)) throw new TypeError(`Cannot run ${op}: the inputs are ${dtype}, they must be f32, f16 or bf16`);
  inputs.forEach((t, i) => expectDtype(op, `input ${i}`, t, dtype));
  const [B, L] = inputs[q.input].shape, M = inputs[k.input].shape[1], [H, D] = inputs[q.input].shape.slice(-2);
  const dims = [dim(op, "B", B), dim(op, "L", L), dim(op, "M", M), dim(op, "H", H), dim(op, "D", D)] as const;
  const tail = [scale ?? 1 / Math.sqrt(D), DTYPE[dtype], stream()] as const;
  const address = (t: Tensor, { slot }: Part): bigint => t.addr + BigInt(slot * H * D * DTYPE_BYTES[dtype]);
  const strides = ({ input }: Part): readonly [batch: bigint, token: bigint, head: bigint] => {
    const token = slots[input] * H * D;
    return [BigInt(inputs[input].shape[1] * token), BigInt(token), BigInt(D)];
  };
  const read = (p: Part): bigint => address(inputs[p.input], p);
  const plain = [BigInt(L * H * D), BigInt(H * D), BigInt(D)] as const, packed = [...strides(q), ...strides(k), ...strides(v)] as const;

  const o = empty([B, L, H, D], dtype), lse = empty([B, H, L]);
  kernels().k_attention_fwd(o.addr, lse.addr, read(q), read(k), read(v), ...dims, ...plain, ...packed, ...tail);
  return record(op, o, inputs, [...inputs, o, lse], (dy) => {
    const grads = inputs.map((t) => t.requiresGrad ? empty(t.shape, dtype) : null), delta = empty([B, H, L]);
    const write = (p: Part): bigint => grads[p.input] ? address(grads[p.input]!, p) : 0n;
    kernels().k_attention_bwd(
      ...[write(q), write(k), write(v), dy.addr, o.addr, lse.addr, read(q), read(k), read(v), delta.addr] as const,
      ...[...dims, ...packed, ...plain, ...plain, ...packed, ...tail] as const,
    );
    return grads;
  });
}

/** Throws unless `t` has the rank of `want`, and its numbers where they stand. */
function expectRank(op: string, name: string, t: Tensor, want: (string | number)[]): void {
  if (t.shape.length !== want.length || want.some((d, i) => typeof d === "number" && t.shape[i] !== d)) {
    throw new RangeError(`Cannot run ${op}: ${name} is [${t.shape}], it must be [${want.join(", ")}]`);
  }
}
