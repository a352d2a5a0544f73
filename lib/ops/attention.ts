/**
 * Softmax attention without a mask, in memory linear in the tokens: dense, over sequences of different lengths, or through row maps (windows).
 * Packed projections are read, and their gradients written, as they lie.
 */
import { pack } from "../../ffi/struct.ts";
import { K_ATTENTION, K_ATTENTION_CHECK, type KAttention } from "../../ffi/symbols.ts";
import { DTYPE, DTYPE_BYTES, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

/** Sequences of different lengths in one array of N rows. */
export interface Sequences {
  /** [B + 1] i32, from 0 to N and never decreasing: sequence b has the rows from offsets[b] to offsets[b + 1]. */
  offsets: Tensor;
  /** No sequence has more rows than this; a close bound is faster. */
  longest: number;
  /** A permutation [N] i32: row r of the sequences is row rows[r] of the tensors. Without it rows stand in the order of the sequences. */
  rows?: Tensor;
}

/** Options of {@linkcode selfAttention}. */
export interface SelfAttentionOptions {
  /** Multiplies the scores `q kᵀ`; > 0, by default 1 / sqrt(D). */
  scale?: number;
  /** Attention within each of these sequences: tensors then have [N] rows in the place of [B, L]. */
  sequences?: Sequences;
  /** Waits for the device, and throws where offsets decrease or overrun or rows are no permutation. The CPU always looks. */
  check?: boolean;
}

/** Options of {@linkcode attention} and {@linkcode crossAttention}. */
export interface AttentionOptions extends SelfAttentionOptions {
  /** The sequences of the keys, as many as `sequences`; by default those. */
  keySequences?: Sequences;
}

/** Where an operand lies: part 1 of 3 of a packed projection [B, L, 3, H, D] is the keys. */
interface Part {
  input: number;
  slot: number;
  slots: number;
}

const WHOLE: Part = { input: 0, slot: 0, slots: 1 };

/** Which inputs of an op its operands are. */
export interface Operands {
  q: Part;
  k: Part;
  v: Part;
}

/**
 * `softmax(scale q kᵀ) v` for each head: q [B, L, H, D], k and v [B, M, H, D] give [B, L, H, D]. With `sequences` q [N, H, D], k and v
 * [M, H, D] give [N, H, D]. A sequence without keys gives zeros. D is at most 128, in 16 bits a multiple of 8.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const { queries, keys } = axes(options);
  expectRank("attention", "q", q, [...queries, "H", "D"]);
  expectRank("attention", "k", k, [...keys, "H", "D"]);
  expectShape("attention", "k", k, [...keyRows(q, k, options), ...q.shape.slice(-2)]);
  expectShape("attention", "v", v, k.shape);
  const operands = { q: WHOLE, k: { ...WHOLE, input: 1 }, v: { ...WHOLE, input: 2 } };
  return attend("attention", [q, k, v], operands, options);
}

/** Attention of tokens to each other from one packed projection: qkv [B, L, 3, H, D] gives [B, L, H, D]. See {@linkcode attention}. */
export function selfAttention(qkv: Tensor, options: SelfAttentionOptions = {}): Tensor {
  expectRank("selfAttention", "qkv", qkv, [...axes(options).queries, 3, "H", "D"]);
  const part = { input: 0, slots: 3 }, operands = { q: { ...part, slot: 0 }, k: { ...part, slot: 1 }, v: { ...part, slot: 2 } };
  return attend("selfAttention", [qkv], operands, options);
}

/** Attention of tokens to a context: q [B, L, H, D], packed kv [B, M, 2, H, D] give [B, L, H, D]. See {@linkcode attention}. */
export function crossAttention(q: Tensor, kv: Tensor, options: AttentionOptions = {}): Tensor {
  const { queries, keys } = axes(options), part = { input: 1, slots: 2 };
  expectRank("crossAttention", "q", q, [...queries, "H", "D"]);
  expectRank("crossAttention", "kv", kv, [...keys, 2, "H", "D"]);
  expectShape("crossAttention", "kv", kv, [...keyRows(q, kv, options), 2, ...q.shape.slice(-2)]);
  const operands = { q: WHOLE, k: { ...part, slot: 0 }, v: { ...part, slot: 1 } };
  return attend("crossAttention", [q, kv], operands, options);
}

/** An attention that is checked and has its output, not yet run. */
export interface PreparedAttention {
  out: Tensor;
  lse: Tensor;
  /** What says where sequences and rows are. */
  maps: (Tensor | undefined)[];
  /** Runs it forward into `out` or a tensor like it, and into lse. */
  fill(out: Tensor): void;
  /** Runs it backward; the gradients of q, k and v go to parts of `grads`, by default those that they are of the inputs. */
  backward(dy: Tensor, grads: (Tensor | null)[], places?: Operands): void;
}

function attend(op: string, inputs: Tensor[], operands: Operands, options: AttentionOptions): Tensor {
  const { out, lse, maps, fill, backward } = prepareAttention(op, inputs, operands, options);
  fill(out);
  return record(op, out, inputs, [...inputs, out, lse, ...maps], (dy) => {
    const grads = inputs.map((t) => t.requiresGrad ? empty(t.shape, t.dtype) : null);
    backward(dy, grads);
    return grads;
  }, { kind: "attention", from: [...inputs, lse, ...maps], fill });
}

/** Checks an attention over parts of `inputs`, and makes its output. */
export function prepareAttention(op: string, inputs: Tensor[], operands: Operands, options: AttentionOptions): PreparedAttention {
  const { dtype, shape } = inputs[operands.q.input], { shape: keyShape } = inputs[operands.k.input], [H, D] = shape.slice(-2);
  if (!isFloat(dtype)) throw new TypeError(`Cannot run ${op}: the inputs are ${dtype}, they must be f32, f16 or bf16`);
  inputs.forEach((t, i) => expectDtype(op, `input ${i}`, t, dtype));
  const { sequences, keySequences = sequences, scale = 1 / Math.sqrt(D), check } = options;
  if (keySequences && !sequences) throw new TypeError(`Cannot run ${op}: sequences is absent, it must be given with keySequences`);
  if (sequences) expectSequences(op, "sequences", sequences, [sequences.offsets.size, shape[0]]);
  if (keySequences) expectSequences(op, "keySequences", keySequences, [sequences!.offsets.size, keyShape[0]]);
  const sizes = {
    dtype: DTYPE[dtype],
    flags: check ? K_ATTENTION_CHECK : 0,
    B: dim(op, "B", sequences ? sequences.offsets.size - 1 : shape[0]),
    L: dim(op, "L", sequences ? sequences.longest : shape[1]),
    M: dim(op, "M", keySequences ? keySequences.longest : keyShape[1]),
    H: dim(op, "H", H),
    D: dim(op, "D", D),
    q_total: sequences ? dim(op, "N", shape[0]) : 0,
    k_total: keySequences ? dim(op, "M", keyShape[0]) : 0,
    scale,
  };
  const maps = [sequences?.offsets, keySequences?.offsets, sequences?.rows, keySequences?.rows];
  const out = empty([...shape.slice(0, sequences ? 1 : 2), H, D], dtype), lse = empty(sequences ? [H, shape[0]] : [shape[0], H, shape[1]]);

  const problem = (out: Tensor, dy: Tensor | null, grads: (Tensor | null)[], places: Operands): KAttention => {
    const [q_offsets, k_offsets, q_rows, k_rows] = maps.map((t) => t ? t.addr : 0n);
    const [q, q_batch, q_token, q_head] = placeOf(inputs, operands.q), [dq, dq_batch, dq_token, dq_head] = placeOf(grads, places.q);
    const [k, k_batch, k_token, k_head] = placeOf(inputs, operands.k), [dk, dk_batch, dk_token, dk_head] = placeOf(grads, places.k);
    const [v, v_batch, v_token, v_head] = placeOf(inputs, operands.v), [dv, dv_batch, dv_token, dv_head] = placeOf(grads, places.v);
    const [o, o_batch, o_token, o_head] = placeOf([out], WHOLE), [d_o, d_o_batch, d_o_token, d_o_head] = placeOf([dy], WHOLE);
    return {
      ...sizes,
      ...{ q_offsets, k_offsets, q_rows, k_rows, q, q_batch, q_token, q_head, k, k_batch, k_token, k_head, v, v_batch, v_token, v_head },
      ...{ o, o_batch, o_token, o_head, lse: lse.addr, d_o, d_o_batch, d_o_token, d_o_head, dq, dq_batch, dq_token, dq_head },
      ...{ dk, dk_batch, dk_token, dk_head, dv, dv_batch, dv_token, dv_head, workspace: 0n, workspace_bytes: 0 },
    };
  };
  return {
    ...{ out, lse, maps },
    fill: (out) => launch("fwd", problem(out, null, [], operands)),
    backward: (dy, grads, places = operands) => launch("bwd", problem(out, dy, grads, places)),
  };
}

function launch(pass: "fwd" | "bwd", problem: KAttention): void {
  const k = kernels(), bytes = new BigUint64Array(2), which = pass === "fwd" ? 0 : 1;
  withWorkspace(
    (size) => {
      k.k_attention_workspace(bytes, pack(K_ATTENTION, problem));
      size[0] = bytes[which];
    },
    (workspace) => k[`k_attention_${pass}`](pack(K_ATTENTION, { ...problem, workspace, workspace_bytes: Number(bytes[which]) }), stream()),
  );
}

/** Address and strides (batch, token, head) of a part [B, L, slots, H, D] or [N, slots, H, D], whose batch stride is not read; zeros for none. */
function placeOf(tensors: (Tensor | null)[], { input, slot, slots }: Part): [address: bigint, batch: number, token: number, head: number] {
  const t = tensors[input];
  if (!t) return [0n, 0, 0, 0];
  const [H, D] = t.shape.slice(-2), token = slots * H * D;
  return [t.addr + BigInt(slot * H * D * DTYPE_BYTES[t.dtype]), t.shape[1] * token, token, D];
}

/** The names of the first axes of queries and keys. */
function axes({ sequences }: SelfAttentionOptions): { queries: string[]; keys: string[] } {
  return sequences ? { queries: ["N"], keys: ["M"] } : { queries: ["B", "L"], keys: ["B", "M"] };
}

/** The extents that the first axes of `k` must have. */
function keyRows(q: Tensor, k: Tensor, { sequences, keySequences }: AttentionOptions): number[] {
  if (sequences) return [keySequences ? k.shape[0] : q.shape[0]];
  return [q.shape[0], k.shape[1]];
}

function expectSequences(op: string, name: string, { offsets, rows }: Sequences, [B1, N]: [B1: number, N: number]): void {
  if (B1 < 1) throw new RangeError(`Cannot run ${op}: the offsets of ${name} are [0], they must be [B + 1]`);
  expectShape(op, `the offsets of ${name}`, offsets, [B1]);
  expectDtype(op, `the offsets of ${name}`, offsets, "i32");
  expectShape(op, `the rows of ${name}`, rows, [N]);
  expectDtype(op, `the rows of ${name}`, rows, "i32");
}

/** Throws unless `t` has the rank of `want`, and its numbers where they stand. */
function expectRank(op: string, name: string, t: Tensor, want: (string | number)[]): void {
  if (t.shape.length !== want.length || want.some((d, i) => typeof d === "number" && t.shape[i] !== d)) {
    throw new RangeError(`Cannot run ${op}: ${name} is [${t.shape}], it must be [${want.join(", ")}]`);
  }
}
