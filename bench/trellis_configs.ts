/** Training configs with the keys and values that TRELLIS publishes for its four image-to-3D stages. */
import {
  PUBLISHED_SLAT_ENCODER,
  PUBLISHED_SLAT_FLOW,
  PUBLISHED_SLAT_GAUSSIAN_DECODER,
  PUBLISHED_SLAT_NORMALIZATION,
  PUBLISHED_SS_DECODER,
  PUBLISHED_SS_ENCODER,
  PUBLISHED_SS_FLOW,
} from "../lib/models/published.ts";

const TRAINER = {
  max_steps: 1_000_000,
  optimizer: { name: "AdamW", args: { lr: 1e-4, weight_decay: 0 } },
  ema_rate: [0.9999],
  fp16_mode: "inflat_all",
  fp16_scale_growth: 0.001,
  grad_clip: { name: "AdaptiveGradClipper", args: { max_norm: 1, clip_percentile: 95 } },
  ...{ i_log: 500, i_sample: 10_000, i_save: 10_000 },
};
const ELASTIC = { elastic: { name: "LinearMemoryController", args: { target_ratio: 0.75, max_mem_ratio_start: 0.5 } } };
const FLOW = {
  p_uncond: 0.1,
  t_schedule: { name: "logitNormal", args: { mean: 1, std: 1 } },
  sigma_min: 1e-5,
  image_cond_model: "dinov2_vitl14_reg",
};
const SHOWN = { min_aesthetic_score: 4.5, image_size: 518 };

/** By the names of their recipes. */
export const TRELLIS_CONFIGS = {
  ss_vae: {
    models: {
      encoder: { name: "SparseStructureEncoder", args: PUBLISHED_SS_ENCODER },
      decoder: { name: "SparseStructureDecoder", args: PUBLISHED_SS_DECODER },
    },
    dataset: { name: "SparseStructure", args: { resolution: 64, min_aesthetic_score: 4.5 } },
    trainer: { name: "SparseStructureVaeTrainer", args: { ...TRAINER, batch_size_per_gpu: 4, loss_type: "dice", lambda_kl: 1e-3 } },
  },
  ss_flow: {
    models: { denoiser: { name: "SparseStructureFlowModel", args: PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16 } },
    dataset: { name: "ImageConditionedSparseStructureLatent", args: { ...SHOWN, latent_model: "ss_enc_conv3d_16l8_fp16" } },
    trainer: { name: "ImageConditionedFlowMatchingCFGTrainer", args: { ...TRAINER, ...FLOW, batch_size_per_gpu: 8 } },
  },
  slat_vae: {
    models: {
      encoder: { name: "ElasticSLatEncoder", args: PUBLISHED_SLAT_ENCODER },
      decoder: { name: "ElasticSLatGaussianDecoder", args: PUBLISHED_SLAT_GAUSSIAN_DECODER },
    },
    dataset: {
      name: "SparseFeat2Render",
      args: { image_size: 512, model: "dinov2_vitl14_reg", resolution: 64, min_aesthetic_score: 4.5, max_num_voxels: 32_768 },
    },
    trainer: {
      name: "SLatVaeGaussianTrainer",
      args: {
        ...{ ...TRAINER, ...ELASTIC, batch_size_per_gpu: 4, batch_split: 2 },
        ...{ loss_type: "l1", lambda_ssim: 0.2, lambda_lpips: 0.2, lambda_kl: 1e-6 },
        regularizations: { lambda_vol: 1e4, lambda_opacity: 1e-3 },
      },
    },
  },
  slat_flow: {
    models: { denoiser: { name: "ElasticSLatFlowModel", args: PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16 } },
    dataset: {
      name: "ImageConditionedSLat",
      args: {
        ...{ ...SHOWN, latent_model: "dinov2_vitl14_reg_slat_enc_swin8_B_64l8_fp16", max_num_voxels: 32_768 },
        normalization: PUBLISHED_SLAT_NORMALIZATION,
      },
    },
    trainer: {
      name: "ImageConditionedSparseFlowMatchingCFGTrainer",
      args: { ...TRAINER, ...ELASTIC, ...FLOW, batch_size_per_gpu: 8, batch_split: 4 },
    },
  },
};
