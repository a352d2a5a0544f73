/**
 * Trains the structured-latent VAE: features on an object's voxels to a latent on each, and the latents to 3D Gaussians that are drawn and compared
 * with pictures of the object.
 *
 *   deno task prepare -- --input my_assets --output DATASET --renders --features appearance
 *   deno task train:slat-vae -- --data DATASET --output runs/slat_vae [--size tiny|small|published] [--config FILE.json] [--key.key=value ...]
 *
 * `published` is TRELLIS's slat_vae_enc_dec_gs_swin8_B_64l8_fp16 (on DINOv2 features, with LPIPS, whose weights `loss.lpipsWeights` names); `small`
 * is for hundreds to thousands of objects on one GPU; `tiny` (32^3) runs on a CPU. `--config` also takes TRELLIS's own JSON.
 */
import * as e from "../mod.ts";
import { z } from "../mod.ts";
import { compose, contactSheet, inputOf, measureQuality, planes, type SlatVaeQuality, voxelsOf } from "./slat_vae_quality.ts";

/** Everything that decides a run. */
export interface SlatVaeConfig {
  data: {
    root: string;
    features: string;
    /** Voxels along a side as the objects were prepared; the networks' resolution divides it. */
    resolution: number;
    imageSize: number;
    holdOut: number;
    minAestheticScore: number | null;
    maxVoxels: number;
  };
  encoder: e.SlatEncoderArgs;
  decoder: e.SlatGaussianDecoderArgs;
  loss: {
    type: "l1" | "l2";
    ssim: number;
    lpips: number;
    /** VGG's and the heads' weights (safetensors), where lpips is not 0. */
    lpipsWeights: string | null;
    kl: number;
    /** Of the Gaussians' volumes, and of their opacities' distance from 1. */
    volume: number;
    opacity: number;
  };
  /** Objects in other colours, where the features are `appearance`: few objects show few colours. */
  recolor: e.RecolorOptions;
  /** How much larger than usual the weights of the input layers start: few channels would be drowned by the position embedding. */
  inputGain: number;
  /** How many blocks of each network are computed again in the backward pass instead of kept. */
  recompute: number;
  /** What decides that for each micro-batch instead: plans within the memory limit, or TRELLIS's LinearMemoryController; null for none. */
  memory: e.MemoryConfig | null;
  steps: number;
  seed: number;
  /** auto: f16 where the models say use_fp16 and the device is a GPU, else f32. */
  precision: "auto" | "f32" | "f16" | "bf16";
  /** `views` pictures of each of `size` objects a step. */
  batch: e.BatchConfig & { views: number };
  optimizer: e.OptimizerConfig;
  log: e.LogConfig;
}

const { representation_config: GAUSSIANS, ...PUBLISHED } = e.PUBLISHED_SLAT_GAUSSIAN_DECODER;
const LOSS: SlatVaeConfig["loss"] = { type: "l1", ssim: 0.2, lpips: 0, lpipsWeights: null, kl: 1e-6, volume: 1e4, opacity: 1e-3 };
const KEEP_ALL = { recompute: 0, memory: null };
const TINY = { ...PUBLISHED, resolution: 32, latent_channels: 4, model_channels: 48, num_blocks: 2, num_heads: 3, mlp_ratio: 2 };
const SMALL = { ...PUBLISHED, model_channels: 256, num_blocks: 6, num_heads: 4 };

/** The sizes to start from. */
export const SLAT_VAE_SIZES: Record<string, SlatVaeConfig> = {
  tiny: {
    data: {
      root: "out/dataset",
      features: "appearance",
      resolution: 32,
      imageSize: 64,
      holdOut: 0,
      minAestheticScore: null,
      maxVoxels: 32768,
    },
    encoder: { ...TINY, in_channels: e.APPEARANCE_CHANNELS },
    decoder: { ...TINY, representation_config: { ...GAUSSIANS, num_gaussians: 4, scaling_bias: 0.012 } },
    loss: { ...LOSS, volume: 0 },
    recolor: e.NO_RECOLOR,
    inputGain: 6,
    ...KEEP_ALL,
    steps: 300,
    seed: 0,
    precision: "auto",
    batch: { size: 2, views: 2, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 3e-3, warmup: 10, emaRates: [0.98] },
    log: { every: 10, sampleEvery: 100, saveEvery: 100, keep: 2 },
  },
  small: {
    data: {
      root: "out/dataset",
      features: "appearance",
      resolution: 64,
      imageSize: 256,
      holdOut: 10,
      minAestheticScore: null,
      maxVoxels: 32768,
    },
    encoder: { ...SMALL, in_channels: e.APPEARANCE_CHANNELS },
    decoder: { ...SMALL, representation_config: { ...GAUSSIANS, num_gaussians: 8, scaling_bias: 6e-3 } },
    loss: { ...LOSS, volume: 1e3 },
    recolor: e.NO_RECOLOR,
    inputGain: 8,
    ...KEEP_ALL,
    steps: 4000,
    seed: 0,
    precision: "auto",
    batch: { size: 8, views: 2, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 1.2e-3, betas: [0.9, 0.99], warmup: 200, emaRates: [0.995] },
    log: { every: 50, sampleEvery: 1000, saveEvery: 2000, keep: 2 },
  },
  published: {
    data: {
      root: "out/dataset",
      features: "dinov2_vitl14_reg",
      resolution: 64,
      imageSize: 512,
      holdOut: 0,
      minAestheticScore: 4.5,
      maxVoxels: 32768,
    },
    encoder: e.PUBLISHED_SLAT_ENCODER,
    decoder: e.PUBLISHED_SLAT_GAUSSIAN_DECODER,
    loss: { ...LOSS, lpips: 0.2 },
    recolor: e.NO_RECOLOR,
    inputGain: 1,
    ...KEEP_ALL,
    steps: 1_000_000,
    seed: 0,
    precision: "auto",
    batch: { size: 4, views: 1, split: 2 },
    optimizer: e.OPTIMIZER_DEFAULTS,
    log: { every: 500, sampleEvery: 10_000, saveEvery: 10_000, keep: 10 },
  },
};

const WEIGHT = z.number().min(0);
const SCHEMA: z.ZodType<SlatVaeConfig> = z.strictObject({
  data: z.strictObject({
    root: z.string(),
    features: z.string(),
    resolution: e.COUNT,
    imageSize: e.COUNT,
    holdOut: z.int().min(0),
    minAestheticScore: z.number().nullable(),
    maxVoxels: e.COUNT,
  }),
  encoder: e.SLAT_ENCODER_ARGS,
  decoder: e.SLAT_GAUSSIAN_DECODER_ARGS,
  loss: z.strictObject({
    type: z.enum(["l1", "l2"]),
    ...{ ssim: WEIGHT, lpips: WEIGHT, lpipsWeights: z.string().nullable(), kl: WEIGHT, volume: WEIGHT, opacity: WEIGHT },
  }),
  recolor: e.RECOLOR_SCHEMA,
  inputGain: z.number().positive(),
  recompute: z.int().min(0),
  memory: e.MEMORY_SCHEMA.nullable(),
  steps: e.COUNT,
  seed: z.int().min(0),
  precision: e.PRECISION_SCHEMA,
  batch: e.BATCH_SCHEMA.extend({ views: e.COUNT }),
  optimizer: e.OPTIMIZER_SCHEMA,
  log: e.LOG_SCHEMA,
});

/** TRELLIS's SLat-VAE config with the Gaussian decoder in our terms. */
function fromTrellis(json: e.Json): e.Json {
  const config = e.readTrellisConfig(json, ["model", "max_num_voxels"]), { name, args } = config.trainer, { args: data } = config.dataset;
  if (name !== "SLatVaeGaussianTrainer") {
    throw new e.ConfigError(`Cannot use the TRELLIS config: its trainer is ${name}, it must be SLatVaeGaussianTrainer for this recipe`);
  }
  const { lambda_vol = 0, lambda_opacity = 0, ...unknown } = (args.regularizations ?? {}) as Record<string, e.Json>;
  if (Object.keys(unknown).length) {
    throw new e.ConfigError(
      `Cannot use the TRELLIS config: regularizations has ${Object.keys(unknown)[0]}, it must be one of lambda_vol, lambda_opacity`,
    );
  }
  const encoder = e.trellisModel(config, "SLatEncoder");
  if (encoder.resolution !== (data.resolution ?? 64)) {
    throw new e.ConfigError(
      `Cannot use the TRELLIS config: dataset.args.resolution is ${data.resolution ?? 64}, it must be the encoder's, ${encoder.resolution}`,
    );
  }
  return e.overlay(e.trellisTrainer(config, { elastic: true }), {
    encoder,
    memory: args.elastic ? e.trellisMemory(args.elastic) : null,
    decoder: e.trellisModel(config, "SLatGaussianDecoder"),
    data: {
      ...{ features: data.model ?? "dinov2_vitl14_reg", imageSize: data.image_size ?? 512, maxVoxels: data.max_num_voxels ?? 32768 },
      ...{ minAestheticScore: data.min_aesthetic_score ?? 5, resolution: 64 },
    },
    loss: {
      ...{ type: args.loss_type ?? "l1", ssim: args.lambda_ssim ?? 0.2, lpips: args.lambda_lpips ?? 0.2, kl: args.lambda_kl ?? 1e-6 },
      ...{ volume: lambda_vol, opacity: lambda_opacity },
    },
    batch: { views: 1 },
    inputGain: 1,
  });
}

/** The config of a command line. */
export function slatVaeConfig(flags: e.ConfigFlags): SlatVaeConfig {
  return e.resolveConfig(SCHEMA, SLAT_VAE_SIZES, { ...flags, fromTrellis });
}

/** How like pictures made [V, 3, S, S] are to true ones: what is minimised, and its terms. */
function pictureLoss(
  made: e.Tensor,
  truth: e.Tensor,
  loss: SlatVaeConfig["loss"],
  lpips?: e.Lpips,
): { rec: e.Tensor; terms: Record<string, e.Tensor> } {
  const pixels = (t: e.Tensor) => e.permute(t, [0, 2, 3, 1]);
  const terms: Record<string, e.Tensor> = { [loss.type]: loss.type === "l1" ? e.l1(made, truth) : e.mse(made, truth) };
  let rec = terms[loss.type];
  if (loss.ssim) {
    terms.ssim = e.affine(e.ssim(planes(made), planes(truth)), { scale: -1, shift: 1 });
    rec = e.add(rec, e.mul(terms.ssim, loss.ssim));
  }
  if (lpips) {
    terms.lpips = e.lpips(lpips, pixels(made), pixels(truth));
    rec = e.add(rec, e.mul(terms.lpips, loss.lpips));
  }
  return { rec, terms };
}

/** What a run found. */
export interface SlatVaeResult extends SlatVaeQuality {
  /** Where the EMA models are: `encoder` and `decoder` pairs. */
  folder: string;
}

/** The perceptual distance that a config asks for. Throws where it is asked for without weights. */
function openPerceptual({ lpips, lpipsWeights }: SlatVaeConfig["loss"], dtype: e.FloatDType): e.Lpips | undefined {
  return lpips === 0 ? undefined : e.loadLpips(lpipsWeights, dtype);
}

/** Trains, evaluates on held-out objects (on training objects where none are held out), and exports to `<output>/models`. */
export function trainSlatVae(c: SlatVaeConfig, { output, ckpt = "latest", profile, dryRun }: e.RunFlags): SlatVaeResult {
  const { root, features, imageSize: S, maxVoxels } = c.data, require = [`feature_${features}`, "rendered"];
  if (c.encoder.latent_channels !== c.decoder.latent_channels || c.encoder.resolution !== c.decoder.resolution) {
    throw new e.UserError("Cannot train: the encoder's latent_channels and resolution differ from the decoder's, they must be the same");
  }
  if (c.recolor.part && (features !== "appearance" || c.encoder.in_channels !== e.APPEARANCE_CHANNELS)) {
    throw new e.UserError(
      `Cannot recolor objects: data.features is ${features} with ${c.encoder.in_channels} channels, it must be appearance; or set recolor.part to 0`,
    );
  }
  const { items } = e.openDataset(root, { require, minAestheticScore: c.data.minAestheticScore ?? undefined, maxVoxels });
  const parts = c.data.holdOut ? e.holdOut(items, c.data.holdOut) : { train: items, heldOut: items.slice(0, 8) };
  const [train, heldOut] = [parts.train, parts.heldOut].map((list) =>
    e.openObjects(list, {
      features,
      channels: c.encoder.in_channels,
      resolution: { prepared: c.data.resolution, model: c.encoder.resolution },
      size: S,
    })
  );
  const dtype = e.trainingDtype(c.precision, c.encoder.use_fp16 ?? false), perceptual = openPerceptual(c.loss, dtype);
  const specs = { encoder: e.slatEncoderSpec(c.encoder, dtype), decoder: e.slatGaussianDecoderSpec(c.decoder, dtype) };
  for (const { input_layer: { weight: { init } } } of [specs.encoder, specs.decoder]) if ("uniform" in init) init.uniform *= c.inputGain;
  const optimizer = e.createOptimizer(specs, e.initialize(specs, new e.Generator(c.seed)), c.optimizer);
  const encoder: e.SlatEncoder = { args: c.encoder, dtype, params: optimizer.params.encoder };
  const decoder: e.SlatGaussianDecoder = { args: c.decoder, dtype, params: optimizer.params.decoder };
  const blur = c.decoder.representation_config["2d_filter_kernel_size"];
  let sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch });
  const say = (text: string) => run.log.say(text),
    controller = c.memory &&
      e.openMemory(c.memory, { blocks: c.encoder.num_blocks, seed: c.seed, say });
  const run = e.openRun(output, {
    label: "slat-vae",
    config: c,
    steps: c.steps,
    log: c.log,
    ckpt,
    profile,
    dryRun,
    tensors: optimizer.tensors,
    state: () => ({ optimizer: optimizer.state(), sampler: sampler.state(), memory: controller?.state() }),
    restore: (state) => {
      const saved = state as { optimizer: e.OptimizerState; sampler: e.SamplerState; memory?: unknown };
      optimizer.restore(saved.optimizer);
      if (saved.memory) controller?.restore(saved.memory);
      sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch, state: saved.sampler });
    },
  });
  run.log.say(
    `${train.length} objects to train on, ${heldOut.length} to test on; ${e.formatCount(optimizer.size)} parameters, blocks in ${dtype}`,
  );

  for (let i = run.first; i < c.steps; i++) {
    const terms: e.Later<Record<string, number>>[] = [];
    for (const { stream, list } of e.microBatches(sampler.next(c.batch.size), c.batch.split, i)) {
      const host = e.createRandom(c.seed, stream), objects = list.map((index) => train[index]);
      const shown = objects.map((o) => Array.from({ length: c.batch.views }, () => e.integer(host, 0, o.cameras().length - 1)));
      const grounds = shown.flat().map(() => e.chance(host, 0.5) ? 1 : 0);
      const colors = c.recolor.part ? objects.map(() => e.drawRecolor(c.recolor, host)) : undefined;
      const pictures = objects.flatMap((o, k) =>
        shown[k].map((view) => colors ? e.exchangePlanes(o.picture(view), colors[k], S * S) : o.picture(view))
      );
      const gains = colors && colors.flatMap(({ gains }, k) => shown[k].flatMap(() => gains));
      const pass = ({ recompute }: e.PassOptions, voxels: e.Voxels) =>
        e.step(() => {
          const x = inputOf(objects, colors, voxels), posterior = e.slatEncode(encoder, x, { recompute });
          const latents = e.samplePosterior(posterior, e.stepGenerator(c.seed, stream));
          const splats = e.splatsOfLatents(decoder, { features: latents, voxels: x.voxels }, recompute);
          const cameras = objects.map((o, k) => shown[k].map((view) => o.cameras()[view]));
          const { color } = e.renderSplats(splats, cameras, { size: S, blur, background: grounds.map((g) => [g, g, g] as const) });
          const truth = compose(pictures, S, grounds, gains);
          const { rec, terms } = pictureLoss(color, truth, c.loss, perceptual), kl = e.klDivergence(posterior.mean, posterior.logvar);
          const reg_vol = e.volumeRegularizer(splats.scales), reg_opacity = e.opacityRegularizer(splats.opacities);
          const loss = [e.mul(kl, c.loss.kl), e.mul(reg_vol, c.loss.volume), e.mul(reg_opacity, c.loss.opacity)].reduce(
            (a, b) => e.add(a, b),
            rec,
          );
          e.backward(e.mul(loss, optimizer.lossScale() * list.length / c.batch.size));
          return e.readScalars({ loss, rec, ...terms, kl, reg_vol, reg_opacity, voxels: e.tensor([x.voxels.N], []) });
        });
      const sizes = objects.map((o) => o.rows().coords.length / 3);
      const within = () =>
        e.step(() => {
          const voxels = voxelsOf(objects);
          return controller ? controller.run((options) => pass(options, voxels), sizes) : pass(c, voxels);
        });
      terms.push(within());
      run.expectFinite(i, terms.at(-1)!, within);
    }
    const update = optimizer.stepLater(run.histograms(i + 1)), known = controller && e.memoryValues(controller);
    run.log.step(i + 1, () => ({ ...e.meanOf(terms.map((values) => values())), ...update(), ...known }), c.batch.size);
    if (run.sampleDue(i + 1)) run.log.image(i + 1, "reconstruction", contactSheet({ encoder, decoder }, heldOut.slice(0, 2), S));
    if (run.saveOrStop(i + 1)) Deno.exit(130);
  }

  const folder = `${output}/models`,
    averaged = optimizer.averaged(),
    models = {
      encoder: { ...encoder, params: averaged.encoder },
      decoder: { ...decoder, params: averaged.decoder },
    };
  if (run.writes) {
    Deno.mkdirSync(folder, { recursive: true });
    e.savePretrained(`${folder}/encoder`, { name: "SLatEncoder", args: { ...c.encoder } }, averaged.encoder);
    e.savePretrained(`${folder}/decoder`, { name: "SLatGaussianDecoder", args: { ...c.decoder } }, averaged.decoder);
  }
  const quality = measureQuality(models, heldOut, S);
  if (run.writes && heldOut.length) e.writePng(`${output}/contact_sheet.png`, contactSheet(models, heldOut.slice(0, 16), S));
  run.log.record(c.steps, { psnr: quality.psnr, ssim: quality.ssim });
  run.log.say(
    `PSNR ${quality.psnr.toFixed(2)} dB and SSIM ${quality.ssim.toFixed(4)} of ${heldOut.length} ${
      c.data.holdOut ? "held-out" : "training"
    } ` +
      `objects at ${S} x ${S}; models in ${folder}`,
  );
  run.close();
  e.freeLeaves(averaged);
  if (perceptual) e.freeLeaves(perceptual.params);
  optimizer.free();
  return { ...quality, folder };
}

if (import.meta.main) {
  await e.runRecipe(() => {
    const command = e.trainingCommand("train:slat-vae", "Trains the structured-latent VAE on a prepared dataset.", SLAT_VAE_SIZES);
    const { flags, config } = e.parseTraining(command, Deno.args, SLAT_VAE_SIZES);
    const c = slatVaeConfig(config);
    e.openTrainingDevice(flags);
    trainSlatVae(c, flags);
    return Promise.resolve();
  });
}
