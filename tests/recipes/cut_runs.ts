/** Runs of the recipes' `tiny` that are cut and gone on with, beside uncut ones: the hashes of all state must be equal. */
import { encode } from "../../recipes/encode.ts";
import { SLAT_FLOW_SIZES, trainSlatFlow } from "../../recipes/slat_flow.ts";
import { SLAT_VAE_SIZES, trainSlatVae } from "../../recipes/slat_vae.ts";
import { SS_FLOW_SIZES, trainSsFlow } from "../../recipes/ss_flow.ts";
import { SS_VAE_SIZES, trainSsVae } from "../../recipes/ss_vae.ts";
import { createRandom, integer } from "../../lib/data/random.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { device } from "../../lib/tensor/device.ts";
import { checkpointPath, listCheckpoints, verifyCheckpoint } from "../../lib/train/checkpoint.ts";

/** A recipe's `tiny`, with what a test sets. */
export interface TinyRun {
  name: string;
  /** Trains up to `steps` in `output`, from its newest checkpoint on. */
  train(output: string, steps: number): void;
}

/** Makes a dataset in `folder`, and gives the recipes that train on it, at this resolution, with narrower flow models where time is short, and recorded passes as asked; their VAEs are trained for two steps here. */
export async function tinyRuns(
  folder: string,
  { resolution = 32, objects = 6, narrow = false, record }: { resolution?: number; objects?: number; narrow?: boolean; record?: boolean } =
    {},
): Promise<TinyRun[]> {
  const root = `${folder}/data`, log = { every: 10, sampleEvery: 0, saveEvery: 0, keep: 2 }, size = 2 * resolution;
  const quiet = console.log;
  console.log = () => {};
  await prepareDataset({
    ...{ output: root, objects, views: 2, size, resolution, renders: 6, renderSize: size, features: ["appearance"], workers: 0 },
    device: device().name,
  });
  const { tiny: vae } = SS_VAE_SIZES,
    { tiny: flow } = SS_FLOW_SIZES,
    { tiny: slatVae } = SLAT_VAE_SIZES,
    { tiny: slatFlow } = SLAT_FLOW_SIZES;
  const batch = { size: 4, split: 2 }, vaeConfig = { ...vae, data: { ...vae.data, root, resolution }, batch, log };
  const slatVaeConfig = {
    ...slatVae,
    data: { ...slatVae.data, root, resolution, imageSize: size },
    encoder: { ...slatVae.encoder, resolution },
    decoder: { ...slatVae.decoder, resolution },
    batch: { ...batch, views: 2 },
    log,
  };
  trainSsVae({ ...vaeConfig, steps: 2 }, { output: `${folder}/ss_base` });
  trainSlatVae({ ...slatVaeConfig, steps: 2 }, { output: `${folder}/slat_base` });
  await encode({ data: root, slatEncoder: `${folder}/slat_base/models/encoder` });
  console.log = quiet;
  const few = { model_channels: 32, cond_channels: 32 };
  const flowConfig = {
    ...flow,
    data: { ...flow.data, root, resolution },
    vae: `${folder}/ss_base/models`,
    model: { ...flow.model, resolution: resolution / 4 },
    augment: { mirror: true, shift: 1 / 8, gain: 0.3, exchange: 0.3 },
    ...{ batch, log },
  };
  const { latent_channels: channels } = slatVae.encoder,
    slatFlowConfig = {
      ...slatFlow,
      data: { ...slatFlow.data, root, latents: "appearance_slat_base" },
      decoder: `${folder}/slat_base/models/decoder`,
      model: {
        ...slatFlow.model,
        resolution,
        in_channels: channels,
        out_channels: channels,
        ...(narrow && { ...few, io_block_channels: [16] }),
      },
      condition: { ...slatFlow.condition, ...(narrow && { image_size: 16, channels: 32 }) } as typeof slatFlow.condition,
      shift: 1 / 8,
      ...{ batch, log },
    };
  return [
    { name: "ss-vae", train: (output, steps) => void trainSsVae({ ...vaeConfig, steps }, { output, record }) },
    { name: "ss-flow", train: (output, steps) => void trainSsFlow({ ...flowConfig, steps }, { output, record }) },
    { name: "slat-vae", train: (output, steps) => void trainSlatVae({ ...slatVaeConfig, steps }, { output }) },
    { name: "slat-flow", train: (output, steps) => void trainSlatFlow({ ...slatFlowConfig, steps }, { output }) },
  ];
}

/** The hashes of everything in the newest checkpoint of a run: its tensors, and the state that is none. */
export function stateOf(output: string): { step: number; tensors: string; state: string } {
  const { step, files: [{ sha256 }], state } = verifyCheckpoint(checkpointPath(output, listCheckpoints(output)[0]));
  return { step, tensors: sha256, state: JSON.stringify(state) };
}

/** Random steps to cut a run of `steps` at, each a different one, in their order. */
export function drawCuts(steps: number, count: number, seed: number): number[] {
  const random = createRandom(seed, 0), cuts = new Set<number>();
  while (cuts.size < count) cuts.add(integer(random, 1, steps - 1));
  return [...cuts].sort((a, b) => a - b);
}

/** What an uncut run and one that was cut at `cuts` end with. */
export function compareCuts(
  run: TinyRun,
  folder: string,
  steps: number,
  cuts: number[],
): { uncut: ReturnType<typeof stateOf>; cut: ReturnType<typeof stateOf> } {
  run.train(`${folder}/${run.name}_uncut`, steps);
  for (const end of [...cuts, steps]) run.train(`${folder}/${run.name}_cut`, end);
  return { uncut: stateOf(`${folder}/${run.name}_uncut`), cut: stateOf(`${folder}/${run.name}_cut`) };
}
