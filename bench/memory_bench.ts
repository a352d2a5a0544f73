/**
 * Memory of the half-billion-parameter flow models in training on CUDA: predicted and measured peaks, steps within budgets, and 500 micro-batches of
 * sparse samples of any size within 40 GiB. Writes bench/results/memory.json. MEMORY_PARTS names the parts to run: small, dense, sparse.
 *
 *   deno task bench bench/memory_bench.ts
 */
import { readDriver } from "../ffi/cuda_driver.ts";
import { cardFor } from "../lib/memory/cards.ts";
import { type ElasticMemory, type PassOptions, plannedMemory } from "../lib/memory/elastic.ts";
import { simulate } from "../lib/memory/simulate.ts";
import { PUBLISHED_SLAT_FLOW } from "../lib/models/published.ts";
import { slatFlow, slatFlowSpec } from "../lib/models/slat_flow.ts";
import { initialize, leaves } from "../lib/nn/parameters.ts";
import { mse } from "../lib/ops/loss.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { batchCoords, makeVoxels } from "../lib/sparse/voxels.ts";
import { device } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { withChoice } from "../lib/tensor/storage.ts";
import { backward } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { ssFlowWork, startAtRandom, type Work } from "./flow_models.ts";
import { benchmark, measured, type Row } from "./harness.ts";

const GIB = 2 ** 30, RUNS = 4;
const PARTS = (Deno.env.get("MEMORY_PARTS") ?? "small,dense,sparse").split(",");
/** Samples of a sparse micro-batch, and the budget: about half of them need recomputation. */
const SAMPLES = Number(Deno.env.get("MEMORY_SAMPLES") ?? 10), SPARSE_GIB = Number(Deno.env.get("MEMORY_GIB") ?? 40);
const MICRO_BATCHES = Number(Deno.env.get("MEMORY_BATCHES") ?? 500), SECONDS = Number(Deno.env.get("MEMORY_SECONDS") ?? 1000);

/** Gradients of parameters in some of the blocks after one pass. */
function gradients(work: Work, pass: () => Tensor): Float32Array[] {
  clear(work);
  pass().free();
  const chosen = leaves<Tensor>(work.optimizer.params).filter(([name]) => /^(input_layer|blocks\.(0|11|23)\.(self_attn|mlp))/.test(name));
  return chosen.map(([, p]) => p.grad!.read());
}

function clear(work: Work): void {
  for (const [, p] of leaves<Tensor>(work.optimizer.params)) if (p.grad) device().memory.zero(p.grad.addr, p.grad.bytes);
}

function equal(a: Float32Array[], b: Float32Array[]): boolean {
  return a.every((x, i) => x.every((v, j) => Object.is(v, b[i][j])));
}

/** Median milliseconds and peak of steps that `pass` makes, beside the peak that was predicted. */
function steps(
  work: Work,
  name: string,
  pass: () => Tensor,
  predicted: () => { peak: number; seconds: number },
): { rows: Row[]; ms: number } {
  const { memory } = device(), all: number[] = [];
  let peak = 0;
  for (let i = 0; i < RUNS; i++) {
    memory.synchronize();
    memory.resetPeak();
    const began = performance.now();
    pass().free();
    peak = memory.use().peak;
    work.optimizer.step();
    memory.synchronize();
    all.push(performance.now() - began);
  }
  const ms = all.sort((a, b) => a - b)[RUNS >> 1], expected = predicted(), before = 1e3 * expected.seconds;
  const rows = [
    measured({
      case: `${work.name}, ${name}: training step`,
      metric: "time",
      unit: "ms",
      ours: ms,
      ...{ peer: before, peer_name: "predicted", ratio: before / ms },
    }),
    measured({
      case: `${work.name}, ${name}: peak`,
      metric: "memory",
      unit: "GiB",
      ours: peak / GIB,
      ...{ peer: expected.peak / GIB, peer_name: "predicted", ratio: expected.peak / peak },
    }),
  ];
  return { rows, ms };
}

function dense(): Row[] {
  const card = cardFor(readDriver().gpus[0]?.name), rows: Row[] = [];
  const probe = ([1, 8, 100, 512, 1000, 2 ** 20 + 1] as const).map((bytes) => {
    const { memory } = device(), before = memory.use().used, at = memory.alloc(bytes), taken = memory.use().used - before;
    memory.free(at, bytes);
    return `${bytes}: ${taken}`;
  });
  console.error(`bytes asked for and counted by the pool: ${probe.join(", ")}`);
  const work = ssFlowWork({ batch: 8 });
  work.pass().free(); // cuBLASLt's workspace
  /** With the optimizer's pass: 42 bytes a parameter. */
  const whole = ({ peak, seconds }: { peak: number; seconds: number }) => {
    return { peak, seconds: seconds + 42 * work.optimizer.size / card.bandwidth };
  };
  const known = (options: PassOptions) => simulate(() => work.pass(options).free(), card);
  const began = performance.now(), first = known({}), again = (performance.now(), known({})), host = performance.now();
  console.error(
    `simulating a pass takes ${(host - began).toFixed(1)} ms twice; it says ${
      (first.seconds * 1e3).toFixed(1)
    } ms, ${again.launches} launches`,
  );
  const planned = ([[32], [24], [24, true], [18], [18, true]] as [number, boolean?][]).map(([budget, offload = false]) => {
    const name = `a budget of ${budget} GiB${offload ? ", some on the host" : ""}`;
    return { name, elastic: plannedMemory({ budget: budget * GIB, card, offload, say: console.error }) };
  });
  const blocks = (): Tensor => work.pass({ recompute: 24 }), want = gradients(work, () => work.pass());
  for (
    const [name, pass] of [
      ["the same pass again", () => work.pass()],
      ["whole blocks made again", blocks],
      ...planned.map(({ name, elastic }) => [name, () => elastic.run((o) => work.pass(o), [8])] as const),
    ] as const
  ) {
    const ours = Number(equal(gradients(work, pass), want));
    rows.push(measured({ case: `${work.name}, ${name}: gradients equal to the bit`, metric: "equal", unit: "", ours }));
  }
  const plain = steps(work, "nothing but norms and activations made again", () => work.pass(), () => whole(first));
  rows.push(...plain.rows);
  const kept = (): Tensor => withChoice(() => "keep", () => work.pass());
  rows.push(...steps(work, "everything kept", kept, () => whole(simulate(() => kept().free(), card))).rows);
  rows.push(...steps(work, "whole blocks made again", blocks, () => whole(known({ recompute: 24 }))).rows);
  for (const { name, elastic } of planned) {
    const run = (): Tensor => elastic.run((o) => work.pass(o), [8]);
    const ran = steps(work, name, run, () => whole({ peak: elastic.report.predicted, seconds: first.seconds + elastic.report.seconds }));
    console.error(`${name}: ${elastic.describe()}; step ${(ran.ms / plain.ms).toFixed(3)} x without`);
    rows.push(
      ...ran.rows,
      measured({ case: `${work.name}, ${name}: step over step without`, metric: "time", unit: "x", ours: ran.ms / plain.ms, limit: 1.15 }),
    );
  }
  work.free();
  return rows;
}

/** Places of `count` voxels on a shell in a grid of 64. */
function shell(count: number): number[] {
  const middle = 31.5, cells: { d: number; at: number[] }[] = [], radius = 18 + 13 * Math.min(1, count / 32000);
  for (let x = 0; x < 64; x++) {
    for (let y = 0; y < 64; y++) {
      for (let z = 0; z < 64; z++) cells.push({ d: Math.abs(Math.hypot(x - middle, y - middle, z - middle) - radius), at: [x, y, z] });
    }
  }
  const chosen = cells.sort((a, b) => a.d - b.d).slice(0, count).map((c) => c.at);
  return chosen.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).flat();
}

function sparse(): Row[] {
  const args = { ...PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16, use_fp16: false }, specs = slatFlowSpec(args, "bf16");
  startAtRandom(specs);
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS), budget = SPARSE_GIB * GIB;
  const model = { args, dtype: "bf16", params: optimizer.params } as const, host = new Generator(7), { memory } = device();
  const shells = Array.from({ length: 15 }, (_, i) => shell(4000 + 2000 * i));
  const draws = step(() => host.uniform([MICRO_BATCHES, SAMPLES], { low: 0, high: shells.length }).read()), said: string[] = [];
  const run = (elastic: ElasticMemory, chosen: number[][]): void => {
    const sizes = chosen.map((places) => places.length / 3), N = sizes.reduce((a, b) => a + b, 0), B = sizes.length;
    step(() => {
      const voxels = makeVoxels(batchCoords(chosen), { B });
      elastic.run((options) =>
        step(() => {
          const random = new Generator(N), x = random.normal([N, args.in_channels]), target = random.normal([N, args.out_channels]);
          const cond = random.normal([B, 1374, args.cond_channels]), t = tensor(sizes.map((_, i) => 200 * i), [B]);
          backward(mse(slatFlow(model, { features: x, voxels }, t, cond, options), target));
        }), sizes);
    });
  };
  const card = cardFor(readDriver().gpus[0]?.name), elastic = plannedMemory({ budget, card, say: (text) => said.push(text) });
  const used: number[] = [], errors: number[] = [], voxels: number[] = [], ms: number[] = [], planning: number[] = [];
  const end = performance.now() + 1e3 * SECONDS;
  for (let i = 0; i < MICRO_BATCHES && performance.now() < end; i++) {
    const chosen = Array.from({ length: SAMPLES }, (_, k) => shells[Math.min(shells.length - 1, Math.floor(draws[SAMPLES * i + k]))]),
      began = performance.now();
    run(elastic, chosen);
    memory.synchronize();
    ms.push(performance.now() - began);
    planning.push(elastic.report.planning);
    const { peak, predicted, share } = elastic.report;
    errors.push(Math.abs(predicted - peak) / peak);
    if (share > 0) used.push(peak / budget);
    voxels.push(chosen.reduce((n, places) => n + places.length / 3, 0));
    if (i < 4 || i % 100 === 0) {
      console.error(
        `micro-batch ${i}: ${voxels[i]} voxels, ${ms[i].toFixed(0)} ms, ${elastic.describe()}, peak ${(peak / GIB).toFixed(2)} GiB`,
      );
    }
  }
  const mean = (list: number[]): number => list.reduce((a, b) => a + b, 0) / list.length,
    most = (list: number[]): number => Math.max(...list);
  const name = `SLat-Flow image-L bf16, ${ms.length} micro-batches of ${SAMPLES} samples of 4k to 32k voxels, ${SPARSE_GIB} GiB`;
  optimizer.free();
  return [
    measured({ case: `${name}: out of memory`, metric: "count", unit: "", ours: said.length }),
    measured({ case: `${name}: largest peak`, metric: "memory", unit: "of the budget", ours: used.length ? most(used) : 0, limit: 1 }),
    measured({
      case: `${name}: mean peak of the ${used.length} that needed recomputation`,
      metric: "memory",
      unit: "of the budget",
      ours: mean(used),
      limit: 1,
    }),
    measured({ case: `${name}: smallest peak of those`, metric: "memory", unit: "of the budget", ours: Math.min(...used), limit: 1 }),
    measured({
      case: `${name}: largest error of the predicted peak`,
      metric: "memory",
      unit: "of the peak",
      ours: most(errors),
      limit: 0.01,
    }),
    measured({ case: `${name}: mean time of a micro-batch`, metric: "time", unit: "ms", ours: mean(ms) }),
    measured({ case: `${name}: mean time of planning, in that`, metric: "time", unit: "ms", ours: mean(planning) }),
    measured({ case: `${name}: voxels a second`, metric: "rate", unit: "1/s", ours: 1e3 * mean(voxels) / mean(ms) }),
  ];
}

/** MiB that the driver says this process holds, its context and the pool's slack included. */
function driverMib(): number {
  const args = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"];
  const { stdout } = new Deno.Command("nvidia-smi", { args }).outputSync(), lines = new TextDecoder().decode(stdout).trim().split("\n");
  const mine = lines.map((line) => line.split(",").map(Number)).filter(([pid]) => pid === Deno.pid);
  return mine.length ? mine[0][1] : Math.max(0, ...lines.map((line) => Number(line.split(",")[1]) || 0)); // a container's pids are its own
}

/** SS-Flow-L at batch 1 in 12 GiB: moments in 8 bits, and the means in the host's memory. */
function small(): Row[] {
  const { memory } = device(), card = cardFor(readDriver().gpus[0]?.name);
  return ([["nothing", 11], ["means", 9], ["state", 8]] as const).flatMap(([onHost, budget]) => {
    const work = ssFlowWork({ batch: 1, optimizer: { momentBits: 8, onHost } }), all: number[] = [], kept = memory.use().used;
    const elastic = plannedMemory({ budget: budget * GIB, card, say: console.error });
    let peak = 0, driver = 0;
    for (let i = 0; i < 6; i++) {
      const began = performance.now();
      elastic.run((o) => work.pass(o), [1]).free();
      peak = Math.max(peak, memory.use().peak);
      memory.resetPeak();
      work.optimizer.step();
      memory.synchronize();
      peak = Math.max(peak, memory.use().peak);
      all.push(performance.now() - began);
      driver = Math.max(driver, driverMib());
    }
    const name = `${work.name}, 8-bit moments, ${onHost} in the host's memory, ${budget} GiB`;
    console.error(`${name}: ${elastic.describe()}; ${(kept / GIB).toFixed(2)} GiB of state`);
    work.free();
    memory.trim();
    return [
      measured({ case: `${name}: training step`, metric: "time", unit: "ms", ours: all.sort((a, b) => a - b)[3] }),
      measured({ case: `${name}: peak by the pool`, metric: "memory", unit: "GiB", ours: peak / GIB, limit: 12 }),
      measured({ case: `${name}: by nvidia-smi`, metric: "memory", unit: "GiB", ours: driver / 1024, limit: 12 }),
    ];
  });
}

benchmark(
  "memory",
  () => [...PARTS.includes("small") ? small() : [], ...PARTS.includes("dense") ? dense() : [], ...PARTS.includes("sparse") ? sparse() : []],
);
