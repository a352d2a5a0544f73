/**
 * SLat-Flow on real objects: latents that an encoder with fixed random weights makes of the appearance features of a folder of assets (KAYKIT),
 * STEPS (by default 1000) batches of four. Measured: the loss on held-out objects beside that of two predictors that see no picture, the statistics
 * of latents sampled from held-out pictures, and the memory in use and its peak each EVERY steps, whose numbers of voxels vary.
 */
import { openDataset } from "../lib/data/dataset.ts";
import { prepareDataset } from "../lib/data/prepare.ts";
import { savePretrained } from "../lib/io/pretrained.ts";
import { slatEncoderSpec } from "../lib/models/slat_encoder.ts";
import { freeLeaves, initialize, type ParameterSpec } from "../lib/nn/parameters.ts";
import { device } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { readMetrics } from "../lib/train/metrics.ts";
import { encode } from "../recipes/encode.ts";
import { SLAT_FLOW_SIZES, type SlatFlowConfig, trainSlatFlow } from "../recipes/slat_flow.ts";
import { benchmark, type Findings, measured, type Row } from "./harness.ts";

const STEPS = Number(Deno.env.get("STEPS") ?? 1000), BATCH = 4, EVERY = 25;
const ENCODER = {
  ...{ resolution: 64, in_channels: 9, model_channels: 192, latent_channels: 8, num_blocks: 4, num_heads: 4, window_size: 8 },
  attn_mode: "swin",
} as const;

function writeEncoder(folder: string): string {
  const spec = slatEncoderSpec(ENCODER), path = `${folder}/random/models/encoder`;
  (spec.out_layer.weight as ParameterSpec).init = { normal: 0.2 };
  const params = initialize(spec, new Generator(7));
  Deno.mkdirSync(`${folder}/random/models`, { recursive: true });
  savePretrained(path, { name: "SLatEncoder", args: { ...ENCODER } }, params);
  freeLeaves(params);
  return path;
}

function configOf(root: string): SlatFlowConfig {
  const { small } = SLAT_FLOW_SIZES;
  return {
    ...small,
    data: { ...small.data, root, latents: "appearance_random" },
    recolor: { part: 0, gain: 0, encoder: null },
    decoder: null,
    steps: STEPS,
    batch: { size: BATCH, split: 2 },
    optimizer: { ...small.optimizer, emaRates: [0.99] },
    log: { every: EVERY, sampleEvery: 0, saveEvery: 0, keep: 1 },
  };
}

/** The mean squared error of the best velocity that is linear in x_t, where data has mean 0 and mean square s: the best without a picture or neighbours. */
function linearError(t: number, s: number): number {
  return s / ((1 - t) ** 2 * s + t ** 2);
}

function mean(values: number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

async function run(input: string): Promise<Findings> {
  const folder = Deno.makeTempDirSync({ prefix: "slat_flow_kaykit_" }),
    root = `${folder}/data`,
    rows: Row[] = [],
    seconds: Record<string, number> = {};
  const timed = async <T>(name: string, body: () => T | Promise<T>): Promise<T> => {
    const start = performance.now(), result = await body();
    seconds[name] = (performance.now() - start) / 1000;
    console.log(`${name}: ${seconds[name].toFixed(1)} s`);
    return result;
  };
  try {
    const workers = Math.min(14, navigator.hardwareConcurrency);
    const { made, failed } = await timed(
      "prepare",
      () => prepareDataset({ input, output: root, views: 4, size: 128, features: ["appearance"], workers, device: "cuda" }),
    );
    console.log(`${made} objects, ${failed.length} unusable`);
    await timed("encode", () => encode({ data: root, slatEncoder: writeEncoder(folder) }));
    const voxels = openDataset(root, { require: ["latent_appearance_random"], maxVoxels: 32_768 }).items.map((item) => item.numVoxels);
    const output = `${folder}/run`;
    const result = await timed("train", () => trainSlatFlow(configOf(root), { output }));
    const metrics = readMetrics(`${output}/metrics.jsonl`), { sampled, data, objects } = result.latents, C = data.mean.length;
    const square = mean(data.mean.map((m, c) => m ** 2 + data.std[c] ** 2)),
      times = Array.from({ length: objects }, (_, k) => (k + 0.5) / objects);
    const rates = metrics.samples_per_second.value.toSorted((a, b) => a - b), each = BATCH / rates[rates.length >> 1];
    const used = metrics.memory_used.value, off = sampled.mean.map((m, c) => Math.abs(m - data.mean[c]) / data.std[c]);
    const ratios = sampled.std.map((s, c) => s / data.std[c]);
    const add = (name: string, metric: string, unit: string, ours: number, peer?: number, peer_name?: string): void => {
      const rest = peer === undefined ? {} : { peer, peer_name: peer_name!, ratio: peer / ours };
      rows.push(measured({ case: name, metric, unit, ours, ...rest }));
    };
    add("SLat-Flow small, held-out objects", "loss at evenly spread times", "mse", result.heldOut!, 1 + square, "predicting the mean");
    const linear = mean(times.map((t) => linearError(t, square)));
    add(
      "SLat-Flow small, held-out objects",
      "loss at evenly spread times",
      "mse",
      result.heldOut!,
      linear,
      "the best linear predictor without picture and neighbours",
    );
    add("latents sampled from held-out pictures", "largest distance of a channel's mean from the data's", "deviations", Math.max(...off));
    add("latents sampled from held-out pictures", "least ratio of a channel's deviation to the data's", "ratio", Math.min(...ratios));
    add("latents sampled from held-out pictures", "largest ratio of a channel's deviation to the data's", "ratio", Math.max(...ratios));
    add(`memory in use, looked at each ${EVERY} steps`, "largest less smallest", "bytes", Math.max(...used) - Math.min(...used));
    add("device memory", "peak", "GiB", device().memory.use().peak / 2 ** 30);
    add("training", "time a step", "ms", each * 1000);
    return {
      rows,
      notes: [
        `${voxels.length} objects with ${Math.min(...voxels)} to ${Math.max(...voxels)} voxels (mean ${
          mean(voxels).toFixed(0)
        }), every tenth held out; ${C} channels.`,
        `Batches of 4 in 2 parts of about equal voxels: ${Math.min(...metrics.voxels.value).toFixed(0)} to ${
          Math.max(...metrics.voxels.value).toFixed(0)
        } a step. ${STEPS} steps.`,
        "The encoder has fixed random weights: its latents are functions of colour, normal and place, not a learned code.",
      ],
      seconds,
      statistics: result.latents,
      curve: {
        step: metrics.loss.step,
        loss: metrics.loss.value,
        held_out: metrics.held_out?.value,
        voxels: metrics.voxels.value,
        memory_used: used,
        memory_peak: metrics.memory_peak.value,
        ...Object.fromEntries(
          Object.entries(metrics).filter(([name]) => name.startsWith("bin_")).map(([name, { value }]) => [name, mean(value.slice(-20))]),
        ),
      },
    };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const input = Deno.env.get("KAYKIT");
if (input) benchmark("slat_flow_kaykit", () => run(input));
else Deno.bench({ name: "slat_flow_kaykit (KAYKIT must name a folder of assets)", ignore: true, fn: () => {} });
