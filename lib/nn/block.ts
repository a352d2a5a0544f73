/** The transformer block of the flow models: self-attention, cross-attention and MLP, the first and last modulated by the timestep. */
import { add, silu } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { gateAdd, layerNormModulate } from "../ops/modulate.ts";
import { split } from "../ops/movement.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type CrossAttentionSpec,
  crossAttentionSpec,
  multiHeadCrossAttention,
  multiHeadSelfAttention,
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

/** x [B, L, C], mod [B, C] (or [B, 6C] where shared), context [B, M, X] give [B, L, C]. */
export function modulatedCrossBlock(p: Parameters<ModulatedCrossBlockSpec>, x: Tensor, mod: Tensor, context: Tensor, H: number): Tensor {
  const m = p.adaLN_modulation ? applyLinear(p.adaLN_modulation[1], silu(mod)) : mod; // [B, 6C]
  const [shiftA, scaleA, gateA, shiftM, scaleM, gateM] = split(m, 1, 6); // each [B, C]
  let h = multiHeadSelfAttention(p.self_attn, layerNormModulate(x, shiftA, scaleA, { eps: EPS }), H);
  x = gateAdd(x, h, gateA);
  x = add(x, multiHeadCrossAttention(p.cross_attn, layerNorm(x, { w: p.norm2.weight, b: p.norm2.bias, eps: EPS }), context, H));
  h = feedForward(p.mlp, layerNormModulate(x, shiftM, scaleM, { eps: EPS }));
  return gateAdd(x, h, gateM);
}
