/**
 * What `deno task plan` predicts, beside what is measured on CUDA: memory and time of training steps of half-billion-parameter models. None of
 * these steps set the card's sheet. Writes bench/results/plan.json. PLAN_SECONDS bounds it.
 *
 *   deno task bench bench/plan_bench.ts
 */
import { readDriver } from "../ffi/cuda_driver.ts";
import { cardFor } from "../lib/memory/cards.ts";
import { plannedMemory } from "../lib/memory/elastic.ts";
import { device } from "../lib/tensor/device.ts";
import { predictTraining } from "../lib/train/predict.ts";
import { withCard } from "./capped_memory.ts";
import { freeSamples, sparseSamples } from "./flow_models.ts";
import { benchmark, measured, type Row } from "./harness.ts";
import { type PlanCase, planCases, trainingOf } from "./plan_cases.ts";

const GIB = 2 ** 30, RUNS = 3, SECONDS = Number(Deno.env.get("PLAN_SECONDS") ?? 1000);

/** Median milliseconds and peak of a case's steps. */
function measure(c: PlanCase, samples?: ReturnType<typeof sparseSamples>): { ms: number; peak: number } {
  const { memory } = device(), all: number[] = [], { work, ...training } = trainingOf(c, samples), limit = (c.budget ?? Infinity) * GIB;
  const elastic = plannedMemory({ budget: limit, card: cardFor(readDriver().gpus[0]?.name), offload: c.offload });
  let peak = 0;
  for (let i = -1; i < RUNS; i++) {
    memory.synchronize();
    memory.resetPeak();
    const began = performance.now();
    for (let k = 0; k < c.parts; k++) withCard(limit, () => elastic.run(training.pass, c.sizes));
    peak = memory.use().peak;
    work.optimizer.step();
    memory.synchronize();
    if (i >= 0) all.push(performance.now() - began);
  }
  work.free();
  memory.trim();
  return { ms: all.sort((a, b) => a - b)[RUNS >> 1], peak };
}

benchmark("plan", (save) => {
  const rows: Row[] = [], card = cardFor(readDriver().gpus[0]?.name), end = performance.now() + 1e3 * SECONDS;
  for (const c of planCases()) {
    if (performance.now() > end) break;
    const samples = c.places && sparseSamples(c.places);
    const expected = predictTraining(card, () => trainingOf(c, samples), c.budget && c.budget * GIB, { offload: c.offload });
    const { ms, peak } = measure(c, samples), what = c.name;
    if (samples) freeSamples(samples);
    const predicted = { peer_name: "predicted" };
    rows.push(
      measured({
        case: `${what}: training step`,
        ...{ metric: "time", unit: "ms", ours: ms, ...predicted, peer: 1e3 * expected.step, ratio: 1e3 * expected.step / ms },
      }),
      measured({
        case: `${what}: peak`,
        ...{ metric: "memory", unit: "GiB", ours: peak / GIB, ...predicted, peer: expected.peak / GIB, ratio: expected.peak / peak },
      }),
    );
    save(rows);
  }
  return rows;
});
