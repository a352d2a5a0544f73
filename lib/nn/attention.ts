/** Multi-head attention layers with packed projections and optional q/k RMS norms. */
import { crossAttention, selfAttention } from "../ops/attention.ts";
import { reshape } from "../ops/movement.ts";
import { normedSelfAttention } from "../ops/normed_attention.ts";
import { headRmsNorm } from "../ops/rms_norm.ts";
import { type AttentionPattern, sparseCrossAttention, sparseSelfAttention } from "../sparse/attention.ts";
import type { Voxels } from "../sparse/voxels.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { LinearOptions } from "../ops/matmul.ts";
import { applyLinear, type LinearSpec, linearSpec } from "./linear.ts";
import type { Parameters, ParameterSpec } from "./parameters.ts";

/** gamma [H, D] of a multi-head RMS norm. */
export type HeadNormSpec = { gamma: ParameterSpec };

/** Heads of a model of class `name`: num_heads, or model_channels / num_head_channels. */
export function headsOf(
  name: string,
  { model_channels: C, num_heads, num_head_channels = 64 }: { model_channels: number; num_heads?: number; num_head_channels?: number },
): number {
  const H = num_heads ?? Math.floor(C / num_head_channels);
  if (H < 1 || C % H !== 0) {
    throw new RangeError(`Cannot make ${name}: num_heads is ${H}, it must divide model_channels, which is ${C}`);
  }
  return H;
}

function expectHeads(C: number, H: number): void {
  if (C % H !== 0) throw new RangeError(`Cannot make attention: its heads are ${H}, they must divide its ${C} channels`);
}

function headNormSpec(C: number, H: number): HeadNormSpec {
  return { gamma: { shape: [H, C / H], dtype: "f32", init: { fill: 1 } } };
}

/** Parameters of {@linkcode multiHeadSelfAttention}. */
export type SelfAttentionSpec = { to_qkv: LinearSpec; q_rms_norm?: HeadNormSpec; k_rms_norm?: HeadNormSpec; to_out: LinearSpec };

/** Options of the attention layers. */
export interface AttentionOptions {
  /** Whether q and k pass a multi-head RMS norm. */
  qkRmsNorm: boolean;
  dtype: FloatDType;
}

/** Where the tokens of {@linkcode multiHeadSelfAttention} are, and how its products are computed. */
export interface SelfAttentionPlace extends Pick<LinearOptions, "fp8"> {
  /** The voxels that the tokens are of; without it samples have L tokens each. */
  voxels?: Voxels;
  /** Which voxels attend to which; all by default. */
  pattern?: AttentionPattern;
}

/** Self-attention over C channels in H heads. */
export function selfAttentionSpec(C: number, H: number, { qkRmsNorm, dtype }: AttentionOptions): SelfAttentionSpec {
  expectHeads(C, H);
  return {
    to_qkv: linearSpec(C, 3 * C, dtype),
    q_rms_norm: qkRmsNorm ? headNormSpec(C, H) : undefined,
    k_rms_norm: qkRmsNorm ? headNormSpec(C, H) : undefined,
    to_out: linearSpec(C, C, dtype),
  };
}

/** x [B, L, C] gives [B, L, C]; with `voxels` x is [N, C], and each attends to those of its sample that `pattern` says. */
export function multiHeadSelfAttention(
  p: Parameters<SelfAttentionSpec>,
  x: Tensor,
  H: number,
  { voxels, pattern = "full", fp8 }: SelfAttentionPlace = {},
): Tensor {
  const C = x.shape.at(-1)!;
  const qkv = reshape(applyLinear(p.to_qkv, x, { fp8 }), [...x.shape.slice(0, -1), 3, H, C / H]);
  const gammas = p.q_rms_norm && p.k_rms_norm && [p.q_rms_norm.gamma, p.k_rms_norm.gamma] satisfies [Tensor, Tensor];
  const kept = !!fp8; // fp8 is for speed: it keeps what it can, and makes no other norm again
  const dense = (): Tensor => gammas ? normedSelfAttention(qkv, gammas, { kept }) : selfAttention(qkv);
  return applyLinear(p.to_out, reshape(voxels ? sparseSelfAttention(qkv, voxels, pattern, gammas, { kept }) : dense(), x.shape), { fp8 });
}

/** Parameters of {@linkcode multiHeadCrossAttention}. */
export type CrossAttentionSpec = {
  to_q: LinearSpec;
  to_kv: LinearSpec;
  q_rms_norm?: HeadNormSpec;
  k_rms_norm?: HeadNormSpec;
  to_out: LinearSpec;
};

/** Attention of C channels to a context of X channels in H heads. */
export function crossAttentionSpec(C: number, X: number, H: number, { qkRmsNorm, dtype }: AttentionOptions): CrossAttentionSpec {
  expectHeads(C, H);
  return {
    to_q: linearSpec(C, C, dtype),
    to_kv: linearSpec(X, 2 * C, dtype),
    q_rms_norm: qkRmsNorm ? headNormSpec(C, H) : undefined,
    k_rms_norm: qkRmsNorm ? headNormSpec(C, H) : undefined,
    to_out: linearSpec(C, C, dtype),
  };
}

/** Options of {@linkcode multiHeadCrossAttention}. */
export type CrossAttentionPlace = Pick<SelfAttentionPlace, "voxels" | "fp8">;

/** x [B, L, C] and context [B, M, X] give [B, L, C]; with `voxels` x is [N, C], and each attends to the context of its sample. */
export function multiHeadCrossAttention(
  p: Parameters<CrossAttentionSpec>,
  x: Tensor,
  context: Tensor,
  H: number,
  { voxels, fp8 }: CrossAttentionPlace = {},
): Tensor {
  const rows = x.shape.slice(0, -1), [B, M] = context.shape, D = x.shape.at(-1)! / H;
  let q = reshape(applyLinear(p.to_q, x, { fp8 }), [...rows, H, D]), kv = reshape(applyLinear(p.to_kv, context, { fp8 }), [B, M, 2, H, D]);
  if (p.q_rms_norm) q = reshape(headRmsNorm(reshape(q, [...rows, 1, H, D]), [p.q_rms_norm.gamma]), [...rows, H, D]);
  if (p.k_rms_norm) kv = headRmsNorm(kv, [p.k_rms_norm.gamma]);
  return applyLinear(p.to_out, reshape(voxels ? sparseCrossAttention(q, kv, voxels) : crossAttention(q, kv), x.shape), { fp8 });
}
