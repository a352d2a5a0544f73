/** SLatMeshDecoder: structured latents to the corner values of a four times finer grid, from which a mesh is extracted (FlexiCubes, Shen et al. 2023). */
import { cast } from "../ops/cast.ts";
import { add, silu } from "../ops/elementwise.ts";
import { groupNorm } from "../ops/group_norm.ts";
import { repeatRows } from "../ops/sparse_resample.ts";
import { type NormSpec, normSpec } from "../nn/block.ts";
import { applyLinear, type LinearSpec, linearSpec } from "../nn/linear.ts";
import type { Parameters } from "../nn/parameters.ts";
import { applySparseConv, pointwiseConv, type PointwiseReading, type SparseConvSpec, sparseConvSpec } from "../nn/sparse_conv.ts";
import {
  sparseTransformer,
  type SparseTransformerArgs,
  type SparseTransformerModel,
  type SparseTransformerOptions,
  type SparseTransformerSpec,
  sparseTransformerSpec,
} from "../nn/sparse_transformer.ts";
import { halves } from "../sparse/resample.ts";
import type { SparseTensor, Voxels } from "../sparse/voxels.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Constructor options. */
export interface SlatMeshDecoderArgs extends SparseTransformerArgs {
  latent_channels: number;
  representation_config: { use_color?: boolean };
}

type SubdivideBlockSpec = {
  act_layers: { 0: NormSpec };
  out_layers: { 0: SparseConvSpec; 1: NormSpec; 3: SparseConvSpec };
  skip_connection: SparseConvSpec;
};

/** Parameters, under the checkpoint's names. */
export type SlatMeshDecoderSpec = SparseTransformerSpec & { upsample: SubdivideBlockSpec[]; out_layer: LinearSpec };

/** A model. */
export type SlatMeshDecoder = SparseTransformerModel<SlatMeshDecoderArgs, SlatMeshDecoderSpec>;

/**
 * Where each field of a cube starts and ends among the columns. Corner k is at (k & 1, k >> 1 & 1, k >> 2 & 1); `deform` and `color` are corner by
 * corner, x, y, z and r, g, b, then the normal; `weights` are 12 of the edges (beta), 8 of the corners (alpha) and gamma.
 */
export const MESH_COLUMNS = { sdf: [0, 8], deform: [8, 32], weights: [32, 53], color: [53, 101] } as const;

const GROUPS = 32, EPS = 1e-5;

function subdivideBlockSpec(inputs: number, outputs: number, dtype: FloatDType): SubdivideBlockSpec {
  return {
    act_layers: { 0: normSpec(inputs) },
    out_layers: {
      0: sparseConvSpec(inputs, outputs, { dtype }),
      1: normSpec(outputs),
      3: sparseConvSpec(outputs, outputs, { dtype, zero: true }),
    },
    skip_connection: sparseConvSpec(inputs, outputs, { kernel: 1, dtype }),
  };
}

/** The parameters that `args` describe; `dtype` is that of the blocks. */
export function slatMeshDecoderSpec(args: SlatMeshDecoderArgs, dtype: FloatDType = args.use_fp16 ? "f16" : "f32"): SlatMeshDecoderSpec {
  const C = args.model_channels;
  if (C % (8 * GROUPS)) {
    throw new RangeError(`Cannot make SLatMeshDecoder: model_channels is ${C}, it must be a multiple of ${8 * GROUPS}`);
  }
  return {
    ...sparseTransformerSpec("SLatMeshDecoder", args, args.latent_channels, dtype),
    upsample: [subdivideBlockSpec(C, C / 4, dtype), subdivideBlockSpec(C / 4, C / 8, dtype)],
    out_layer: linearSpec(C / 8, MESH_COLUMNS[args.representation_config.use_color ? "color" : "weights"][1], "f32", { fill: 0 }),
  };
}

/** h [N, in] of `voxels` gives [8 N, out] of their halves. The skip connection is pointwise, so it runs before the subdivision. */
function subdivideBlock(p: Parameters<SubdivideBlockSpec>, h: Tensor, voxels: Voxels, reading: PointwiseReading): Tensor {
  const fine = halves(voxels),
    act = (x: Tensor, { weight: w, bias: b }: Parameters<NormSpec>, { offsets }: Voxels): Tensor =>
      silu(groupNorm(x, GROUPS, { w, b, eps: EPS, offsets }));
  const skip = repeatRows(pointwiseConv(p.skip_connection, h, reading));
  const first = applySparseConv(p.out_layers[0], { features: repeatRows(act(h, p.act_layers[0], voxels)), voxels: fine });
  return add(applySparseConv(p.out_layers[3], { features: act(first, p.out_layers[1], fine), voxels: fine }), skip);
}

/** Options of {@linkcode slatDecodeMesh}. */
export interface SlatMeshOptions extends SparseTransformerOptions {
  /** How the 1x1x1 convolutions are read; by default as spconv does, which the published weights were trained with. */
  pointwise?: PointwiseReading;
}

/** The columns of {@linkcode MESH_COLUMNS}, [64 N, 101] f32 (or 53 without color), of latents x [N, latent] f32, on voxels of a quarter. */
export function slatDecodeMesh(
  model: SlatMeshDecoder,
  x: SparseTensor,
  { pointwise = "spconv", ...options }: SlatMeshOptions = {},
): SparseTensor {
  const p = model.params;
  return tidy(() => {
    let h = sparseTransformer(model, x, options), voxels = x.voxels;
    for (const block of p.upsample) {
      const before = h;
      h = tidy(() => subdivideBlock(block, before, voxels, pointwise));
      if (!h.requiresGrad) before.free();
      voxels = halves(voxels);
    }
    return { features: applyLinear(p.out_layer, cast(h, "f32")), voxels };
  });
}
