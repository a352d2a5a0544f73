/** The sizes of the models that TRELLIS publishes, by the names of their configs. */
import type { GaussianConfig, SlatGaussianDecoderArgs } from "./slat_decoder_gaussian.ts";
import type { SlatMeshDecoderArgs } from "./slat_decoder_mesh.ts";
import type { SlatRadianceDecoderArgs } from "./slat_decoder_radiance.ts";
import type { SlatEncoderArgs } from "./slat_encoder.ts";
import type { SlatFlowArgs } from "./slat_flow.ts";
import type { SsFlowArgs } from "./ss_flow.ts";
import type { SsDecoderArgs, SsEncoderArgs } from "./ss_vae.ts";

const SS_VAE = { latent_channels: 8, num_res_blocks: 2, num_res_blocks_middle: 2, norm_type: "layer", use_fp16: true } as const;

/** The encoder of ss_vae_conv3d_16l8_fp16. */
export const PUBLISHED_SS_ENCODER: SsEncoderArgs = { in_channels: 1, ...SS_VAE, channels: [32, 128, 512] };

/** The decoder of ss_vae_conv3d_16l8_fp16. */
export const PUBLISHED_SS_DECODER: SsDecoderArgs = { out_channels: 1, ...SS_VAE, channels: [512, 128, 32] };

const SS_FLOW: Omit<SsFlowArgs, "model_channels" | "cond_channels" | "num_blocks"> = {
  resolution: 16,
  in_channels: 8,
  out_channels: 8,
  patch_size: 1,
  mlp_ratio: 4,
  pe_mode: "ape",
  qk_rms_norm: true,
  share_mod: false,
  use_fp16: true,
};

/** The sparse-structure flow models. */
export const PUBLISHED_SS_FLOW: Record<string, SsFlowArgs> = {
  ss_flow_img_dit_L_16l8_fp16: { ...SS_FLOW, model_channels: 1024, cond_channels: 1024, num_blocks: 24, num_heads: 16 },
  ss_flow_txt_dit_B_16l8_fp16: { ...SS_FLOW, model_channels: 768, cond_channels: 768, num_blocks: 12, num_heads: 12 },
  ss_flow_txt_dit_L_16l8_fp16: { ...SS_FLOW, model_channels: 1024, cond_channels: 768, num_blocks: 24, num_heads: 16 },
  ss_flow_txt_dit_XL_16l8_fp16: {
    ...SS_FLOW,
    model_channels: 1280,
    cond_channels: 768,
    num_blocks: 28,
    num_heads: 16,
    qk_rms_norm_cross: true,
  },
};

const SLAT_VAE = {
  resolution: 64,
  model_channels: 768,
  latent_channels: 8,
  num_blocks: 12,
  num_heads: 12,
  mlp_ratio: 4,
  attn_mode: "swin",
  window_size: 8,
  use_fp16: true,
} as const;

/** The encoder of slat_vae_enc_dec_gs_swin8_B_64l8_fp16. */
export const PUBLISHED_SLAT_ENCODER: SlatEncoderArgs = { ...SLAT_VAE, in_channels: 1024 };

const GAUSSIANS: GaussianConfig = {
  lr: { _xyz: 1, _features_dc: 1, _opacity: 1, _scaling: 1, _rotation: 0.1 },
  perturb_offset: true,
  voxel_size: 1.5,
  num_gaussians: 32,
  "2d_filter_kernel_size": 0.1,
  "3d_filter_kernel_size": 9e-4,
  scaling_bias: 4e-3,
  opacity_bias: 0.1,
  scaling_activation: "softplus",
};

/** The decoder of slat_vae_enc_dec_gs_swin8_B_64l8_fp16. */
export const PUBLISHED_SLAT_GAUSSIAN_DECODER: SlatGaussianDecoderArgs = { ...SLAT_VAE, representation_config: GAUSSIANS };

/** The decoder of slat_vae_dec_rf_swin8_B_64l8_fp16. */
export const PUBLISHED_SLAT_RADIANCE_DECODER: SlatRadianceDecoderArgs = { ...SLAT_VAE, representation_config: { rank: 16, dim: 8 } };

/** The decoder of slat_vae_dec_mesh_swin8_B_64l8_fp16. */
export const PUBLISHED_SLAT_MESH_DECODER: SlatMeshDecoderArgs = { ...SLAT_VAE, representation_config: { use_color: true } };

const SLAT_FLOW: Omit<SlatFlowArgs, "model_channels" | "cond_channels" | "num_blocks"> = {
  resolution: 64,
  in_channels: 8,
  out_channels: 8,
  patch_size: 2,
  mlp_ratio: 4,
  pe_mode: "ape",
  num_io_res_blocks: 2,
  io_block_channels: [128],
  use_skip_connection: true,
  qk_rms_norm: true,
  share_mod: false,
  use_fp16: true,
};

/** The flow models of structured latents. */
export const PUBLISHED_SLAT_FLOW: Record<string, SlatFlowArgs> = {
  slat_flow_img_dit_L_64l8p2_fp16: { ...SLAT_FLOW, model_channels: 1024, cond_channels: 1024, num_blocks: 24, num_heads: 16 },
  slat_flow_txt_dit_B_64l8p2_fp16: { ...SLAT_FLOW, model_channels: 768, cond_channels: 768, num_blocks: 12, num_heads: 12 },
  slat_flow_txt_dit_L_64l8p2_fp16: { ...SLAT_FLOW, model_channels: 1024, cond_channels: 768, num_blocks: 24, num_heads: 16 },
  slat_flow_txt_dit_XL_64l8p2_fp16: {
    ...SLAT_FLOW,
    model_channels: 1280,
    cond_channels: 768,
    num_blocks: 28,
    num_heads: 16,
    num_io_res_blocks: 3,
    io_block_channels: [256],
  },
};

/** Mean and deviation by channel of the published structured latents: their flow models work on (z - mean) / std. */
export const PUBLISHED_SLAT_NORMALIZATION: { mean: number[]; std: number[] } = {
  mean: [
    ...[-2.1687545776367188, -0.004347046371549368, -0.13352349400520325, -0.08418072760105133],
    ...[-0.5271206498146057, 0.7238689064979553, -1.1414450407028198, 1.2039363384246826],
  ],
  std: [
    ...[2.377650737762451, 2.386378288269043, 2.124418020248413, 2.1748552322387695],
    ...[2.663944721221924, 2.371192216873169, 2.6217446327209473, 2.684523105621338],
  ],
};
