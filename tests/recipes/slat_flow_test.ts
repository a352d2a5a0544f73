/** SLat-Flow training, small: golden losses, exact resumption, no leaks, TRELLIS's config. */
import assert from "node:assert/strict";
import { LINEAR_MEMORY_DEFAULTS } from "../../lib/memory/linear_controller.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { savePretrained } from "../../lib/io/pretrained.ts";
import { PUBLISHED_SLAT_FLOW } from "../../lib/models/published.ts";
import { slatGaussianDecoderSpec } from "../../lib/models/slat_decoder_gaussian.ts";
import { slatEncoderSpec } from "../../lib/models/slat_encoder.ts";
import { freeLeaves, initialize, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { readMetrics } from "../../lib/train/metrics.ts";
import { loadSlatStage } from "../../lib/train/slat_stage.ts";
import { encode } from "../../recipes/encode.ts";
import { SLAT_FLOW_SIZES, type SlatFlowConfig, slatFlowConfig, trainSlatFlow } from "../../recipes/slat_flow.ts";
import { expectGolden } from "../golden.ts";

const FOLDER = Deno.makeTempDirSync({ prefix: "espalier_slat_flow_" }), DATA = `${FOLDER}/data`, MODELS = `${FOLDER}/slat_vae/models`;
const VAE = { resolution: 16, model_channels: 16, latent_channels: 4, num_blocks: 1, num_heads: 2, window_size: 4 };
const GAUSSIANS = {
  ...{
    lr: { _xyz: 1, _features_dc: 1, _opacity: 1, _scaling: 1, _rotation: 0.1 },
    perturb_offset: true,
    voxel_size: 1.5,
    num_gaussians: 2,
  },
  ...{ "2d_filter_kernel_size": 0.1, "3d_filter_kernel_size": 9e-4, scaling_bias: 4e-3, opacity_bias: 0.1 },
  scaling_activation: "softplus",
} as const;

/** An untrained VAE: fixed random weights, also where training starts from zeros. */
function writeVae(): void {
  const encoder = slatEncoderSpec({ ...VAE, in_channels: 9 }), args = { ...VAE, representation_config: GAUSSIANS };
  (encoder.out_layer.weight as ParameterSpec).init = { normal: 0.5 };
  Deno.mkdirSync(MODELS, { recursive: true });
  for (
    const [file, name, described, spec] of [
      ["encoder", "SLatEncoder", { ...VAE, in_channels: 9 }, encoder],
      ["decoder", "SLatGaussianDecoder", args, slatGaussianDecoderSpec(args)],
    ] as const
  ) {
    const params = initialize(spec, new Generator(5));
    savePretrained(`${MODELS}/${file}`, { name, args: { ...described } }, params);
    freeLeaves(params);
  }
}

function config(changes: Partial<SlatFlowConfig> = {}): SlatFlowConfig {
  const { tiny } = SLAT_FLOW_SIZES;
  return {
    ...tiny,
    data: { ...tiny.data, root: DATA, latents: "appearance_slat_vae", holdOut: 2 },
    decoder: `${MODELS}/decoder`,
    model: {
      ...tiny.model,
      ...{ resolution: 16, in_channels: 4, out_channels: 4, model_channels: 32, cond_channels: 32, num_blocks: 2, num_heads: 2 },
      io_block_channels: [16],
    },
    condition: { encoder: "patch", image_size: 16, patch_size: 8, channels: 32, num_blocks: 1, num_heads: 2 },
    shift: 1 / 8,
    sampler: { ...tiny.sampler, steps: 2 },
    steps: 8,
    batch: { size: 4, split: 2 },
    log: { every: 1, sampleEvery: 8, saveEvery: 4, keep: 2 },
    ...changes,
  };
}

function losses(folder: string): number[] {
  return readMetrics(`${folder}/metrics.jsonl`).loss.value;
}

Deno.test("trainSlatFlow() trains on encoded latents, evaluates and exports", async (t) => {
  const { log, error } = console;
  console.log = console.error = () => {};
  try {
    await prepareDataset({
      ...{ output: DATA, objects: 6, views: 2, size: 48, resolution: 16, features: ["appearance"], workers: 0, device: "cpu" },
    });
    writeVae();
    await encode({ data: DATA, slatEncoder: `${MODELS}/encoder` });
    await t.step("it repeats its golden losses, and its stage is there", () => {
      const { latents, heldOut, folder } = trainSlatFlow(config(), { output: `${FOLDER}/run` });
      expectGolden("slat_flow_tiny", losses(`${FOLDER}/run`));
      assert.ok(latents.objects === 3 && latents.sampled.std.every((s) => s > 0) && heldOut! > 0);
      const stage = loadSlatStage(folder);
      assert.deepEqual(stage.flow.args, config().model);
      assert.equal(stage.decoder.args.representation_config.num_gaussians, 2);
      freeLeaves([stage.flow.params, stage.decoder.params, stage.condition.trained]);
    });
    await t.step("a run that stops after four steps and goes on has the losses of an uncut one, to the bit", () => {
      trainSlatFlow(config({ steps: 4 }), { output: `${FOLDER}/cut` });
      trainSlatFlow(config(), { output: `${FOLDER}/cut` });
      assert.deepEqual(losses(`${FOLDER}/cut`), losses(`${FOLDER}/run`));
    });
    await t.step("memory in use is the same after ten steps and after sixty of varying sizes, and all given back at the end", () => {
      const before = device().memory.use().used, quiet = { every: 10, sampleEvery: 0, saveEvery: 0, keep: 1 };
      trainSlatFlow(config({ steps: 60, log: quiet, batch: { size: 2, split: 1 } }), { output: `${FOLDER}/leak` });
      const { memory_used, voxels } = readMetrics(`${FOLDER}/leak/metrics.jsonl`);
      assert.deepEqual([memory_used.value.length, new Set(memory_used.value).size], [6, 1]);
      assert.ok(new Set(voxels.value).size > 1);
      assert.equal(device().memory.use().used, before);
    });
    await t.step("objects in other colours: a cut run goes on to the bit, memory is given back, and it is another run", () => {
      const before = device().memory.use().used, recolor = { part: 0.6, gain: 0.5, encoder: `${MODELS}/encoder` };
      trainSlatFlow(config({ recolor }), { output: `${FOLDER}/colors` });
      assert.equal(device().memory.use().used, before);
      trainSlatFlow(config({ recolor, steps: 4 }), { output: `${FOLDER}/colors_cut` });
      trainSlatFlow(config({ recolor }), { output: `${FOLDER}/colors_cut` });
      assert.deepEqual(losses(`${FOLDER}/colors_cut`), losses(`${FOLDER}/colors`));
      assert.notDeepEqual(losses(`${FOLDER}/colors`), losses(`${FOLDER}/run`));
    });
    await t.step("what does not fit is refused", () => {
      const refused = (changes: Partial<SlatFlowConfig>, message: RegExp) =>
        assert.throws(() => trainSlatFlow(config(changes), { output: `${FOLDER}/refused` }), message);
      refused({ model: { ...config().model, cond_channels: 48 } }, /model\.cond_channels is 48, it must be 32 for the encoder patch/);
      refused(
        { decoder: null, model: { ...config().model, in_channels: 8 }, normalization: { mean: Array(8).fill(0), std: Array(8).fill(1) } },
        /it has 4 channels/,
      );
      refused({ model: { ...config().model, resolution: 8 } }, /its resolution is 16, it must be the flow model's 8/);
      refused({ decoder: null, model: { ...config().model, resolution: 8 } }, /a voxel index is \d+, it must be below the model's 8/);
      refused({ data: { ...config().data, latents: "other" } }, /no object is left \(all: 6, latent_other: 0/);
      refused({ data: { ...config().data, maxVoxels: 5 } }, /voxels <= 5: 0/);
      refused({ batch: { size: 2, split: 3 } }, /batch\.split is 3/);
      refused({ recolor: { part: 1, gain: 0, encoder: null } }, /recolor\.encoder is null/);
      refused({ decoder: `${FOLDER}/nowhere` }, /nowhere\.json/);
      refused({ decoder: `${MODELS}/encoder` }, /describes a SLatEncoder, it must describe a SLatGaussianDecoder/);
      refused({ structure: `${FOLDER}/nowhere` }, /Cannot read .*nowhere\/pipeline\.json/);
      refused({ normalization: { mean: [0], std: [1] } }, /statistics as many/);
    });
  } finally {
    Object.assign(console, { log, error });
    Deno.removeSync(FOLDER, { recursive: true });
  }
});

Deno.test("slatFlowConfig() takes TRELLIS's config", () => {
  const file = Deno.makeTempFileSync({ suffix: ".json" }), args = PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16;
  const normalization = SLAT_FLOW_SIZES.published.normalization, latents = "dinov2_vitl14_reg_slat_enc_swin8_B_64l8_fp16";
  const trellis = {
    models: { denoiser: { name: "ElasticSLatFlowModel", args } },
    dataset: {
      name: "ImageConditionedSLat",
      args: {
        ...{ latent_model: latents, min_aesthetic_score: 4.5, max_num_voxels: 32768, normalization, image_size: 518 },
        pretrained_slat_dec: "microsoft/TRELLIS-image-large/ckpts/slat_dec_gs_swin8_B_64l8gs32_fp16",
      },
    },
    trainer: {
      name: "ImageConditionedSparseFlowMatchingCFGTrainer",
      args: {
        ...{
          max_steps: 1000000,
          batch_size_per_gpu: 8,
          batch_split: 4,
          ema_rate: [0.9999],
          fp16_mode: "inflat_all",
          fp16_scale_growth: 0.001,
        },
        optimizer: { name: "AdamW", args: { lr: 1e-4, weight_decay: 0 } },
        elastic: { name: "LinearMemoryController", args: { target_ratio: 0.75, max_mem_ratio_start: 0.5 } },
        grad_clip: { name: "AdaptiveGradClipper", args: { max_norm: 1, clip_percentile: 95 } },
        ...{ i_log: 500, i_sample: 10000, i_save: 10000, p_uncond: 0.1, sigma_min: 1e-5, image_cond_model: "dinov2_vitl14_reg" },
        t_schedule: { name: "logitNormal", args: { mean: 1, std: 1 } },
      },
    },
  };
  try {
    Deno.writeTextFileSync(file, JSON.stringify(trellis));
    assert.deepEqual(slatFlowConfig({ size: "tiny", file, overrides: [] }), {
      ...SLAT_FLOW_SIZES.published,
      memory: { ...LINEAR_MEMORY_DEFAULTS, policy: "linear", targetRatio: 0.75, maxMemRatioStart: 0.5 },
    });
    for (const [size, preset] of Object.entries(SLAT_FLOW_SIZES)) assert.deepEqual(slatFlowConfig({ size, overrides: [] }), preset);
    assert.throws(
      () => slatFlowConfig({ size: "tiny", overrides: ["data.maxVoxel=3"] }),
      /the key is data\.maxVoxel, .*did you mean maxVoxels/,
    );
    Deno.writeTextFileSync(file, JSON.stringify({ ...trellis, dataset: { name: "SLat", args: { max_voxels: 1 } } }));
    assert.throws(() => slatFlowConfig({ size: "tiny", file, overrides: [] }), /dataset\.args has max_voxels/);
  } finally {
    Deno.removeSync(file);
  }
});
