/** Self-attention whose queries and keys pass the multi-head RMS norm: the normed ones are a tensor of their own, values stay where they are. */
import { rebuildable } from "../tensor/storage.ts";
import { isRecording, record } from "../tensor/tape.ts";
import { empty, type Tensor } from "../tensor/tensor.ts";
import { type Operands, prepareAttention, type SelfAttentionOptions } from "./attention.ts";
import { normHeads, normHeadsBackward } from "./rms_norm.ts";

/** q and k are parts of the first input, v is the last part of the second. */
const OPERANDS: Operands = {
  q: { input: 0, slot: 0, slots: 2 },
  k: { input: 0, slot: 1, slots: 2 },
  v: { input: 1, slot: 2, slots: 3 },
};

/** All three gradients go to one packed tensor. */
const GRADIENTS: Operands = {
  q: { input: 0, slot: 0, slots: 3 },
  k: { input: 0, slot: 1, slots: 3 },
  v: { input: 0, slot: 2, slots: 3 },
};

/** Options of {@linkcode normedSelfAttention}. */
export interface NormedAttentionOptions extends SelfAttentionOptions {
  /** Whether the normed queries and keys are kept for the backward pass, where no plan gives them up, instead of made again. */
  kept?: boolean;
}

/**
 * `selfAttention(headRmsNorm(qkv, gammas))`: qkv [B, L, 3, H, D] (or [N, 3, H, D] with sequences), gammas of queries and keys [H, D] f32, give
 * [B, L, H, D]. Values are not copied, and the norm's gradient is made where attention's lies.
 */
export function normedSelfAttention(qkv: Tensor, gammas: [q: Tensor, k: Tensor], options: NormedAttentionOptions = {}): Tensor {
  const lead = qkv.shape.slice(0, -3), [parts, H, D] = qkv.shape.slice(-3), axes = options.sequences ? 1 : 2;
  if (lead.length !== axes || parts !== 3) {
    const want = options.sequences ? "[N, 3, H, D]" : "[B, L, 3, H, D]";
    throw new RangeError(`Cannot run normedSelfAttention: qkv is [${qkv.shape}], it must be ${want}`);
  }
  const qk = empty([...lead, 2, H, D], qkv.dtype), fillNormed = (qk: Tensor): void => normHeads(qk, qkv, gammas);
  fillNormed(qk);
  const { out, lse, maps, fill, backward } = prepareAttention("normedSelfAttention", [qk, qkv], OPERANDS, options);
  fill(out);
  const inputs = [qkv, ...gammas];
  if (!isRecording() || !inputs.some((t) => t.requiresGrad)) {
    qk.free();
    return out;
  }
  rebuildable(qk, { kind: options.kept ? "head norm" : "norm", from: inputs, fill: fillNormed });
  return record("normedSelfAttention", out, inputs, [...inputs, qk, out, lse, ...maps], (dy, soFar) => {
    const dqkv = empty(qkv.shape, qkv.dtype);
    backward(dy, [dqkv], GRADIENTS);
    return [qkv.requiresGrad ? dqkv : null, ...normHeadsBackward(dqkv, qkv, gammas, soFar)];
  }, { kind: "attention", from: [qk, qkv, lse, ...maps], fill });
}
