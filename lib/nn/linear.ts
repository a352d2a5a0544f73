/** A dense layer and the MLP of the transformer blocks. */
import { feedForward as feedForwardOp } from "../ops/feed_forward.ts";
import { linear, type LinearOptions } from "../ops/matmul.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Init, type Parameters, type ParameterSpec, xavierBound } from "./parameters.ts";

/** Parameters of a dense layer: weight [out, in], bias [out]. */
export type LinearSpec = { weight: ParameterSpec; bias: ParameterSpec };

/** A dense layer; xavier-uniform weights and zero bias unless `weight` says otherwise. */
export function linearSpec(
  inputs: number,
  outputs: number,
  dtype: FloatDType,
  weight: Init = { uniform: xavierBound(inputs, outputs) },
): LinearSpec {
  return { weight: { shape: [outputs, inputs], dtype, init: weight }, bias: { shape: [outputs], dtype, init: { fill: 0 } } };
}

/** x [..., in] gives [..., out]. */
export function applyLinear(p: Parameters<LinearSpec>, x: Tensor, options?: LinearOptions): Tensor {
  return linear(x, p.weight, p.bias, options);
}

/** Parameters of {@linkcode feedForward}. */
export type FeedForwardSpec = { mlp: { 0: LinearSpec; 2: LinearSpec } };

/** C -> hidden -> C. */
export function feedForwardSpec(C: number, hidden: number, dtype: FloatDType): FeedForwardSpec {
  return { mlp: { 0: linearSpec(C, hidden, dtype), 2: linearSpec(hidden, C, dtype) } };
}

/** Linear, tanh-GELU, linear: x [..., C] gives [..., C]. */
export function feedForward(p: Parameters<FeedForwardSpec>, x: Tensor, options?: Pick<LinearOptions, "fp8">): Tensor {
  const { 0: up, 2: down } = p.mlp;
  return feedForwardOp(x, [up.weight, up.bias], [down.weight, down.bias], options);
}
