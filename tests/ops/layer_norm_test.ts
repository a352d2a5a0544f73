import assert from "node:assert/strict";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

function reference(
  x: Float64Array,
  C: number,
  { eps = 1e-5, w, b }: { eps?: number; w?: Float64Array; b?: Float64Array } = {},
): Float64Array {
  const y = new Float64Array(x.length);
  for (let n = 0; n < x.length; n += C) {
    const row = x.subarray(n, n + C);
    const mean = row.reduce((s, v) => s + v, 0) / C, variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / C;
    row.forEach((v, c) => y[n + c] = (v - mean) / Math.sqrt(variance + eps) * (w?.[c] ?? 1) + (b?.[c] ?? 0));
  }
  return y;
}

function affine(N: number, C: number) {
  return {
    x: { shape: [N, C], data: random(1, N * C) },
    w: { shape: [C], data: random(2, C), dtype: "f32" as const },
    b: { shape: [C], data: random(3, C), dtype: "f32" as const },
  };
}

for (const [N, C] of [[1, 1], [3, 1], [4, 3], [5, 8], [3, 33], [1, 257]]) {
  Deno.test(`layerNorm() and its gradients match the definition at [${N}, ${C}]`, () => {
    checkOp({
      inputs: affine(N, C),
      run: ({ x, w, b }) => layerNorm(x, { w, b, eps: 1e-3 }),
      reference: ({ x, w, b }) => reference(x, C, { eps: 1e-3, w, b }),
    });
  });
}

Deno.test("layerNorm() without scale and shift normalises alone, over any number of leading axes", () => {
  checkOp({
    inputs: { x: { shape: [2, 3, 1, 6], data: random(4, 36) } },
    run: ({ x }) => layerNorm(x),
    reference: ({ x }) => reference(x, 6),
  });
});

Deno.test("layerNorm() with only a scale or only a shift", () => {
  const { x, w, b } = affine(3, 5);
  checkOp({ inputs: { x, w }, run: (t) => layerNorm(t.x, { w: t.w }), reference: (a) => reference(a.x, 5, { w: a.w }) });
  checkOp({ inputs: { x, b }, run: (t) => layerNorm(t.x, { b: t.b }), reference: (a) => reference(a.x, 5, { b: a.b }) });
});

Deno.test("layerNorm() gives parameter gradients where x needs none", () => {
  const { x, w, b } = affine(3, 5);
  checkOp({
    inputs: { x: { ...x, grad: false }, w, b },
    run: (t) => layerNorm(t.x, { w: t.w, b: t.b }),
    reference: (a) => reference(a.x, 5, a),
  });
});

Deno.test("layerNorm() of no rows is empty and gives zero gradients", () => {
  step(() => {
    const w = tensor([1, 1, 1], [3], { requiresGrad: true }), b = tensor([0, 0, 0], [3], { requiresGrad: true });
    const y = layerNorm(tensor([], [0, 3]), { w, b });
    assert.deepEqual(y.shape, [0, 3]);
    backward(y, tensor([], [0, 3]));
    assert.deepEqual([...w.grad!.read(), ...b.grad!.read()], [0, 0, 0, 0, 0, 0]);
  });
});

Deno.test("layerNorm() keeps the digits of rows with a large mean", () => {
  step(() => {
    const y = layerNorm(tensor([4096, 4097, 4098, 4099], [1, 4]), { eps: 0 }).read();
    assert.ok(Math.abs(y[0] + 3 / Math.sqrt(5)) < 1e-6, `${y}`);
  });
});

Deno.test("layerNorm() says which shape or dtype is wrong and what it must be", () => {
  step(() => {
    const x = tensor(random(1, 6), [2, 3]);
    assert.throws(() => layerNorm(x, { w: tensor([1, 1], [2]) }), { message: "Cannot run layerNorm: w is [2], it must be [3]" });
    assert.throws(() => layerNorm(x, { b: tensor([1, 1, 1], [3], { dtype: "f16" }) }), {
      message: "Cannot run layerNorm: b is f16, it must be f32",
    });
    assert.throws(() => layerNorm(tensor([], [2, 0])), { message: /C must be > 0/ });
  });
});

for (
  const [N, C] of [
    [1, 1],
    [70, 3],
    [33, 8],
    [301, 32],
    [129, 33],
    [65, 128],
    [40, 257],
    [777, 512],
    [515, 1024],
    [19, 1030],
    [37, 1280],
    [
      9,
      2048,
    ],
    [6, 2049],
    [11, 4096],
    [5, 8192],
    [3, 8191],
  ]
) {
  checkDevices(`layerNorm() at [${N}, ${C}]`, import.meta.url, {
    inputs: affine(N, C),
    run: ({ x, w, b }) => layerNorm(x, { w, b, eps: 1e-3 }),
  });
}
checkDevices("layerNorm() without parameters at [4096, 1024]", import.meta.url, {
  inputs: { x: { shape: [4096, 1024], data: random(1, 4096 * 1024) } },
  run: ({ x }) => layerNorm(x),
});
checkDevices("layerNorm() of rows that are not aligned", import.meta.url, {
  inputs: { x: { shape: [33 * 64 + 1], data: random(1, 33 * 64 + 1), grad: false } },
  run: ({ x }) => layerNorm(x.view([33, 64], { offset: 1 })),
});
