/**
 * An image-to-3D pipeline on disk: `pipeline.json` as TRELLIS publishes it, and each model as a pair `<name>.json`, `<name>.safetensors`. What is
 * read is the sparse-structure stage; models of other stages may stand beside it.
 */
import { join } from "node:path";
import { z } from "zod";
import type { SamplerOptions } from "../flow/sampler.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { loadParameters, readModelDescription, savePretrained } from "../io/pretrained.ts";
import type { PatchEncoderArgs } from "../models/patch_encoder.ts";
import { type SsFlow, ssFlowSpec } from "../models/ss_flow.ts";
import type { SsDecoder } from "../models/ss_vae.ts";
import { type ChannelStatistics, trainingDtype } from "./batch.ts";
import { type Condition, dinoEncoder, patchEncoder } from "./condition.ts";
import { checkConfig, ConfigError, type Json, readJson } from "./config.ts";
import { COUNT, PATCH_ENCODER_ARGS, SS_DECODER_ARGS, SS_FLOW_ARGS } from "./schemas.ts";
import { loadSsDecoder } from "./trained_models.ts";

/** How a pipeline samples unless the user says otherwise. */
export type PipelineSampler = Required<Omit<SamplerOptions, "onStep">>;

/** A pipeline's sparse-structure stage. */
export interface Pipeline {
  /** Turns pictures into the flow model's condition. */
  condition: Condition;
  flow: SsFlow;
  decoder: SsDecoder;
  sampler: PipelineSampler;
  /** Of the latents: the flow model works on (z - mean) / std. */
  normalization: ChannelStatistics;
}

/** What {@linkcode savePipeline} writes; see {@linkcode Pipeline}. */
export interface PipelineToSave {
  /** Of a DINOv2 the name is written: its weights are published. */
  condition: Condition;
  flow: Pick<SsFlow, "args" | "params">;
  decoder: Pick<SsDecoder, "args" | "params">;
  sampler: Omit<PipelineSampler, "sigmaMin">;
  sigmaMin: number;
  normalization: ChannelStatistics;
}

/** Options of {@linkcode loadPipeline}. */
export interface LoadPipelineOptions {
  /** The weights of DINOv2 (safetensors, under their published names), for a pipeline that uses it. */
  dino?: string;
}

/** Side in pixels of a published pipeline's pictures. */
const DINO_SIDE = 518;

const TIME = z.number().min(0).max(1), DECODER_ARGS = SS_DECODER_ARGS.extend({ out_channels: z.literal(1) });
const SAMPLER = z.looseObject({
  name: z.enum(["FlowEulerSampler", "FlowEulerCfgSampler", "FlowEulerGuidanceIntervalSampler"]),
  args: z.looseObject({ sigma_min: TIME }),
  params: z.looseObject({
    steps: COUNT.optional(),
    cfg_strength: z.number().optional(),
    cfg_interval: z.tuple([TIME, TIME]).optional(),
    rescale_t: z.number().positive().optional(),
  }),
});
const CONDITION = z.union([
  z.string(),
  z.strictObject({ name: z.literal("PatchEncoder"), path: z.string() }),
  z.strictObject({ name: z.literal("dinov2_vitl14_reg"), image_size: COUNT }),
]);
const FILE = z.looseObject({
  name: z.literal("TrellisImageTo3DPipeline"),
  args: z.looseObject({
    models: z.looseObject({ sparse_structure_decoder: z.string(), sparse_structure_flow_model: z.string() }),
    sparse_structure_sampler: SAMPLER,
    image_cond_model: CONDITION,
    sparse_structure_normalization: z.strictObject({ mean: z.array(z.number()), std: z.array(z.number().positive()) }).optional(),
  }),
});

/** `pipeline.json` of a pipeline. */
function describe({ condition: { config }, sampler: s, sigmaMin, normalization }: PipelineToSave): z.infer<typeof FILE> {
  const dino = "weights" in config &&
    (config.image_size === DINO_SIDE ? config.encoder : { name: config.encoder, image_size: config.image_size });
  return {
    name: "TrellisImageTo3DPipeline",
    args: {
      models: { sparse_structure_decoder: "decoder", sparse_structure_flow_model: "flow" },
      sparse_structure_sampler: {
        name: "FlowEulerGuidanceIntervalSampler",
        args: { sigma_min: sigmaMin },
        params: { steps: s.steps, cfg_strength: s.cfgStrength, cfg_interval: s.cfgInterval, rescale_t: s.rescaleT },
      },
      image_cond_model: dino || { name: "PatchEncoder", path: "image_encoder" },
      sparse_structure_normalization: { mean: normalization.mean, std: normalization.std },
    },
  };
}

/** Writes a pipeline into `folder`, which is made if need be; `pipeline.json` comes last, so that it never names what is not there. */
export function savePipeline(folder: string, pipeline: PipelineToSave): void {
  const { flow, decoder, condition: { config, trained } } = pipeline;
  Deno.mkdirSync(folder, { recursive: true });
  savePretrained(join(folder, "decoder"), { name: "SparseStructureDecoder", args: { ...decoder.args } }, decoder.params);
  savePretrained(join(folder, "flow"), { name: "SparseStructureFlowModel", args: { ...flow.args } }, flow.params);
  if (config.encoder === "patch") {
    const { encoder: _, ...args } = config;
    savePretrained(join(folder, "image_encoder"), { name: "PatchEncoder", args }, trained);
  }
  writeFileAtomic(join(folder, "pipeline.json"), new TextEncoder().encode(JSON.stringify(describe(pipeline), null, 4) + "\n"));
}

/** Where a model of the pipeline lies; what leads out of the folder is refused. */
function pathIn(folder: string, name: string): string {
  if (/^$|^\/|^[A-Za-z]:|[\\\0]/.test(name) || name.split("/").includes("..")) {
    throw new ConfigError(
      `Cannot load the pipeline ${folder}: it names the model ${JSON.stringify(name)}, it must be a path inside the folder`,
    );
  }
  return join(folder, name);
}

/** The constructor options in `<path>.json`, which must be of class `name`. */
function readArgs<T>(path: string, name: string, schema: z.ZodType<T>, keys: string[]): T {
  const found = readModelDescription(path), known = Object.fromEntries(keys.map((key) => [key, null]));
  if (found.name !== name) throw new ConfigError(`Cannot load a model: ${path}.json describes a ${found.name}, it must describe a ${name}`);
  return checkConfig(schema, found.args as Json, { known, source: `the args in ${path}.json` });
}

function loadCondition(folder: string, model: z.infer<typeof CONDITION>, dino?: string): Condition {
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

function readSampler({ name, args, params }: z.infer<typeof SAMPLER>): PipelineSampler {
  return {
    steps: params.steps ?? 50,
    rescaleT: params.rescale_t ?? 1,
    cfgStrength: name === "FlowEulerSampler" ? 0 : params.cfg_strength ?? 3,
    cfgInterval: name === "FlowEulerGuidanceIntervalSampler" ? params.cfg_interval ?? [0, 1] : [0, 1],
    sigmaMin: args.sigma_min,
  };
}

function expectFit(folder: string, { condition, flow: { args }, decoder, normalization: { mean, std } }: Pipeline): void {
  const C = decoder.args.latent_channels;
  const sizes: [what: string, got: number, want: number][] = [
    ["the flow model's in_channels", args.in_channels, C],
    ["the flow model's out_channels", args.out_channels, C],
    ["the flow model's cond_channels", args.cond_channels, condition.channels],
    ["the number of means in sparse_structure_normalization", mean.length, C],
    ["the number of deviations in sparse_structure_normalization", std.length, C],
  ];
  const wrong = sizes.find(([, got, want]) => got !== want);
  if (wrong) throw new ConfigError(`Cannot load the pipeline ${folder}: ${wrong[0]} is ${wrong[1]}, it must be ${wrong[2]}`);
}

/**
 * Loads the sparse-structure stage of the pipeline in `folder`, ours or a published one, onto the open device: f16 blocks on a GPU where a model
 * says use_fp16, else f32. Throws an Error naming the file where one is missing, does not fit or leads out of the folder.
 */
export function loadPipeline(folder: string, { dino }: LoadPipelineOptions = {}): Pipeline {
  const path = join(folder, "pipeline.json");
  const { args: file } = checkConfig(FILE, readJson(path), { known: null, source: path });
  const decoderPath = pathIn(folder, file.models.sparse_structure_decoder),
    flowPath = pathIn(folder, file.models.sparse_structure_flow_model);
  readArgs(decoderPath, "SparseStructureDecoder", DECODER_ARGS, Object.keys(DECODER_ARGS.shape));
  const args = readArgs(flowPath, "SparseStructureFlowModel", SS_FLOW_ARGS, Object.keys(SS_FLOW_ARGS.shape));
  const dtype = trainingDtype("auto", args.use_fp16 ?? false), C = args.in_channels;
  const pipeline: Pipeline = {
    condition: loadCondition(folder, file.image_cond_model, dino),
    flow: { args, dtype, params: loadParameters(ssFlowSpec(args, dtype), `${flowPath}.safetensors`) },
    decoder: loadSsDecoder(decoderPath),
    sampler: readSampler(file.sparse_structure_sampler),
    normalization: file.sparse_structure_normalization ?? { mean: Array(C).fill(0), std: Array(C).fill(1) },
  };
  expectFit(folder, pipeline);
  return pipeline;
}
