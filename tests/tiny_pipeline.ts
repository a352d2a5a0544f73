/** A pipeline of small untrained models, for tests. */
import { savePretrained } from "../lib/io/pretrained.ts";
import { slatGaussianDecoderSpec } from "../lib/models/slat_decoder_gaussian.ts";
import { slatFlowSpec } from "../lib/models/slat_flow.ts";
import { freeLeaves, initialize } from "../lib/nn/parameters.ts";
import { patchEncoderSpec } from "../lib/models/patch_encoder.ts";
import { ssFlowSpec } from "../lib/models/ss_flow.ts";
import { ssDecoderSpec } from "../lib/models/ss_vae.ts";
import { Generator } from "../lib/tensor/random.ts";
import { patchEncoder } from "../lib/train/condition.ts";
import { type PipelineToSave, savePipeline } from "../lib/train/pipeline.ts";
import type { SlatStageToSave } from "../lib/train/slat_stage.ts";

const FLOW = {
  resolution: 4,
  in_channels: 2,
  out_channels: 2,
  model_channels: 16,
  cond_channels: 16,
  num_blocks: 1,
  num_heads: 2,
  patch_size: 2,
};
const DECODER = { out_channels: 1, latent_channels: 2, num_res_blocks: 1, channels: [8, 8], num_res_blocks_middle: 0 };
const IMAGE = { image_size: 16, patch_size: 8, channels: 16, num_blocks: 1, num_heads: 2 };

/** Voxels of 8^3 from latents of 4^3 and pictures of 16 pixels. `bias` is added to every logit. */
export function tinyPipeline({ bias = 0 }: { bias?: number } = {}): PipelineToSave {
  const decoder = { args: DECODER, params: initialize(ssDecoderSpec(DECODER), new Generator(1)) };
  decoder.params.out_layer[2].bias.write([bias]);
  return {
    condition: patchEncoder(IMAGE, initialize(patchEncoderSpec(IMAGE), new Generator(2))),
    flow: { args: FLOW, params: initialize(ssFlowSpec(FLOW), new Generator(3)) },
    decoder,
    sampler: { steps: 3, cfgStrength: 2, cfgInterval: [0.25, 0.75], rescaleT: 2 },
    sigmaMin: 1e-4,
    normalization: { mean: [0.5, -0.5], std: [2, 3] },
  };
}

/** The same in a new folder, which the caller removes. */
export function tinyPipelineFolder(options?: { bias?: number }): string {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-pipeline-" });
  savePipeline(folder, tinyPipeline(options));
  return folder;
}

const SLAT_FLOW = {
  ...{ resolution: 8, in_channels: 2, out_channels: 2, model_channels: 16, cond_channels: 16, num_blocks: 1, num_heads: 2, patch_size: 2 },
  io_block_channels: [8],
};
const GAUSSIANS = {
  ...{
    lr: { _xyz: 1, _features_dc: 1, _opacity: 1, _scaling: 1, _rotation: 0.1 },
    perturb_offset: true,
    voxel_size: 1.5,
    num_gaussians: 4,
  },
  ...{ "2d_filter_kernel_size": 0.1, "3d_filter_kernel_size": 9e-4, scaling_bias: 0.03, opacity_bias: 0.3 },
  scaling_activation: "softplus",
} as const;

/** A structured-latent stage for the voxels of {@linkcode tinyPipeline}; the pair of its decoder is written into `folder`. */
export function tinySlatStage(folder: string): SlatStageToSave {
  const args = { resolution: 8, model_channels: 16, latent_channels: 2, num_blocks: 1, num_heads: 2, representation_config: GAUSSIANS };
  const decoder = initialize(slatGaussianDecoderSpec(args), new Generator(4));
  savePretrained(`${folder}/slat_decoder`, { name: "SLatGaussianDecoder", args }, decoder);
  freeLeaves(decoder);
  return {
    condition: patchEncoder(IMAGE, initialize(patchEncoderSpec(IMAGE), new Generator(5))),
    flow: { args: SLAT_FLOW, params: initialize(slatFlowSpec(SLAT_FLOW), new Generator(6)) },
    decoder: `${folder}/slat_decoder`,
    sampler: { steps: 2, cfgStrength: 1, cfgInterval: [0, 1], rescaleT: 1 },
    sigmaMin: 1e-5,
    normalization: { mean: [0.25, -1], std: [1.5, 0.5] },
    structure: null,
  };
}
