/** Schemas and defaults that the training configs share. */
import { z } from "zod";
import type { OptimizerConfig } from "../optim/optimizer.ts";
import type { LogConfig } from "./run.ts";

/** A whole number from 1 up. */
export const COUNT: z.ZodType<number> = z.int().min(1);

/** Of {@linkcode OptimizerConfig}. */
export const OPTIMIZER_SCHEMA: z.ZodType<OptimizerConfig> = z.strictObject({
  lr: z.number().positive(),
  weightDecay: z.number().min(0),
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]),
  eps: z.number().positive(),
  warmup: z.int().min(0),
  clip: z.strictObject({ maxNorm: z.number().positive().nullable(), percentile: z.number().gt(0).max(100).nullable() }),
  emaRates: z.array(z.number().gt(0).lt(1)).min(1),
  scaleGrowth: z.number().min(0),
  momentBits: z.union([z.literal(8), z.literal(32)]),
  onHost: z.enum(["nothing", "means", "state"]),
  shard: z.boolean(),
});

/** How a step takes its samples. */
export interface BatchConfig {
  /** Samples a step. */
  size: number;
  /** Parts of it that go through the model one after another. */
  split: number;
  /** Whether every step has the same samples, as many as a batch: a model that cannot learn them by heart is broken. */
  overfit?: boolean;
}

/** Of {@linkcode BatchConfig}. */
export const BATCH_SCHEMA = z.strictObject({ size: COUNT, split: COUNT, overfit: z.boolean().optional() });

/** Of `RecolorOptions`. */
export const RECOLOR_SCHEMA: z.ZodObject<{ part: z.ZodNumber; gain: z.ZodNumber }> = z.strictObject({
  part: z.number().min(0).max(1),
  gain: z.number().min(0).max(1),
});

/** Of {@linkcode LogConfig}. */
export const LOG_SCHEMA: z.ZodType<LogConfig> = z.strictObject({
  every: COUNT,
  sampleEvery: z.int().min(0),
  saveEvery: z.int().min(0),
  keep: COUNT,
  milestoneEvery: z.int().min(0).optional(),
  histogramEvery: z.int().min(0).optional(),
});

const DEPTH = z.int().min(0), FLAG = z.boolean().optional();

/** Of `SsFlowArgs`. */
export const SS_FLOW_ARGS = z.strictObject({
  ...{ resolution: COUNT, in_channels: COUNT, out_channels: COUNT, model_channels: COUNT, cond_channels: COUNT, num_blocks: COUNT },
  ...{ num_heads: COUNT.optional(), num_head_channels: COUNT.optional(), mlp_ratio: z.number().positive().optional() },
  ...{ patch_size: COUNT.optional(), pe_mode: z.literal("ape").optional(), use_fp16: FLAG, use_checkpoint: FLAG },
  ...{ share_mod: FLAG, qk_rms_norm: FLAG, qk_rms_norm_cross: FLAG },
});

const SS_VAE_ARGS = z.strictObject({
  ...{ latent_channels: COUNT, num_res_blocks: DEPTH, num_res_blocks_middle: DEPTH.optional(), channels: z.array(COUNT).min(1) },
  ...{ norm_type: z.enum(["layer", "group"]).optional(), use_fp16: FLAG },
});

/** Of `SsEncoderArgs`. */
export const SS_ENCODER_ARGS = SS_VAE_ARGS.extend({ in_channels: COUNT });

/** Of `SsDecoderArgs`. */
export const SS_DECODER_ARGS = SS_VAE_ARGS.extend({ out_channels: COUNT });

/** Of `PatchEncoderArgs`. */
export const PATCH_ENCODER_ARGS = z.strictObject({
  ...{ image_size: COUNT, patch_size: COUNT, channels: COUNT, num_blocks: COUNT, num_heads: COUNT },
  ...{ stem_channels: z.array(COUNT).optional(), grid_size: DEPTH.optional(), use_fp16: FLAG },
});

const SPARSE_TRANSFORMER_ARGS = z.strictObject({
  ...{ resolution: COUNT, model_channels: COUNT, num_blocks: DEPTH, num_heads: COUNT.optional(), num_head_channels: COUNT.optional() },
  ...{ mlp_ratio: z.number().positive().optional(), window_size: COUNT.optional(), pe_mode: z.literal("ape").optional() },
  attn_mode: z.enum(["full", "swin", "shift_window", "shift_sequence", "shift_order"]).optional(),
  ...{ use_fp16: FLAG, use_checkpoint: FLAG, qk_rms_norm: FLAG },
});

/** Of `SlatEncoderArgs`. */
export const SLAT_ENCODER_ARGS = SPARSE_TRANSFORMER_ARGS.extend({ in_channels: COUNT, latent_channels: COUNT });

/** Of `SlatGaussianDecoderArgs`. */
export const SLAT_GAUSSIAN_DECODER_ARGS = SPARSE_TRANSFORMER_ARGS.extend({
  latent_channels: COUNT,
  representation_config: z.strictObject({
    lr: z.strictObject({
      ...{ _xyz: z.number(), _features_dc: z.number(), _opacity: z.number(), _scaling: z.number(), _rotation: z.number() },
    }),
    ...{ perturb_offset: z.boolean(), voxel_size: z.number().positive(), num_gaussians: COUNT },
    ...{ "2d_filter_kernel_size": z.number().min(0), "3d_filter_kernel_size": z.number().min(0) },
    ...{ scaling_bias: z.number().positive(), opacity_bias: z.number().gt(0).lt(1), scaling_activation: z.enum(["exp", "softplus"]) },
  }),
});

/** Of `SlatFlowArgs`. */
export const SLAT_FLOW_ARGS = z.strictObject({
  ...{ resolution: COUNT, in_channels: COUNT, out_channels: COUNT, model_channels: COUNT, cond_channels: COUNT, num_blocks: COUNT },
  ...{ num_heads: COUNT.optional(), num_head_channels: COUNT.optional(), mlp_ratio: z.number().positive().optional() },
  ...{ patch_size: COUNT.optional(), num_io_res_blocks: COUNT.optional(), io_block_channels: z.array(COUNT).nullable().optional() },
  ...{ use_skip_connection: FLAG, pe_mode: z.literal("ape").optional(), use_fp16: FLAG, use_checkpoint: FLAG },
  ...{ share_mod: FLAG, qk_rms_norm: FLAG, qk_rms_norm_cross: FLAG },
});
