import assert from "node:assert/strict";
import { unitDistance } from "../../lib/ops/unit_distance.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

function reference(a: Float64Array, b: Float64Array, w: Float64Array): Float64Array {
  const C = w.length;
  return Float64Array.from({ length: a.length / C }, (_, n) => {
    const u = a.subarray(n * C, n * C + C), v = b.subarray(n * C, n * C + C), p = Math.hypot(...u) + 1e-10, q = Math.hypot(...v) + 1e-10;
    return w.reduce((sum, weight, c) => sum + weight * (u[c] / p - v[c] / q) ** 2, 0);
  });
}

for (const [N, C] of [[5, 3], [2, 64], [1, 1], [0, 4]]) {
  Deno.test(`unitDistance() of [${N}, ${C}] and its gradients match the definition`, () =>
    checkOp({
      inputs: {
        a: { shape: [N, C], data: random(1, N * C) },
        b: { shape: [N, C], data: random(2, N * C) },
        w: { shape: [C], data: random(3, C).map(Math.abs), grad: false },
      },
      run: ({ a, b, w }) => unitDistance(a, b, w),
      reference: ({ a, b, w }) => reference(a, b, w),
    }));
}

Deno.test("unitDistance() gives a row of zeros no gradient, and refuses what does not fit", () =>
  step(() => {
    const a = tensor([0, 0, 3, 4], [2, 2], { requiresGrad: true }), w = tensor([1, 1], [2]);
    backward(unitDistance(a, tensor([1, 0, 3, 4], [2, 2]), w), tensor([1, 1], [2]));
    assert.deepEqual([...a.grad!.read()].map(Math.abs), [0, 0, 0, 0]);
    assert.throws(() => unitDistance(a, zeros([2, 3]), w), /b is \[2,3\], it must be \[2,2\]/);
    assert.throws(() => unitDistance(a, zeros([2, 2]), zeros([3])), /w is \[3\], it must be \[2\]/);
    assert.throws(() => unitDistance(a, zeros([2, 2], "f16"), w), /b is f16, it must be f32/);
  }));

for (const [N, C] of [[1000, 64], [777, 512], [300, 13]]) {
  checkDevices(`unitDistance of [${N}, ${C}]`, import.meta.url, {
    inputs: {
      a: { shape: [N, C], data: random(1, N * C) },
      b: { shape: [N, C], data: random(2, N * C) },
      w: { shape: [C], data: random(3, C).map(Math.abs), grad: false, dtype: "f32" },
    },
    run: ({ a, b, w }) => unitDistance(a, b, w),
  });
}
