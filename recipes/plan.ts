/**
 * Says, before a training runs and on any machine, what it will take: memory by kind, time a step, what is made again to keep to a budget, hours and
 * cost. The training's steps are run on a card that computes nothing.
 *
 *   deno task plan -- ss-flow|slat-flow [--size published] [--config FILE] [--gpu H200,A100-80] [--memory-limit 24GiB] [--gpus 4] [--key.key=value ...]
 */
import * as e from "../mod.ts";
import { SLAT_FLOW_SIZES, slatFlowConfig } from "./slat_flow.ts";
import { SS_FLOW_SIZES, ssFlowConfig } from "./ss_flow.ts";

/** What both recipes' configs have, as far as it matters here. */
interface FlowConfig {
  condition: e.ConditionConfig;
  precision: e.Precision;
  optimizer: e.OptimizerConfig;
  memory: e.MemoryConfig;
  batch: { size: number; split: number };
  steps: number;
  seed: number;
}

/** One micro-batch of a flow model: its samples' tokens, and the squared error of the velocity at random inputs. */
interface Flow<P> {
  specs: unknown;
  sizes: number[];
  error(params: P, tokens: e.Tensor, options: e.PassOptions): e.Tensor;
  /** Whether all micro-batches have the same kernels. */
  fixed?: boolean;
}

/** A training to predict, and what its config says besides. */
interface Made {
  steps: number;
  batch: number;
  offload: boolean;
  make: () => e.Training;
}

const offloads = ({ memory }: FlowConfig): boolean => memory.policy === "planned" && memory.offload === true;

/** A training step of a flow model with its condition. */
function trainingOf<P>(c: FlowConfig, { specs, sizes, error, fixed = false }: Flow<P>, count: number): e.Training {
  const opened = e.randomCondition(c.condition, c.precision), all = { flow: specs, image: opened.spec };
  const optimizer = e.createOptimizer(all, e.initialize(all, new e.Generator(c.seed)), c.optimizer, { ranks: e.imaginedRanks(count) });
  const params = optimizer.params as unknown as { flow: P; image: undefined }, condition = opened.withParameters(params.image);
  const B = sizes.length, S = c.condition.image_size;
  return {
    optimizer,
    parts: c.batch.split,
    sizes,
    recorded: fixed && count === 1 && c.memory.policy === "planned",
    pass: (options) =>
      e.step(() => {
        const tokens = condition.encode(e.zeros([B, 3, S, S]));
        e.backward(e.mul(error(params.flow, tokens, options), optimizer.lossScale()));
      }),
  };
}

function ssFlowTraining(flags: e.ConfigFlags, count: number): Made {
  const c = ssFlowConfig(flags), { resolution: r, in_channels: C } = c.model, B = Math.ceil(c.batch.size / c.batch.split);
  const make = (): e.Training => {
    const dtype = e.trainingDtype(c.precision, c.model.use_fp16 ?? false), specs = e.ssFlowSpec(c.model, dtype);
    return trainingOf<e.SsFlow["params"]>(c, {
      specs,
      sizes: new Array<number>(B).fill((r / (c.model.patch_size ?? 2)) ** 3),
      fixed: true,
      error(params, tokens, options) {
        const random = new e.Generator(1), [xt, velocity] = [1, 2].map(() => random.normal([B, C, r, r, r]));
        return e.mse(
          e.ssFlow({ args: c.model, dtype, fp8: e.layersInFp8(c.precision), params }, xt, e.zeros([B]), tokens, options),
          velocity,
        );
      },
    }, count);
  };
  return { steps: c.steps, batch: c.batch.size, offload: offloads(c), make };
}

/** Places of about `count` voxels on a sphere in a grid of side R: as many neighbours as a surface has. */
function surface(count: number, R: number): Int32Array {
  const middle = (R - 1) / 2, radius = Math.min(middle - 1, Math.sqrt(count / (4 * Math.PI)) * 0.82), cells: [number, number[]][] = [];
  for (let x = 0; x < R; x++) {
    for (let y = 0; y < R; y++) {
      for (let z = 0; z < R; z++) cells.push([Math.abs(Math.hypot(x - middle, y - middle, z - middle) - radius), [x, y, z]]);
    }
  }
  return Int32Array.from(cells.sort((a, b) => a[0] - b[0]).slice(0, count).flatMap(([, at]) => at));
}

function slatFlowTraining(flags: e.ConfigFlags, count: number, voxels: number): Made {
  const c = slatFlowConfig(flags), B = Math.ceil(c.batch.size / c.batch.split), { in_channels: C, resolution: R } = c.model;
  const places = surface(voxels, R), set = e.makeVoxels(e.batchCoords(new Array<Int32Array>(B).fill(places)), { B }); // on this machine's own device
  const make = (): e.Training => {
    const dtype = e.trainingDtype(c.precision, c.model.use_fp16 ?? false), specs = e.slatFlowSpec(c.model, dtype);
    return trainingOf<e.SlatFlow["params"]>(c, {
      specs,
      sizes: new Array<number>(B).fill(places.length / 3),
      error(params, tokens, options) {
        const random = new e.Generator(1), [features, velocity] = [1, 2].map(() => random.normal([set.N, C]));
        return e.mse(
          e.slatFlow(
            { args: c.model, dtype, fp8: e.layersInFp8(c.precision), params },
            { features, voxels: set },
            e.zeros([B]),
            tokens,
            options,
          ),
          velocity,
        );
      },
    }, count);
  };
  return { steps: c.steps, batch: c.batch.size, offload: offloads(c), make };
}

/** A prediction in a few lines. */
export function describe(p: e.Prediction, { batch, steps, gpus }: { batch: number; steps: number; gpus: number }): string {
  const hours = steps * p.step / 3600, { name, dollars } = p.card;
  const most = Object.entries(p.atPeak).filter(([, bytes]) => bytes > 0.005 * p.peak).sort((a, b) => b[1] - a[1]);
  const [again, away] = (["drop", "offload"] as const).map((how) =>
    p.givenUp.filter((g) => g.how === how).map(({ kind, blocks, bytes }) => {
      return `${kind}${blocks > 1 ? ` of ${blocks} blocks` : ""} ${e.formatBytes(bytes)}`;
    })
  );
  return [
    `${name}: ${p.fits ? "fits" : "does NOT fit"}: ${e.formatBytes(p.peak)} at the peak of ${e.formatBytes(p.budget)}`,
    `  at the peak: ${most.map(([kind, bytes]) => `${kind} ${e.formatBytes(bytes)}`).join(", ")}`,
    `  made again: ${["norms and activations", ...again].join(", ")}${
      again.length ? `; ${(1e3 * p.remade).toFixed(0)} ms a step of it` : ""
    }`,
    ...(away.length ? [`  on the host meanwhile: ${away.join(", ")}`] : []),
    `  a step: ${(1e3 * p.step).toFixed(0)} ms (${(1e3 * p.optimizer).toFixed(1)} ms the optimizer), ${
      (batch / p.step).toFixed(1)
    } samples/s a GPU`,
    `  ${steps} steps: ${hours < 10 ? hours.toFixed(1) : hours.toFixed(0)} hours, ${(hours * gpus).toFixed(0)} GPU hours, about $${
      (hours * gpus * dollars).toFixed(0)
    } at $${dollars} a GPU hour`,
  ].join("\n");
}

/** Plans of the recipe on each card, of which `count` train together. */
export function planRecipe(
  recipe: string,
  flags: e.ConfigFlags,
  { gpus, count = 1, budget, voxels, steps }: { gpus: string[]; count?: number; budget?: number; voxels: number; steps?: number },
): { predictions: e.Prediction[]; steps: number; batch: number } {
  if (recipe !== "ss-flow" && recipe !== "slat-flow") {
    throw new e.UserError(`Cannot plan: the recipe is "${recipe}", it must be ss-flow or slat-flow`);
  }
  const made = recipe === "ss-flow" ? ssFlowTraining(flags, count) : slatFlowTraining(flags, count, voxels);
  const predictions = gpus.map((gpu) => {
    const card = e.CARDS[gpu];
    if (!card) throw new e.UserError(`Cannot plan: the GPU is "${gpu}", it must be one of ${Object.keys(e.CARDS).join(", ")}`);
    return e.predictTraining(card, made.make, budget && Math.min(budget, card.memory), made);
  });
  return { predictions, steps: steps ?? made.steps, batch: made.batch };
}

if (import.meta.main) {
  await e.runRecipe(() => {
    const sizes = { ...SS_FLOW_SIZES, ...SLAT_FLOW_SIZES };
    const command = e.recipeCommand("plan", "Says what a training will take: memory, time and cost, on any GPU, before it runs.")
      .argument("<recipe>", "ss-flow or slat-flow")
      .option("--size <size>", `the settings to start from: ${Object.keys(SS_FLOW_SIZES).join(", ")}`, "published")
      .option("--config <file>", "a JSON file laid over them: ours (config.json of a run) or TRELLIS's")
      .option("--gpu <names>", `the GPUs, with commas between them: ${Object.keys(e.CARDS).join(", ")}`, Object.keys(e.CARDS).join())
      .option("--gpus <count>", "how many of them train together", "1")
      .option("--steps <count>", "steps to count hours and cost for; by default the config's")
      .option("--voxels <count>", "voxels of a sample (slat-flow)", "15192");
    const { overrides, rest } = e.splitOverrides(Deno.args, Object.keys(Object.values(sizes)[0]).filter((key) => key !== "steps"));
    const flags = command.parse(rest, { from: "user" }).opts<
      { size: string; config?: string; gpu: string; gpus: string; steps?: string; voxels: string; memoryLimit?: string }
    >();
    const budget = flags.memoryLimit ? e.parseBytes(flags.memoryLimit) : undefined, gpus = Number(flags.gpus);
    if (!(Number.isInteger(gpus) && gpus > 0)) {
      throw new e.UserError(`Cannot plan: --gpus is ${flags.gpus}, it must be a whole number from 1 up`);
    }
    const options = {
      gpus: flags.gpu.split(","),
      count: gpus,
      budget,
      voxels: Number(flags.voxels),
      steps: flags.steps ? Number(flags.steps) : undefined,
    };
    e.openDevice("cpu"); // planning needs no GPU
    const { predictions, steps, batch } = planRecipe(command.args[0], { size: flags.size, file: flags.config, overrides }, options);
    for (const p of predictions) console.log(describe(p, { batch, steps, gpus }));
    return Promise.resolve();
  });
}
