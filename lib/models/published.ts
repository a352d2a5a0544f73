/** The sizes of the models that TRELLIS publishes, by the names of their configs. */
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
