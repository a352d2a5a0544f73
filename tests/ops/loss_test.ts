import assert from "node:assert/strict";
import { mul } from "../../lib/ops/elementwise.ts";
import { bceWithLogits, dice, klDivergence, l1, mse, mseRows, opacityRegularizer, volumeRegularizer } from "../../lib/ops/loss.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, random } from "../check.ts";

type Loss = [name: string, loss: (a: Tensor, b: Tensor) => Tensor, reference: (a: Float64Array, b: Float64Array) => number];

function meanOf(a: Float64Array, f: (v: number, i: number) => number): number {
  return a.reduce((s, v, i) => s + f(v, i), 0) / a.length;
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

const LOSSES: Loss[] = [
  ["mse", mse, (a, b) => meanOf(a, (v, i) => (v - b[i]) ** 2)],
  ["l1", l1, (a, b) => meanOf(a, (v, i) => Math.abs(v - b[i]))],
  ["bceWithLogits", bceWithLogits, (a, b) => meanOf(a, (v, i) => Math.log1p(Math.exp(v)) - v * b[i])],
  ["dice", dice, (a, b) => {
    const total = (f: (v: number, i: number) => number) => meanOf(a, f) * a.length;
    return 1 - (2 * total((v, i) => sigmoid(v) * b[i]) + 1) / (total(sigmoid) + total((_, i) => b[i]) + 1);
  }],
  ["klDivergence", klDivergence, (a, b) => 0.5 * meanOf(a, (v, i) => v * v + Math.exp(b[i]) - b[i] - 1)],
];

for (const [name, loss, reference] of LOSSES) {
  Deno.test(`${name}() and its gradients match the definition`, () => {
    for (const shape of [[1], [2, 3, 4]]) {
      const size = shape.reduce((a, b) => a * b, 1);
      checkOp({
        inputs: { a: { shape, data: random(1, size).map((v) => 3 * v) }, b: { shape, data: random(2, size).map((v) => v / 2 + 0.5) } },
        run: ({ a, b }) => loss(a, b),
        reference: ({ a, b }) => [reference(a, b)],
      });
    }
  });
  checkDevices(name, import.meta.url, {
    inputs: {
      a: { shape: [4, 1, 32, 32, 32], data: random(1, 131072).map((v) => 3 * v) },
      b: { shape: [4, 1, 32, 32, 32], data: random(2, 131072).map((v) => v / 2 + 0.5) },
    },
    run: ({ a, b }) => mul(loss(a, b), 2 ** 16), // as in training, so that f16 gradients do not vanish
  });
}

Deno.test("losses are f32 scalars", () =>
  step(() => {
    const a = tensor(random(1, 6), [2, 3]), b = tensor(random(2, 6), [2, 3]);
    for (const [, loss] of LOSSES) {
      const y = loss(a, b);
      assert.deepEqual([y.shape, y.dtype], [[], "f32"]);
    }
  }));

Deno.test("mseRows() gives one value a row", () =>
  step(() => {
    const y = mseRows(tensor([1, 2, 3, 4], [2, 2]), tensor([1, 0, 0, 0], [2, 2]));
    assert.deepEqual([...y.read()], [2, 12.5]);
  }));

Deno.test("klDivergence() of the standard normal is 0 and small next to it", () =>
  step(() => {
    assert.equal(klDivergence(tensor([0, 0], [2]), tensor([0, 0], [2])).item(), 0);
    assertClose("kl", klDivergence(tensor([0.1], [1]), tensor([0.01], [1])).read(), [0.5 * (0.01 + Math.exp(0.01) - 1.01)], { rtol: 1e-4 });
  }));

Deno.test("bceWithLogits() stays finite for large logits", () =>
  step(() => assert.deepEqual(bceWithLogits(tensor([200, -200], [2]), tensor([0, 1], [2])).item(), 200)));

Deno.test("losses refuse tensors of two shapes, which would broadcast", () => {
  step(() => {
    const a = zeros([2, 1, 3]), b = zeros([2, 4, 3]), losses = { mse, mseRows, l1, bceWithLogits, dice, klDivergence };
    for (const [name, loss] of Object.entries(losses)) {
      assert.throws(() => loss(a, b), { message: `Cannot run ${name}: the second tensor is [2,4,3], it must be [2,1,3]` });
    }
  });
});

Deno.test("the regularizers of Gaussians and their gradients match the definitions", () => {
  const scales = random(1, 21).map(Math.abs), opacity = random(2, 7).map((v) => 0.5 + v / 2);
  checkOp({
    inputs: { scales: { shape: [7, 3], data: scales } },
    run: ({ scales }) => volumeRegularizer(scales),
    reference: ({ scales: s }) => [Array.from({ length: 7 }, (_, n) => s[3 * n] * s[3 * n + 1] * s[3 * n + 2]).reduce((a, b) => a + b) / 7],
  });
  checkOp({
    inputs: { opacity: { shape: [7, 1], data: opacity } },
    run: ({ opacity }) => opacityRegularizer(opacity),
    reference: ({ opacity: o }) => [meanOf(o, (v) => (v - 1) ** 2)],
  });
  assert.throws(() => step(() => void volumeRegularizer(zeros([3, 2]))), { message: /scales is \[3,2\], it must be \[3,3\]/ });
});

checkDevices("volumeRegularizer", import.meta.url, {
  inputs: { scales: { shape: [5001, 3], data: random(1, 15003).map(Math.abs) } },
  run: ({ scales }) => mul(volumeRegularizer(scales), 2 ** 16),
});
checkDevices("opacityRegularizer", import.meta.url, {
  inputs: { opacity: { shape: [5001, 1], data: random(1, 5001).map(Math.abs) } },
  run: ({ opacity }) => mul(opacityRegularizer(opacity), 2 ** 16),
});
