/**
 * What `deno task plan` predicts of the steps that techniques_bench measured, which no card's sheet was set by, beside what was measured. Puts it into
 * bench/results/plan.json beside the rows of plan_bench. Needs no GPU.
 *
 *   deno run -P=train bench/plan_techniques.ts
 */
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { CARDS } from "../lib/memory/cards.ts";
import { openDevice } from "../lib/tensor/device.ts";
import { type Prediction, predictTraining } from "../lib/train/predict.ts";
import { freeSamples, shellOf, slatFlowWork, type SparseSamples, sparseSamples, ssFlowWork } from "./flow_models.ts";
import { type Row, row, rowsOf } from "./harness.ts";

const GIB = 2 ** 30,
  BLOCKS = 24,
  CASE = /^(SS|SLat)-Flow image-L, (\d+) GiB, batch (\d+), (everything kept|whole blocks|planned).*: training step$/;

/** A measured step and what is predicted of it. */
export interface PredictedStep {
  name: string;
  ms: number;
  gib: number;
  prediction: Prediction;
}

/** Predictions of the steps in techniques.json: of all, or of those for which `wanted` says so. Those that took the same step on a larger card are left out. */
export function predictTechniques(wanted: (name: string) => boolean = () => true): PredictedStep[] {
  const rows = new Map(rowsOf("techniques", /./).map((r) => [r.case.replace(/ \(techniques\.json\)$/, ""), r.ours])),
    seen = new Set<string>();
  return [...rows].flatMap(([name, ms]): PredictedStep[] => {
    const [, stage, gib, batch, technique] = name.match(CASE) ?? [], same = `${stage} ${batch} ${technique} ${ms}`;
    if (!stage || seen.has(same) || !wanted(name)) return [];
    seen.add(same);
    const B = Number(batch), options = { batch: B }, places = stage === "SLat" ? new Array<number[]>(B).fill(shellOf(64)) : undefined;
    const samples: SparseSamples | undefined = places && sparseSamples(places),
      recompute = technique === "whole blocks" ? BLOCKS : undefined;
    const prediction = predictTraining(CARDS.H200, () => {
      const work = samples ? slatFlowWork(options, samples) : ssFlowWork(options);
      return { optimizer: work.optimizer, parts: 1, sizes: [B], pass: (o) => work.pass({ recompute, ...o }).free() };
    }, technique === "planned" ? Number(gib) * GIB : undefined);
    if (samples) freeSamples(samples);
    return [{ name: name.replace(/: training step$/, ""), ms, gib: rows.get(name.replace(/training step$/, "peak"))!, prediction }];
  });
}

if (import.meta.main) {
  openDevice("cpu");
  const rows = predictTechniques().flatMap(({ name, ms, gib, prediction: { step, peak } }): Row[] => {
    const predicted = { peer_name: "predicted" }, what = `techniques.json: ${name}`;
    return [
      row({ case: `${what}: training step`, metric: "time", unit: "ms", ours: ms, ...predicted, peer: 1e3 * step, ratio: 1e3 * step / ms }),
      row({ case: `${what}: peak`, metric: "memory", unit: "GiB", ours: gib, ...predicted, peer: peak / GIB, ratio: peak / GIB / gib }),
    ];
  });
  const file = new URL("results/plan.json", import.meta.url).pathname, known = rowsOf("plan", /./).map((r) => r.case).length;
  const kept = known ? JSON.parse(Deno.readTextFileSync(file)) as { rows: Row[] } : { bench: "plan", gpu: "NVIDIA H200", rows: [] };
  const notes = [
    "The sheet of the H200 was set by steps of SS-Flow image-L in memory.json, before any step here was measured.",
    "Rows of techniques.json: measured by techniques_bench, predicted afterwards (deno run -P=train bench/plan_techniques.ts).",
  ];
  const all = { ...kept, notes, rows: [...kept.rows.filter((r) => !r.case.startsWith("techniques.json: ")), ...rows] };
  writeFileAtomic(file, new TextEncoder().encode(JSON.stringify(all, null, 2) + "\n"));
  for (const metric of ["time", "memory"]) {
    const worst = rows.filter((r) => r.metric === metric).toSorted((a, b) => Math.abs(b.ratio! - 1) - Math.abs(a.ratio! - 1))[0];
    console.log(
      `${metric}: worst of ${rows.length / 2} is ${worst.case}: ${worst.ours.toFixed(2)} ${worst.unit}, predicted ${
        worst.peer!.toFixed(2)
      }`,
    );
  }
}
