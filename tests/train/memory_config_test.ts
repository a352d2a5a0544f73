import assert from "node:assert/strict";
import { MEMORY_DEFAULTS, MEMORY_SCHEMA, memoryValues, openMemory, trellisMemory } from "../../lib/train/memory_config.ts";
import { sparseModel } from "../memory/passes.ts";

Deno.test("trellisMemory() is TRELLIS's elastic block in our terms, its defaults for what is not said", () => {
  assert.deepEqual(trellisMemory(undefined), { policy: "planned" });
  assert.deepEqual(trellisMemory(null), MEMORY_DEFAULTS);
  const want = {
    ...{
      policy: "linear",
      bufferSize: 1000,
      updateEvery: 500,
      targetRatio: 0.75,
      availableMemory: null,
      maxMemRatioStart: 0.5,
      params: [0, 0],
    },
  };
  const got = trellisMemory({ name: "LinearMemoryController", args: { target_ratio: 0.75, max_mem_ratio_start: 0.5, device: "cuda" } });
  assert.deepEqual(got, want);
  assert.deepEqual(MEMORY_SCHEMA.parse(got), want);
  assert.deepEqual(MEMORY_SCHEMA.parse({ policy: "linear", targetRatio: 0.75, maxMemRatioStart: 0.5 }), want);
  assert.throws(() => trellisMemory({ name: "Other" }), { message: /elastic is "Other", it must be LinearMemoryController/ });
  assert.throws(() => trellisMemory({ name: "LinearMemoryController", args: { target: 1 } }), {
    message: /the key is elastic\.args\.target, it must be one of buffer_size, /,
  });
});

Deno.test("openMemory() makes the policy that a config names", () => {
  const model = sparseModel(), blocks = { blocks: 6, seed: 1, say: () => {} };
  for (const config of [MEMORY_DEFAULTS, MEMORY_SCHEMA.parse(trellisMemory({ name: "LinearMemoryController" }))]) {
    const memory = openMemory(config, blocks), seen: (number | undefined)[] = [];
    model.run([50], (pass) => memory.run((o) => (seen.push(o.recompute), pass(o)), [50]));
    assert.equal(seen.at(-1) !== undefined, config.policy === "linear");
    const values = memoryValues(memory);
    assert.deepEqual(Object.keys(values), ["memory", "memory_predicted", "remade_share"]);
    assert.ok(values.memory > 0);
  }
  model.free();
});
