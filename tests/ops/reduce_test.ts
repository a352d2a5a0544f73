import assert from "node:assert/strict";
import { mul } from "../../lib/ops/elementwise.ts";
import { mean, sum, sumRows, sumTo } from "../../lib/ops/reduce.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, random } from "../check.ts";

function size(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Sums of x over `axes`, in f64. */
function reference(x: ArrayLike<number>, shape: number[], axes: number[]): Float64Array {
  const kept = shape.map((n, d) => axes.includes(d) ? 1 : n), out = new Float64Array(size(kept));
  for (let k = 0; k < x.length; k++) {
    let at = 0, rest = k, stride = 1;
    for (let d = shape.length - 1; d >= 0; d--) {
      const i = rest % shape[d];
      rest = Math.floor(rest / shape[d]);
      if (kept[d] > 1) at += i * stride;
      stride *= kept[d];
    }
    out[at] += x[k];
  }
  return out;
}

const CASES: [number[], number[]][] = [
  [[5], [0]],
  [[2, 3, 4], [1]],
  [[2, 3, 4], [2]],
  [[2, 3, 4], [0]],
  [[2, 3, 4], [0, 2]],
  [[2, 3, 4], [0, 1]],
  [[2, 1, 3, 1, 4], [1, 4]],
  [[2, 3, 1, 2], [0, 2, 3]],
  [[3, 1], [1]],
  [[], []],
];
for (const [shape, axes] of CASES) {
  Deno.test(`sum() and mean() of [${shape}] over [${axes}] match the definition`, () => {
    const x = { shape, data: random(1, size(shape)) }, count = axes.reduce((n, d) => n * shape[d], 1);
    const kept = shape.filter((_, d) => !axes.includes(d));
    checkOp({ inputs: { x }, run: ({ x }) => sum(x, { axes }), reference: ({ x }) => reference(x, shape, axes) });
    checkOp({
      inputs: { x },
      run: ({ x }) => mean(x, { axes: axes.map((a) => a - shape.length), keepDims: true }),
      reference: ({ x }) => reference(x, shape, axes).map((v) => v / count),
    });
    step(() => {
      const t = tensor(x.data, shape);
      assert.deepEqual(sum(t, { axes }).shape, kept);
      assert.deepEqual(sum(t, { axes, keepDims: true }).shape, shape.map((n, d) => axes.includes(d) ? 1 : n));
    });
  });
}

Deno.test("sum() of everything is an f32 scalar, exact to f32 over a million elements", () =>
  step(() => {
    const data = random(3, 1_000_003).map((v) => v + 1), want = data.reduce((a: number, b) => a + b, 0);
    const y = sum(tensor(data, [data.length]));
    assert.deepEqual([y.shape, y.dtype], [[], "f32"]);
    assertClose("sum", y.read(), [want], { rtol: 1e-7, atol: 0 });
    assertClose("mean", mean(tensor(data, [data.length, 1])).read(), [want / data.length], { rtol: 1e-6, atol: 0 });
  }));

Deno.test("sum() of nothing is 0", () =>
  step(() => {
    assert.equal(sum(zeros([0])).item(), 0);
    assert.deepEqual([...sum(zeros([3, 0, 2]), { axes: [1] }).read()], [0, 0, 0, 0, 0, 0]);
    assert.deepEqual(sum(zeros([0, 4]), { axes: [1] }).shape, [0]);
    assert.ok(Number.isNaN(mean(zeros([0])).item()));
  }));

Deno.test("sum() does not depend on the number of threads or on its neighbours", () =>
  step(() => {
    const data = random(4, 5 * 70001), all = sum(tensor(data, [5, 70001]), { axes: [1] }).read();
    const alone = sum(tensor(data.slice(70001, 140002), [70001])).item();
    assert.equal(all[1], alone);
  }));

Deno.test("sumRows() and sumTo() undo broadcasting", () =>
  step(() => {
    const x = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
    assert.deepEqual([...sumRows(x).read()], [5, 7, 9]);
    assert.deepEqual([...sumTo(x, [2, 1]).read()], [6, 15]);
    assert.deepEqual([...sumTo(x, [3]).read()], [5, 7, 9]);
    assert.deepEqual(sumTo(x, []).shape, []);
    assert.equal(sumTo(x, [2, 3]), x);
    assert.throws(() => sum(x, { axes: [2] }), { name: "RangeError", message: "Cannot run sum: axis is 2, it must be -2 to 1" });
  }));

const DEVICE_CASES: [string, number[], (x: Tensor) => Tensor][] = [
  ["sum of all", [3_000_001], (x) => sum(x)],
  ["mean of all", [64, 1, 32, 32, 32], (x) => mul(mean(x), 2 ** 20)], // as a loss is scaled, so that f16 gradients do not vanish
  ["sum of few long rows", [3, 500_000], (x) => sum(x, { axes: [1], dtype: "f32" })],
  ["sum of long odd rows", [7, 4999], (x) => sum(x, { axes: [1] })],
  ["sum of short rows", [5000, 64], (x) => sum(x, { axes: [1] })],
  ["sum of rows of 3", [10_001, 3], (x) => sum(x, { axes: [1] })],
  ["sum of rows of 1000", [333, 1000], (x) => sum(x, { axes: [1] })],
  ["sum over tokens", [4, 4096, 96], (x) => sum(x, { axes: [1] })],
  ["sum over rows", [65_537, 48], (x) => sum(x, { axes: [0] })],
  ["sum over rows of 3", [100_003, 3], (x) => sum(x, { axes: [0] })],
  ["sum over rows of 1027", [999, 1027], (x) => sum(x, { axes: [0] })],
  ["sum over a short axis", [100, 9, 1000], (x) => sum(x, { axes: [1] })],
  ["sum over two runs of axes", [5, 300, 7, 40], (x) => sum(x, { axes: [1, 3] })],
  ["sum over an axis of 1", [33, 1, 5], (x) => sum(x, { axes: [1] })],
  ["sum of one element", [1], (x) => sum(x)],
  ["mean of tokens into f32", [4, 1000, 96], (x) => mean(x, { axes: [1], dtype: "f32" })],
  ["sum of a view that is not aligned", [1, 40_003], (x) => sum(x.view([40_000], { offset: 3 }))],
];
for (const [name, shape, run] of DEVICE_CASES) {
  checkDevices(name, import.meta.url, {
    inputs: { x: { shape, data: random(1, size(shape)).map((v) => v + 0.5) } },
    run: ({ x }) => run(x),
  });
}
checkDevices("sum of a million f16 elements beyond its range", import.meta.url, {
  inputs: { x: { shape: [1 << 20], data: random(1, 1 << 20).map((v) => v + 1) } },
  run: ({ x }) => sum(x),
  dtypes: ["f16"],
});
