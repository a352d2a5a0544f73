import assert from "node:assert/strict";
import { CARDS } from "../../lib/memory/cards.ts";
import { simulate } from "../../lib/memory/simulate.ts";
import { ssFlow, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { initialize } from "../../lib/nn/parameters.ts";
import { mse } from "../../lib/ops/loss.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS, type OptimizerConfig } from "../../lib/optim/optimizer.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { zeros } from "../../lib/tensor/tensor.ts";
import { predictTraining, type Training } from "../../lib/train/predict.ts";

const ARGS = {
  in_channels: 4,
  out_channels: 4,
  model_channels: 64,
  cond_channels: 32,
  num_heads: 2,
  num_blocks: 6,
  resolution: 8,
  patch_size: 1,
};

function training(changes: Partial<OptimizerConfig> = {}, B = 4): Training {
  const specs = ssFlowSpec(ARGS, "f32"),
    optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), { ...OPTIMIZER_DEFAULTS, ...changes });
  return {
    optimizer,
    parts: 2,
    sizes: new Array<number>(B).fill(512),
    pass: () =>
      step(() => {
        const noise = zeros([B, 4, 8, 8, 8]);
        backward(mse(ssFlow({ args: ARGS, dtype: "f32", params: optimizer.params }, noise, zeros([B]), zeros([B, 20, 32])), noise));
      }),
  };
}

Deno.test("predictTraining() knows memory by kind and time, and touches nothing of the open device", () => {
  const before = device().memory.use().used, p = predictTraining(CARDS.H200, training);
  assert.equal(device().memory.use().used, before);
  assert.ok(p.fits && p.givenUp.length === 0 && p.remade === 0);
  assert.equal(p.atPeak.master, p.atPeak.exp_avg);
  assert.ok(Math.abs(Object.values(p.atPeak).reduce((a, b) => a + b, 0) - p.peak) <= 1, "the kinds add up to the peak");
  assert.ok(p.step > p.optimizer && p.optimizer > 0);
  if (device().name === "cpu") { // the same pass on this device: all but rounding of sizes, scratch and cuBLASLt's workspace
    const { optimizer, pass } = training(), here = simulate(() => pass({})).peak;
    assert.ok(Math.abs(here - device().memory.granted(0) - p.peak) < 0.1 * p.peak + 64 * 2 ** 20, `${here} here, ${p.peak} there`);
    optimizer.free();
  }
});

Deno.test("predictTraining() of passes from a recording does not wait for launches, where the recording fits", () => {
  const recorded = (): Training => ({ ...training({}, 1), recorded: true }), plain = predictTraining(CARDS.H200, () => training({}, 1));
  assert.ok(predictTraining(CARDS.H200, recorded).step < plain.step / 2);
  assert.equal(predictTraining(CARDS.H200, recorded, 1.02 * plain.peak).step, plain.step);
});

Deno.test("predictTraining() plans for a budget, and says where it is too small", () => {
  const whole = predictTraining(CARDS.H100, training),
    budget = whole.peak - 20 * 2 ** 20,
    less = predictTraining(CARDS.H100, training, budget);
  assert.ok(less.fits && less.peak <= budget && less.givenUp.length > 0 && less.remade > 0 && less.step > whole.step);
  assert.equal(predictTraining(CARDS.H100, training, 2 ** 20).fits, false);
});

Deno.test("predictTraining() counts moments of 8 bits, and what is on the host by the bus", () => {
  const plain = predictTraining(CARDS.H100, training), small = predictTraining(CARDS.H100, () => training({ momentBits: 8 }));
  const more = small.atPeak.exp_avg - plain.atPeak.exp_avg / 4; // whole blocks of 128, of both dtypes
  assert.ok(more >= 0 && more < 2 * 128 && small.peak < plain.peak);
  const host = predictTraining(CARDS.H100, () => training({ onHost: "state" }));
  assert.ok(host.atPeak.exp_avg === undefined && host.peak < small.peak && host.optimizer > plain.optimizer);
});
