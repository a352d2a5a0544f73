/** What the stages of a pipeline have in common in `pipeline.json`: samplers, the image encoder, where models lie. */
import { join } from "node:path";
import { z } from "zod";
import type { SamplerOptions } from "../flow/sampler.ts";
import { loadParameters, readModelDescription, savePretrained } from "../io/pretrained.ts";
import type { PatchEncoderArgs } from "../models/patch_encoder.ts";
import { type Condition, dinoEncoder, patchEncoder } from "./condition.ts";
import { checkConfig, ConfigError, type Json } from "./config.ts";
import { COUNT, PATCH_ENCODER_ARGS } from "./schemas.ts";

/** How a pipeline samples unless the user says otherwise. */
export type PipelineSampler = Required<Omit<SamplerOptions, "onStep" | "samples">>;

/** Options of {@linkcode loadPipeline}. */
export interface LoadPipelineOptions {
  /** The weights of DINOv2 (safetensors, under their published names), for a pipeline that uses it. */
  dino?: string;
}

/** Side in pixels of a published pipeline's pictures. */
const DINO_SIDE = 518;

const TIME = z.number().min(0).max(1);
/** Of a stage's sampler. */
export const SAMPLER_FILE = z.looseObject({
  name: z.enum(["FlowEulerSampler", "FlowEulerCfgSampler", "FlowEulerGuidanceIntervalSampler"]),
  args: z.looseObject({ sigma_min: TIME }),
  params: z.looseObject({
    steps: COUNT.optional(),
    cfg_strength: z.number().optional(),
    cfg_interval: z.tuple([TIME, TIME]).optional(),
    rescale_t: z.number().positive().optional(),
  }),
});
/** Of the image encoder. */
export const CONDITION_FILE = z.union([
  z.string(),
  z.strictObject({ name: z.literal("PatchEncoder"), path: z.string() }),
  z.strictObject({ name: z.literal("dinov2_vitl14_reg"), image_size: COUNT }),
]);

/** Of a stage's latent statistics. */
export const NORMALIZATION_FILE = z.strictObject({ mean: z.array(z.number()), std: z.array(z.number().positive()) });

/** A sampler as pipeline.json says it. */
export function describeSampler(s: Omit<PipelineSampler, "sigmaMin">, sigmaMin: number): z.infer<typeof SAMPLER_FILE> {
  return {
    name: "FlowEulerGuidanceIntervalSampler",
    args: { sigma_min: sigmaMin },
    params: { steps: s.steps, cfg_strength: s.cfgStrength, cfg_interval: s.cfgInterval, rescale_t: s.rescaleT },
  };
}

/** An image encoder as pipeline.json says it: of a DINOv2 the name, since its weights are published. */
export function describeCondition({ config }: Condition): z.infer<typeof CONDITION_FILE> {
  if (config.encoder === "patch") return { name: "PatchEncoder", path: "image_encoder" };
  return config.image_size === DINO_SIDE ? config.encoder : { name: config.encoder, image_size: config.image_size };
}

/** Writes what {@linkcode describeCondition} names into the pipeline's folder. */
export function saveCondition(folder: string, { config, trained }: Condition): void {
  if (config.encoder !== "patch") return;
  const { encoder: _, ...args } = config;
  savePretrained(join(folder, "image_encoder"), { name: "PatchEncoder", args }, trained);
}

/** Where a model of the pipeline lies; what leads out of the folder is refused. */
export function pathIn(folder: string, name: string): string {
  if (/^$|^\/|^[A-Za-z]:|[\\\0]/.test(name) || name.split("/").includes("..")) {
    throw new ConfigError(
      `Cannot load the pipeline ${folder}: it names the model ${JSON.stringify(name)}, it must be a path inside the folder`,
    );
  }
  return join(folder, name);
}

/** The constructor options in `<path>.json`, which must be of class `name`. */
export function readArgs<T>(path: string, name: string, schema: z.ZodType<T>, keys: string[]): T {
  const found = readModelDescription(path), known = Object.fromEntries(keys.map((key) => [key, null]));
  if (found.name !== name) throw new ConfigError(`Cannot load a model: ${path}.json describes a ${found.name}, it must describe a ${name}`);
  return checkConfig(schema, found.args as Json, { known, source: `the args in ${path}.json` });
}

/** Loads the image encoder that a pipeline names. */
export function loadCondition(folder: string, model: z.infer<typeof CONDITION_FILE>, dino?: string): Condition {
  if (typeof model !== "string" && model.name === "PatchEncoder") {
    const path = pathIn(folder, model.path);
    const args: PatchEncoderArgs = readArgs(path, "PatchEncoder", PATCH_ENCODER_ARGS, Object.keys(PATCH_ENCODER_ARGS.shape));
    const encoder = patchEncoder(args);
    return encoder.withParameters(loadParameters(encoder.spec!, `${path}.safetensors`));
  }
  const { name, image_size } = typeof model === "string" ? { name: model, image_size: DINO_SIDE } : model;
  if (name !== "dinov2_vitl14_reg") {
    throw new ConfigError(
      `Cannot load the pipeline ${folder}: image_cond_model is "${name}", it must be dinov2_vitl14_reg or a PatchEncoder`,
    );
  }
  if (!dino) {
    throw new ConfigError(
      `Cannot load the pipeline ${folder}: its condition is ${name}, --dino must name the safetensors file with its weights`,
    );
  }
  return dinoEncoder(dino, image_size);
}

/** The sampler that a pipeline names. */
export function readSampler({ name, args, params }: z.infer<typeof SAMPLER_FILE>): PipelineSampler {
  return {
    steps: params.steps ?? 50,
    rescaleT: params.rescale_t ?? 1,
    cfgStrength: name === "FlowEulerSampler" ? 0 : params.cfg_strength ?? 3,
    cfgInterval: name === "FlowEulerGuidanceIntervalSampler" ? params.cfg_interval ?? [0, 1] : [0, 1],
    sigmaMin: args.sigma_min,
  };
}
