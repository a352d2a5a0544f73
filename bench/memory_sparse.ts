/** Training steps of SLat-Flow image-L on samples of any size, within a budget. */
import type { Card } from "../lib/memory/cards.ts";
import { plannedMemory } from "../lib/memory/elastic.ts";
import { PUBLISHED_SLAT_FLOW } from "../lib/models/published.ts";
import { slatFlow, slatFlowSpec } from "../lib/models/slat_flow.ts";
import { initialize } from "../lib/nn/parameters.ts";
import { mse } from "../lib/ops/loss.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { batchCoords, makeVoxels } from "../lib/sparse/voxels.ts";
import { device } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward } from "../lib/tensor/tape.ts";
import { tensor } from "../lib/tensor/tensor.ts";
import { withCard } from "./capped_memory.ts";
import { startAtRandom } from "./flow_models.ts";
import { measured, type Row, row } from "./harness.ts";

const GIB = 2 ** 30;
/** Voxels of a sample; of four micro-batches of five, and of the fifth. */
const SAMPLE = { least: 4000, most: 32000, step: 2000 }, LIGHT = [8000, 80000], HEAVY = [168000, 196000], EVERY = 5;

/** MiB that the driver says this process holds, its context and what the pool keeps included. */
export function driverMib(): number {
  const args = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"];
  const { stdout } = new Deno.Command("nvidia-smi", { args }).outputSync(), lines = new TextDecoder().decode(stdout).trim().split("\n");
  const mine = lines.map((line) => line.split(",").map(Number)).filter(([pid]) => pid === Deno.pid);
  return mine.length ? mine[0][1] : Math.max(0, ...lines.map((line) => Number(line.split(",")[1]) || 0)); // a container's pids are its own
}

/** Places of `count` voxels on a shell in a grid of 64. */
export function shellOfVoxels(count: number): number[] {
  const middle = 31.5, cells: { d: number; at: number[] }[] = [], radius = 18 + 13 * Math.min(1, count / 32000);
  for (let x = 0; x < 64; x++) {
    for (let y = 0; y < 64; y++) {
      for (let z = 0; z < 64; z++) cells.push({ d: Math.abs(Math.hypot(x - middle, y - middle, z - middle) - radius), at: [x, y, z] });
    }
  }
  const chosen = cells.sort((a, b) => a.d - b.d).slice(0, count).map((c) => c.at);
  return chosen.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).flat();
}

/**
 * Samples of `count` micro-batches. Their sizes are drawn so that as many are as large as half of them (log-uniform), and a micro-batch takes samples
 * up to a number of voxels of its own. One of five goes beyond 40 GiB unless something is made again; the rest are light, so that 500 take less than
 * two minutes: filling 27 GiB with SLat-Flow's activations takes an H200 280 ms, whatever the samples.
 */
export function drawSamples(count: number): number[][][] {
  const { least, most, step: by } = SAMPLE,
    shells = Array.from({ length: (most - least) / by + 1 }, (_, i) => shellOfVoxels(least + by * i));
  const draws = step(() => new Generator(7).uniform([64 * count]).read());
  let at = 0;
  return Array.from({ length: count }, (_, i) => {
    const [low, high] = i % EVERY ? LIGHT : HEAVY, upTo = low + (high - low) * draws[at++], chosen: number[][] = [];
    for (let voxels = 0;;) {
      const places = shells[Math.round((least * (most / least) ** draws[at++] - least) / by)];
      voxels += places.length / 3;
      if (chosen.length && voxels > upTo) return chosen;
      chosen.push(places);
    }
  });
}

/** Trains for `count` steps of one micro-batch each, on a card of `gib` GiB; `save` is given the rows so far now and then. */
export function sparse(
  card: Card,
  { count, gib, seconds }: { count: number; gib: number; seconds: number },
  save: (rows: Row[]) => void,
): Row[] {
  const args = { ...PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16, use_fp16: false }, specs = slatFlowSpec(args, "bf16");
  startAtRandom(specs);
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS), budget = gib * GIB;
  const model = { args, dtype: "bf16", params: optimizer.params } as const, { memory } = device(), said: string[] = [];
  const elastic = plannedMemory({ budget, card, say: (text) => (said.push(text), console.error(text)) });
  const train = (chosen: number[][], sizes: number[]): void => {
    const N = sizes.reduce((a, b) => a + b, 0), B = sizes.length;
    step(() => {
      const voxels = makeVoxels(batchCoords(chosen), { B });
      elastic.run((options) =>
        step(() => {
          const random = new Generator(N), x = random.normal([N, args.in_channels]), target = random.normal([N, args.out_channels]);
          const cond = random.normal([B, 1374, args.cond_channels]), t = tensor(sizes.map((_, i) => 1000 * (i + 0.5) / B), [B]);
          backward(mse(slatFlow(model, { features: x, voxels }, t, cond, options), target));
        }), sizes);
    });
  };
  memory.trim();
  const used: number[] = [], errors: number[] = [], peaks: number[] = [], planning: number[] = [], batches = drawSamples(count);
  let steps = 0, voxels = 0, samples = 0;
  const began = performance.now();
  const mean = (list: number[]): number => list.reduce((a, b) => a + b, 0) / list.length;
  const rows = (): Row[] => {
    memory.synchronize();
    const ms = (performance.now() - began) / steps,
      name = `SLat-Flow image-L bf16 varying, ${gib} GiB, ${steps} steps, samples of 4k to 32k voxels`;
    const ofBudget = { metric: "memory", unit: "of the budget", limit: 1 };
    const made = (what: string, values: Omit<Parameters<typeof row>[0], "case">): Row => row({ case: `${name}: ${what}`, ...values });
    return [
      made("out of memory", { metric: "count", unit: "", ours: said.length, limit: 0 }),
      made("largest peak, the optimizer's pass included", { ...ofBudget, ours: Math.max(...peaks) }),
      made(`mean peak of the ${used.length} that needed recomputation`, { ...ofBudget, ours: mean(used) }),
      made("smallest peak of those", { ...ofBudget, ours: Math.min(...used) }),
      made("largest error of the predicted peak", { metric: "memory", unit: "of the peak", ours: Math.max(...errors), limit: 0.01 }),
      made("memory of the process at the end by nvidia-smi, its context included", {
        metric: "memory",
        unit: "GiB",
        ours: driverMib() / 1024,
      }),
      made("mean time of a step", { metric: "time", unit: "ms", ours: ms }),
      made("mean time of the host for planning, beside the device's work", { metric: "time", unit: "ms", ours: mean(planning) }),
      made("samples", { metric: "rate", unit: "1/s", ours: 1e3 * samples / steps / ms }),
      made("voxels", { metric: "rate", unit: "1/s", ours: 1e3 * voxels / steps / ms }),
    ];
  };
  const found = withCard(budget, () => {
    for (const chosen of batches) {
      if (performance.now() > began + 1e3 * seconds) break;
      const sizes = chosen.map((places) => places.length / 3);
      train(chosen, sizes);
      const { peak, predicted, share } = elastic.report;
      optimizer.stepLater();
      peaks.push(Math.max(peak, memory.use().peak) / budget);
      planning.push(elastic.report.planning);
      errors.push(Math.abs(predicted - peak) / peak);
      if (share > 0) used.push(peak / budget);
      samples += sizes.length;
      voxels += sizes.reduce((a, b) => a + b, 0);
      if (steps < 5 || steps % 100 === 99) {
        console.error(`step ${steps + 1}: ${sizes.length} samples, ${elastic.describe()}, peak ${(peak / GIB).toFixed(2)} GiB`);
      }
      if (++steps % 50 === 0) save(rows());
    }
    return rows();
  });
  optimizer.free();
  memory.trim();
  return found.map((r) => measured(r));
}
