import assert from "node:assert/strict";
import { sampleEuler, type SamplerOptions, timeGrid, type Velocity } from "../../lib/flow/sampler.ts";
import { add, mul, sub } from "../../lib/ops/elementwise.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { isRecording } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";

Deno.test("timeGrid() runs from 1 to 0 and is drawn to the noise by rescaleT", () => {
  assertClose("plain", timeGrid(4), [1, 0.75, 0.5, 0.25, 0], { rtol: 0, atol: 1e-12 });
  const want = [1, 0.9706, 0.9375, 0.9, 0.8571, 0.8077, 0.75, 0.6818, 0.6, 0.5, 0.375, 0.2143, 0];
  assertClose("12 steps at 3", timeGrid(12, 3), want, { rtol: 0, atol: 5e-5 });
});

const SHAPE = [2, 3], NOISE = random(3, 6), TARGET = random(4, 6);

/** A sample on the host, and the times (times 1000) that the velocity was asked for. */
function sample(velocity: Velocity, options: SamplerOptions, negative = true): { y: Float32Array; asked: number[] } {
  const asked: number[] = [];
  const y = step(() => {
    const cond = tensor([2], [1]), none = negative ? tensor([0.5], [1]) : null;
    return sampleEuler(
      (x, t, c) => {
        assert.deepEqual([x.shape, t.shape], [SHAPE, [2]]);
        assert.ok(!isRecording());
        asked.push(t.read()[0]);
        return velocity(x, t, c);
      },
      tensor(NOISE, SHAPE),
      cond,
      none,
      options,
    ).read();
  });
  return { y, asked };
}

Deno.test("sampleEuler() of a constant velocity ends at noise - v, whatever the steps", () => {
  const velocity: Velocity = () => sub(tensor(NOISE, SHAPE), tensor(TARGET, SHAPE));
  for (const options of [{ steps: 1 }, { steps: 7 }, { steps: 5, rescaleT: 3 }]) {
    assertClose("sample", sample(velocity, { ...options, cfgStrength: 0 }).y, TARGET);
  }
});

Deno.test("sampleEuler() of a linear velocity equals the product of its steps", () => {
  // dx/dt = a x in steps from t to t' gives x (1 - a (t - t')) each
  const a = 0.7, times = timeGrid(6, 2);
  const { y, asked } = sample((x) => mul(x, a), { steps: 6, rescaleT: 2, cfgStrength: 0 });
  const factor = times.slice(1).reduce((f, t, i) => f * (1 - a * (times[i] - t)), 1);
  assertClose("sample", y, Array.from(NOISE, (x) => x * factor));
  assertClose("times", asked, times.slice(0, 6).map((t) => 1000 * t));
});

Deno.test("sampleEuler() guides with (1 + w) v(cond) - w v(negative) inside the interval, both ends included", () => {
  // v(c) = c everywhere: cond 2, negative 0.5
  const velocity: Velocity = (x, _, c) => add(mul(x, 0), c), w = 3, guided = (1 + w) * 2 - w * 0.5;
  const times = timeGrid(4), run = (options: SamplerOptions, negative = true) => sample(velocity, { steps: 4, ...options }, negative);
  const shifted = (by: number): number[] => Array.from(NOISE, (x) => x - by);

  assertClose("always", run({ cfgStrength: w }).y, shifted(guided));
  const part = run({ cfgStrength: w, cfgInterval: [0.5, 0.75] });
  assertClose("at 0.75 and 0.5 alone", part.y, shifted(0.25 * 2 * guided + 0.25 * 2 * 2));
  assertClose("asked", part.asked, [1000, 750, 750, 500, 500, 250]);
  const never = run({ cfgStrength: 0 });
  assertClose("unguided", never.y, shifted(2));
  assert.equal(never.asked.length, 4, "the negative is not asked for");
  assertClose("no negative", run({ cfgStrength: w }, false).y, shifted(2));
  assertClose("weaker than none", run({ cfgStrength: -1 }).y, shifted(0.5));
  assert.equal(times.length, 5);
});

Deno.test("sampleEuler() shows the state and the estimate of the data after each step, and leaves the noise alone", () => {
  const sigmaMin = 0.02, states: number[][] = [], estimates: number[][] = [], before = device().memory.use().used;
  step(() => {
    const noise = tensor(NOISE, SHAPE), one = tensor([1], [1]);
    const made = sampleEuler(
      // the exact velocity of the path to the one target: (1 - σ) ε - x0 with ε and x0 from x and t
      (x: Tensor, t: Tensor) => {
        const at = t.read()[0] / 1000, eps = mul(sub(x, mul(tensor(TARGET, SHAPE), 1 - at)), 1 / (sigmaMin + (1 - sigmaMin) * at));
        return sub(mul(eps, 1 - sigmaMin), tensor(TARGET, SHAPE));
      },
      noise,
      one,
      null,
      { steps: 3, sigmaMin, onStep: (i, xt, x0) => void (states[i] = [...xt.read()], estimates[i] = [...x0.read()]) },
    );
    assert.deepEqual([...noise.read()], [...NOISE]);
    assert.deepEqual([...made.read()], states[2]);
    assert.equal(states.length, 3);
    for (const estimate of estimates) assertClose("x0", estimate, TARGET, { rtol: 1e-4, atol: 1e-5 });
    assertClose("sample", made.read(), Array.from(TARGET, (x, i) => x + sigmaMin * NOISE[i]), { rtol: 1e-4, atol: 1e-5 });
  });
  assert.equal(device().memory.use().used, before);
});

Deno.test("sampleEuler() refuses a number of steps that is not whole", () => {
  for (const steps of [0, -1, 2.5, NaN]) {
    assert.throws(() => sample((x) => x, { steps }), {
      name: "RangeError",
      message: `Cannot sample: steps is ${steps}, it must be a whole number from 1 up`,
    });
  }
});

Deno.test("sampleEuler() carries the rows of samples of unequal size, each at its own sample's time", () => {
  const y = step(() => {
    const velocity: Velocity = (x, t, c) => {
      assert.deepEqual([x.shape, t.shape, c.shape], [[5, 2], [3], [3, 1]]);
      return x;
    };
    const noise = tensor(random(6, 10), [5, 2]), cond = tensor([1, 2, 3], [3, 1]);
    return sampleEuler(velocity, noise, cond, null, { steps: 2, cfgStrength: 0, samples: 3 }).read();
  });
  assertClose("sample", y, Array.from(random(6, 10), (x) => x * 0.25));
});
