/** TRELLIS's training configs (models, dataset, trainer) in our terms: translated once, at the edge. */
import { ConfigError, type Json } from "./config.ts";

type Block = { name: string; args: { [key: string]: Json } };

/** The three blocks of a TRELLIS config. */
export interface TrellisConfig {
  models: Record<string, Block>;
  dataset: Block;
  trainer: Block;
}

function isRecord(value: unknown): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a JSON file is a TRELLIS training config. */
export function isTrellisConfig(value: Json): boolean {
  return isRecord(value) && "models" in value && "trainer" in value;
}

function block(value: Json | undefined, place: string): Block {
  if (!isRecord(value) || typeof value.name !== "string" || !isRecord(value.args ?? {})) {
    throw new ConfigError(
      `Cannot use the TRELLIS config: ${place} is ${JSON.stringify(value)?.slice(0, 60)}, it must be {"name": ..., "args": {...}}`,
    );
  }
  return { name: value.name, args: (value.args ?? {}) as Block["args"] };
}

/** Throws where the record `value` at `place` has a key that is not `known`: what would have to be ignored is refused. */
function expectKeys(value: Json | undefined, place: string, known: readonly string[]): void {
  if (value === undefined || value === null) return;
  if (!isRecord(value)) {
    throw new ConfigError(`Cannot use the TRELLIS config: ${place} is ${JSON.stringify(value).slice(0, 60)}, it must be a record`);
  }
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown) throw new ConfigError(`Cannot use the TRELLIS config: ${place} has ${unknown}, it must be one of ${known.join(", ")}`);
}

/** Of the data sets that our recipes read; the last four say where TRELLIS finds latents and their decoder, which we are told in another way. */
const DATASET_KEYS = ["resolution", "min_aesthetic_score", "image_size", "latent_model", "pretrained_ss_dec", "ss_dec_path", "ss_dec_ckpt"];

/** Reads the blocks of a TRELLIS config. `more` are keys that its kind of data set has besides those of all. */
export function readTrellisConfig(value: Json, more: readonly string[] = []): TrellisConfig {
  if (!isRecord(value) || !isRecord(value.models)) {
    throw new ConfigError("Cannot use the TRELLIS config: models is missing, it must be a record of models");
  }
  const models = Object.fromEntries(Object.entries(value.models).map(([name, m]) => [name, block(m, `models.${name}`)]));
  const dataset = block(value.dataset, "dataset");
  expectKeys(dataset.args, "dataset.args", [...DATASET_KEYS, ...more]);
  return { models, dataset, trainer: block(value.trainer, "trainer") };
}

/** The one model of a TRELLIS config of class `name` ("Elastic..." counts as its plain class). */
export function trellisModel({ models }: TrellisConfig, name: string): { [key: string]: Json } {
  const found = Object.values(models).find((m) => m.name === name || m.name === `Elastic${name}`);
  if (!found) {
    throw new ConfigError(
      `Cannot use the TRELLIS config: its models are ${Object.values(models).map((m) => m.name).join(", ")}, one must be ${name}`,
    );
  }
  return found.args;
}

const MIXIN_TRAINER_KEYS = ["image_cond_model", "t_schedule", "sigma_min", "p_uncond"];
const TRAINER_KEYS = [
  ...[
    "max_steps",
    "batch_size",
    "batch_size_per_gpu",
    "batch_split",
    "optimizer",
    "lr_scheduler",
    "elastic",
    "grad_clip",
    "ema_rate",
    "fp16_mode",
  ],
  ...[
    "fp16_scale_growth",
    "finetune_ckpt",
    "i_print",
    "i_log",
    "i_sample",
    "i_save",
    "i_ddpcheck",
    "loss_type",
    "lambda_kl",
    "lambda_ssim",
    "lambda_lpips",
    "regularizations",
    ...MIXIN_TRAINER_KEYS,
  ],
];

/**
 * What the trainer block says, in the keys that our recipes share. Unknown keys are refused: TRELLIS swallows them. `elastic`, which bounds memory
 * by computing blocks again, is left aside where the recipe says so: `trellisMemory` translates it.
 */
export function trellisTrainer({ trainer }: TrellisConfig, { elastic = false } = {}): { [key: string]: Json } {
  const args = trainer.args;
  expectKeys(args, "trainer.args", TRAINER_KEYS);
  expectKeys(args.optimizer, "trainer.args.optimizer", ["name", "args"]);
  for (const key of ["lr_scheduler", "elastic", "finetune_ckpt"]) {
    if (args[key] && !(key === "elastic" && elastic)) {
      throw new ConfigError(
        `Cannot use the TRELLIS config: trainer.args.${key} is ${JSON.stringify(args[key])}, it must be absent for this recipe`,
      );
    }
  }
  const optimizer = args.optimizer as
    | { name?: string; args?: { lr?: number; weight_decay?: number; betas?: number[]; eps?: number } }
    | undefined;
  if (optimizer?.name && optimizer.name !== "AdamW") {
    throw new ConfigError(`Cannot use the TRELLIS config: the optimizer is ${optimizer.name}, it must be AdamW`);
  }
  if (args.fp16_mode && args.fp16_mode !== "inflat_all") {
    throw new ConfigError(
      `Cannot use the TRELLIS config: trainer.args.fp16_mode is "${args.fp16_mode}", it must be "inflat_all" or absent`,
    );
  }
  expectKeys(optimizer?.args, "trainer.args.optimizer.args", ["lr", "weight_decay", "betas", "eps"]);
  const { lr, weight_decay, betas, eps } = optimizer?.args ?? {};
  const clip = args.grad_clip as number | { name: string; args?: { max_norm?: number; clip_percentile?: number } } | null | undefined;
  if (clip && typeof clip !== "number" && clip.name !== "AdaptiveGradClipper") {
    throw new ConfigError(
      `Cannot use the TRELLIS config: grad_clip is ${JSON.stringify(clip)}, it must be a number or an AdaptiveGradClipper`,
    );
  }
  if (clip && typeof clip !== "number") expectKeys(clip.args, "trainer.args.grad_clip.args", ["max_norm", "clip_percentile"]);
  const rates = args.ema_rate;
  return {
    ...pick("steps", args.max_steps),
    batch: { ...pick("size", args.batch_size_per_gpu ?? args.batch_size), ...pick("split", args.batch_split) },
    optimizer: {
      ...pick("lr", lr),
      ...pick("weightDecay", weight_decay),
      ...pick("betas", betas),
      ...pick("eps", eps),
      clip: typeof clip === "number"
        ? { maxNorm: clip, percentile: null }
        : { maxNorm: clip?.args?.max_norm ?? null, percentile: clip ? clip.args?.clip_percentile ?? 95 : null },
      ...pick("emaRates", typeof rates === "number" ? [rates] : rates),
      ...pick("scaleGrowth", args.fp16_scale_growth),
    },
    log: { ...pick("every", args.i_log), ...pick("sampleEvery", args.i_sample), ...pick("saveEvery", args.i_save) },
  };
}

function pick(key: string, value: Json | undefined): { [key: string]: Json } {
  return value === undefined || value === null ? {} : { [key]: value };
}
