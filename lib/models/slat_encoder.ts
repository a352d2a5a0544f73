/** SLatEncoder: picture features on the occupied voxels to the posterior of structured latents. */
import { cast } from "../ops/cast.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { split } from "../ops/movement.ts";
import { applyLinear, type LinearSpec, linearSpec } from "../nn/linear.ts";
import {
  sparseTransformer,
  type SparseTransformerArgs,
  type SparseTransformerModel,
  type SparseTransformerOptions,
  type SparseTransformerSpec,
  sparseTransformerSpec,
} from "../nn/sparse_transformer.ts";
import type { SparseTensor } from "../sparse/voxels.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Constructor options. */
export interface SlatEncoderArgs extends SparseTransformerArgs {
  in_channels: number;
  latent_channels: number;
}

/** Parameters, under the checkpoint's names. */
export type SlatEncoderSpec = SparseTransformerSpec & { out_layer: LinearSpec };

/** A model. */
export type SlatEncoder = SparseTransformerModel<SlatEncoderArgs, SlatEncoderSpec>;

/** The parameters that `args` describe; `dtype` is that of the blocks. */
export function slatEncoderSpec(args: SlatEncoderArgs, dtype: FloatDType = args.use_fp16 ? "f16" : "f32"): SlatEncoderSpec {
  return {
    ...sparseTransformerSpec("SLatEncoder", args, args.in_channels, dtype),
    out_layer: linearSpec(args.model_channels, 2 * args.latent_channels, "f32", { fill: 0 }),
  };
}

/** The posterior of the latents of x [N, in] f32: mean and log-variance, [N, latent] f32 each. */
export function slatEncode(
  model: SlatEncoder,
  x: SparseTensor,
  options?: SparseTransformerOptions,
): { mean: Tensor; logvar: Tensor } {
  return tidy(() => {
    const h = layerNorm(cast(sparseTransformer(model, x, options), "f32"), { eps: 1e-5 });
    const [mean, logvar] = split(applyLinear(model.params.out_layer, h), 1, 2);
    return { mean, logvar };
  });
}
