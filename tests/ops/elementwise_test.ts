import assert from "node:assert/strict";
import {
  abs,
  absDiff,
  add,
  affine,
  bce,
  cos,
  div,
  exp,
  gelu,
  geluErf,
  log,
  maximum,
  minimum,
  mul,
  neg,
  relu,
  scale,
  sigmoid,
  silu,
  sin,
  softplus,
  sqDiff,
  sqrt,
  square,
  sub,
  tanh,
} from "../../lib/ops/elementwise.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, type Input, random } from "../check.ts";

/** erf by its Taylor series: exact to 1e-15 for |x| < 3. */
function erf(x: number): number {
  let term = x, total = x;
  for (let n = 1; n < 80; n++) {
    term *= -x * x / n;
    total += term / (2 * n + 1);
  }
  return total * 2 / Math.sqrt(Math.PI);
}

type Unary = [name: string, op: (x: Tensor) => Tensor, reference: (x: number) => number, low?: number, high?: number];
const UNARY: Unary[] = [
  ["neg", neg, (x) => -x],
  ["abs", abs, Math.abs],
  ["square", square, (x) => x * x],
  ["sqrt", sqrt, Math.sqrt, 0.1, 3],
  ["exp", exp, Math.exp, -8, 4],
  ["log", log, Math.log, 0.1, 5],
  ["sin", sin, Math.sin, -30, 30],
  ["cos", cos, Math.cos, -30, 30],
  ["relu", relu, (x) => Math.max(x, 0)],
  ["sigmoid", sigmoid, (x) => 1 / (1 + Math.exp(-x)), -9, 9],
  ["tanh", tanh, Math.tanh, -4, 4],
  ["silu", silu, (x) => x / (1 + Math.exp(-x)), -9, 9],
  ["gelu", gelu, (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))), -5, 5],
  ["geluErf", geluErf, (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)), -4, 4],
  ["softplus", softplus, (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), -9, 9],
];

function spread(seed: number, size: number, low = -2, high = 2): Float32Array<ArrayBuffer> {
  return random(seed, size).map((v) => low + (v + 1) / 2 * (high - low));
}

for (const [name, op, reference, low, high] of UNARY) {
  Deno.test(`${name}() and its gradient match the definition`, () => {
    for (const shape of [[], [1], [3, 7], [40]]) {
      const size = shape.reduce((a, b) => a * b, 1);
      checkOp({
        inputs: { x: { shape, data: spread(size, size, low, high) } },
        run: ({ x }) => op(x),
        reference: ({ x }) => x.map(reference),
        rtol: 3e-6,
        atol: 3e-6,
      });
    }
    step(() => assert.deepEqual(op(tensor([], [0, 3])).shape, [0, 3]));
  });
  checkDevices(name, import.meta.url, {
    inputs: { x: { shape: [31, 4099], data: spread(3, 31 * 4099, low, high) } },
    run: ({ x }) => op(x),
  });
}

Deno.test("elementwise ops keep infinities and NaN", () =>
  step(() => {
    const x = tensor([Infinity, -Infinity, NaN, 100, -110, 89, 0], [7]);
    assert.deepEqual([...exp(x).read()], [Infinity, 0, NaN, Infinity, 0, Infinity, 1]);
    assert.deepEqual([...sigmoid(x).read()].slice(0, 4), [1, 0, NaN, 1]);
    assert.deepEqual([...relu(x).read()].slice(0, 3), [Infinity, 0, NaN]);
    assert.deepEqual([...softplus(x).read()].slice(0, 5), [Infinity, 0, NaN, 100, 0]);
    assertClose("exp of a small number", exp(tensor([-87.5, -100, 88.7], [3])).read(), [-87.5, -100, 88.7].map(Math.exp), {
      rtol: 3e-5,
      atol: 3e-45,
    });
  }));

type Binary = [name: string, op: (a: Tensor, b: Tensor) => Tensor, reference: (a: number, b: number) => number];
const BINARY: Binary[] = [
  ["add", add, (a, b) => a + b],
  ["sub", sub, (a, b) => a - b],
  ["mul", mul, (a, b) => a * b],
  ["div", div, (a, b) => a / b],
  ["minimum", minimum, Math.min],
  ["maximum", maximum, Math.max],
  ["absDiff", absDiff, (a, b) => Math.abs(a - b)],
  ["sqDiff", sqDiff, (a, b) => (a - b) ** 2],
  ["bce", bce, (a, b) => Math.max(a, 0) - a * b + Math.log1p(Math.exp(-Math.abs(a)))],
];

/** The broadcast of `op` over shapes of equal rank, in f64. */
function broadcast(
  op: (a: number, b: number) => number,
  a: Float64Array,
  aShape: number[],
  b: Float64Array,
  bShape: number[],
): Float64Array {
  const rank = Math.max(aShape.length, bShape.length);
  const [p, q] = [aShape, bShape].map((s) => [...new Array(rank - s.length).fill(1), ...s]);
  const shape = p.map((n, d) => n === 1 ? q[d] : n), out = new Float64Array(shape.reduce((x, y) => x * y, 1));
  const place = (index: number[], s: number[]) => index.reduce((at, i, d) => at * s[d] + (s[d] === 1 ? 0 : i), 0);
  for (let k = 0; k < out.length; k++) {
    const index = new Array<number>(rank);
    for (let d = rank - 1, rest = k; d >= 0; d--) {
      index[d] = rest % shape[d];
      rest = Math.floor(rest / shape[d]);
    }
    out[k] = op(a[place(index, p)], b[place(index, q)]);
  }
  return out;
}

const SHAPES: [number[], number[]][] = [
  [[], []],
  [[5], [5]],
  [[3, 4], [4]],
  [[3, 1], [1, 4]],
  [[2, 3, 4], [2, 1, 4]],
  [[2, 1, 4], [2, 3, 1]],
  [[1], [2, 3]],
  [[2, 1, 3, 2], [2, 4, 3, 1]],
  [[1, 8], [6, 8]],
];

function away(data: Float32Array<ArrayBuffer>, from: number): Float32Array<ArrayBuffer> {
  return data.map((v) => v < 0 ? v - from : v + from);
}

for (const [name, op, reference] of BINARY) {
  Deno.test(`${name}() broadcasts, and its gradients match the definition`, () => {
    for (const [a, b] of SHAPES) {
      const input = (seed: number, shape: number[]): Input => ({ shape, data: away(random(seed, shape.reduce((x, y) => x * y, 1)), 0.2) });
      checkOp({
        inputs: { a: input(1, a), b: input(2, b) },
        run: (t) => op(t.a, t.b),
        reference: (v) => broadcast(reference, v.a, a, v.b, b),
      });
    }
    step(() => assert.deepEqual(op(tensor([], [0, 3]), tensor([1, 2, 3], [3])).shape, [0, 3]));
  });
  const more = name === "mul" || name === "div" ? [[[5, 7, 129], [129]], [[70001], [70001]], [[65, 1, 40], [1, 33, 1]]] : [];
  for (const [a, b] of [[[33, 257, 24], [33, 1, 24]], ...more]) {
    checkDevices(`${name} [${a}] [${b}]`, import.meta.url, {
      inputs: {
        a: { shape: a, data: away(random(4, a.reduce((x, y) => x * y, 1)), 0.2) },
        b: { shape: b, data: away(random(5, b.reduce((x, y) => x * y, 1)), 0.2) },
      },
      run: (t) => op(t.a, t.b),
    });
  }
}

Deno.test("ops with a number scale and shift", () => {
  const x = { shape: [2, 3], data: random(1, 6) };
  checkOp({ inputs: { x }, run: ({ x }) => affine(x, { scale: 2.5, shift: -1 }), reference: ({ x }) => x.map((v) => v * 2.5 - 1) });
  checkOp({ inputs: { x }, run: ({ x }) => add(x, 3), reference: ({ x }) => x.map((v) => v + 3) });
  checkOp({ inputs: { x }, run: ({ x }) => sub(x, 3), reference: ({ x }) => x.map((v) => v - 3) });
  checkOp({ inputs: { x }, run: ({ x }) => mul(x, 3), reference: ({ x }) => x.map((v) => v * 3) });
  checkOp({ inputs: { x }, run: ({ x }) => div(x, 4), reference: ({ x }) => x.map((v) => v / 4) });
  checkOp({ inputs: { x }, run: ({ x }) => scale(x, -0.5), reference: ({ x }) => x.map((v) => v * -0.5) });
});
checkDevices("affine", import.meta.url, {
  inputs: { x: { shape: [12345], data: random(1, 12345) } },
  run: ({ x }) => affine(x, { scale: 2.5, shift: -1 }),
});
checkDevices("silu of a view that is not aligned", import.meta.url, {
  inputs: { x: { shape: [1027], data: random(1, 1027), grad: false } },
  run: ({ x }) => silu(x.view([1024], { offset: 3 })),
});

Deno.test("one tensor on both sides gets both gradients", () => {
  const x = { shape: [4], data: random(1, 4) };
  checkOp({ inputs: { x }, run: ({ x }) => mul(x, x), reference: ({ x }) => x.map((v) => v * v) });
  checkOp({ inputs: { x }, run: ({ x }) => add(x, x), reference: ({ x }) => x.map((v) => 2 * v) });
  checkOp({ inputs: { x }, run: ({ x }) => sub(x, x), reference: ({ x }) => x.map(() => 0) });
});

Deno.test("binary ops say what does not fit", () =>
  step(() => {
    assert.throws(() => add(tensor(random(1, 12), [2, 1, 3, 1, 2]), tensor(random(1, 48), [2, 4, 3, 2, 1])), {
      name: "RangeError",
      message: "Cannot run add: [2,1,3,1,2] and [2,4,3,2,1] alternate in 5 runs of axes, it must be at most 4",
    });
    const a = tensor(random(1, 6), [2, 3]);
    assert.throws(() => add(a, tensor([1, 2], [2])), {
      name: "RangeError",
      message: "Cannot run add: [2,3] and [2] do not broadcast, axes must be equal or 1",
    });
    assert.throws(() => mul(a, tensor([1, 2, 3], [3], { dtype: "f16" })), {
      name: "TypeError",
      message: "Cannot run mul: b is f16, it must be f32",
    });
  }));
