/**
 * Trains the sparse-structure flow model: a picture and noise to the latent of a shape.
 *
 *   deno task train:ss-flow -- --data DATASET --vae runs/ss_vae/models --output runs/ss_flow [--size tiny|small|published] [--key.key=value ...]
 *
 * `published` is TRELLIS's ss_flow_img_dit_L_16l8_fp16 (555.5 M parameters, 15.7 TFLOP a sample and step) on DINOv2 features, whose weights
 * `--condition.weights` names; `small` (41.1 M) and `tiny` (2.7 M, for a CPU) train a patch encoder of their own along with the flow. That of
 * `small` first guesses latents alone: the flow's loss teaches an encoder little while the flow model does not read its tokens yet.
 */
import * as e from "../mod.ts";
import { z } from "../mod.ts";

/** Everything that decides a run. */
export interface SsFlowConfig {
  data: { root: string; resolution: number; holdOut: number; minAestheticScore: number | null };
  /** The folder with the VAE's `encoder` and `decoder` pairs. */
  vae: string;
  model: e.SsFlowArgs;
  /** The encoder of the condition picture. */
  condition: e.ConditionConfig;
  flow: e.FlowSettings & {
    /** Whether latents are scaled to mean 0 and deviation 1 by channel. */
    normalize: boolean;
  };
  /** A patch encoder's own lesson: to guess the latent. Its loss counts `weight` times, and is the only one in the first `alone` steps. */
  guess: { weight: number; alone: number };
  /**
   * What makes more of few objects: mirrored ones with mirrored pictures, half of the time; pictures moved by up to `shift` of their side; colour
   * channels brighter or darker by up to `gain`, and exchanged in a part `exchange` of the pictures.
   */
  augment: e.PictureVariation;
  sampler: e.FlowSampler;
  steps: number;
  seed: number;
  precision: e.Precision;
  batch: e.BatchConfig;
  optimizer: e.OptimizerConfig;
  memory: e.MemoryConfig;
  log: e.LogConfig;
}

const FLOW: SsFlowConfig["flow"] = { ...e.FLOW_DEFAULTS, normalize: true };
const NO_GUESS: SsFlowConfig["guess"] = { weight: 0, alone: 0 };
const MODEL = {
  in_channels: 8,
  out_channels: 8,
  mlp_ratio: 4,
  pe_mode: "ape",
  qk_rms_norm: true,
  share_mod: false,
  use_fp16: true,
} as const;

/** The sizes to start from. */
export const SS_FLOW_SIZES: Record<string, SsFlowConfig> = {
  tiny: {
    data: { root: "out/dataset", resolution: 32, holdOut: 0, minAestheticScore: null },
    vae: "runs/ss_vae/models",
    model: { ...MODEL, resolution: 8, patch_size: 2, model_channels: 128, cond_channels: 128, num_blocks: 6, num_heads: 4 },
    condition: { encoder: "patch", image_size: 64, patch_size: 8, channels: 128, num_blocks: 2, num_heads: 4 },
    flow: { ...FLOW, schedule: { name: "logitNormal", mean: 0.5, std: 1 } },
    guess: NO_GUESS,
    augment: e.PLAIN_PICTURES,
    sampler: e.SAMPLER_DEFAULTS,
    steps: 600,
    seed: 0,
    precision: "auto",
    batch: { size: 16, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 1e-3, warmup: 20, emaRates: [0.98] },
    memory: e.MEMORY_DEFAULTS,
    log: { every: 10, sampleEvery: 200, saveEvery: 200, keep: 2 },
  },
  small: {
    data: { root: "out/dataset", resolution: 64, holdOut: 10, minAestheticScore: null },
    vae: "runs/ss_vae/models",
    model: { ...MODEL, resolution: 16, patch_size: 2, model_channels: 384, cond_channels: 384, num_blocks: 10, num_heads: 6 },
    condition: {
      encoder: "patch",
      ...{
        image_size: 64,
        patch_size: 8,
        stem_channels: [64, 128],
        channels: 384,
        num_blocks: 4,
        num_heads: 6,
        grid_size: 4,
        use_fp16: true,
      },
    },
    flow: FLOW,
    guess: { weight: 1, alone: 3000 },
    augment: { mirror: true, shift: 1 / 16, gain: 0.3, exchange: 0.3 },
    sampler: e.SAMPLER_DEFAULTS,
    steps: 8000,
    seed: 0,
    precision: "auto",
    batch: { size: 64, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 8e-4, betas: [0.9, 0.98], weightDecay: 0.01, warmup: 100, emaRates: [0.998] },
    memory: e.MEMORY_DEFAULTS,
    log: { every: 50, sampleEvery: 2000, saveEvery: 4000, keep: 2 },
  },
  published: {
    data: { root: "out/dataset", resolution: 64, holdOut: 0, minAestheticScore: 4.5 },
    vae: "runs/ss_vae/models",
    model: e.PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16,
    condition: { encoder: "dinov2_vitl14_reg", weights: "dinov2_vitl14_reg.safetensors", image_size: 518 },
    flow: { ...FLOW, normalize: false },
    guess: NO_GUESS,
    augment: e.PLAIN_PICTURES,
    sampler: { ...e.SAMPLER_DEFAULTS, cfgStrength: 5 },
    steps: 1_000_000,
    seed: 0,
    precision: "auto",
    batch: { size: 8, split: 1 },
    optimizer: e.OPTIMIZER_DEFAULTS,
    memory: e.MEMORY_DEFAULTS,
    log: { every: 500, sampleEvery: 10_000, saveEvery: 10_000, keep: 10 },
  },
};

const SCHEMA: z.ZodType<SsFlowConfig> = z.strictObject({
  data: z.strictObject({ root: z.string(), resolution: e.COUNT, holdOut: z.int().min(0), minAestheticScore: z.number().nullable() }),
  vae: z.string(),
  model: e.SS_FLOW_ARGS,
  condition: e.CONDITION_SCHEMA,
  flow: e.FLOW_SCHEMA.extend({ normalize: z.boolean() }),
  guess: z.strictObject({ weight: z.number().min(0), alone: z.int().min(0) }),
  augment: z.strictObject({
    mirror: z.boolean(),
    shift: z.number().min(0).max(1),
    gain: z.number().min(0).max(1),
    exchange: z.number().min(0).max(1),
  }),
  sampler: e.SAMPLER_SCHEMA,
  steps: e.COUNT,
  seed: z.int().min(0),
  precision: e.FLOW_PRECISION_SCHEMA,
  batch: e.BATCH_SCHEMA,
  optimizer: e.OPTIMIZER_SCHEMA,
  memory: e.MEMORY_SCHEMA,
  log: e.LOG_SCHEMA,
});

/** TRELLIS's image-conditioned SS-flow config in our terms. */
function fromTrellis(json: e.Json): e.Json {
  const config = e.readTrellisConfig(json), { args: data } = config.dataset;
  return e.overlay(
    e.overlay(e.trellisTrainer(config, { elastic: true }), e.trellisFlow(config, "ImageConditionedFlowMatchingCFGTrainer")),
    {
      model: e.trellisModel(config, "SparseStructureFlowModel"),
      data: { minAestheticScore: data.min_aesthetic_score ?? 5 },
      flow: { normalize: false },
      memory: e.trellisMemory(config.trainer.args.elastic),
    },
  );
}

/** The config of a command line. */
export function ssFlowConfig(flags: e.ConfigFlags): SsFlowConfig {
  return e.resolveConfig(SCHEMA, SS_FLOW_SIZES, { ...flags, fromTrellis });
}

/** What a run found. */
export interface SsFlowResult {
  /** Mean voxel IoU of shapes generated from held-out pictures, and of the training object whose picture is nearest; null where none is held out. */
  iou: { generated: number; nearest: number; objects: number } | null;
  /** Where the pipeline is, for `generate`. */
  folder: string;
}

/** Latents [8, r, r, r] of each voxel list. */
function encodeLatents(encoder: e.SsEncoder, voxels: Int32Array[], R: number): Float32Array[] {
  return e.inGroups(voxels, (lists) => e.ssEncode(encoder, e.tensor(e.occupancyBatch(lists, R), [lists.length, 1, R, R, R])).mean.read());
}

/** Trains, evaluates on held-out pictures, and exports a pipeline to `<output>/models`. */
export function trainSsFlow(c: SsFlowConfig, { output, ckpt = "latest", profile, tune, record, dryRun }: e.RunFlags): SsFlowResult {
  const { resolution: R } = c.data, r = c.model.resolution, S = c.condition.image_size, C = c.model.in_channels;
  const require = ["voxelized", "cond_rendered"], minAestheticScore = c.data.minAestheticScore ?? undefined;
  const { items } = e.openDataset(c.data.root, { require, minAestheticScore });
  const { train, heldOut } = c.data.holdOut ? e.holdOut(items, c.data.holdOut) : { train: items, heldOut: [] };
  const vae = e.loadSsVae(c.vae, c.precision), voxels = train.map((item) => e.voxelsAbove(e.loadVoxels(item, R), R));
  const latents = encodeLatents(vae.encoder, voxels, R), { mean, std } = e.channelStatistics(latents, C);
  const mirrored = c.augment.mirror ? encodeLatents(vae.encoder, voxels.map((list) => e.mirrorVoxels(list, R)), R) : [];
  const normalization = c.flow.normalize ? { mean, std } : { mean: mean.map(() => 0), std: std.map(() => 1) };
  const tested = heldOut.slice(0, 64), testedVoxels = tested.map((item) => e.voxelsAbove(e.loadVoxels(item, R), R));
  const [x0, mirroredX0, testedX0] = [latents, mirrored, encodeLatents(vae.encoder, testedVoxels, R)].map((list) =>
    list.map((z) => e.normalizeChannels(z, normalization))
  );
  e.freeLeaves(vae.encoder.params);
  if (x0[0].length !== C * r ** 3) {
    throw new e.UserError(
      `Cannot train: the VAE's latents have ${x0[0].length} values, model.resolution and in_channels need ${C * r ** 3}`,
    );
  }
  const pictures = e.conditionPictures(train, S), testedPictures = e.clearestPictures(tested, S);

  const dtype = e.trainingDtype(c.precision, c.model.use_fp16 ?? false);
  const opened = e.openCondition(c.condition, c.precision);
  const head = c.guess.weight ? e.latentHead(c.condition, { channels: C, resolution: r }) : undefined;
  const specs = { flow: e.ssFlowSpec(c.model, dtype), image: opened.spec, guess: head?.spec };
  if (opened.channels !== c.model.cond_channels) {
    const { encoder } = c.condition;
    throw new e.UserError(
      `Cannot train: model.cond_channels is ${c.model.cond_channels}, it must be ${opened.channels} for the encoder ${encoder}`,
    );
  }
  const optimizer = e.createOptimizer(specs, e.initialize(specs, new e.Generator(c.seed)), c.optimizer);
  const model: e.SsFlow = { args: c.model, dtype, fp8: e.layersInFp8(c.precision), params: optimizer.params.flow };
  const condition = opened.withParameters(optimizer.params.image);
  let sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch });
  const memory = e.openMemory(c.memory, { blocks: c.model.num_blocks, seed: c.seed, say: (text) => run.log.say(text) });
  const run = e.openRun(output, {
    label: "ss-flow",
    config: c,
    steps: c.steps,
    log: c.log,
    ckpt,
    profile,
    tune,
    record,
    dryRun,
    tensors: optimizer.tensors,
    state: () => ({ optimizer: optimizer.state(), sampler: sampler.state(), memory: memory.state(), normalization }),
    restore: (state) => {
      const saved = state as { optimizer: e.OptimizerState; sampler: e.SamplerState; memory: unknown; normalization: typeof normalization };
      if (JSON.stringify(saved.normalization) !== JSON.stringify(normalization)) {
        throw new e.UserError(
          `Cannot resume ${output}: the latents' statistics are others than before, the VAE and the dataset must be those of the run`,
        );
      }
      optimizer.restore(saved.optimizer);
      memory.restore(saved.memory);
      sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch, state: saved.sampler });
    },
  });
  run.log.say(
    `${train.length} objects to train on, ${heldOut.length} to test on; ${e.formatCount(optimizer.size)} parameters, blocks in ${dtype}`,
  );

  const replays = run.replays(optimizer.params, c.memory);
  const generate = (flow: e.SsFlow, condition: e.Condition, pictures: Float32Array[]): Int32Array[] =>
    e.inGroups(pictures, (images, first) => {
      const tokens = condition.encode(e.tensor(e.joinFloats(images), [images.length, 3, S, S]));
      const noise = e.concat(images.map((_, k) => new e.Generator(c.seed + first + k).normal([1, C, r, r, r])), 0);
      const z = e.sampleEuler((x, t, y) => e.ssFlow(flow, x, t, y), noise, tokens, e.zeros(tokens.shape), c.sampler);
      return e.ssDecode(vae.decoder, e.denormalize(z, normalization)).read();
    }).map((logits) => e.voxelsAbove(logits, R));

  /** What the path and the model are told of times. */
  const timesOf = (times: Float32Array<ArrayBuffer>) => ({
    ...e.pathWeights(times, c.flow),
    t: e.tensor(times.map((t) => 1000 * t), [times.length]),
  });
  const forward = (
    { data, noise, tokens, t, ...weights }: { data: e.Tensor; noise: e.Tensor; tokens: e.Tensor; t: e.Tensor } & e.PathWeights,
    options: e.PassOptions = {},
  ) => {
    const { xt, velocity } = e.flowPath(data, noise, weights, c.flow);
    return { v: e.ssFlow(model, xt, t, tokens, options), velocity };
  };
  /** The losses of the first held-out objects from their clearest views, at evenly spread times, each with noise of its own. */
  const heldOutLosses = (): Record<string, number> => {
    const found = e.inGroups(tested.map((_, k) => k), (group) => {
      const B = group.length, data = e.tensor(e.joinFloats(group.map((k) => testedX0[k])), [B, C, r, r, r]);
      const noise = e.concat(group.map((k) => new e.Generator(c.seed + k).normal([1, C, r, r, r])), 0);
      const tokens = condition.encode(e.tensor(e.joinFloats(group.map((k) => testedPictures[k])), [B, 3, S, S]));
      const { v, velocity } = forward({ data, noise, tokens, ...timesOf(Float32Array.from(group, (k) => (k + 0.5) / tested.length)) });
      const guess = head && e.mseRows(head.guess(optimizer.params.guess!, tokens), data).read();
      return Float32Array.from([...e.mseRows(v, velocity).read()].flatMap((error, b) => guess ? [error, guess[b]] : [error]));
    });
    return e.meanOf(found.map(([held_out, guess]) => ({ held_out, ...(head && { held_out_guess: guess }) })));
  };

  for (let i = run.first; i < c.steps; i++) {
    const terms: e.Later<Record<string, number>>[] = [];
    for (const { stream, list: indices } of e.microBatches(sampler.next(c.batch.size), c.batch.split, i)) {
      const host = e.createRandom(c.seed, stream);
      const B = indices.length, times = e.drawTimes(c.flow.schedule, B, host);
      const drawn = e.drawConditions(pictures, indices, { pUncond: c.flow.pUncond, augment: c.augment, random: host });
      const shape = [B, C, r, r, r];
      const inputs = () => ({
        data: e.tensor(e.joinFloats(indices.map((k, b) => (drawn.variations[b].mirror ? mirroredX0 : x0)[k])), shape),
        noise: e.stepGenerator(c.seed, stream).normal(shape),
        ...timesOf(times),
        ...e.conditionTensors(drawn),
        weight: () => e.tensor([optimizer.lossScale() * (B / c.batch.size)], []),
      });
      const alone = head !== undefined && i < c.guess.alone;
      const pass = (given: ReturnType<typeof inputs>, options: e.PassOptions = {}, guessing = alone): Record<string, e.Tensor> =>
        e.step(() => {
          const tokens = e.encodeDrawn(condition, given), guess = head && e.mse(head.guess(optimizer.params.guess!, tokens), given.data);
          if (guess && guessing) {
            e.backward(guess, given.weight());
            return { guess };
          }
          const { v, velocity } = forward({ ...given, tokens: e.dropTokens(tokens, given.kept) }, options), loss = e.mse(v, velocity);
          e.backward(guess ? e.add(loss, e.mul(guess, c.guess.weight)) : loss, given.weight());
          return { rows: e.noGrad(() => e.mseRows(v, velocity)), ...(guess && { guess }) };
        });
      if (i === run.first && terms.length === 0) run.tune(() => pass(inputs(), {}, false));
      const sizes = indices.map(() => r ** 3), key = alone ? "guess" : "flow";
      const found = replays.run({ key, inputs, pass: (given) => memory.run((options) => pass(given, options), sizes) });
      terms.push(() => {
        const rows = found.rows?.(), guess = found.guess && { guess: found.guess()[0] };
        return { loss: rows ? rows.reduce((a, b) => a + b, 0) / B : guess!.guess, ...guess, ...(rows && e.errorsByTime(times, rows)) };
      });
      run.expectFinite(i, terms.at(-1)!, () => pass(inputs()));
    }
    const update = optimizer.stepLater(run.histograms(i + 1));
    const held = tested.length && (i + 1) % c.log.every === 0 ? heldOutLosses() : {};
    const known = { ...held, ...e.memoryValues(memory) };
    run.log.step(i + 1, () => ({ ...e.meanOf(terms.map((values) => values())), ...update(), ...known }), c.batch.size);
    if (run.sampleDue(i + 1)) {
      const shown = (heldOut.length ? heldOut : train).slice(0, 8);
      const seen = e.clearestPictures(shown, S), made = generate(model, condition, seen);
      const columns = shown.map((item, k) => {
        const truth = e.voxelsAbove(e.loadVoxels(item, R), R);
        return [e.conditionPicture(seen[k], S), e.voxelPicture(truth, R), e.voxelPicture(made[k], R)];
      });
      run.log.image(i + 1, "generated", e.columnsOf(columns));
    }
    if (run.saveOrStop(i + 1)) Deno.exit(130);
  }

  const averaged = optimizer.averaged(), folder = `${output}/models`;
  const flow = { ...model, params: averaged.flow }, trained = condition.withParameters(averaged.image);
  const pipeline = { flow, decoder: vae.decoder, condition: trained, normalization, sampler: c.sampler, sigmaMin: c.flow.sigmaMin };
  if (run.writes) e.savePipeline(folder, pipeline);
  const iou = heldOut.length ? evaluate(heldOut, train, (list) => generate(flow, trained, list), { R, pictures }) : null;
  if (iou) {
    run.log.record(c.steps, { iou_generated: iou.generated, iou_nearest: iou.nearest });
    run.log.say(
      `held-out IoU ${iou.generated.toFixed(4)}; of the training object with the nearest picture ${
        iou.nearest.toFixed(4)
      }; ${iou.objects} objects`,
    );
  }
  run.log.say(`pipeline in ${folder}`);
  run.close();
  replays.free();
  e.freeLeaves([averaged, vae.decoder.params]);
  optimizer.free();
  return { iou, folder };
}

/** IoU of shapes generated from each held-out object's clearest view, beside that of the training object that has the view nearest to it in pixels. */
function evaluate(
  heldOut: e.DatasetItem[],
  train: e.DatasetItem[],
  generate: (pictures: Float32Array[]) => Int32Array[],
  { R, pictures: { size, views, picture } }: { R: number; pictures: e.ConditionPictures },
): { generated: number; nearest: number; objects: number } {
  const pictures = e.clearestPictures(heldOut, size), made = generate(pictures);
  const voxels = (item: e.DatasetItem): Int32Array => e.voxelsAbove(e.loadVoxels(item, R), R);
  let generated = 0, nearest = 0;
  heldOut.forEach((item, k) => {
    const truth = voxels(item), wanted = e.toBytes(pictures[k]);
    let nearestItem = train[0], least = Infinity;
    train.forEach((item, j) => {
      for (let v = 0; v < views[j]; v++) {
        const distance = e.byteDistance(wanted, picture(j, v), least);
        if (distance < least) [nearestItem, least] = [item, distance];
      }
    });
    generated += e.voxelIou(truth, made[k], R);
    nearest += e.voxelIou(truth, voxels(nearestItem), R);
  });
  return { generated: generated / heldOut.length, nearest: nearest / heldOut.length, objects: heldOut.length };
}

if (import.meta.main) {
  await e.runRecipe(() => {
    const command = e.trainingCommand(
      "train:ss-flow",
      "Trains the sparse-structure flow model on a prepared dataset and a trained VAE.",
      SS_FLOW_SIZES,
    )
      .option("--vae <folder>", "the folder with the VAE's encoder and decoder (models/ of a train:ss-vae run)")
      .option(
        "--tune",
        "choose the algorithms of dense products by time and keep them in the output folder: faster, but bits differ from other runs'",
      )
      .option("--record", "run a step's passes from a recording (on a GPU a CUDA graph) also where that keeps much memory: the same bits")
      .option("--no-record", "never do so; by default it is done on a GPU where it keeps little memory");
    const { flags, config } = e.parseTraining(command, Deno.args, SS_FLOW_SIZES);
    const c = ssFlowConfig(config);
    e.openTrainingDevice(flags);
    trainSsFlow(c, flags);
    return Promise.resolve();
  });
}
