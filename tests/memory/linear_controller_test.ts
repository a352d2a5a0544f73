import assert from "node:assert/strict";
import { checkpointedBlocks, LINEAR_MEMORY_DEFAULTS, linearMemory, LinearMemoryController } from "../../lib/memory/linear_controller.ts";
import { device } from "../../lib/tensor/device.ts";
import { type Memory, OutOfMemoryError } from "../../lib/tensor/memory.ts";
import { assertClose } from "../check.ts";
import { hasReference, REFERENCE } from "../reference.ts";
import { denseModel, sparseModel } from "./passes.ts";

interface Trace {
  buffer_size: number;
  update_every: number;
  target_ratio: number;
  available_memory: number;
  max_mem_ratio_start: number;
  steps: {
    input_size: number;
    requested_ratio: number | null;
    used_ratio: number;
    memory_gib: number;
    k: number;
    b: number;
    max_mem_ratio: number;
  }[];
}

const FILE = "linear_memory_controller.json";

Deno.test({
  name: `LinearMemoryController goes through the reference's trace${hasReference(FILE) ? "" : ` (skipped: ${FILE} is not here)`}`,
  ignore: !hasReference(FILE),
  fn() {
    const trace = JSON.parse(Deno.readTextFileSync(`${REFERENCE}/${FILE}`)) as Trace;
    const controller = new LinearMemoryController({
      ...{ bufferSize: trace.buffer_size, updateEvery: trace.update_every, targetRatio: trace.target_ratio },
      ...{ availableMemory: trace.available_memory, maxMemRatioStart: trace.max_mem_ratio_start },
    }, 80);
    for (const [i, s] of trace.steps.entries()) {
      const ratio = controller.ratioFor(s.input_size);
      if (s.requested_ratio === null) assert.ok(ratio >= 0 && ratio < s.max_mem_ratio, `step ${i}: ${ratio}`);
      else assertClose(`ratio of step ${i}`, [ratio], [s.requested_ratio], { rtol: 2e-6, atol: 0 });
      controller.record(s.input_size, s.used_ratio, s.memory_gib);
      const { params, maxRatio } = controller.state;
      assertClose(`line after step ${i}`, [...params, maxRatio], [s.k, s.b, s.max_mem_ratio], { rtol: 2e-6, atol: 1e-9 });
    }
  },
});

Deno.test("LinearMemoryController fits the line that its passes lie on, and keeps to it", () => {
  const controller = new LinearMemoryController({ updateEvery: 10, targetRatio: 0.75, maxMemRatioStart: 0.5 }, 80, 3);
  for (let i = 0; i < 10; i++) {
    const size = 10_000 + 1000 * i, ratio = controller.ratioFor(size);
    assert.ok(ratio >= 0 && ratio < 0.5);
    controller.record(size, ratio, 5e-4 * size * ratio + 10);
  }
  assertClose("line", controller.state.params, [5e-4, 10], { rtol: 1e-5 });
  controller.state.maxRatio = 1;
  assert.equal(controller.ratioFor(20_000), 1);
  assert.equal(controller.ratioFor(80_000), 1);
  assertClose("ratio", [controller.ratioFor(160_000)], [0.625], { rtol: 1e-5 });
  assert.equal(LINEAR_MEMORY_DEFAULTS.updateEvery, 500);
});

Deno.test("checkpointedBlocks() counts as the reference does", () => {
  const cases = [[24, 0, 24, 1 / 24], [24, 0.25, 19, 0.25], [24, 0.5, 13, 0.5], [24, 0.75, 7, 0.75], [24, 0.9, 4, 0.875], [
    24,
    0.99,
    2,
    23 / 24,
  ]];
  for (
    const [blocks, ratio, recompute, exact] of [...cases, [12, 0, 12, 1 / 12], [12, 0.9, 3, 10 / 12], [28, 0.5, 15, 0.5], [24, 1, 0, 1]]
  ) {
    const got = checkpointedBlocks(ratio, blocks);
    assert.equal(got.recompute, recompute);
    assertClose("exact", [got.exact], [exact]);
  }
});

Deno.test("linearMemory() measures passes, fits, and goes on from its state", () => {
  const model = sparseModel(), options = { updateEvery: 4, targetRatio: 0.75, maxMemRatioStart: 0.5, availableMemory: 0.02 };
  const memory = linearMemory(options, { blocks: 6 }), counts = [40, 90, 140, 60, 120, 80];
  for (const n of counts) model.run([n], (pass) => memory.run(pass, [n]));
  const state = memory.state() as LinearMemoryController["state"];
  assert.ok(state.params[0] > 0 && state.step === 6 && state.maxRatio === 0.6 && state.drawn === 4);
  assert.match(memory.describe(), /^\d of 6 blocks made again$/);
  const again = linearMemory(options, { blocks: 6 });
  again.restore(JSON.parse(JSON.stringify(state)));
  for (const m of [memory, again]) model.run([70], (pass) => m.run(pass, [70]));
  assert.deepEqual(again.report, { ...memory.report, peak: again.report.peak });
  model.free();
});

Deno.test("linearMemory() runs a pass that did not fit again with all blocks computed again, with the same gradients", () => {
  const model = denseModel(),
    said: string[] = [],
    memory = linearMemory({ params: [1e-9, 0], maxMemRatioStart: 1 }, { blocks: 6, say: (t) => said.push(t) });
  const loss = model.run([1, 1], (pass) => memory.run(pass, [1, 1])), want = model.takeGradients();
  assert.equal(memory.report.share, 0);
  const on = device().memory as { -readonly [K in keyof Memory]: Memory[K] }, { alloc } = on;
  let n = 0;
  on.alloc = (bytes) => {
    if (n++ === 400) throw new OutOfMemoryError("Cannot allocate: a test says so");
    return alloc(bytes);
  };
  const again = model.run([1, 1], (pass) => memory.run(pass, [1, 1]));
  Object.assign(on, { alloc });
  assert.equal(again, loss);
  assert.deepEqual(model.takeGradients(), want);
  assert.deepEqual(said, ["out of memory with 0 of 6 blocks made again: the micro-batch runs again with all of them"]);
  assert.equal(memory.report.retries, 1);
  model.free();
});
