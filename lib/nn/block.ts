/**
 * The transformer blocks, over dense tokens [B, L, C] and over the voxels [N, C] of a batch: self-attention and MLP, and in the flow models
 * cross-attention between them, the first and the last then modulated by the timestep.
 */
import { add } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { gateAdd, layerNormModulate } from "../ops/modulate.ts";
import { modulationParts } from "../ops/norm.ts";
import { residualNorm } from "../ops/residual_norm.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { inBlock } from "../tensor/storage.ts";
import { checkpoint } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type CrossAttentionPlace,
  type CrossAttentionSpec,
  crossAttentionSpec,
  multiHeadCrossAttention,
  multiHeadSelfAttention,
  type SelfAttentionPlace,
  type SelfAttentionSpec,
  selfAttentionSpec,
} from "./attention.ts";
import { applyLinear, feedForward, type FeedForwardSpec, feedForwardSpec, type LinearSpec, linearSpec } from "./linear.ts";
import type { Parameters, ParameterSpec } from "./parameters.ts";

/** The variance floor of the layer norms in transformer blocks. */
const EPS = 1e-6;

/** Scale and shift of a layer norm, [C] f32. */
export type NormSpec = { weight: ParameterSpec; bias: ParameterSpec };

/** Scale 1 and shift 0. */
export function normSpec(C: number): NormSpec {
  return { weight: { shape: [C], dtype: "f32", init: { fill: 1 } }, bias: { shape: [C], dtype: "f32", init: { fill: 0 } } };
}

/** Parameters of {@linkcode modulatedCrossBlock}. */
export type ModulatedCrossBlockSpec = {
  norm2: NormSpec;
  self_attn: SelfAttentionSpec;
  cross_attn: CrossAttentionSpec;
  mlp: FeedForwardSpec;
  adaLN_modulation?: { 1: LinearSpec };
};

/** Options of {@linkcode modulatedCrossBlockSpec}. */
export interface ModulatedCrossBlockOptions {
  /** Channels of the tokens, of the context, and of the MLP's hidden layer. */
  C: number;
  X: number;
  hidden: number;
  H: number;
  /** Whether the modulation is computed once for all blocks, outside. */
  shareMod: boolean;
  qkRmsNorm: boolean;
  qkRmsNormCross: boolean;
  dtype: FloatDType;
}

/** A block; its modulation starts at zero, so that it starts as cross-attention alone. */
export function modulatedCrossBlockSpec(
  { C, X, hidden, H, shareMod, qkRmsNorm, qkRmsNormCross, dtype }: ModulatedCrossBlockOptions,
): ModulatedCrossBlockSpec {
  return {
    norm2: normSpec(C),
    self_attn: selfAttentionSpec(C, H, { qkRmsNorm, dtype }),
    cross_attn: crossAttentionSpec(C, X, H, { qkRmsNorm: qkRmsNormCross, dtype }),
    mlp: feedForwardSpec(C, hidden, dtype),
    adaLN_modulation: shareMod ? undefined : { 1: linearSpec(C, 6 * C, dtype, { fill: 0 }) },
  };
}

/** x [B, L, C] (or [N, C] of `place.voxels`), mod [B, C] after its SiLU (or [B, 6C] where shared), context [B, M, X] give x's shape. */
export function modulatedCrossBlock(
  p: Parameters<ModulatedCrossBlockSpec>,
  x: Tensor,
  mod: Tensor,
  context: Tensor,
  H: number,
  place: CrossAttentionPlace = {},
): Tensor {
  const { voxels, fp8 } = place, offsets = voxels?.offsets, at = { eps: EPS, offsets, fp8: !!fp8 };
  const m = p.adaLN_modulation ? applyLinear(p.adaLN_modulation[1], mod) : mod; // [B, 6C]
  const [shiftA, scaleA, gateA, shiftM, scaleM, gateM] = modulationParts(m, 6); // each [B, C]
  let h = multiHeadSelfAttention(p.self_attn, layerNormModulate(x, shiftA, scaleA, at), H, place);
  [x, h] = residualNorm(x, h, gateA, { w: p.norm2.weight, b: p.norm2.bias, ...at });
  h = multiHeadCrossAttention(p.cross_attn, h, context, H, place);
  [x, h] = residualNorm(x, h, null, { shift: shiftM, scale: scaleM, ...at, fp8: fp8 === "all" || (fp8 && "both") });
  return gateAdd(x, feedForward(p.mlp, h, { fp8 }), gateM, { offsets });
}

/** Parameters of {@linkcode transformerBlock}; its norms have none. */
export type TransformerBlockSpec = { attn: SelfAttentionSpec; mlp: FeedForwardSpec };

/** Options of {@linkcode transformerBlockSpec}. */
export interface TransformerBlockOptions {
  /** Channels of the tokens, and of the MLP's hidden layer. */
  C: number;
  hidden: number;
  H: number;
  qkRmsNorm: boolean;
  dtype: FloatDType;
}

/** A block of self-attention and MLP. */
export function transformerBlockSpec({ C, hidden, H, qkRmsNorm, dtype }: TransformerBlockOptions): TransformerBlockSpec {
  return { attn: selfAttentionSpec(C, H, { qkRmsNorm, dtype }), mlp: feedForwardSpec(C, hidden, dtype) };
}

/** x [B, L, C], or [N, C] of the voxels of `place`, gives the same shape. */
export function transformerBlock(p: Parameters<TransformerBlockSpec>, x: Tensor, H: number, place: SelfAttentionPlace = {}): Tensor {
  const h = multiHeadSelfAttention(p.attn, layerNorm(x, { eps: EPS }), H, place), offsets = place.voxels?.offsets;
  const [sum, normed] = residualNorm(x, h, null, { eps: EPS, offsets });
  return add(sum, feedForward(p.mlp, normed));
}

/**
 * `h` through each of `blocks`, each in a scope of its own; where no backward pass is to come, the given `h` is freed after its use. The first
 * `recompute` of them are computed again in the backward pass instead of kept. `others` are what else a block reads that has a gradient.
 */
export function runBlocks<P>(
  blocks: P[],
  [h, ...others]: [Tensor, ...Tensor[]],
  recompute: number,
  run: (block: P, i: number, h: Tensor, ...others: Tensor[]) => Tensor,
): Tensor {
  blocks.forEach((block, i) => {
    const pass = (h: Tensor, ...others: Tensor[]): Tensor => inBlock(i, () => tidy(() => run(block, i, h, ...others))), before = h;
    h = i < recompute ? checkpoint(pass, [h, ...others]) : pass(h, ...others);
    if (i > 0 || !h.requiresGrad) before.leave();
  });
  return h;
}
