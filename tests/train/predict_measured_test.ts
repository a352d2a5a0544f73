import assert from "node:assert/strict";
import { predictTechniques } from "../../bench/plan_techniques.ts";
import { calibrationCases, trainingOf } from "../../bench/plan_cases.ts";
import { rowsOf } from "../../bench/harness.ts";
import { CARDS } from "../../lib/memory/cards.ts";
import { type Prediction, predictTraining } from "../../lib/train/predict.ts";

const GIB = 2 ** 30;

function close(what: string, { peak, step }: Prediction, want: { gib: number; ms: number }): void {
  const memory = peak / GIB / want.gib, time = 1e3 * step / want.ms;
  assert.ok(Math.abs(memory - 1) <= 0.05, `${what}: ${peak / GIB} GiB predicted, ${want.gib} measured`);
  assert.ok(Math.abs(time - 1) <= 0.15, `${what}: ${1e3 * step} ms predicted, ${want.ms} measured`);
}

Deno.test("predictions for an H200 are within 5 % of the memory and 15 % of the time of steps that its sheet was not set by", () => {
  const some = /^SS-Flow.*(batch (1|2|4|16|32), (everything|whole)|batch (16|32), planned)|^SLat-Flow.*batch (1|8), (everything|whole)/;
  const steps = predictTechniques((name) => some.test(name));
  assert.ok(steps.length >= 15, `${steps.length} steps`);
  for (const { name, ms, gib, prediction } of steps) close(name, prediction, { ms, gib });
});

Deno.test("predictions for an H200 are as close to the steps that its sheet was set by", () => {
  const rows = new Map(rowsOf("memory", /^SS-Flow image-L bf16/).map((r) => [r.case.replace(/ \(memory\.json\)$/, ""), r.ours]));
  const cases = calibrationCases();
  for (const c of cases) {
    const [name, peak] = c.measured;
    const want = { ms: rows.get(`${name}: training step`)!, gib: rows.get(`${name}: ${peak}`)! };
    close(c.name, predictTraining(CARDS.H200, () => trainingOf(c), c.budget && c.budget * GIB), want);
  }
  assert.equal(cases.length, 8);
});
