/** SLatRadianceFieldDecoder: structured latents to a radiance field of vector products in each voxel (Strivec, Gao et al. 2023). */
import { cast } from "../ops/cast.ts";
import { affine } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { reshape, slice, split } from "../ops/movement.ts";
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
export interface SlatRadianceDecoderArgs extends SparseTransformerArgs {
  latent_channels: number;
  /** Vector products of a voxel, and values of each vector. */
  representation_config: { rank: number; dim: number };
}

/** Parameters, under the checkpoint's names. */
export type SlatRadianceDecoderSpec = SparseTransformerSpec & { out_layer: LinearSpec };

/** A model. */
export type SlatRadianceDecoder = SparseTransformerModel<SlatRadianceDecoderArgs, SlatRadianceDecoderSpec>;

function columnsOf({ representation_config: { rank, dim } }: SlatRadianceDecoderArgs): number[] {
  return [rank * 3 * dim, rank, rank * 3];
}

/** The parameters that `args` describe; `dtype` is that of the blocks. */
export function slatRadianceDecoderSpec(
  args: SlatRadianceDecoderArgs,
  dtype: FloatDType = args.use_fp16 ? "f16" : "f32",
): SlatRadianceDecoderSpec {
  return {
    ...sparseTransformerSpec("SLatRadianceFieldDecoder", args, args.latent_channels, dtype),
    out_layer: linearSpec(args.model_channels, columnsOf(args).reduce((a, b) => a + b), "f32", { fill: 0 }),
  };
}

/** A field in f32, one part a voxel, of rank R with vectors of D values. */
export interface RadianceField {
  /** The output layer, [N, R (3 D + 4)]. */
  raw: Tensor;
  /** Centres of the voxels in the unit cube, [N, 3]. */
  position: Tensor;
  /** Vectors along x, y and z, [N, R, 3, D]. */
  trivec: Tensor;
  /** [N, R]. */
  density: Tensor;
  /** [N, R, 1, 3]. */
  featuresDc: Tensor;
}

/** The radiance field of latents x [N, latent] f32. */
export function slatDecodeRadiance(model: SlatRadianceDecoder, x: SparseTensor, options?: SparseTransformerOptions): RadianceField {
  const { params: p, args } = model, { resolution: R, representation_config: { rank, dim } } = args, N = x.voxels.N;
  return tidy(() => {
    const raw = applyLinear(p.out_layer, layerNorm(cast(sparseTransformer(model, x, options), "f32"), { eps: 1e-5 }));
    const [trivec, density, color] = split(raw, 1, columnsOf(args));
    return {
      raw,
      position: affine(cast(slice(x.voxels.coords, 1, 1, 4), "f32"), { scale: 1 / R, shift: 0.5 / R }),
      trivec: affine(reshape(trivec, [N, rank, 3, dim]), { shift: 1 }),
      density,
      featuresDc: reshape(color, [N, rank, 1, 3]),
    };
  });
}
