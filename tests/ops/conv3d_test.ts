import assert from "node:assert/strict";
import { conv3d } from "../../lib/ops/conv3d.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { empty, tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, type Input, random } from "../check.ts";

interface Shape {
  x: [B: number, X: number, Y: number, Z: number, Cin: number];
  Cout: number;
  kernel: number;
  stride?: number;
  padding?: number;
}

function reference(
  { x: [B, X, Y, Z, Cin], Cout, kernel: k, stride = 1, padding = 0 }: Shape,
  { x, weight, bias }: { x: Float64Array; weight: Float64Array; bias?: Float64Array },
): Float64Array {
  const [oX, oY, oZ] = [X, Y, Z].map((D) => Math.max(0, Math.floor((D + 2 * padding - k) / stride) + 1));
  const y = new Float64Array(B * oX * oY * oZ * Cout);
  for (let at = 0; at < y.length; at++) {
    const o = at % Cout, cell = Math.floor(at / Cout), l = cell % oZ, j = Math.floor(cell / oZ) % oY;
    const i = Math.floor(cell / oZ / oY) % oX, b = Math.floor(cell / oZ / oY / oX);
    let sum = bias?.[o] ?? 0;
    for (let t = 0; t < k ** 3; t++) {
      const u = i * stride - padding + Math.floor(t / k / k),
        v = j * stride - padding + Math.floor(t / k) % k,
        w = l * stride - padding + t % k;
      if (u < 0 || u >= X || v < 0 || v >= Y || w < 0 || w >= Z) continue;
      const from = (((b * X + u) * Y + v) * Z + w) * Cin;
      for (let c = 0; c < Cin; c++) sum += weight[(o * Cin + c) * k ** 3 + t] * x[from + c];
    }
    y[at] = sum;
  }
  return y;
}

function inputs({ x, Cout, kernel: k }: Shape): Record<"x" | "weight" | "bias", Input> {
  const Cin = x[4], scale = 1 / Math.sqrt(Cin * k ** 3);
  return {
    x: { shape: x, data: random(1, x.reduce((a, b) => a * b)) },
    weight: { shape: [Cout, Cin, k, k, k], data: random(2, Cout * Cin * k ** 3).map((v) => v * scale) },
    bias: { shape: [Cout], data: random(3, Cout) },
  };
}

function describe({ x, Cout, kernel, stride = 1, padding = 0 }: Shape): string {
  return `[${x}] to ${Cout} channels, kernel ${kernel}, stride ${stride}, padding ${padding}`;
}

const SMALL: Shape[] = [
  { x: [1, 3, 2, 4, 1], Cout: 2, kernel: 3, padding: 1 },
  { x: [2, 2, 3, 3, 3], Cout: 1, kernel: 3, padding: 1 },
  { x: [1, 3, 4, 3, 2], Cout: 3, kernel: 3 },
  { x: [1, 1, 2, 3, 2], Cout: 2, kernel: 3, padding: 2 },
  { x: [1, 3, 1, 2, 8], Cout: 2, kernel: 3, padding: 1 },
  { x: [2, 4, 5, 2, 3], Cout: 2, kernel: 2, stride: 2 },
  { x: [1, 4, 3, 6, 1], Cout: 8, kernel: 2, stride: 2 },
  { x: [1, 3, 3, 2, 2], Cout: 2, kernel: 2, padding: 1 },
  { x: [1, 3, 4, 7, 2], Cout: 1, kernel: 3, stride: 3 },
  { x: [2, 2, 3, 1, 5], Cout: 4, kernel: 1 },
];
for (const shape of SMALL) {
  Deno.test(`conv3d() and its gradients match the definition: ${describe(shape)}`, () => {
    checkOp({
      inputs: inputs(shape),
      run: ({ x, weight, bias }) => conv3d(x, weight, bias, shape),
      reference: (a) => reference(shape, a),
    });
  });
}

Deno.test("conv3d() without a bias", () => {
  const shape: Shape = { x: [1, 2, 3, 2, 2], Cout: 3, kernel: 3, padding: 1 }, { x, weight } = inputs(shape);
  checkOp({ inputs: { x, weight }, run: (t) => conv3d(t.x, t.weight, null, shape), reference: (a) => reference(shape, a) });
});

for (const missing of ["x", "weight", "bias"] as const) {
  Deno.test(`conv3d() leaves out the gradient of ${missing} where it is not wanted`, () => {
    const shape: Shape = { x: [1, 3, 2, 2, 2], Cout: 2, kernel: 3, padding: 1 }, all = inputs(shape);
    checkOp({
      inputs: { ...all, [missing]: { ...all[missing], grad: false } },
      run: ({ x, weight, bias }) => conv3d(x, weight, bias, shape),
      reference: (a) => reference(shape, a),
    });
  });
}

Deno.test("conv3d() of nothing gives nothing, and zero gradients", () => {
  step(() => {
    for (const [extents, out] of [[[0, 3, 3, 3], [0, 1, 1, 1]], [[2, 2, 4, 4], [2, 0, 2, 2]]]) {
      const x = empty([...extents, 2]), weight = tensor(random(1, 3 * 2 * 27), [3, 2, 3, 3, 3]), bias = tensor(random(2, 3), [3]);
      x.requiresGrad = weight.requiresGrad = bias.requiresGrad = true;
      const y = conv3d(x, weight, bias);
      assert.deepEqual(y.shape, [...out, 3]);
      backward(y, empty(y.shape));
      for (const t of [x, weight, bias]) assert.ok(t.grad!.read().every((v) => v === 0));
    }
  });
});

Deno.test("conv3d() says what is wrong with its inputs", () => {
  step(() => {
    const x = empty([1, 4, 4, 4, 3]), weight = empty([2, 3, 3, 3, 3]);
    const fails = (run: () => void, message: string) => assert.throws(run, { message: `Cannot run conv3d: ${message}` });
    fails(() => conv3d(empty([4, 4, 4, 3]), weight), "x is [4,4,4,3], it must be [B, X, Y, Z, Cin]");
    fails(() => conv3d(x, empty([2, 3, 5, 5, 5])), "weight is [2,3,5,5,5], it must be [Cout, 3, k, k, k] with k = 1, 2 or 3");
    fails(() => conv3d(x, empty([2, 4, 3, 3, 3])), "weight is [2,4,3,3,3], it must be [2,3,3,3,3]");
    fails(() => conv3d(x, weight, empty([3])), "bias is [3], it must be [2]");
    fails(() => conv3d(x, empty([2, 3, 3, 3, 3], "f16")), "weight is f16, it must be f32 or x's f32");
    fails(() => conv3d(x, weight, empty([2], "bf16")), "bias is bf16, it must be f32 or x's f32");
    fails(() => conv3d(empty([1, 4, 4, 4, 3], "i32"), weight), "x is i32, it must be f32, f16 or bf16");
    fails(
      () => conv3d(x, weight, null, { stride: 2 }),
      "stride is 2 and padding 0 with a kernel of 3, it must be stride 1 with padding 0 to 2, or stride 3 with padding 0",
    );
  });
});

const REAL: Shape[] = [
  { x: [1, 17, 16, 19, 1], Cout: 32, kernel: 3, padding: 1 },
  { x: [2, 33, 32, 32, 1], Cout: 8, kernel: 3, padding: 1 },
  { x: [3, 16, 16, 16, 32], Cout: 32, kernel: 3, padding: 1 },
  { x: [1, 12, 12, 12, 128], Cout: 128, kernel: 3, padding: 1 },
  { x: [1, 9, 7, 11, 24], Cout: 40, kernel: 3, padding: 1 },
  { x: [2, 8, 8, 8, 512], Cout: 64, kernel: 3, padding: 1 },
  { x: [2, 13, 16, 18, 32], Cout: 1, kernel: 3, padding: 1 },
  { x: [2, 8, 8, 8, 256], Cout: 16, kernel: 3, padding: 1 },
  { x: [1, 8, 9, 8, 8], Cout: 264, kernel: 3, padding: 1 },
  { x: [1, 9, 8, 7, 5], Cout: 3, kernel: 3, padding: 1 },
  { x: [2, 16, 16, 16, 32], Cout: 128, kernel: 2, stride: 2 },
  { x: [1, 9, 7, 10, 128], Cout: 72, kernel: 2, stride: 2 },
  { x: [2, 7, 9, 8, 64], Cout: 96, kernel: 1 },
];
for (const shape of REAL) {
  checkDevices(`conv3d() of ${describe(shape)}`, import.meta.url, {
    inputs: inputs(shape),
    run: ({ x, weight, bias }) => conv3d(x, weight, bias, shape),
  });
}

for (const kind of ["weight", "bias"] as const) {
  const shape: Shape = { x: [1, 6, 7, 5, 16], Cout: 24, kernel: 3, padding: 1 }, all = inputs(shape);
  checkDevices(`conv3d() with 16-bit volumes and f32 ${kind}`, import.meta.url, {
    inputs: { ...all, [kind]: { ...all[kind], dtype: "f32" } },
    run: ({ x, weight, bias }) => conv3d(x, weight, bias, shape),
    dtypes: ["f16", "bf16"],
  });
}
