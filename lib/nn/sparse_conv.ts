/** Convolution layers over voxels. */
import { linear } from "../ops/matmul.ts";
import { reshape, transpose } from "../ops/movement.ts";
import { sparseConv } from "../sparse/conv.ts";
import type { SparseTensor } from "../sparse/voxels.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Parameters, ParameterSpec } from "./parameters.ts";

/** Parameters of a sparse convolution: weight [out, k, k, k, in], bias [out]. */
export type SparseConvSpec = { conv: { weight: ParameterSpec; bias: ParameterSpec } };

/** Options of {@linkcode sparseConvSpec}. */
export interface SparseConvOptions {
  /** Taps along an axis; 3 by default. */
  kernel?: number;
  dtype: FloatDType;
  /** Whether weight and bias start at zero; by default they are uniform within 1 / sqrt(in k³). */
  zero?: boolean;
}

/** A convolution from `inputs` to `outputs` channels. */
export function sparseConvSpec(inputs: number, outputs: number, { kernel = 3, dtype, zero = false }: SparseConvOptions): SparseConvSpec {
  const init = zero ? { fill: 0 } : { uniform: 1 / Math.sqrt(inputs * kernel ** 3) };
  return { conv: { weight: { shape: [outputs, kernel, kernel, kernel, inputs], dtype, init }, bias: { shape: [outputs], dtype, init } } };
}

/** x [N, in] gives [N, out] on the same voxels. */
export function applySparseConv({ conv }: Parameters<SparseConvSpec>, x: SparseTensor): Tensor {
  return sparseConv(x, conv.weight, conv.bias).features;
}

/** How the weight [out, 1, 1, 1, in] of a 1x1x1 convolution is read: as spconv reads it, its memory as a matrix [in, out], or as it is written. */
export type PointwiseReading = "spconv" | "plain";

/** A 1x1x1 convolution: x [N, in] gives [N, out]. */
export function pointwiseConv({ conv }: Parameters<SparseConvSpec>, x: Tensor, reading: PointwiseReading): Tensor {
  const [outputs, , , , inputs] = conv.weight.shape;
  const weight = reading === "plain" ? reshape(conv.weight, [outputs, inputs]) : transpose(reshape(conv.weight, [inputs, outputs]));
  return linear(x, weight, conv.bias);
}
