/** SLatFlowModel: the flow-matching transformer over structured latents, between convolutions that halve and double the grid. */
import { cast } from "../ops/cast.ts";
import { add, silu } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { layerNormModulate } from "../ops/modulate.ts";
import { roundOnce } from "../ops/fp8_layer.ts";
import { concat, split } from "../ops/movement.ts";
import { headsOf } from "../nn/attention.ts";
import {
  modulatedCrossBlock,
  type ModulatedCrossBlockSpec,
  modulatedCrossBlockSpec,
  type NormSpec,
  normSpec,
  runBlocks,
} from "../nn/block.ts";
import { applyLinear, type LinearSpec, linearSpec } from "../nn/linear.ts";
import type { Parameters } from "../nn/parameters.ts";
import { applySparseConv, type SparseConvSpec, sparseConvSpec } from "../nn/sparse_conv.ts";
import { embedTimestep, type TimestepSpec, timestepSpec } from "../nn/timestep.ts";
import { voxelEmbedding } from "../sparse/position.ts";
import { type Pooling, sparseDownsample, sparseUpsample } from "../sparse/resample.ts";
import { expectFeatures, type SparseTensor, type Voxels } from "../sparse/voxels.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { expectDtype, expectShape, type Tensor } from "../tensor/tensor.ts";

/** Constructor options, named as in TRELLIS's configs. */
export interface SlatFlowArgs {
  /** Side of the grid of voxels. */
  resolution: number;
  in_channels: number;
  model_channels: number;
  cond_channels: number;
  out_channels: number;
  num_blocks: number;
  /** By default model_channels / num_head_channels. */
  num_heads?: number;
  num_head_channels?: number;
  mlp_ratio?: number;
  /** Cells of the grid to a token along an axis: 2 to the number of io_block_channels. */
  patch_size?: number;
  num_io_res_blocks?: number;
  /** Channels of the convolution blocks at each level, the finest first; null for none. */
  io_block_channels?: number[] | null;
  /** Whether the blocks on the way up see the features of those on the way down. */
  use_skip_connection?: boolean;
  pe_mode?: "ape";
  use_fp16?: boolean;
  use_checkpoint?: boolean;
  share_mod?: boolean;
  qk_rms_norm?: boolean;
  qk_rms_norm_cross?: boolean;
}

type ResBlockSpec = {
  norm1: NormSpec;
  conv1: SparseConvSpec;
  conv2: SparseConvSpec;
  emb_layers: { 1: LinearSpec };
  skip_connection?: LinearSpec;
};

/** Parameters of the model, under the checkpoint's names. */
export type SlatFlowSpec = {
  t_embedder: TimestepSpec;
  adaLN_modulation?: { 1: LinearSpec };
  input_layer: LinearSpec;
  input_blocks: ResBlockSpec[];
  blocks: ModulatedCrossBlockSpec[];
  out_blocks: ResBlockSpec[];
  out_layer: LinearSpec;
};

/** A model: its options, the dtype of its blocks, and its parameters. */
export interface SlatFlow {
  args: SlatFlowArgs;
  dtype: FloatDType;
  /** Whether the transformer blocks' linear layers compute in 8-bit floats; the weights stay in `dtype`. */
  fp8?: boolean | "all";
  params: Parameters<SlatFlowSpec>;
}

const NAME = "SLatFlowModel", EPS = 1e-6, FACTOR = 2;

/** One convolution block: its channels, and whether it changes the grid first. */
interface Stage {
  inputs: number;
  outputs: number;
  resample?: "down" | "up";
}

/** The convolution blocks before and after the transformer. */
function stagesOf(args: SlatFlowArgs): { down: Stage[]; up: Stage[] } {
  const { model_channels: C, num_io_res_blocks: count = 2, use_skip_connection: skips = true } = args, io = args.io_block_channels ?? [];
  const down = io.flatMap((c, i): Stage[] => [
    ...Array.from({ length: count - 1 }, () => ({ inputs: c, outputs: c })),
    { inputs: c, outputs: io[i + 1] ?? C, resample: "down" },
  ]);
  const width = (c: number): number => skips ? 2 * c : c;
  const up = io.toReversed().flatMap((c, i, reversed): Stage[] => [
    { inputs: width(i ? reversed[i - 1] : C), outputs: c, resample: "up" },
    ...Array.from({ length: count - 1 }, () => ({ inputs: width(c), outputs: c })),
  ]);
  return { down, up };
}

function resBlockSpec({ inputs, outputs }: Stage, C: number, dtype: FloatDType): ResBlockSpec {
  return {
    norm1: normSpec(inputs),
    conv1: sparseConvSpec(inputs, outputs, { dtype }),
    conv2: sparseConvSpec(outputs, outputs, { dtype, zero: true }),
    emb_layers: { 1: linearSpec(C, 2 * outputs, dtype) },
    skip_connection: inputs === outputs ? undefined : linearSpec(inputs, outputs, dtype),
  };
}

/** The parameters that `args` describe; `dtype` is that of the blocks. */
export function slatFlowSpec(args: SlatFlowArgs, dtype: FloatDType = args.use_fp16 ? "f16" : "f32"): SlatFlowSpec {
  const { model_channels: C, patch_size = 2, mlp_ratio = 4, pe_mode = "ape", share_mod: shareMod = false } = args;
  const io = args.io_block_channels ?? [], H = headsOf(NAME, args), { down, up } = stagesOf(args);
  if (pe_mode !== "ape") throw new RangeError(`Cannot make ${NAME}: pe_mode is "${pe_mode}", it must be "ape"`);
  if (patch_size !== FACTOR ** io.length && args.io_block_channels) {
    throw new RangeError(
      `Cannot make ${NAME}: patch_size is ${patch_size}, it must be ${FACTOR ** io.length} with ${io.length} io_block_channels`,
    );
  }
  if (shareMod && io.length) {
    throw new RangeError(
      `Cannot make ${NAME}: share_mod is true with io_block_channels, it must be false: those blocks have a modulation of their own`,
    );
  }
  return {
    t_embedder: timestepSpec(C),
    adaLN_modulation: shareMod ? { 1: linearSpec(C, 6 * C, "f32", { fill: 0 }) } : undefined,
    input_layer: linearSpec(args.in_channels, io[0] ?? C, "f32"),
    input_blocks: down.map((stage) => resBlockSpec(stage, C, dtype)),
    blocks: Array.from({ length: args.num_blocks }, () =>
      modulatedCrossBlockSpec({
        C,
        X: args.cond_channels,
        hidden: Math.floor(C * mlp_ratio),
        H,
        shareMod,
        qkRmsNorm: args.qk_rms_norm ?? false,
        qkRmsNormCross: args.qk_rms_norm_cross ?? false,
        dtype,
      })),
    out_blocks: up.map((stage) => resBlockSpec(stage, C, dtype)),
    out_layer: linearSpec(io[0] ?? C, args.out_channels, "f32", { fill: 0 }),
  };
}

/**
 * x [N, inputs] and mod [B, C], after its SiLU, give [N, outputs], or, with `finer`, the outputs on those voxels. The finer ones have the features of those that they
 * are in, so what is done row by row is done before.
 */
function resBlock(
  p: Parameters<ResBlockSpec>,
  { features: x, voxels }: SparseTensor,
  { mod, finer, convolve }: { mod: Tensor; finer?: Voxels; convolve: typeof applySparseConv },
): Tensor {
  const lift = (features: Tensor): SparseTensor => finer ? sparseUpsample({ features, voxels }, finer, FACTOR) : { features, voxels };
  const { weight: w, bias: b } = p.norm1, [scale, shift] = split(applyLinear(p.emb_layers[1], mod), 1, 2); // each [B, outputs]
  const skip = lift(p.skip_connection ? applyLinear(p.skip_connection, x) : x), { offsets } = skip.voxels;
  let h = convolve(p.conv1, lift(silu(layerNorm(x, { w, b, eps: EPS }))));
  h = silu(layerNormModulate(h, shift, scale, { eps: EPS, offsets }));
  return add(convolve(p.conv2, { features: h, voxels: skip.voxels }), skip.features);
}

/** Options of {@linkcode slatFlow}. */
export interface SlatFlowOptions {
  /** How many blocks, from the first on, are computed again in the backward pass instead of kept; by default all or none as use_checkpoint says. */
  recompute?: number;
  /** How coarse voxels are made of fine ones: by default as in the published weights' code, by n + 1. */
  pooling?: Pooling;
  /** What is done in place of the sparse convolutions, to be compared with them. */
  convolve?: typeof applySparseConv;
}

/** The velocity [N, out] f32 at x [N, in] f32, times t [B] (already times 1000), condition [B, M, X]. */
export function slatFlow(
  { args, dtype, fp8, params: p }: SlatFlow,
  x: SparseTensor,
  t: Tensor,
  cond: Tensor,
  options: SlatFlowOptions = {},
): Tensor {
  const { model_channels: C, num_blocks, use_skip_connection: skips = true } = args, { B } = x.voxels, H = headsOf(NAME, args);
  const { recompute = args.use_checkpoint ? num_blocks : 0, pooling, convolve = applySparseConv } = options, { down, up } = stagesOf(args);
  expectFeatures("slatFlow", x, args.in_channels);
  expectDtype("slatFlow", "features", x.features, "f32");
  expectShape("slatFlow", "t", t, [B]);
  expectShape("slatFlow", "cond", cond, [B, cond.shape[1], args.cond_channels]);
  return tidy(() => {
    const [mod, context] = tidy((): [Tensor, Tensor] => {
      const time = embedTimestep(p.t_embedder, t); // [B, C]
      const mod = p.adaLN_modulation ? cast(applyLinear(p.adaLN_modulation[1], silu(time)), dtype) : silu(cast(time, dtype));
      return [mod, cast(cond, dtype)];
    });
    if (fp8) roundOnce(context); // it is every block's
    const finer: Voxels[] = [], seen: Tensor[] = [];
    let { voxels } = x, h = tidy(() => cast(applyLinear(p.input_layer, x.features), dtype));
    down.forEach(({ resample }, i) => {
      if (resample) finer.push(voxels);
      const y = tidy((): SparseTensor => {
        const at = resample ? sparseDownsample({ features: h, voxels }, FACTOR, { pooling }) : { features: h, voxels };
        return { features: resBlock(p.input_blocks[i], at, { mod, convolve }), voxels: at.voxels };
      });
      ({ features: h, voxels } = y);
      seen.push(h);
    });
    h = tidy(() => add(h, cast(voxelEmbedding(voxels, C), dtype)));
    const tokens = voxels;
    h = runBlocks(p.blocks, [h, mod, context], recompute, (block, _, h, mod, context) => {
      return modulatedCrossBlock(block, h, mod, context, H, { voxels: tokens, fp8 });
    });
    up.forEach(({ resample }, i) => {
      const before = h, fine = resample ? finer.pop()! : voxels, skip = seen.pop()!;
      h = tidy(() => {
        const joined = { features: skips ? concat([before, skip], 1) : before, voxels };
        return resBlock(p.out_blocks[i], joined, { mod, convolve, finer: resample && fine });
      });
      if (!h.requiresGrad) [before, skip].forEach((t) => t.free());
      voxels = fine;
    });
    return applyLinear(p.out_layer, cast(layerNorm(h, { eps: 1e-5 }), "f32"));
  });
}
