import assert from "node:assert/strict";
import type { Json } from "../../lib/train/config.ts";
import { isTrellisConfig, readTrellisConfig, trellisModel, trellisTrainer } from "../../lib/train/trellis.ts";

/** The trainer settings that all published configs share. */
const SHARED = {
  max_steps: 1000000,
  batch_split: 1,
  optimizer: { name: "AdamW", args: { lr: 1e-4, weight_decay: 0.0 } },
  ema_rate: [0.9999],
  fp16_mode: "inflat_all",
  fp16_scale_growth: 0.001,
  grad_clip: { name: "AdaptiveGradClipper", args: { max_norm: 1.0, clip_percentile: 95 } },
  i_log: 500,
  i_sample: 10000,
  i_save: 10000,
};

const FLOW_ARGS = { resolution: 16, in_channels: 8, out_channels: 8, model_channels: 1024, cond_channels: 1024, num_blocks: 24 };

/** A config like ss_flow_img_dit_L_16l8_fp16. */
const SS_FLOW = {
  models: { denoiser: { name: "SparseStructureFlowModel", args: FLOW_ARGS } },
  dataset: { name: "ImageConditionedSparseStructureLatent", args: { min_aesthetic_score: 4.5, image_size: 518 } },
  trainer: {
    name: "ImageConditionedFlowMatchingCFGTrainer",
    args: {
      ...SHARED,
      batch_size_per_gpu: 8,
      p_uncond: 0.1,
      t_schedule: { name: "logitNormal", args: { mean: 1.0, std: 1.0 } },
      sigma_min: 1e-5,
      image_cond_model: "dinov2_vitl14_reg",
    },
  },
};

/** A config like ss_vae_conv3d_16l8_fp16. */
const SS_VAE = {
  models: {
    encoder: { name: "SparseStructureEncoder", args: { in_channels: 1, channels: [32, 128, 512] } },
    decoder: { name: "SparseStructureDecoder", args: { out_channels: 1, channels: [512, 128, 32] } },
  },
  dataset: { name: "SparseStructure", args: { resolution: 64 } },
  trainer: { name: "SparseStructureVaeTrainer", args: { ...SHARED, batch_size_per_gpu: 4, loss_type: "dice", lambda_kl: 0.001 } },
};

const PUBLISHED = {
  steps: 1000000,
  optimizer: {
    lr: 1e-4,
    weightDecay: 0,
    clip: { maxNorm: 1, percentile: 95 },
    emaRates: [0.9999],
    scaleGrowth: 0.001,
  },
  log: { every: 500, sampleEvery: 10000, saveEvery: 10000 },
};

/** The flow config with other trainer settings. */
function withTrainer(args: Record<string, Json>): Json {
  return { ...SS_FLOW, trainer: { ...SS_FLOW.trainer, args: { ...SS_FLOW.trainer.args, ...args } } };
}

const trainer = (args: Record<string, Json>) => trellisTrainer(readTrellisConfig(withTrainer(args)));

Deno.test("isTrellisConfig() tells TRELLIS's configs from ours", () => {
  assert.ok(isTrellisConfig(SS_FLOW) && isTrellisConfig(SS_VAE));
  for (const other of [null, 3, [], { models: {} }, { model: {}, steps: 5 }] as Json[]) assert.ok(!isTrellisConfig(other));
});

Deno.test("trellisTrainer() and trellisModel() translate the published configs", () => {
  const flow = readTrellisConfig(SS_FLOW), vae = readTrellisConfig(SS_VAE);
  assert.deepEqual(trellisTrainer(flow), { ...PUBLISHED, batch: { size: 8, split: 1 } });
  assert.deepEqual(trellisTrainer(vae), { ...PUBLISHED, batch: { size: 4, split: 1 } });
  assert.deepEqual(trellisModel(flow, "SparseStructureFlowModel"), FLOW_ARGS);
  assert.deepEqual(trellisModel(vae, "SparseStructureEncoder"), { in_channels: 1, channels: [32, 128, 512] });
  assert.deepEqual(trellisModel(vae, "SparseStructureDecoder"), { out_channels: 1, channels: [512, 128, 32] });
  assert.equal(flow.dataset.name, "ImageConditionedSparseStructureLatent");
});

Deno.test("trellisModel() takes an elastic model for its plain class, and says which models there are", () => {
  const config = readTrellisConfig({ ...SS_FLOW, models: { a: { name: "ElasticSLatFlowModel", args: { x: 1 } }, b: { name: "Other" } } });
  assert.deepEqual(trellisModel(config, "SLatFlowModel"), { x: 1 });
  assert.deepEqual(trellisModel(config, "Other"), {});
  assert.throws(() => trellisModel(config, "SparseStructureFlowModel"), {
    name: "ConfigError",
    message: "Cannot use the TRELLIS config: its models are ElasticSLatFlowModel, Other, one must be SparseStructureFlowModel",
  });
});

Deno.test("trellisTrainer() knows the other forms of a setting", () => {
  const optimizerOf = (args: Record<string, Json>) => trainer(args).optimizer as Record<string, Json>;
  assert.deepEqual(optimizerOf({ grad_clip: 0.5 }).clip, { maxNorm: 0.5, percentile: null });
  assert.deepEqual(optimizerOf({ grad_clip: null }).clip, { maxNorm: null, percentile: null });
  assert.deepEqual(optimizerOf({ grad_clip: { name: "AdaptiveGradClipper" } }).clip, { maxNorm: null, percentile: 95 });
  assert.deepEqual(optimizerOf({ ema_rate: 0.99 }).emaRates, [0.99]);
  const betas = { name: "AdamW", args: { lr: 1, betas: [0.9, 0.95], eps: 1e-6 } };
  const { weightDecay: _, ...rest } = PUBLISHED.optimizer;
  assert.deepEqual(optimizerOf({ optimizer: betas }), { ...rest, lr: 1, betas: [0.9, 0.95], eps: 1e-6 });
  assert.deepEqual(trainer({ batch_size_per_gpu: null, batch_size: 6, batch_split: 2 }).batch, { size: 6, split: 2 });
  assert.deepEqual(trainer({ lr_scheduler: null, elastic: null, finetune_ckpt: null, fp16_mode: null }).steps, 1000000);
});

Deno.test("trellisTrainer() refuses what it would have to ignore", () => {
  const refused = (args: Record<string, Json>, message: RegExp) => assert.throws(() => trainer(args), { name: "ConfigError", message });
  refused({ lr_schedular: {} }, /^Cannot use the TRELLIS config: trainer\.args has lr_schedular, it must be one of max_steps, /);
  refused({ lr_scheduler: { name: "StepLR" } }, /trainer\.args\.lr_scheduler is \{"name":"StepLR"\}, it must be absent for this recipe$/);
  refused({ elastic: { name: "LinearMemoryController" } }, /trainer\.args\.elastic is /);
  refused({ finetune_ckpt: { denoiser: "x.pt" } }, /trainer\.args\.finetune_ckpt is /);
  refused({ optimizer: { name: "SGD", args: {} } }, /the optimizer is SGD, it must be AdamW$/);
  refused({ optimizer: "AdamW" }, /trainer\.args\.optimizer is "AdamW", it must be a record$/);
  refused({ optimizer: { name: "AdamW", args: { amsgrad: true } } }, /optimizer\.args has amsgrad, it must be one of lr, weight_decay, /);
  refused({ grad_clip: { name: "AdaptiveGradClipper", args: { buffer_size: 9 } } }, /grad_clip\.args has buffer_size, it must be one of /);
  refused({ fp16_mode: "amp" }, /fp16_mode is "amp", it must be "inflat_all" or absent$/);
  refused(
    { grad_clip: { name: "Other", args: {} } },
    /grad_clip is \{"name":"Other","args":\{\}\}, it must be a number or an AdaptiveGradClipper$/,
  );
});

Deno.test("readTrellisConfig() and trellisTrainer() take what a recipe says that it knows besides", () => {
  const elastic = withTrainer({ elastic: { name: "LinearMemoryController" } });
  assert.equal(trellisTrainer(readTrellisConfig(elastic), { elastic: true }).steps, 1000000);
  const config = { ...SS_FLOW, dataset: { name: "D", args: { max_num_voxels: 9 } } };
  assert.equal(readTrellisConfig(config, ["max_num_voxels"]).dataset.args.max_num_voxels, 9);
});

Deno.test("readTrellisConfig() names the block that is wrong", () => {
  const refused = (config: Json, message: RegExp) => assert.throws(() => readTrellisConfig(config), { name: "ConfigError", message });
  refused({ ...SS_FLOW, models: null }, /models is missing, it must be a record of models$/);
  refused({ ...SS_FLOW, models: { denoiser: "x" } }, /models\.denoiser is "x", it must be \{"name": \.\.\., "args": \{\.\.\.\}\}$/);
  refused({ models: SS_FLOW.models, trainer: SS_FLOW.trainer }, /dataset is undefined, it must be /);
  refused(
    { ...SS_FLOW, dataset: { name: "D", args: { normalization: {} } } },
    /dataset\.args has normalization, it must be one of resolution, /,
  );
  refused({ ...SS_FLOW, trainer: { name: "T", args: [] } }, /trainer is \{"name":"T","args":\[\]\}, it must be /);
});
