/** The structured-latent stage of a pipeline on disk: the keys `slat_...` of `pipeline.json` as TRELLIS publishes it, and their models. */
import { basename, join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../io/atomic.ts";
import { loadParameters, savePretrained } from "../io/pretrained.ts";
import type { SlatGaussianDecoder } from "../models/slat_decoder_gaussian.ts";
import { type SlatFlow, slatFlowSpec } from "../models/slat_flow.ts";
import { type ChannelStatistics, trainingDtype } from "./batch.ts";
import type { Condition } from "./condition.ts";
import { checkConfig, ConfigError, type Json, readJson } from "./config.ts";
import {
  CONDITION_FILE,
  describeCondition,
  describeSampler,
  loadCondition,
  type LoadPipelineOptions,
  NORMALIZATION_FILE,
  pathIn,
  type PipelineSampler,
  readArgs,
  readSampler,
  SAMPLER_FILE,
  saveCondition,
} from "./pipeline_file.ts";
import { SLAT_FLOW_ARGS, SLAT_GAUSSIAN_DECODER_ARGS } from "./schemas.ts";
import { loadSlatGaussianDecoder } from "./trained_models.ts";

/** A pipeline's structured-latent stage. */
export interface SlatStage {
  /** Turns pictures into the flow model's condition. */
  condition: Condition;
  flow: SlatFlow;
  decoder: SlatGaussianDecoder;
  sampler: PipelineSampler;
  /** Of the latents: the flow model works on (z - mean) / std. */
  normalization: ChannelStatistics;
  /** Whether objects are to get the mean colour of their picture, see {@linkcode matchColors}. No published pipeline says so. */
  matchColors: boolean;
}

/** What {@linkcode saveSlatStage} writes; see {@linkcode SlatStage}. */
export interface SlatStageToSave {
  condition: Condition;
  flow: Pick<SlatFlow, "args" | "params">;
  /** The path of the SLatGaussianDecoder pair, which is copied; null for a stage without one. */
  decoder: string | null;
  sampler: Omit<PipelineSampler, "sigmaMin">;
  sigmaMin: number;
  normalization: ChannelStatistics;
  matchColors?: boolean;
  /** The folder of a pipeline with the sparse-structure stage, which is copied to make a whole pipeline; null for this stage alone. */
  structure: string | null;
}

const NAME = "TrellisImageTo3DPipeline";
const FILE = z.looseObject({
  name: z.literal(NAME),
  args: z.looseObject({
    models: z.looseObject({ slat_flow_model: z.string(), slat_decoder_gs: z.string().optional() }),
    slat_sampler: SAMPLER_FILE,
    slat_normalization: NORMALIZATION_FILE,
    image_cond_model: CONDITION_FILE.optional(),
    slat_image_cond_model: CONDITION_FILE.optional(),
    slat_match_colors: z.boolean().optional(),
  }),
});
const STRUCTURE_FILE = z.looseObject({
  args: z.looseObject({
    models: z.looseObject({ sparse_structure_decoder: z.string(), sparse_structure_flow_model: z.string() }),
    image_cond_model: CONDITION_FILE,
  }),
});

/** Copies a model pair. */
function copyPair(from: string, to: string): void {
  for (const ending of ["safetensors", "json"]) writeFileAtomic(`${to}.${ending}`, Deno.readFileSync(`${from}.${ending}`));
}

/** Copies the sparse-structure stage of the pipeline `from` into `folder`: the args of pipeline.json that say where it is now. */
function copyStructure(from: string, folder: string): { [key: string]: Json } {
  const path = join(from, "pipeline.json"), { args } = checkConfig(STRUCTURE_FILE, readJson(path), { known: null, source: path });
  const copy = (name: string): string => {
    const to = `structure_${basename(name)}`;
    copyPair(pathIn(from, name), join(folder, to));
    return to;
  };
  const { sparse_structure_decoder: decoder, sparse_structure_flow_model: flow } = args.models, image = args.image_cond_model;
  return {
    ...args as { [key: string]: Json },
    models: { sparse_structure_decoder: copy(decoder), sparse_structure_flow_model: copy(flow) },
    image_cond_model: typeof image === "object" && "path" in image ? { ...image, path: copy(image.path) } : image,
  };
}

/** Throws unless the decoder and the structure that a stage is to be saved with are there and fit latents [N, C] in a grid with R cells a side. */
export function expectStageParts(
  { decoder, structure }: Pick<SlatStageToSave, "decoder" | "structure">,
  { C, R }: { C: number; R: number },
): void {
  if (decoder !== null) {
    const args = readArgs(decoder, "SLatGaussianDecoder", SLAT_GAUSSIAN_DECODER_ARGS, Object.keys(SLAT_GAUSSIAN_DECODER_ARGS.shape));
    for (const [name, got, want] of [["latent_channels", args.latent_channels, C], ["resolution", args.resolution, R]] as const) {
      if (got !== want) {
        throw new ConfigError(`Cannot use the decoder ${decoder}: its ${name} is ${got}, it must be the flow model's ${want}`);
      }
    }
  }
  if (structure !== null) {
    const path = join(structure, "pipeline.json");
    checkConfig(STRUCTURE_FILE, readJson(path), { known: null, source: path });
  }
}

/** Writes the stage into `folder`, which is made if need be; `pipeline.json` comes last, so that it never names what is not there. */
export function saveSlatStage(folder: string, stage: SlatStageToSave): void {
  const { flow, decoder, condition, sampler, sigmaMin, normalization: { mean, std }, structure, matchColors } = stage;
  Deno.mkdirSync(folder, { recursive: true });
  const first = structure === null ? {} : copyStructure(structure, folder);
  savePretrained(join(folder, "slat_flow"), { name: "SLatFlowModel", args: { ...flow.args } }, flow.params);
  if (decoder !== null) copyPair(decoder, join(folder, "slat_decoder_gs"));
  saveCondition(folder, condition);
  const models = { slat_flow_model: "slat_flow", ...(decoder !== null && { slat_decoder_gs: "slat_decoder_gs" }) };
  const args = {
    ...first,
    models: { ...("models" in first ? first.models as object : {}), ...models },
    slat_sampler: describeSampler(sampler, sigmaMin),
    slat_normalization: { mean, std },
    slat_image_cond_model: describeCondition(condition),
    ...(matchColors && { slat_match_colors: true }),
  };
  writeFileAtomic(join(folder, "pipeline.json"), new TextEncoder().encode(JSON.stringify({ name: NAME, args }, null, 4) + "\n"));
}

/** Whether `condition` is the published encoder that a pipeline names. */
function isEncoder(image: z.infer<typeof CONDITION_FILE>, condition: Condition): boolean {
  return condition.config.encoder !== "patch" && JSON.stringify(describeCondition(condition)) === JSON.stringify(image);
}

function expectFit(folder: string, { condition, flow: { args }, decoder, normalization: { mean, std } }: SlatStage): void {
  const C = decoder.args.latent_channels;
  const sizes: [what: string, got: number, want: number][] = [
    ["the structured-latent flow model's in_channels", args.in_channels, C],
    ["the structured-latent flow model's out_channels", args.out_channels, C],
    ["the structured-latent flow model's cond_channels", args.cond_channels, condition.channels],
    ["the structured-latent flow model's resolution", args.resolution, decoder.args.resolution],
    ["the number of means in slat_normalization", mean.length, C],
    ["the number of deviations in slat_normalization", std.length, C],
  ];
  const wrong = sizes.find(([, got, want]) => got !== want);
  if (wrong) throw new ConfigError(`Cannot load the pipeline ${folder}: ${wrong[0]} is ${wrong[1]}, it must be ${wrong[2]}`);
}

/** Whether the pipeline in `folder` has a structured-latent stage with a decoder of Gaussians. */
export function hasSlatStage(folder: string): boolean {
  const file = readJson(join(folder, "pipeline.json")) as { args?: { models?: Record<string, unknown> } } | null;
  const models = file?.args?.models ?? {};
  return "slat_flow_model" in models && "slat_decoder_gs" in models;
}

/**
 * Loads the structured-latent stage of the pipeline in `folder`, ours or a published one, onto the open device: f16 blocks on a GPU where a model
 * says use_fp16, else f32. A published image encoder that the sparse-structure stage has loaded already is `shared`. Throws an Error naming the file
 * where one is missing, does not fit or leads out of the folder.
 */
export function loadSlatStage(
  folder: string,
  { dino, shared }: LoadPipelineOptions & { shared?: Condition } = {},
): SlatStage {
  const path = join(folder, "pipeline.json"), { args: file } = checkConfig(FILE, readJson(path), { known: null, source: path });
  const { slat_flow_model, slat_decoder_gs } = file.models, image = file.slat_image_cond_model ?? file.image_cond_model;
  if (!slat_decoder_gs || !image) {
    const missing = slat_decoder_gs ? "image_cond_model" : "models.slat_decoder_gs";
    throw new ConfigError(`Cannot load the pipeline ${folder}: its pipeline.json has no ${missing}, it must name one`);
  }
  const flowPath = pathIn(folder, slat_flow_model), decoderPath = pathIn(folder, slat_decoder_gs);
  const args = readArgs(flowPath, "SLatFlowModel", SLAT_FLOW_ARGS, Object.keys(SLAT_FLOW_ARGS.shape));
  readArgs(decoderPath, "SLatGaussianDecoder", SLAT_GAUSSIAN_DECODER_ARGS, Object.keys(SLAT_GAUSSIAN_DECODER_ARGS.shape));
  const dtype = trainingDtype("auto", args.use_fp16 ?? false);
  const stage: SlatStage = {
    condition: shared && isEncoder(image, shared) ? shared : loadCondition(folder, image, dino),
    flow: { args, dtype, params: loadParameters(slatFlowSpec(args, dtype), `${flowPath}.safetensors`) },
    decoder: loadSlatGaussianDecoder(decoderPath),
    sampler: readSampler(file.slat_sampler),
    normalization: file.slat_normalization,
    matchColors: file.slat_match_colors ?? false,
  };
  expectFit(folder, stage);
  return stage;
}
