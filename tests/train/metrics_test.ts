import assert from "node:assert/strict";
import { readImage } from "../../lib/io/image.ts";
import { openRunLog, readMetrics } from "../../lib/train/metrics.ts";
import { withFolder } from "../io/corrupt.ts";

/** The records of a metrics file. */
function records(folder: string): Record<string, number>[] {
  return Deno.readTextFileSync(`${folder}/metrics.jsonl`).trimEnd().split("\n").map((line) => JSON.parse(line));
}

Deno.test("openRunLog() writes the means since the last record, every few steps and at the end", () => {
  withFolder((folder) => {
    const log = openRunLog(folder, { steps: 5, first: 0, every: 2, label: "test" });
    for (let step = 1; step <= 5; step++) log.step(step, { loss: step, ...(step === 3 ? { rare: 7 } : {}) }, 4);
    log.record(5, { iou: 0.5 });
    log.close();
    const [a, b, c, d, ...rest] = records(folder);
    assert.deepEqual(rest, []);
    assert.deepEqual([a.step, a.loss, a.rare], [2, 1.5, undefined]);
    assert.deepEqual([b.step, b.loss, b.rare], [4, 3.5, 7]);
    assert.deepEqual([c.step, c.loss, c.rare], [5, 5, undefined]);
    assert.deepEqual(d, { step: 5, iou: 0.5 });
    for (const r of [a, b, c]) assert.ok(r.samples_per_second > 0 && r.memory_peak >= 0);
    assert.deepEqual(readMetrics(`${folder}/metrics.jsonl`).loss, { step: [2, 4, 5], value: [1.5, 3.5, 5] });
    assert.deepEqual(readMetrics(`${folder}/metrics.jsonl`).rare, { step: [4], value: [7] });
  });
});

Deno.test("openRunLog() gives the means that are not written yet to a checkpoint, but those of memory", () => {
  withFolder((folder) => {
    const options = { steps: 4, first: 0, every: 4, label: "test" }, log = openRunLog(folder, options);
    for (const loss of [1, 2]) log.step(loss, { loss, memory: 10, memory_predicted: 10, remade_share: 0 }, 1);
    const state = log.state();
    log.close();
    assert.deepEqual(state, { loss: [3, 2] });
    const again = openRunLog(folder, { ...options, first: 2, state });
    for (const loss of [3, 4]) again.step(loss, { loss, memory: 20 }, 1);
    again.close();
    const [{ loss, memory }] = records(folder);
    assert.deepEqual([loss, memory], [2.5, 20]);
  });
});

Deno.test("openRunLog() of a resumed run drops later records and a line that a kill cut off", () => {
  withFolder((folder) => {
    const lines = [{ step: 2, loss: 1 }, { step: 4, loss: 2 }, { step: 4, iou: 3 }, { step: 6, loss: 4 }].map((r) =>
      JSON.stringify(r) + "\n"
    );
    Deno.writeTextFileSync(`${folder}/metrics.jsonl`, lines.join("") + '{"step": 3, "lo');
    const log = openRunLog(folder, { steps: 6, first: 4, every: 1, label: "test" });
    log.step(5, { loss: 8 }, 1);
    log.close();
    assert.deepEqual(records(folder).map(({ step, loss, iou }) => [step, loss ?? iou]), [[2, 1], [4, 2], [4, 3], [5, 8]]);
    openRunLog(folder, { steps: 6, first: 0, every: 1, label: "test" }).close();
    assert.equal(Deno.readTextFileSync(`${folder}/metrics.jsonl`), "", "a run from the start drops them all");
  });
});

Deno.test("openRunLog() writes histograms, and a resumed run those of later steps again", () => {
  withFolder((folder) => {
    const found = { "gradients/out": { limits: [0, 1], counts: [3], notFinite: 0 } },
      lines = (): string => Deno.readTextFileSync(`${folder}/histograms.jsonl`);
    const log = openRunLog(folder, { steps: 6, first: 0, every: 1, label: "test" });
    for (const step of [2, 4, 6]) log.histograms(step, found);
    log.close();
    const before = lines();
    assert.deepEqual(JSON.parse(before.split("\n")[1]), { step: 4, name: "gradients/out", ...found["gradients/out"] });
    const again = openRunLog(folder, { steps: 6, first: 4, every: 1, label: "test" });
    again.histograms(6, found);
    again.close();
    assert.equal(lines(), before);
  });
});

Deno.test("openRunLog() writes pictures to samples/ and events to tb_logs/", () => {
  withFolder((folder) => {
    const log = openRunLog(folder, { steps: 1, first: 0, every: 1, label: "test" });
    const size = (): number =>
      [...Deno.readDirSync(`${folder}/tb_logs`)].reduce((n, e) => n + Deno.statSync(`${folder}/tb_logs/${e.name}`).size, 0);
    const before = size(), image = { width: 3, height: 2, channels: 3 as const, data: Uint8Array.from({ length: 18 }, (_, i) => 10 * i) };
    log.image(30, "grid", image);
    log.close();
    assert.deepEqual(readImage(`${folder}/samples/grid_step0000030.png`).data, image.data);
    assert.ok(size() > before);
  });
});
