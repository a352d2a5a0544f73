/**
 * Trains the flow model of structured latents: a picture, the occupied voxels and noise to what each voxel looks like.
 *
 *   deno task train:slat-flow -- --data DATASET --latents appearance_slat_vae --decoder runs/slat_vae/models/decoder --output runs/slat_flow
 *       [--structure runs/ss_flow/models] [--size tiny|small|published] [--key.key=value ...]
 *
 * The latents are those that `deno task encode` wrote, or TRELLIS's. `published` is TRELLIS's slat_flow_img_dit_L_64l8p2_fp16 (600.4 M parameters) on
 * DINOv2 features, whose weights `--condition.weights` names; `small` (48.1 M) and `tiny` (3.0 M, for a CPU) train a patch encoder of their own
 * along with the flow. With `--structure`, the folder of a pipeline that makes the voxels, the result is a whole pipeline for `deno task generate`.
 */
import * as e from "../mod.ts";
import { z } from "../mod.ts";
import { openRecolored } from "./slat_recolor.ts";

/** Everything that decides a run. */
export interface SlatFlowConfig {
  data: {
    root: string;
    /** The folder in `latents/`. */
    latents: string;
    /** Objects with more voxels are left out. */
    maxVoxels: number;
    holdOut: number;
    /** Objects that the loss is measured on and whose latents are sampled at the end: held-out ones where there are any. */
    tested: number;
    minAestheticScore: number | null;
  };
  /** The path of the SLatGaussianDecoder that the latents are for, to be part of the pipeline; null for a pipeline without one. */
  decoder: string | null;
  /** The folder of a pipeline with the sparse-structure stage, to be part of the pipeline; null for a pipeline without it. */
  structure: string | null;
  model: e.SlatFlowArgs;
  /** The encoder of the condition picture. */
  condition: e.ConditionConfig;
  flow: e.FlowSettings;
  /** Mean and deviation by channel that latents are normalised with; null for those in the latents' stats.json. */
  normalization: e.LatentStatistics | null;
  /**
   * Objects in other colours, as their pictures: the latents of these are made by `encoder`, that of the latents, as they are drawn. Without it a
   * model of few objects knows colours by shapes, and does not look for them in the picture. Only where the latents are of `appearance` features.
   */
  recolor: e.RecolorOptions & { encoder: string | null };
  /** Whether `generate` gives objects their picture's mean colour, which a model of few objects does not take from it. */
  matchColors: boolean;
  /** Pictures are moved by up to this part of their side. */
  shift: number;
  sampler: e.FlowSampler;
  steps: number;
  seed: number;
  precision: e.Precision;
  /**
   * Samples of a step, and the micro-batches that they are shared out among so that each has about as many voxels: `split`, or as many more as it
   * takes that none has more than `voxels`.
   */
  batch: e.BatchConfig & { voxels?: number | null };
  optimizer: e.OptimizerConfig;
  memory: e.MemoryConfig;
  log: e.LogConfig;
}

const MODEL = {
  in_channels: 8,
  out_channels: 8,
  patch_size: 2,
  mlp_ratio: 4,
  pe_mode: "ape",
  num_io_res_blocks: 2,
  use_skip_connection: true,
  qk_rms_norm: true,
  share_mod: false,
  use_fp16: true,
} as const;
const DATA = { root: "out/dataset", latents: "appearance_slat_vae", maxVoxels: 32_768, holdOut: 0, tested: 32, minAestheticScore: null };
const AS_STORED = { ...e.NO_RECOLOR, encoder: null };
const PATHS = { decoder: "runs/slat_vae/models/decoder", structure: null };

/** The sizes to start from. */
export const SLAT_FLOW_SIZES: Record<string, SlatFlowConfig> = {
  tiny: {
    data: { ...DATA, tested: 4 },
    ...PATHS,
    model: {
      ...{ ...MODEL, resolution: 32, in_channels: 4, out_channels: 4 },
      ...{ model_channels: 128, cond_channels: 128, num_blocks: 4, num_heads: 4, io_block_channels: [32] },
    },
    condition: { encoder: "patch", image_size: 64, patch_size: 8, channels: 128, num_blocks: 2, num_heads: 4 },
    flow: e.FLOW_DEFAULTS,
    normalization: null,
    recolor: AS_STORED,
    matchColors: true,
    shift: 0,
    sampler: { ...e.SAMPLER_DEFAULTS, cfgStrength: 1 },
    steps: 600,
    seed: 0,
    precision: "auto",
    batch: { size: 4, split: 1 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 1e-3, warmup: 20, emaRates: [0.98] },
    memory: e.MEMORY_DEFAULTS,
    log: { every: 10, sampleEvery: 200, saveEvery: 200, keep: 2 },
  },
  small: {
    data: { ...DATA, holdOut: 10 },
    ...PATHS,
    model: { ...MODEL, resolution: 64, model_channels: 384, cond_channels: 384, num_blocks: 10, num_heads: 6, io_block_channels: [64] },
    condition: {
      encoder: "patch",
      ...{ image_size: 128, patch_size: 8, stem_channels: [64, 128], channels: 384, num_blocks: 4, num_heads: 6, use_fp16: true },
    },
    flow: e.FLOW_DEFAULTS,
    normalization: null,
    recolor: AS_STORED,
    matchColors: true,
    shift: 1 / 16,
    sampler: e.SAMPLER_DEFAULTS,
    steps: 8000,
    seed: 0,
    precision: "auto",
    batch: { size: 16, split: 2 },
    optimizer: { ...e.OPTIMIZER_DEFAULTS, lr: 5e-4, betas: [0.9, 0.98], weightDecay: 0.01, warmup: 100, emaRates: [0.995] },
    memory: e.MEMORY_DEFAULTS,
    log: { every: 50, sampleEvery: 2000, saveEvery: 2000, keep: 2 },
  },
  published: {
    data: { ...DATA, latents: "dinov2_vitl14_reg_slat_enc_swin8_B_64l8_fp16", minAestheticScore: 4.5 },
    ...PATHS,
    model: e.PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16,
    condition: { encoder: "dinov2_vitl14_reg", weights: "dinov2_vitl14_reg.safetensors", image_size: 518 },
    flow: e.FLOW_DEFAULTS,
    normalization: e.PUBLISHED_SLAT_NORMALIZATION,
    recolor: AS_STORED,
    matchColors: false,
    shift: 0,
    sampler: { ...e.SAMPLER_DEFAULTS, cfgStrength: 5 },
    steps: 1_000_000,
    seed: 0,
    precision: "auto",
    batch: { size: 8, split: 4 },
    optimizer: e.OPTIMIZER_DEFAULTS,
    memory: e.MEMORY_DEFAULTS,
    log: { every: 500, sampleEvery: 10_000, saveEvery: 10_000, keep: 10 },
  },
};

const STATISTICS = z.strictObject({ mean: z.array(z.number()), std: z.array(z.number().positive()) });
const SCHEMA: z.ZodType<SlatFlowConfig> = z.strictObject({
  data: z.strictObject({
    ...{
      root: z.string(),
      latents: z.string(),
      maxVoxels: e.COUNT,
      holdOut: z.int().min(0),
      tested: e.COUNT,
      minAestheticScore: z.number().nullable(),
    },
  }),
  decoder: z.string().nullable(),
  structure: z.string().nullable(),
  model: e.SLAT_FLOW_ARGS,
  condition: e.CONDITION_SCHEMA,
  flow: e.FLOW_SCHEMA,
  normalization: STATISTICS.nullable(),
  recolor: e.RECOLOR_SCHEMA.extend({ encoder: z.string().nullable() }),
  matchColors: z.boolean(),
  shift: z.number().min(0).max(1),
  sampler: e.SAMPLER_SCHEMA,
  steps: e.COUNT,
  seed: z.int().min(0),
  precision: e.FLOW_PRECISION_SCHEMA,
  batch: z.strictObject({ size: e.COUNT, split: e.COUNT, voxels: e.COUNT.nullable().optional() }),
  optimizer: e.OPTIMIZER_SCHEMA,
  memory: e.MEMORY_SCHEMA,
  log: e.LOG_SCHEMA,
});

/** What an SLat data set of TRELLIS says besides; the last three name a decoder for pictures, which `--decoder` does here. */
const DATASET_KEYS = ["max_num_voxels", "normalization", "pretrained_slat_dec", "slat_dec_path", "slat_dec_ckpt"];

/** TRELLIS's image-conditioned SLat-flow config in our terms. */
function fromTrellis(json: e.Json): e.Json {
  const config = e.readTrellisConfig(json, DATASET_KEYS), { args: data } = config.dataset;
  const flow = e.trellisFlow(config, "ImageConditionedSparseFlowMatchingCFGTrainer");
  return e.overlay(e.overlay(e.trellisTrainer(config, { elastic: true }), flow), {
    model: e.trellisModel(config, "SLatFlowModel"),
    memory: e.trellisMemory(config.trainer.args.elastic),
    data: {
      minAestheticScore: data.min_aesthetic_score ?? 5,
      maxVoxels: data.max_num_voxels ?? 32_768,
      ...(data.latent_model ? { latents: data.latent_model } : {}),
    },
    normalization: data.normalization ?? null,
  });
}

/** The config of a command line. */
export function slatFlowConfig(flags: e.ConfigFlags): SlatFlowConfig {
  return e.resolveConfig(SCHEMA, SLAT_FLOW_SIZES, { ...flags, fromTrellis });
}

/** Statistics of latents beside each other. */
export interface LatentComparison {
  objects: number;
  /** Of normalised latents by channel: those sampled from pictures, and the true ones of the same objects. */
  sampled: e.LatentStatistics;
  data: e.LatentStatistics;
}

/** What a run found. */
export interface SlatFlowResult {
  /** Of held-out objects (of training objects where none is held out), from their clearest views. */
  latents: LatentComparison;
  /** The loss on held-out objects at evenly spread times, with the averaged weights; null where none is held out. */
  heldOut: number | null;
  /** Where the pipeline is, for `generate`. */
  folder: string;
}

/** Voxels that are tested together. */
const VOXELS_TOGETHER = 65_536;

/** Trains, samples latents from held-out pictures (`<output>/latents.json` has their statistics), and exports a pipeline to `<output>/models`. */
export function trainSlatFlow(c: SlatFlowConfig, { output, ckpt = "latest", profile, dryRun }: e.RunFlags): SlatFlowResult {
  const { in_channels: C, resolution: R } = c.model, { root, latents, maxVoxels } = c.data, S = c.condition.image_size;
  e.expectStageParts(c, { C, R });
  const { items } = e.openDataset(root, {
    require: [`latent_${latents}`, "cond_rendered"],
    minAestheticScore: c.data.minAestheticScore ?? undefined,
    maxVoxels,
  });
  const { train, heldOut } = c.data.holdOut ? e.holdOut(items, c.data.holdOut) : { train: items, heldOut: [] };
  const normalization = c.normalization ?? e.readStatistics(items[0].root, latents, C);
  const latentsOf = (item: e.DatasetItem): e.VoxelRows => e.loadLatents(item, latents, { C, R, normalization });
  const x0 = e.remember((k) => latentsOf(train[k]), undefined, ({ coords, feats }) => coords.byteLength + feats.byteLength);
  const recolored = c.recolor.part ? openRecolored(train, c.recolor.encoder, { C, R, normalization }) : null;
  const tested = (heldOut.length ? heldOut : train).slice(0, c.data.tested), testedX0 = tested.map(latentsOf);
  const pictures = e.conditionPictures(train, S), testedPictures = e.clearestPictures(tested, S);

  const dtype = e.trainingDtype(c.precision, c.model.use_fp16 ?? false), opened = e.openCondition(c.condition, c.precision);
  if (opened.channels !== c.model.cond_channels) {
    const wanted = `${opened.channels} for the encoder ${c.condition.encoder}`;
    throw new e.UserError(`Cannot train: model.cond_channels is ${c.model.cond_channels}, it must be ${wanted}`);
  }
  const specs = { flow: e.slatFlowSpec(c.model, dtype), image: opened.spec };
  const optimizer = e.createOptimizer(specs, e.initialize(specs, new e.Generator(c.seed)), c.optimizer);
  const model: e.SlatFlow = { args: c.model, dtype, fp8: e.layersInFp8(c.precision), params: optimizer.params.flow };
  const condition = opened.withParameters(optimizer.params.image);
  let sampler = e.createEpochSampler({ length: train.length, seed: c.seed, batch: c.batch });
  const memory = e.openMemory(c.memory, { blocks: c.model.num_blocks, seed: c.seed, say: (text) => run.log.say(text) });
  const run = e.openRun(output, {
    label: "slat-flow",
    config: c,
    steps: c.steps,
    log: c.log,
    ckpt,
    profile,
    dryRun,
    tensors: optimizer.tensors,
    state: () => ({ optimizer: optimizer.state(), sampler: sampler.state(), memory: memory.state(), normalization }),
    restore: (state) => {
      const saved = state as { optimizer: e.OptimizerState; sampler: e.SamplerState; memory: unknown; normalization: typeof normalization };
      if (JSON.stringify(saved.normalization) !== JSON.stringify(normalization)) {
        throw new e.UserError(
          `Cannot resume ${output}: the latents' statistics are others than before, the encoder and the dataset must be those of the run`,
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

  /** Normalised latents of the tested objects `places`, each with noise of its own. */
  const sample = (flow: e.SlatFlow, condition: e.Condition, places: number[]): Float32Array[] => {
    const objects = places.map((k) => ({ coords: testedX0[k].coords, picture: testedPictures[k], seed: c.seed + k }));
    return e.sampleLatents({ flow, condition }, objects, c.sampler);
  };

  const voxelsOfRows = (rows: e.VoxelRows[]): e.Voxels => {
    return e.makeVoxels(e.batchCoords(rows.map(({ coords }) => coords)), { B: rows.length });
  };
  /** The loss of samples at these times, and the errors of each. */
  const lossOf = (
    flow: e.SlatFlow,
    { rows, voxels, noise, times, tokens, options }: {
      rows: e.VoxelRows[];
      voxels: e.Voxels;
      noise: e.Generator;
      times: ArrayLike<number>;
      tokens: e.Tensor;
      options?: e.PassOptions;
    },
  ) => {
    const { starts } = voxels;
    const data = e.tensor(e.joinFloats(rows.map(({ feats }) => feats)), [voxels.N, C]);
    const { xt, velocity } = e.flowPath(data, noise.normal(data.shape), e.repeatByRow(times, starts), c.flow);
    const v = e.slatFlow(flow, { features: xt, voxels }, e.tensor(Array.from(times, (t) => 1000 * t), [rows.length]), tokens, options);
    const errors = (): e.Later<Float64Array> => {
      const rows = e.noGrad(() => e.mseRows(v, velocity)).readLater();
      return () => e.meanBySample(rows(), starts);
    };
    return { loss: e.mse(v, velocity), errors };
  };
  /** The loss on the held-out objects from their clearest views, each at a time of its own. */
  const heldOutLoss = (flow: e.SlatFlow, condition: e.Condition): number => {
    const times = Float32Array.from(tested, (_, k) => (k + 0.5) / tested.length), noise = new e.Generator(c.seed);
    const errors = e.groupByLoad(tested.map((item) => item.numVoxels), VOXELS_TOGETHER).flatMap((group) =>
      e.step(() =>
        e.noGrad(() => {
          const tokens = condition.encode(e.tensor(e.joinFloats(group.map((k) => testedPictures[k])), [group.length, 3, S, S]));
          const rows = group.map((k) => testedX0[k]), voxels = voxelsOfRows(rows);
          return [...lossOf(flow, { rows, voxels, noise, times: group.map((k) => times[k]), tokens }).errors()()];
        })
      )
    );
    return errors.reduce((a, b) => a + b, 0) / errors.length;
  };

  for (let i = run.first; i < c.steps; i++) {
    const terms: e.Later<Record<string, number>>[] = [],
      batch = sampler.next(c.batch.size),
      voxelsOf = (k: number): number => train[k].numVoxels;
    for (const { stream, list: indices, weight } of e.balancedMicroBatches(batch, voxelsOf, c.batch.split, i, { most: c.batch.voxels })) {
      const host = e.createRandom(c.seed, stream), augment = { ...e.PLAIN_PICTURES, shift: c.shift };
      const times = e.drawTimes(c.flow.schedule, indices.length, host);
      const drawn = e.drawConditions(pictures, indices, { pUncond: c.flow.pUncond, augment, random: host });
      const rows = recolored ? recolored.draw(indices, x0, drawn, { ...c.recolor, random: host }) : indices.map(x0);
      const pass = (voxels: e.Voxels, options: e.PassOptions) =>
        e.step(() => {
          const noise = e.stepGenerator(c.seed, stream), shown = e.conditionTensors(drawn);
          const tokens = e.dropTokens(e.encodeDrawn(condition, shown), shown.kept);
          const { loss, errors } = lossOf(model, { rows, noise, times, tokens, voxels, options });
          e.backward(e.mul(loss, optimizer.lossScale() * weight));
          const scalars = e.readScalars({ loss }), bySample = errors();
          return () => ({ ...scalars(), ...e.errorsByTime(times, bySample()) });
        });
      const around = () =>
        e.step(() => {
          const voxels = voxelsOfRows(rows); // before the passes: their maps serve all of them
          return memory.run((options) => pass(voxels, options), rows.map(({ coords }) => coords.length / 3));
        });
      terms.push(around());
      run.expectFinite(i, terms.at(-1)!, around);
    }
    const update = optimizer.stepLater(run.histograms(i + 1));
    const held: Record<string, number> = heldOut.length && (i + 1) % c.log.every === 0 ? { held_out: heldOutLoss(model, condition) } : {};
    const known = { ...held, ...e.memoryValues(memory), voxels: batch.reduce((sum, k) => sum + voxelsOf(k), 0) };
    run.log.step(i + 1, () => ({ ...e.meanOf(terms.map((values) => values())), ...update(), ...known }), c.batch.size);
    if (run.sampleDue(i + 1)) {
      const columns = testedX0.slice(0, 8).map(({ coords, feats }, k) => {
        const [made] = sample(model, condition, [k]);
        const shown = [feats, made].map((z) => e.voxelPicture(coords, R, 160, e.channelColors(z, C)));
        return [e.conditionPicture(testedPictures[k], S), ...shown];
      });
      run.log.image(i + 1, "latents", e.columnsOf(columns));
    }
    if (run.saveOrStop(i + 1)) Deno.exit(130);
  }

  const averaged = optimizer.averaged(), folder = `${output}/models`, { decoder, structure, matchColors } = c;
  const flow = { ...model, params: averaged.flow }, trained = condition.withParameters(averaged.image);
  const stage = { decoder, structure, matchColors, condition: trained, normalization, sampler: c.sampler, sigmaMin: c.flow.sigmaMin };
  if (run.writes) e.saveSlatStage(folder, { ...stage, flow });
  const held = heldOut.length ? heldOutLoss(flow, trained) : null, sampled = e.sumStatistics(C), data = e.sumStatistics(C);
  for (const group of e.groupByLoad(tested.map((item) => item.numVoxels), VOXELS_TOGETHER)) {
    for (const z of sample(flow, trained, group)) sampled.add(z);
  }
  for (const { feats } of testedX0) data.add(feats);
  const compared: LatentComparison = { objects: tested.length, sampled: sampled.result(), data: data.result() };
  if (held !== null) run.log.record(c.steps, { held_out_averaged: held });
  const found = new TextEncoder().encode(JSON.stringify({ ...compared, heldOut: held }, null, 4) + "\n");
  if (run.writes) e.writeFileAtomic(`${output}/latents.json`, found);
  const list = (values: number[]): string => values.map((v) => v.toFixed(2)).join(" ");
  run.log.say(`normalised latents of ${tested.length} objects, mean and deviation by channel:
  sampled from pictures  ${list(compared.sampled.mean)} | ${list(compared.sampled.std)}
  true                   ${list(compared.data.mean)} | ${list(compared.data.std)}
pipeline in ${folder}`);
  run.close();
  e.freeLeaves(averaged);
  recolored?.free();
  optimizer.free();
  return { latents: compared, heldOut: held, folder };
}

if (import.meta.main) {
  await e.runRecipe(() => {
    const command = e.trainingCommand(
      "train:slat-flow",
      "Trains the structured-latent flow model on a prepared dataset with latents.",
      SLAT_FLOW_SIZES,
    )
      .option("--latents <name>", "the latents to train on, a folder in the dataset's latents/ (data.latents)");
    const { flags, config } = e.parseTraining(command, Deno.args, SLAT_FLOW_SIZES);
    const c = slatFlowConfig(config);
    e.openTrainingDevice(flags);
    trainSlatFlow(c, flags);
    return Promise.resolve();
  });
}
