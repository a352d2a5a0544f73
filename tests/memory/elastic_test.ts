import assert from "node:assert/strict";
import { CARDS } from "../../lib/memory/cards.ts";
import { plannedMemory } from "../../lib/memory/elastic.ts";
import { simulate } from "../../lib/memory/simulate.ts";
import { device } from "../../lib/tensor/device.ts";
import { type Memory, OutOfMemoryError } from "../../lib/tensor/memory.ts";
import { draws, MODELS, sparseModel, type Trained } from "./passes.ts";

/** Runs `body` while the allocation for which `fails` says so does not fit. */
function failing<T>(fails: (n: number) => boolean, body: () => T): T {
  const memory = device().memory as { -readonly [K in keyof Memory]: Memory[K] }, { alloc } = memory;
  let n = 0;
  memory.alloc = (bytes) => {
    if (fails(n++)) throw new OutOfMemoryError("Cannot allocate: a test says so");
    return alloc(bytes);
  };
  try {
    return body();
  } finally {
    Object.assign(memory, { alloc });
  }
}

function plainPeak(model: Trained, sizes: number[]): { peak: number; least: number } {
  let peak = 0, least = 0;
  model.run(sizes, (pass) => pass()); // what is made once is there
  model.run(sizes, (pass) => {
    peak = simulate(() => pass()).peak;
    least = simulate(() => pass({ recompute: 6 })).peak;
    return 0;
  });
  return { peak, least };
}

Deno.test("200 micro-batches of varying size keep to the budget, are predicted within 1 %, and use it well", () => {
  const model = sparseModel(), { memory } = device(), counts = draws(1, 400, 20, 200);
  const { peak, least } = plainPeak(model, [140, 140]),
    budget = Math.floor((0.6 * peak + 0.4 * least) / 0.99),
    elastic = plannedMemory({ budget, card: CARDS.H200 });
  const used: number[] = [];
  for (let i = 0; i < 200; i++) {
    const sizes = [counts[2 * i], counts[2 * i + 1]];
    model.run(sizes, (pass) => elastic.run(pass, sizes));
    const { predicted, peak, share } = elastic.report;
    assert.equal(peak, memory.use().peak);
    assert.ok(peak <= budget, `micro-batch ${i}: ${peak} of ${budget}`);
    assert.ok(Math.abs(peak - predicted) <= 0.01 * peak, `micro-batch ${i}: ${predicted} predicted, ${peak} measured`);
    if (share > 0 && share < 1) used.push(peak / budget);
  }
  assert.equal(elastic.report.retries, 0);
  assert.ok(used.length > 20, `${used.length} micro-batches needed recomputation`);
  const mean = used.reduce((a, b) => a + b, 0) / used.length;
  assert.ok(mean >= 0.92, `${mean} of the budget was used`);
  model.free();
});

for (const [name, make] of Object.entries(MODELS)) {
  Deno.test(`a ${name} model's pass survives a failure of each of its allocations, with the same gradients to the bit`, () => {
    const model = make(), sizes = [40, 50], said: string[] = [], elastic = plannedMemory({ say: (text) => said.push(text) });
    const run = (): number => model.run(sizes, (pass) => elastic.run(pass, sizes));
    run(), run();
    model.takeGradients();
    let allocations = 0;
    const loss = failing(() => (allocations++, false), run), want = model.takeGradients(), first = name === "sparse" ? 20 : 0;
    assert.ok(allocations > 200);
    for (let n = first; n < allocations - 2; n += 7) {
      // the failure hits while the micro-batch runs: one of planning, or of what is made before it, is not the pass's
      let ran = 0;
      const once = model.run(sizes, (pass) =>
        elastic.run((options) => {
          return ran++ || device().simulated ? pass(options) : failing((k) => k === n, () => pass(options));
        }, sizes));
      assert.equal(once, loss);
      assert.deepEqual(model.takeGradients(), want, `allocation ${n}`);
    }
    assert.ok(said.length > 20);
    assert.match(said[0], /^out of memory where .* of .* were planned: the micro-batch runs again, with less kept$/);
    model.free();
  });
}

Deno.test("a budget that is too small is an error before anything runs, which names the least that would do", () => {
  const model = sparseModel(), sizes = [100, 120], { least } = plainPeak(model, sizes);
  let ran = 0;
  const within = (budget: number): number => {
    const elastic = plannedMemory({ budget, card: CARDS.H200 });
    return model.run(sizes, (pass) => elastic.run((o) => (ran += device().simulated ? 0 : 1, pass(o)), sizes));
  };
  model.takeGradients();
  const before = device().memory.use().used;
  let said = "";
  try {
    within(least / 2);
  } catch (error) {
    assert.ok(error instanceof OutOfMemoryError);
    said = error.message;
  }
  const [, named] = said.match(
    /^Cannot train within the memory limit: it is [\d.]+ MiB, it must be at least ([\d.]+) MiB for a micro-batch of 2 samples /,
  )!;
  assert.equal(ran, 0);
  assert.equal(device().memory.use().used, before);
  assert.ok(model.takeGradients().every((g) => g === 0));
  assert.ok(within(Math.ceil(Number(named) * 2 ** 20)) > 0);
  assert.throws(() => within(Number(named) * 2 ** 20 - 2 ** 18), OutOfMemoryError);
  model.free();
});

Deno.test("a micro-batch that fails with everything made again is an error", () => {
  const model = sparseModel(), elastic = plannedMemory(), sizes = [100];
  assert.throws(
    () => model.run(sizes, (pass) => elastic.run(failing.bind(null, () => !device().simulated, pass) as typeof pass, sizes)),
    OutOfMemoryError,
  );
  model.free();
});

Deno.test("what a run learned about its memory is saved and restored", () => {
  const model = sparseModel(), elastic = plannedMemory(), sizes = [100];
  let failures = 1;
  model.run(sizes, (pass) => elastic.run((o) => failing(() => !device().simulated && failures-- > 0, () => pass(o)), sizes));
  assert.deepEqual(elastic.state(), { shrunk: 0.02, retries: 1 });
  const again = plannedMemory();
  again.restore(JSON.parse(JSON.stringify(elastic.state())));
  model.run(sizes, (pass) => again.run(pass, sizes));
  assert.equal(again.report.retries, 1);
  assert.match(again.describe(), /^[\d.]+ [MG]iB of [\d.]+ GiB; made again: norms and activations alone$/);
  model.free();
});
