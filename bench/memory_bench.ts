/**
 * Memory of the half-billion-parameter flow models in training on CUDA: predicted and measured peaks, steps within budgets with and without tensors
 * that wait on the host, small cards, gradients to the bit, also where allocations fail. Writes bench/results/memory.json. MEMORY_PARTS names the
 * parts to run: small, dense, equal; rows of the others stay as they are. Samples of any size within a budget are varying_bench's.
 *
 *   deno task bench bench/memory_bench.ts
 */
import { readDriver } from "../ffi/cuda_driver.ts";
import { type Card, cardFor } from "../lib/memory/cards.ts";
import { type PassOptions, plannedMemory } from "../lib/memory/elastic.ts";
import { givenUp } from "../lib/memory/plan.ts";
import { simulate } from "../lib/memory/simulate.ts";
import { device } from "../lib/tensor/device.ts";
import { withChoice } from "../lib/tensor/storage.ts";
import { empty, type Tensor } from "../lib/tensor/tensor.ts";
import { withCard } from "./capped_memory.ts";
import { ssFlowWork, type Work } from "./flow_models.ts";
import { benchmark, type Findings, measured, resultOf, type Row } from "./harness.ts";
import { equality } from "./memory_equality.ts";
import { driverMib } from "./memory_sparse.ts";

const GIB = 2 ** 30, MIB = 2 ** 20, RUNS = 4;
const CHOSEN = Deno.env.get("MEMORY_PARTS"), PARTS = (CHOSEN ?? "small,dense,equal").split(",");
/** GiB, and whether tensors may wait on the host. */
const BUDGETS: [number, boolean][] = [32, 24, 18].flatMap((gib): [number, boolean][] => [[gib, false], [gib, true]]);

interface Expected {
  peak: number;
  seconds: number;
}

/** Median milliseconds and peak of steps that `pass` makes, beside what was predicted. */
function steps(work: Work, name: string, pass: () => Tensor, predicted: () => Expected): { rows: Row[]; ms: number } {
  const { memory } = device(), all: number[] = [];
  let peak = 0;
  memory.trim();
  for (let i = -1; i < RUNS; i++) {
    memory.synchronize();
    memory.resetPeak();
    const began = performance.now();
    pass().free();
    peak = memory.use().peak;
    work.optimizer.step();
    memory.synchronize();
    if (i >= 0) all.push(performance.now() - began);
  }
  const ms = all.sort((a, b) => a - b)[RUNS >> 1], expected = predicted(), before = 1e3 * expected.seconds;
  const row = (what: string, metric: string, unit: string, ours: number, peer?: number): Row =>
    measured({
      case: `${work.name}, ${name}: ${what}`,
      ...{ metric, unit, ours },
      ...(peer && { peer, peer_name: "predicted", ratio: peer / ours }),
    });
  return {
    rows: [
      row("training step", "time", "ms", ms, before),
      row("peak", "memory", "GiB", peak / GIB, expected.peak / GIB),
      row("by nvidia-smi, the context included", "memory", "GiB", driverMib() / 1024),
    ],
    ms,
  };
}

/** Bytes a second between the device and pinned memory, one way after the other. */
function hostLink(): Row[] {
  const { memory } = device(), bytes = 64 * MIB, times = 16, on = empty([bytes], "u8"), host = memory.hostAlloc(bytes);
  const rate = (copy: () => void): number => {
    copy();
    memory.synchronize();
    const began = performance.now();
    for (let i = 0; i < times; i++) copy();
    memory.synchronize();
    return bytes * times / (performance.now() - began) / 1e6;
  };
  const rows =
    ([["to the host", () => memory.copyToHost(host, on.addr, bytes)], ["back", () => memory.copy(on.addr, host, bytes)]] as const).map(
      ([way, copy]) => measured({ case: `copies of 64 MiB ${way}`, metric: "rate", unit: "GB/s", ours: rate(copy) }),
    );
  memory.hostFree(host);
  on.free();
  return rows;
}

function dense(card: Card): Row[] {
  const work = ssFlowWork({ batch: 8 }), rows = hostLink();
  work.pass().free(); // cuBLASLt's workspace
  /** With the optimizer's pass: 42 bytes a parameter. */
  const whole = ({ peak, seconds }: Expected): Expected => ({ peak, seconds: seconds + 42 * work.optimizer.size / card.bandwidth });
  const known = (options: PassOptions) => simulate(() => work.pass(options).free(), card);
  const planned = BUDGETS.map(([gib, offload]) => ({
    name: `a budget of ${gib} GiB${offload ? ", some on the host" : ""}`,
    gib,
    elastic: plannedMemory({ budget: gib * GIB, card, offload, say: console.error }),
  }));
  const within = ({ gib, elastic }: typeof planned[0]) => (): Tensor =>
    withCard(gib * GIB, () => elastic.run((options) => work.pass(options), [8]));
  const blocks = (): Tensor => work.pass({ recompute: 24 });
  const first = known({}), plain = steps(work, "nothing but norms and activations made again", () => work.pass(), () => whole(first));
  const kept = (): Tensor => withChoice(() => "keep", () => work.pass());
  rows.push(
    ...plain.rows,
    ...steps(work, "everything kept", kept, () => whole(simulate(() => kept().free(), card))).rows,
    ...steps(work, "whole blocks made again", blocks, () => whole(known({ recompute: 24 }))).rows,
  );
  for (const p of planned) {
    const { name, elastic } = p,
      expected = (): Expected => {
        const { predicted, seconds } = elastic.report;
        return whole({ peak: predicted, seconds: first.seconds + seconds });
      };
    const ran = steps(work, name, within(p), expected), { ladder, level } = elastic.plan();
    console.error(`${name}: ${elastic.describe()}`);
    const away = givenUp(ladder, level).filter((g) => g.how === "offload").reduce((sum, g) => sum + g.bytes, 0);
    rows.push(...ran.rows);
    if (away) rows.push(measured({ case: `${work.name}, ${name}: on the host`, metric: "memory", unit: "GiB", ours: away / GIB }));
    rows.push(
      measured({ case: `${work.name}, ${name}: step over step without`, metric: "time", unit: "x", ours: ran.ms / plain.ms, limit: 1.15 }),
    );
  }
  work.free();
  device().memory.trim();
  return rows;
}

/** SS-Flow-L at batch 1 in 12 GiB: moments in 8 bits, and the means in the host's memory. */
function small(card: Card): Row[] {
  const { memory } = device();
  return ([["nothing", 11], ["means", 9], ["state", 8]] as const).flatMap(([onHost, budget]) => {
    const work = ssFlowWork({ batch: 1, optimizer: { momentBits: 8, onHost } }), all: number[] = [], kept = memory.use().used;
    const elastic = plannedMemory({ budget: budget * GIB, card, say: console.error });
    let peak = 0, driver = 0;
    for (let i = 0; i < 6; i++) {
      const began = performance.now();
      withCard(budget * GIB, () => elastic.run((o) => work.pass(o), [1])).free();
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

benchmark("memory", (save) => {
  const card = cardFor(readDriver().gpus[0]?.name), rows: Row[] = [], before = CHOSEN ? resultOf("memory").rows : [];
  const parts: Record<string, () => Row[]> = { small: () => small(card), dense: () => dense(card), equal: () => equality(card, BUDGETS) };
  const found = (): Findings => {
    const again = new Set(rows.map((r) => r.case)), kept = before.filter((r) => !again.has(r.case));
    return { ...(kept.length && { notes: [`The first ${kept.length} rows are of an earlier run.`] }), rows: [...kept, ...rows] };
  };
  for (const part of PARTS) {
    rows.push(...parts[part]());
    save(found());
  }
  return found();
});
