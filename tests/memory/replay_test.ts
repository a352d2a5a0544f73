import assert from "node:assert/strict";
import { observe } from "../../ffi/observer.ts";
import { plannedMemory } from "../../lib/memory/elastic.ts";
import { openReplays, type Replays } from "../../lib/memory/replay.ts";
import { ssFlow, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { initialize } from "../../lib/nn/parameters.ts";
import { full } from "../../lib/ops/cast.ts";
import { add, mul } from "../../lib/ops/elementwise.ts";
import { mse, mseRows } from "../../lib/ops/loss.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../../lib/optim/optimizer.ts";
import { device } from "../../lib/tensor/device.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { countFlops } from "../../lib/tensor/flops.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward, noGrad, parameter } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { randomize } from "../gradients.ts";

const ARGS = {
  ...{ in_channels: 4, out_channels: 4, model_channels: 32, cond_channels: 32, num_heads: 2, num_blocks: 2, qk_rms_norm: true },
  ...{ resolution: 8, patch_size: 2 },
};

/** What a training of a small flow model found: losses, then all state. */
function training(dtype: FloatDType, { enabled, split = 1, planned = false }: { enabled: boolean; split?: number; planned?: boolean }) {
  const spec = ssFlowSpec(ARGS, dtype), made = initialize(spec, new Generator(1)), memory = plannedMemory(), losses: number[] = [];
  randomize(made, spec);
  const optimizer = createOptimizer(spec, made, { ...OPTIMIZER_DEFAULTS, lr: 1e-3, warmup: 3 });
  const said: string[] = [], replays = openReplays(optimizer.params, { enabled, say: (text) => said.push(text) });
  const model = { args: ARGS, dtype, params: optimizer.params }, flops: number[] = [];
  for (let i = 0; i < 7; i++) {
    const count = countFlops();
    for (let part = 0; part < split; part++) {
      const B = 2 + Number(i === 5); // one batch of another size
      const { rows } = replays.run({
        key: "flow",
        inputs: () => {
          const random = new Generator(100 * i + part), [x, noise] = [1, 2].map(() => random.normal([B, 4, 8, 8, 8]));
          const cond = random.normal([B, 10, 32]), t = tensor(Float32Array.from({ length: B }, (_, b) => 100 * b + i), [B]);
          return { x, noise, cond, t, weight: () => tensor([optimizer.lossScale() / split], []) };
        },
        pass: ({ x, noise, cond, t, weight }) => {
          const pass = (): { rows: Tensor } =>
            step(() => {
              const y = ssFlow(model, x, t, cond);
              backward(mse(y, noise), weight());
              return { rows: noGrad(() => mseRows(y, noise)) };
            });
          return planned ? memory.run(pass, new Array<number>(B).fill(64)) : pass();
        },
      });
      losses.push(...rows());
    }
    flops.push(count());
    optimizer.step();
  }
  const state = Object.fromEntries(Object.entries(optimizer.tensors).map(([name, t]) => [name, (t as Tensor).read()]));
  const count = replays.count, report = { ...memory.report, planning: 0 };
  replays.free();
  optimizer.free();
  return { found: { losses, state, flops }, count, said, report };
}

const DTYPES: FloatDType[] = device().name === "cuda" ? ["f32", "f16", "bf16"] : ["f32"];

for (const dtype of DTYPES) {
  Deno.test(`a training whose passes are recorded finds what one does that runs them, to the bit, in ${dtype}`, () => {
    const plain = training(dtype, { enabled: false }), before = device().memory.use().used, recorded = training(dtype, { enabled: true });
    assert.deepEqual(recorded.said, ["a step's passes run from a recording from now on"]);
    assert.equal(plain.count, 0);
    assert.equal(recorded.count, 3); // the first has other gradients behind it, two more are looked at, one has another size
    assert.deepEqual(recorded.found, plain.found);
    assert.equal(device().memory.use().used, before);
  });

  Deno.test(`the same with two micro-batches a step and planned memory, in ${dtype}`, () => {
    const options = { split: 2, planned: true }, plain = training(dtype, { ...options, enabled: false });
    const recorded = training(dtype, { ...options, enabled: true });
    assert.deepEqual(recorded.said, ["a step's passes run from a recording from now on"]);
    assert.ok(recorded.count >= 6, `${recorded.count} replays`);
    assert.deepEqual(recorded.found, plain.found);
    assert.equal(recorded.report.retries, 0);
  });
}

/** Runs x -> x² w with a gradient four times, with `also` in the pass. */
function squares(replays: Replays, w: Tensor, also: (x: Tensor, i: number) => Tensor = (x) => x): number[][] {
  return [1, 2, 3, 4].map((i) => {
    const { y } = replays.run({
      key: "squares",
      inputs: () => ({ x: tensor([i, 2 * i], [2]) }),
      pass: ({ x }) => {
        const y = mul(mul(also(x, i), x), w);
        backward(y, tensor([1, 1], [2]));
        return { y };
      },
    });
    return [...y(), ...w.grad!.read()];
  });
}

function weight(): Tensor {
  return parameter(tensor([3, 5], [2]), zeros([2]));
}

const WANT = [[3, 20, 1, 4], [12, 80, 5, 20], [27, 180, 14, 56], [48, 320, 30, 120]];

Deno.test("what a pass cannot do twice is said once, and it runs as it is", () =>
  step(() => {
    const cases: [RegExp, (x: Tensor, i: number) => Tensor][] = [
      [/it waits for what the device computes$/, (x) => (x.read(), x)],
      [/it brings other values from the host than before: they must be among its inputs$/, (x, i) => add(x, tensor([i / 1e30], [1]))],
      [/it takes (less|other) memory than before$/, (x, i) => i % 2 ? x : add(x, zeros([2]))],
    ];
    for (const [why, also] of cases) {
      const said: string[] = [], w = weight(), replays = openReplays({ w }, { enabled: true, say: (text) => said.push(text) });
      assert.deepEqual(squares(replays, w, also), WANT);
      assert.equal(replays.count, 0);
      assert.equal(said.length, 1);
      assert.match(said[0], why);
      replays.free();
    }
  }));

Deno.test("a pass whose recording would keep more memory than it may runs as it is", () =>
  step(() => {
    const said: string[] = [], w = weight(), replays = openReplays({ w }, { enabled: true, most: 100, say: (text) => said.push(text) });
    assert.deepEqual(squares(replays, w), WANT);
    assert.equal(replays.count, 0);
    assert.match(said[0], /it would keep \d+ bytes of memory, it may keep 100 bytes$/);
    replays.free();
  }));

Deno.test("what recordings may keep is for all of them together", () =>
  step(() => {
    const said: string[] = [], replays = openReplays({}, { enabled: true, most: 1500, say: (text) => said.push(text) });
    const run = (key: string, i: number): number => {
      return replays.run({ key, inputs: () => ({ x: full([256], i) }), pass: ({ x }) => ({ y: mul(x, 2) }) }).y()[0];
    };
    for (const key of ["first", "second"]) assert.deepEqual([1, 2, 3, 4].map((i) => run(key, i)), [2, 4, 6, 8]);
    assert.equal(replays.count, 2);
    assert.match(said[1], /it would keep 1024 bytes of memory, it may keep 476 bytes$/);
    replays.free();
    assert.deepEqual([1, 2, 3].map((i) => run("third", i)), [2, 4, 6]);
    assert.equal(replays.count, 3); // what was given back may be kept again
    replays.free();
  }));

Deno.test("a pass is not recorded while somebody looks on, and values are those of the run that they were asked of", () =>
  step(() => {
    const w = weight(), replays = openReplays({ w }, { enabled: true }), seen: string[] = [];
    assert.deepEqual(squares(replays, w), WANT);
    assert.equal(replays.count, 2);
    const before = observe((name, _, call) => (seen.push(name), call()));
    w.grad!.write([0, 0]);
    try {
      assert.deepEqual(squares(replays, w), WANT);
    } finally {
      observe(before);
    }
    assert.ok(seen.length > 4);
    assert.equal(replays.count, 2);
    const run = (i: number) => replays.run({ key: "late", inputs: () => ({ x: tensor([i], [1]) }), pass: ({ x }) => ({ y: mul(x, 2) }) });
    const all = [1, 2, 3, 4, 5].map((i) => run(i));
    assert.deepEqual(all.map(({ y }) => y()[0]), [2, 4, 6, 8, 10]);
    replays.free();
  }));
