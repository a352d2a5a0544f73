/**
 * Trains the sparse-structure VAE: occupancy [1, R, R, R] to a latent grid and back.
 *
 *   deno task train:ss-vae -- --data DATASET --output runs/ss_vae [--size tiny|small|published] [--config FILE.json] [--key.key=value ...]
 *
 * `published` is TRELLIS's ss_vae_conv3d_16l8_fp16 (133 M parameters, about 4.4 TFLOP a sample and step at 64³); `small` (about 0.5 TFLOP) is for
 * hundreds to thousands of objects on one GPU; `tiny` (32³) runs on a CPU. `--config` also takes TRELLIS's own JSON.
 */
import * as e from "../mod.ts";
import { z } from "../mod.ts";

/** Everything that decides a run. */
export interface SsVaeConfig {
  data: { root: string; resolution: number; holdOut: number; minAestheticScore: number | null; augment: boolean };
  encoder: e.SsEncoderArgs;
  decoder: e.SsDecoderArgs;
  loss: { type: "dice" | "bce" | "l1" | "bce+dice"; kl: number };
  steps: number;
  seed: number;
  /** auto: f16 where the model says use_fp16 and the device is a GPU, else f32. */
  precision: "auto" | "f32" | "f16" | "bf16";
  batch: e.BatchConfig;
  optimizer: e.OptimizerConfig;
  log: e.LogConfig;
}

const SHARED = { latent_channels: 8, num_res_blocks_middle: 1, norm_type: "layer", use_fp16: true } as const;

/** The sizes to start from. */
export const SS_VAE_SIZES: Record<string, SsVaeConfig> = {
  tiny: {
    data: { root: "out/dataset", resolution: 32, holdOut: 0, minAestheticScore: null, augment: true },
    encoder: { in_channels: 1, ...SHARED, num_res_blocks: 1, channels: [8, 16, 32] },
    decoder: { out_channels: 1, ...SHARED, num_res_blocks: 1, channels: [32, 16, 8] },
    loss: { type: "bce+dice", kl: 1e-3 },
    steps: 300,
    seed: 0,
    precision: "auto",
    batch: { size: 4, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 3e-3, warmup: 10, emaRates: [0.98] },
    log: { every: 10, sampleEvery: 100, saveEvery: 100, keep: 2 },
  },
  small: {
    data: { root: "out/dataset", resolution: 64, holdOut: 10, minAestheticScore: null, augment: true },
    encoder: { in_channels: 1, ...SHARED, num_res_blocks: 1, channels: [32, 64, 128] },
    decoder: { out_channels: 1, ...SHARED, num_res_blocks: 1, channels: [128, 64, 32] },
    loss: { type: "bce+dice", kl: 1e-3 },
    steps: 4000,
    seed: 0,
    precision: "auto",
    batch: { size: 16, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 1e-3, warmup: 100, emaRates: [0.995] },
    log: { every: 50, sampleEvery: 1000, saveEvery: 1000, keep: 2 },
  },
  published: {
    data: { root: "out/dataset", resolution: 64, holdOut: 0, minAestheticScore: 4.5, augment: false },
    encoder: e.PUBLISHED_SS_ENCODER,
    decoder: e.PUBLISHED_SS_DECODER,
    loss: { type: "dice", kl: 1e-3 },
    steps: 1_000_000,
    seed: 0,
    precision: "auto",
    batch: { size: 4, split: 1 },
    optimizer: e.OPTIMIZER_DEFAULTS,
    log: { every: 500, sampleEvery: 10_000, saveEvery: 10_000, keep: 10 },
  },
};

const SCHEMA: z.ZodType<SsVaeConfig> = z.strictObject({
  data: z.strictObject({
    root: z.string(),
    resolution: e.COUNT,
    holdOut: z.int().min(0),
    minAestheticScore: z.number().nullable(),
    augment: z.boolean(),
  }),
  encoder: e.SS_ENCODER_ARGS,
  decoder: e.SS_DECODER_ARGS,
  loss: z.strictObject({ type: z.enum(["dice", "bce", "l1", "bce+dice"]), kl: z.number().min(0) }),
  steps: e.COUNT,
  seed: z.int().min(0),
  precision: z.enum(["auto", "f32", "f16", "bf16"]),
  batch: e.BATCH_SCHEMA,
  optimizer: e.OPTIMIZER_SCHEMA,
  log: e.LOG_SCHEMA,
});

/** TRELLIS's SS-VAE config in our terms. */
function fromTrellis(json: e.Json): e.Json {
  const config = e.readTrellisConfig(json), { args: data } = config.dataset, { loss_type, lambda_kl } = config.trainer.args;
  return e.overlay(e.trellisTrainer(config), {
    encoder: e.trellisModel(config, "SparseStructureEncoder"),
    decoder: e.trellisModel(config, "SparseStructureDecoder"),
    data: { resolution: data.resolution ?? 64, minAestheticScore: data.min_aesthetic_score ?? 5 },
    loss: { type: loss_type ?? "bce", kl: lambda_kl ?? 1e-6 },
  });
}

/** The config of a command line. */
export function ssVaeConfig(flags: e.ConfigFlags): SsVaeConfig {
  return e.resolveConfig(SCHEMA, SS_VAE_SIZES, { ...flags, fromTrellis });
}

function reconstructionLoss(type: SsVaeConfig["loss"]["type"], logits: e.Tensor, x: e.Tensor): e.Tensor {
  if (type === "dice") return e.dice(logits, x);
  if (type === "bce") return e.bceWithLogits(logits, x);
  if (type === "l1") return e.l1(e.sigmoid(logits), x);
  return e.add(e.bceWithLogits(logits, x), e.dice(logits, x));
}

/** Reconstructs voxel lists through the posterior's mean. */
export function reconstruct(encoder: e.SsEncoder, decoder: e.SsDecoder, voxels: Int32Array[], R: number): Int32Array[] {
  return voxels.map((list) => {
    const logits = e.step(() =>
      e.noGrad(() => {
        const x = e.tensor(e.occupancyBatch([list], R), [1, 1, R, R, R]);
        return e.ssDecode(decoder, e.ssEncode(encoder, x).mean).read();
      })
    );
    return e.voxelsAbove(logits, R);
  });
}

/** What a run found. */
export interface SsVaeResult {
  /** Mean IoU of reconstructions of held-out objects (of training objects where none are held out), with EMA weights. */
  iou: number;
  objects: number;
  /** Where the EMA models are: `encoder` and `decoder` pairs. */
  folder: string;
}

/** Trains, evaluates, and exports to `<output>/models`. */
export function trainSsVae(c: SsVaeConfig, { output, ckpt = "latest", profile, record, dryRun }: e.RunFlags): SsVaeResult {
  const { resolution: R } = c.data,
    { items } = e.openDataset(c.data.root, { require: ["voxelized"], minAestheticScore: c.data.minAestheticScore ?? undefined });
  const { train, heldOut } = c.data.holdOut ? e.holdOut(items, c.data.holdOut) : { train: items, heldOut: items.slice(0, 16) };
  const voxelsOf = e.remember((i) => e.voxelsAbove(e.loadVoxels(train[i], R), R));
  const dtype = e.trainingDtype(c.precision, c.encoder.use_fp16 ?? false);
  const specs = { encoder: e.ssEncoderSpec(c.encoder, dtype), decoder: e.ssDecoderSpec(c.decoder, dtype) };
  const optimizer = e.createOptimizer(specs, e.initialize(specs, new e.Generator(c.seed)), c.optimizer);
  const encoder: e.SsEncoder = { args: c.encoder, dtype, params: optimizer.params.encoder };
  const decoder: e.SsDecoder = { args: c.decoder, dtype, params: optimizer.params.decoder };
  let sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch });
  const run = e.openRun(output, {
    label: "ss-vae",
    config: c,
    steps: c.steps,
    log: c.log,
    ckpt,
    profile,
    record,
    dryRun,
    tensors: optimizer.tensors,
    state: () => ({ optimizer: optimizer.state(), sampler: sampler.state() }),
    restore: (state) => {
      const saved = state as { optimizer: e.OptimizerState; sampler: e.SamplerState };
      optimizer.restore(saved.optimizer);
      sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch, state: saved.sampler });
    },
  });
  run.log.say(
    `${train.length} objects to train on, ${heldOut.length} to test on; ${e.formatCount(optimizer.size)} parameters, blocks in ${dtype}`,
  );

  const replays = run.replays(optimizer.params), r = R / 2 ** (c.encoder.channels.length - 1);
  for (let i = run.first; i < c.steps; i++) {
    const terms: e.Later<Record<string, number>>[] = [];
    for (const { stream, list: indices } of e.microBatches(sampler.next(c.batch.size), c.batch.split, i)) {
      const host = e.createRandom(c.seed, stream);
      const grid = e.occupancyBatch(indices.map(voxelsOf), R, c.data.augment ? host : undefined);
      const B = indices.length;
      const inputs = () => ({
        x: e.tensor(grid, [B, 1, R, R, R]),
        noise: e.stepGenerator(c.seed, stream).normal([B, c.encoder.latent_channels, r, r, r]),
        weight: () => e.tensor([optimizer.lossScale() * B / c.batch.size], []),
      });
      const pass = ({ x, noise, weight }: ReturnType<typeof inputs>) =>
        e.step(() => {
          const posterior = e.ssEncode(encoder, x), logits = e.ssDecode(decoder, e.samplePosterior(posterior, noise));
          const rec = reconstructionLoss(c.loss.type, logits, x), kl = e.klDivergence(posterior.mean, posterior.logvar);
          const loss = e.add(rec, e.mul(kl, c.loss.kl));
          e.backward(loss, weight());
          return { loss, rec, kl };
        });
      const found = replays.run({ key: "vae", inputs, pass });
      terms.push(() => ({ loss: found.loss()[0], rec: found.rec()[0], kl: found.kl()[0] }));
      run.expectFinite(i, terms.at(-1)!, () => pass(inputs()));
    }
    const update = optimizer.stepLater(run.histograms(i + 1));
    run.log.step(i + 1, () => ({ ...e.meanOf(terms.map((values) => values())), ...update() }), c.batch.size);
    if (run.sampleDue(i + 1)) {
      const shown = heldOut.slice(0, 8).map((item) => e.voxelsAbove(e.loadVoxels(item, R), R)),
        made = reconstruct(encoder, decoder, shown, R);
      run.log.image(i + 1, "reconstruction", e.columnsOf(shown.map((v, k) => [e.voxelPicture(v, R), e.voxelPicture(made[k], R)])));
    }
    if (run.saveOrStop(i + 1)) Deno.exit(130);
  }

  const folder = `${output}/models`, averaged = optimizer.averaged(), { encoder: encoderParams, decoder: decoderParams } = averaged;
  if (run.writes) {
    Deno.mkdirSync(folder, { recursive: true });
    e.savePretrained(`${folder}/encoder`, { name: "SparseStructureEncoder", args: { ...c.encoder } }, encoderParams);
    e.savePretrained(`${folder}/decoder`, { name: "SparseStructureDecoder", args: { ...c.decoder } }, decoderParams);
  }
  const tested = heldOut.map((item) => e.voxelsAbove(e.loadVoxels(item, R), R));
  const made = reconstruct({ ...encoder, params: encoderParams }, { ...decoder, params: decoderParams }, tested, R);
  const iou = tested.reduce((sum, v, k) => sum + e.voxelIou(v, made[k], R), 0) / tested.length;
  run.log.record(c.steps, { iou });
  run.log.say(
    `reconstruction IoU ${iou.toFixed(4)} over ${tested.length} ${c.data.holdOut ? "held-out" : "training"} objects; models in ${folder}`,
  );
  run.close();
  replays.free();
  e.freeLeaves(averaged);
  optimizer.free();
  return { iou, objects: tested.length, folder };
}

if (import.meta.main) {
  await e.runRecipe(() => {
    const command = e.trainingCommand("train:ss-vae", "Trains the sparse-structure VAE on a prepared dataset.", SS_VAE_SIZES)
      .option("--record", "run a step's passes from a recording (on a GPU a CUDA graph) also where that keeps much memory: the same bits")
      .option("--no-record", "never do so; by default it is done on a GPU where it keeps little memory");
    const { flags, config } = e.parseTraining(command, Deno.args, SS_VAE_SIZES);
    const c = ssVaeConfig(config);
    e.openTrainingDevice(flags);
    trainSsVae(c, flags);
    return Promise.resolve();
  });
}
