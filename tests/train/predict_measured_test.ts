import assert from "node:assert/strict";
import { ssFlowWork } from "../../bench/flow_models.ts";
import { CARDS } from "../../lib/memory/cards.ts";
import { type Prediction, predictTraining, type Training } from "../../lib/train/predict.ts";

const GIB = 2 ** 30;

interface MeasuredRow {
  case: string;
  ours: number;
}

/** The measured rows of a bench by their case. */
function measured(bench: string): Map<string, number> {
  const { rows } = JSON.parse(Deno.readTextFileSync(new URL(`../../bench/results/${bench}.json`, import.meta.url))) as {
    rows: MeasuredRow[];
  };
  return new Map(rows.map((row) => [row.case, row.ours]));
}

function close(what: string, { peak, step }: Prediction, want: { gib: number; ms: number }): void {
  const memory = peak / GIB / want.gib, time = 1e3 * step / want.ms;
  assert.ok(Math.abs(memory - 1) <= 0.05, `${what}: ${peak / GIB} GiB predicted, ${want.gib} measured`);
  assert.ok(Math.abs(time - 1) <= 0.15, `${what}: ${1e3 * step} ms predicted, ${want.ms} measured`);
}

Deno.test("predictions of SS-Flow image-L on an H200 are within 5 % of the measured memory and 15 % of the measured time", () => {
  const rows = measured("memory"), at = (name: string) => ({ gib: rows.get(`${name}: peak`)!, ms: rows.get(`${name}: training step`)! });
  const training = (recompute?: number) => (): Training => {
    const work = ssFlowWork({ batch: 8 });
    return { optimizer: work.optimizer, parts: 1, sizes: [8], pass: (options) => work.pass({ recompute, ...options }).free() };
  };
  const name = "SS-Flow image-L bf16 batch 8, ";
  close("kept", predictTraining(CARDS.H200, training()), at(`${name}nothing but norms and activations made again`));
  close("blocks", predictTraining(CARDS.H200, training(24)), at(`${name}whole blocks made again`));
  for (const budget of [32, 24, 18]) {
    close(`${budget} GiB`, predictTraining(CARDS.H200, training(), budget * GIB), at(`${name}a budget of ${budget} GiB`));
  }
  const small = (): Training => {
    const work = ssFlowWork({ batch: 1, optimizer: { momentBits: 8 } });
    return { optimizer: work.optimizer, parts: 1, sizes: [1], pass: (options) => work.pass(options).free() };
  };
  const one = "SS-Flow image-L bf16 batch 1, 8-bit moments, nothing in the host's memory, 11 GiB";
  const want = { gib: rows.get(`${one}: peak by the pool`)!, ms: rows.get(`${one}: training step`)! };
  close("batch 1", predictTraining(CARDS.H200, small, 11 * GIB), want);
});
