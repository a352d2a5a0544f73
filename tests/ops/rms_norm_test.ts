import assert from "node:assert/strict";
import { headRmsNorm } from "../../lib/ops/rms_norm.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, type Input, random } from "../check.ts";

function reference(a: Record<string, Float64Array>, [G, H, D]: number[], count: number): Float64Array {
  const y = a.x.slice();
  for (let i = 0; i < y.length / D; i++) {
    const g = Math.floor(i / H) % G, v = a.x.subarray(i * D, i * D + D);
    if (g >= count) continue;
    const n = Math.max(Math.hypot(...v), 1e-12), gamma = a[`gamma${g}`].subarray(i % H * D);
    v.forEach((e, d) => y[i * D + d] = e / n * gamma[d] * Math.sqrt(D));
  }
  return y;
}

function inputs([N, G, H, D]: number[], count: number): Record<string, Input> {
  const gammas = Array.from(
    { length: count },
    (_, g) => [`gamma${g}`, { shape: [H, D], data: random(g + 2, H * D), dtype: "f32" as const }],
  );
  return { x: { shape: [N, G, H, D], data: random(1, N * G * H * D) }, ...Object.fromEntries(gammas) };
}

for (
  const [count, ...shape] of [[2, 3, 3, 2, 4], [1, 2, 2, 3, 5], [1, 3, 1, 2, 8], [3, 1, 3, 1, 1], [0, 2, 2, 1, 3], [2, 1, 2, 1, 33]]
) {
  Deno.test(`headRmsNorm() with ${count} gammas and its gradients match the definition at [${shape}]`, () => {
    checkOp({
      inputs: inputs(shape, count),
      run: ({ x, ...gammas }) => headRmsNorm(x, Object.values(gammas)),
      reference: (a) => reference(a, shape.slice(1), count),
    });
  });
}

Deno.test("headRmsNorm() takes any leading axes and gives only the gradients that are wanted", () => {
  const { x, gamma0, gamma1 } = inputs([6, 3, 2, 4], 2);
  checkOp({
    inputs: { x: { ...x, shape: [2, 3, 3, 2, 4], grad: false }, gamma0: { ...gamma0, grad: false }, gamma1 },
    run: (t) => headRmsNorm(t.x, [t.gamma0, t.gamma1]),
    reference: (a) => reference(a, [3, 2, 4], 2),
  });
});

Deno.test("headRmsNorm() of a zero vector is zero, and its gradient has no radial part", () => {
  step(() => {
    const x = tensor([0, 0, 3, 4], [1, 1, 2, 2], { requiresGrad: true }), gamma = tensor([1, 1, 1, 1], [2, 2], { requiresGrad: true });
    const y = headRmsNorm(x, [gamma]);
    assertClose("y", y.read(), [0, 0, 0.6 * Math.SQRT2, 0.8 * Math.SQRT2]);
    backward(y, tensor([1e-12, 2e-12, 0, 0], [1, 1, 2, 2]));
    assertClose("dx", x.grad!.read(), [Math.SQRT2, 2 * Math.SQRT2, 0, 0]);
    assertClose("dgamma", gamma.grad!.read(), [0, 0, 0, 0]);
  });
});

Deno.test("headRmsNorm() of no rows gives zero gradients", () => {
  step(() => {
    const gamma = tensor([1, 1], [1, 2], { requiresGrad: true });
    backward(headRmsNorm(tensor([], [0, 2, 1, 2]), [gamma]), tensor([], [0, 2, 1, 2]));
    assert.deepEqual([...gamma.grad!.read()], [0, 0]);
  });
});

Deno.test("headRmsNorm() says which argument is wrong and what it must be", () => {
  step(() => {
    const x = tensor(random(1, 8), [1, 2, 2, 2]), gamma = tensor([1, 1, 1, 1], [2, 2]);
    assert.throws(() => headRmsNorm(x, [tensor([1, 1], [2])]), { message: "Cannot run headRmsNorm: gammas[0] is [2], it must be [2,2]" });
    assert.throws(() => headRmsNorm(x, [gamma, gamma, gamma]), { message: /G is 2 with 3 gammas/ });
    assert.throws(() => headRmsNorm(gamma, []), { message: "Cannot run headRmsNorm: x is [2,2], it must be [..., G, H, D]" });
    assert.throws(() => headRmsNorm(tensor(random(1, 257), [1, 1, 1, 257]), [tensor(random(1, 257), [1, 257])]), {
      message: /D = 257, it must be 1 to 256/,
    });
  });
});

for (
  const [count, ...shape] of [
    [2, 1001, 3, 16, 64],
    [1, 687, 2, 16, 64],
    [1, 300, 1, 12, 64],
    [2, 123, 3, 16, 80],
    [2, 65, 3, 4, 32],
    [
      1,
      9,
      2,
      3,
      33,
    ],
    [3, 40, 3, 2, 256],
    [1, 1, 1, 1, 1],
    [2, 50, 3, 5, 8],
  ]
) {
  checkDevices(`headRmsNorm() with ${count} gammas at [${shape}]`, import.meta.url, {
    inputs: inputs(shape, count),
    run: ({ x, ...gammas }) => headRmsNorm(x, Object.values(gammas)),
  });
}
