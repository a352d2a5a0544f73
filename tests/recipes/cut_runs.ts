/** Runs of the recipes' `tiny` that are cut and gone on with, beside uncut ones: the hashes of all state must be equal. */
import { SS_FLOW_SIZES, trainSsFlow } from "../../recipes/ss_flow.ts";
import { SS_VAE_SIZES, trainSsVae } from "../../recipes/ss_vae.ts";
import { createRandom, integer } from "../../lib/data/random.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { checkpointPath, listCheckpoints, verifyCheckpoint } from "../../lib/train/checkpoint.ts";

/** A recipe's `tiny`, with what a test sets. */
export interface TinyRun {
  name: string;
  /** Trains up to `steps` in `output`, from its newest checkpoint on. */
  train(output: string, steps: number, saveEvery?: number): void;
}

/** Makes a dataset of `objects` in `folder`, and gives the recipes that train on it, at this resolution; ss-flow's needs a run of ss-vae, made here too. */
export async function tinyRuns(folder: string, { resolution = 32, objects = 6 } = {}): Promise<TinyRun[]> {
  const root = `${folder}/data`, log = { every: 10, sampleEvery: 0, keep: 2 };
  await prepareDataset({ output: root, objects, views: 2, size: 64, resolution, workers: 0 });
  const { tiny: vae } = SS_VAE_SIZES, { tiny: flow } = SS_FLOW_SIZES, data = { root, resolution };
  trainSsVae({ ...vae, data: { ...vae.data, ...data }, steps: 2, log: { ...log, saveEvery: 0 } }, { output: `${folder}/base` });
  return [
    {
      name: "ss-vae",
      train: (output, steps, saveEvery = 0) =>
        void trainSsVae({ ...vae, data: { ...vae.data, ...data }, batch: { size: 4, split: 2 }, steps, log: { ...log, saveEvery } }, {
          output,
        }),
    },
    {
      name: "ss-flow",
      train: (output, steps, saveEvery = 0) =>
        void trainSsFlow({
          ...flow,
          data: { ...flow.data, ...data },
          vae: `${folder}/base/models`,
          model: { ...flow.model, resolution: resolution / 4 },
          augment: { mirror: true, shift: 1 / 8, gain: 0.3, exchange: 0.3 },
          batch: { size: 4, split: 2 },
          steps,
          log: { ...log, saveEvery },
        }, { output }),
    },
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
