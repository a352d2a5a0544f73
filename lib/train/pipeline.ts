/**
 * An image-to-3D pipeline on disk: `pipeline.json` as TRELLIS publishes it, and each model as a pair `<name>.json`, `<name>.safetensors`. What is
 * read is the sparse-structure stage; models of other stages may stand beside it.
 */
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../io/atomic.ts";
import { loadParameters, savePretrained } from "../io/pretrained.ts";
import { type SsFlow, ssFlowSpec } from "../models/ss_flow.ts";
import type { SsDecoder } from "../models/ss_vae.ts";
import { type ChannelStatistics, trainingDtype } from "./batch.ts";
import type { Condition } from "./condition.ts";
import { checkConfig, ConfigError, readJson } from "./config.ts";
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
import { SS_DECODER_ARGS, SS_FLOW_ARGS } from "./schemas.ts";
import { loadSsDecoder } from "./trained_models.ts";

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

const DECODER_ARGS = SS_DECODER_ARGS.extend({ out_channels: z.literal(1) });
const FILE = z.looseObject({
  name: z.literal("TrellisImageTo3DPipeline"),
  args: z.looseObject({
    models: z.looseObject({ sparse_structure_decoder: z.string(), sparse_structure_flow_model: z.string() }),
    sparse_structure_sampler: SAMPLER_FILE,
    image_cond_model: CONDITION_FILE,
    sparse_structure_normalization: NORMALIZATION_FILE.optional(),
  }),
});

/** `pipeline.json` of a pipeline. */
function describe({ condition, sampler, sigmaMin, normalization }: PipelineToSave): z.infer<typeof FILE> {
  return {
    name: "TrellisImageTo3DPipeline",
    args: {
      models: { sparse_structure_decoder: "decoder", sparse_structure_flow_model: "flow" },
      sparse_structure_sampler: describeSampler(sampler, sigmaMin),
      image_cond_model: describeCondition(condition),
      sparse_structure_normalization: { mean: normalization.mean, std: normalization.std },
    },
  };
}

/** Writes a pipeline into `folder`, which is made if need be; `pipeline.json` comes last, so that it never names what is not there. */
export function savePipeline(folder: string, pipeline: PipelineToSave): void {
  const { flow, decoder, condition } = pipeline;
  Deno.mkdirSync(folder, { recursive: true });
  savePretrained(join(folder, "decoder"), { name: "SparseStructureDecoder", args: { ...decoder.args } }, decoder.params);
  savePretrained(join(folder, "flow"), { name: "SparseStructureFlowModel", args: { ...flow.args } }, flow.params);
  saveCondition(folder, condition);
  writeFileAtomic(join(folder, "pipeline.json"), new TextEncoder().encode(JSON.stringify(describe(pipeline), null, 4) + "\n"));
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
