/** SparseStructureFlowModel: the flow-matching transformer over the latents of the sparse-structure VAE. */
import { add, silu } from "../ops/elementwise.ts";
import { cast } from "../ops/cast.ts";
import { absolutePositionEmbedding } from "../ops/embed.ts";
import { roundOnce } from "../ops/fp8_layer.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { patchify, permute, reshape, unpatchify } from "../ops/movement.ts";
import { headsOf } from "../nn/attention.ts";
import { modulatedCrossBlock, type ModulatedCrossBlockSpec, modulatedCrossBlockSpec, runBlocks } from "../nn/block.ts";
import { applyLinear, type LinearSpec, linearSpec } from "../nn/linear.ts";
import type { Parameters, ParameterSpec } from "../nn/parameters.ts";
import { embedTimestep, type TimestepSpec, timestepSpec } from "../nn/timestep.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { expectShape, type Tensor } from "../tensor/tensor.ts";

/** Constructor options, named as in TRELLIS's configs. */
export interface SsFlowArgs {
  /** Side of the latent grid. */
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
  patch_size?: number;
  pe_mode?: "ape";
  use_fp16?: boolean;
  use_checkpoint?: boolean;
  share_mod?: boolean;
  qk_rms_norm?: boolean;
  qk_rms_norm_cross?: boolean;
}

/** Parameters of the model, under the checkpoint's names. */
export type SsFlowSpec = {
  pos_emb: ParameterSpec;
  t_embedder: TimestepSpec;
  adaLN_modulation?: { 1: LinearSpec };
  input_layer: LinearSpec;
  blocks: ModulatedCrossBlockSpec[];
  out_layer: LinearSpec;
};

/** A model: its options, the dtype of its blocks, and its parameters. */
export interface SsFlow {
  args: SsFlowArgs;
  dtype: FloatDType;
  /** Whether the blocks' linear layers compute in 8-bit floats; the weights stay in `dtype`. */
  fp8?: boolean | "all";
  params: Parameters<SsFlowSpec>;
}

/** The parameters that `args` describe; `dtype` is that of the blocks. */
export function ssFlowSpec(args: SsFlowArgs, dtype: FloatDType = args.use_fp16 ? "f16" : "f32"): SsFlowSpec {
  const { resolution, model_channels: C, patch_size: p = 2, mlp_ratio = 4, pe_mode = "ape" } = args;
  if (pe_mode !== "ape") throw new RangeError(`Cannot make SparseStructureFlowModel: pe_mode is "${pe_mode}", it must be "ape"`);
  if (resolution % p !== 0) {
    throw new RangeError(`Cannot make SparseStructureFlowModel: resolution is ${resolution}, it must be a multiple of patch_size, ${p}`);
  }
  const side = resolution / p, H = headsOf("SparseStructureFlowModel", args), shareMod = args.share_mod ?? false;
  return {
    pos_emb: { shape: [side ** 3, C], dtype: "f32", init: { values: () => gridEmbedding(side, C) }, buffer: true },
    t_embedder: timestepSpec(C),
    adaLN_modulation: shareMod ? { 1: linearSpec(C, 6 * C, "f32", { fill: 0 }) } : undefined,
    input_layer: linearSpec(args.in_channels * p ** 3, C, "f32"),
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
    out_layer: linearSpec(C, args.out_channels * p ** 3, "f32", { fill: 0 }),
  };
}

/** The position embedding of every cell of a grid, x slowest: [side³, C]. */
function gridEmbedding(side: number, C: number): Float32Array<ArrayBuffer> {
  const positions = new Int32Array(side ** 3 * 3);
  for (let i = 0; i < side ** 3; i++) positions.set([Math.floor(i / side ** 2), Math.floor(i / side) % side, i % side], 3 * i);
  return absolutePositionEmbedding(positions, C);
}

/** Options of {@linkcode ssFlow}. */
export interface SsFlowOptions {
  /** How many blocks, from the first on, are computed again in the backward pass instead of kept; by default all or none as use_checkpoint says. */
  recompute?: number;
}

/** The velocity [B, out, R, R, R] at x [B, in, R, R, R] f32, times t [B] (already times 1000), condition [B, M, X]. */
export function ssFlow({ args, dtype, fp8, params: p }: SsFlow, x: Tensor, t: Tensor, cond: Tensor, options: SsFlowOptions = {}): Tensor {
  const { resolution: R, patch_size: patch = 2, num_blocks } = args,
    B = x.shape[0],
    side = R / patch,
    H = headsOf("SparseStructureFlowModel", args);
  expectShape("ssFlow", "x", x, [B, args.in_channels, R, R, R]);
  expectShape("ssFlow", "t", t, [B]);
  expectShape("ssFlow", "cond", cond, [B, cond.shape[1], args.cond_channels]);
  const recompute = options.recompute ?? (args.use_checkpoint ? num_blocks : 0);
  let [h, mod] = tidy((): [Tensor, Tensor] => {
    const tokens = permute(reshape(patchify(x, patch), [B, args.in_channels * patch ** 3, side ** 3]), [0, 2, 1]); // [B, L, in p³]
    const embedded = add(applyLinear(p.input_layer, tokens), p.pos_emb); // [B, L, C]
    const time = embedTimestep(p.t_embedder, t); // [B, C]
    const mod = p.adaLN_modulation ? cast(applyLinear(p.adaLN_modulation[1], silu(time)), dtype) : silu(cast(time, dtype));
    return [cast(embedded, dtype), mod];
  });
  const context = cast(cond, dtype);
  if (fp8) roundOnce(context); // it is every block's
  h = runBlocks(
    p.blocks,
    [h, mod, context],
    recompute,
    (block, _, h, mod, context) => modulatedCrossBlock(block, h, mod, context, H, { fp8 }),
  );
  return tidy(() => {
    const out = applyLinear(p.out_layer, layerNorm(cast(h, "f32"), { eps: 1e-5 })); // [B, L, out p³]
    return unpatchify(reshape(permute(out, [0, 2, 1]), [B, args.out_channels * patch ** 3, side, side, side]), patch);
  });
}
