/** SLatGaussianDecoder: structured latents to 3D Gaussians, a fixed number around each voxel. */
import { cast } from "../ops/cast.ts";
import { add, affine, scale, tanh } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { reshape, slice, split } from "../ops/movement.ts";
import { applyLinear, type LinearSpec, linearSpec } from "../nn/linear.ts";
import type { ParameterSpec } from "../nn/parameters.ts";
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

/** How the columns become Gaussians, named as in TRELLIS's configs. */
export interface GaussianConfig {
  /** Factors of the raw columns. */
  lr: { _xyz: number; _features_dc: number; _opacity: number; _scaling: number; _rotation: number };
  /** Whether the Gaussians of a voxel start spread over it. */
  perturb_offset: boolean;
  /** Reach of a Gaussian, in voxels from end to end. */
  voxel_size: number;
  num_gaussians: number;
  /** Of the renderer. */
  "2d_filter_kernel_size": number;
  "3d_filter_kernel_size": number;
  scaling_bias: number;
  opacity_bias: number;
  scaling_activation: "exp" | "softplus";
}

/** Constructor options. */
export interface SlatGaussianDecoderArgs extends SparseTransformerArgs {
  latent_channels: number;
  representation_config: GaussianConfig;
}

/** Parameters, under the checkpoint's names. */
export type SlatGaussianDecoderSpec = SparseTransformerSpec & { out_layer: LinearSpec; offset_perturbation: ParameterSpec };

/** A model. */
export type SlatGaussianDecoder = SparseTransformerModel<SlatGaussianDecoderArgs, SlatGaussianDecoderSpec>;

/** Columns of a Gaussian in each field, in their order. */
const FIELDS = { xyz: 3, featuresDc: 3, scaling: 3, rotation: 4, opacity: 1 };

/** The parameters that `args` describe; `dtype` is that of the blocks. */
export function slatGaussianDecoderSpec(
  args: SlatGaussianDecoderArgs,
  dtype: FloatDType = args.use_fp16 ? "f16" : "f32",
): SlatGaussianDecoderSpec {
  const { num_gaussians: G, voxel_size } = args.representation_config, columns = Object.values(FIELDS).reduce((a, b) => a + b);
  return {
    ...sparseTransformerSpec("SLatGaussianDecoder", args, args.latent_channels, dtype),
    out_layer: linearSpec(args.model_channels, columns * G, "f32", { fill: 0 }),
    offset_perturbation: { shape: [G, 3], dtype: "f32", init: { values: () => spread(G, voxel_size) }, buffer: true },
  };
}

/** The digits of i in a base, mirrored at the point. */
function radicalInverse(i: number, base: number): number {
  let value = 0;
  for (let digit = 1 / base; i > 0; i = Math.floor(i / base), digit /= base) value += i % base * digit;
  return value;
}

/** The Hammersley points of a voxel, as what tanh and voxel_size turn into them: [G, 3]. */
function spread(G: number, voxelSize: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: 3 * G }, (_, at) => {
    const i = Math.floor(at / 3), place = [i / G, radicalInverse(i, 2), radicalInverse(i, 3)][at % 3];
    return Math.atanh((Math.fround(place) * 2 - 1) / voxelSize);
  });
}

/** Gaussians in f32, those of a voxel together; sample b has the rows from G offsets[b] to G offsets[b + 1]. Activations are the renderer's. */
export interface Gaussians {
  /** The output layer, [N, 14 G]. */
  raw: Tensor;
  /** Centres in the unit cube, [N G, 3]; the world is half a unit lower on each axis. */
  xyz: Tensor;
  /** [N G, 1, 3]. */
  featuresDc: Tensor;
  /** [N G, 3]. */
  scaling: Tensor;
  /** [N G, 4]: w, x, y, z, to be added to the identity. */
  rotation: Tensor;
  /** [N G, 1]. */
  opacity: Tensor;
}

/** The Gaussians of latents x [N, latent] f32. */
export function slatDecodeGaussians(model: SlatGaussianDecoder, x: SparseTensor, options?: SparseTransformerOptions): Gaussians {
  const { params: p, args: { resolution: R, representation_config: config } } = model, { num_gaussians: G, lr } = config, N = x.voxels.N;
  return tidy(() => {
    const raw = applyLinear(p.out_layer, layerNorm(cast(sparseTransformer(model, x, options), "f32"), { eps: 1e-5 })); // [N, 14 G]
    const [offset, color, scaling, rotation, opacity] = split(raw, 1, Object.values(FIELDS).map((columns) => columns * G));
    const field = (t: Tensor, by: number, shape: number[]): Tensor => scale(reshape(t, [N * G, ...shape]), by);
    const moved = scale(reshape(offset, [N, G, 3]), lr._xyz), spread = config.perturb_offset ? add(moved, p.offset_perturbation) : moved;
    const centre = affine(reshape(cast(slice(x.voxels.coords, 1, 1, 4), "f32"), [N, 1, 3]), { scale: 1 / R, shift: 0.5 / R });
    return {
      raw,
      xyz: reshape(add(scale(tanh(spread), 0.5 * config.voxel_size / R), centre), [N * G, 3]),
      featuresDc: field(color, lr._features_dc, [1, 3]),
      scaling: field(scaling, lr._scaling, [3]),
      rotation: field(rotation, lr._rotation, [4]),
      opacity: field(opacity, lr._opacity, [1]),
    };
  });
}
