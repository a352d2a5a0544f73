import assert from "node:assert/strict";
import { createRandom } from "../../lib/data/random.ts";
import { drawTimes, errorsByTime, flowPath, pathWeights } from "../../lib/flow/path.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";

Deno.test("flowPath() is the straight path and its velocity, each sample at its own time", () => {
  const shape = [3, 2, 4], t = [0, 0.25, 1], x0 = random(1, 24), noise = random(2, 24), each = 8;
  for (const sigmaMin of [1e-5, 0.1, 0]) {
    step(() => {
      const { xt, velocity } = flowPath(tensor(x0, shape), tensor(noise, shape), t, { sigmaMin });
      const again = flowPath(tensor(x0, shape), tensor(noise, shape), pathWeights(t, { sigmaMin }), { sigmaMin });
      assert.deepEqual([again.xt, again.velocity].map((y) => y.read()), [xt, velocity].map((y) => y.read()));
      assert.deepEqual([xt.shape, velocity.shape], [shape, shape]);
      const at = (i: number): number => t[Math.floor(i / each)];
      const want = Array.from(x0, (x, i) => (1 - at(i)) * x + (sigmaMin + (1 - sigmaMin) * at(i)) * noise[i]);
      assertClose("xt", xt.read(), want);
      assertClose("velocity", velocity.read(), Array.from(x0, (x, i) => (1 - sigmaMin) * noise[i] - x));
      assertClose("x0 of xt", [...xt.read()].slice(0, 8), [...x0].slice(0, 8).map((x, i) => x + sigmaMin * noise[i]));
    });
  }
});

Deno.test("flowPath() refuses noise of another shape and another number of times", () => {
  step(() => {
    const x0 = zeros([2, 3]);
    assert.throws(() => flowPath(x0, zeros([1, 3]), [0, 1]), /Cannot run flowPath: noise is \[1,3\], it must be \[2,3\]/);
    assert.throws(() => flowPath(x0, zeros([2, 3]), [0.5]), /Cannot run flowPath: the weights of the times is \[1\], it must be \[2\]/);
  });
});

Deno.test("drawTimes() draws uniform and logit-normal times", () => {
  const count = 20000, next = createRandom(5);
  const quantiles = (times: Float32Array): number[] => {
    const sorted = times.slice().sort();
    return [0.1, 0.25, 0.5, 0.75, 0.9].map((q) => sorted[Math.floor(q * count)]);
  };
  const flat = drawTimes({ name: "uniform" }, count, next);
  assertClose("uniform", quantiles(flat), [0.1, 0.25, 0.5, 0.75, 0.9], { rtol: 0, atol: 0.015 });
  for (const { mean, std } of [{ mean: 1, std: 1 }, { mean: -0.5, std: 2 }, { mean: 0, std: 0 }]) {
    const times = drawTimes({ name: "logitNormal", mean, std }, count, next);
    const want = [-1.2816, -0.6745, 0, 0.6745, 1.2816].map((z) => 1 / (1 + Math.exp(-(mean + std * z)))); // quantiles of the normal distribution
    assertClose(`logitNormal ${mean} ${std}`, quantiles(times), want, { rtol: 0, atol: 0.015 });
    assert.ok(times.every((t) => t > 0 && t < 1));
  }
});

Deno.test("errorsByTime() averages in ten bins and leaves out empty ones and t = 1", () => {
  assert.deepEqual(errorsByTime([0, 0.05, 0.95, 0.5, 1, 0.99], [1, 3, 10, 7, 1000, 20]), { bin_0: 2, bin_5: 7, bin_9: 15 });
  assert.deepEqual(errorsByTime([], []), {});
});
