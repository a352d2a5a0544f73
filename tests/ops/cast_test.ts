import assert from "node:assert/strict";
import { cast, full } from "../../lib/ops/cast.ts";
import { mul } from "../../lib/ops/elementwise.ts";
import { DTYPE, type DType, fromBf16, toBf16 } from "../../lib/tensor/dtype.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { empty, kernels, stream, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, random } from "../check.ts";

const HARD = [
  0,
  -0,
  1,
  -1,
  0.1,
  65504,
  65519,
  65520,
  1e-7,
  5.96e-8,
  2.98e-8,
  2.9e-8,
  1e38,
  3.4e38,
  Infinity,
  -Infinity,
  NaN,
  1.00390625,
  1.01171875,
];

Deno.test("cast() rounds to nearest even, as the host's own conversions", () =>
  step(() => {
    const data = Float32Array.from([
      ...HARD,
      ...random(1, 1000),
      ...random(2, 1000).map((v) => v * 1e-6),
      ...random(3, 100).map((v) => v * 1e5),
    ]);
    const x = tensor(data, [data.length]), f16 = cast(x, "f16"), bf16 = cast(x, "bf16");
    // as values: the bits of a NaN are the device's own
    assert.deepEqual([...f16.read()], [...Float32Array.from(Float16Array.from(data))]);
    assert.deepEqual([...bf16.read()], [...fromBf16(toBf16(data))]);
    assert.deepEqual([...cast(f16, "f32").read()], [...Float32Array.from(Float16Array.from(data))]);
    assert.deepEqual([...cast(bf16, "f32").read()], [...fromBf16(toBf16(data))]);
    assert.deepEqual([...cast(bf16, "f16").read()], [...Float32Array.from(Float16Array.from(fromBf16(toBf16(data))))]);
  }));

Deno.test("cast() between integers and floats truncates and clamps", () =>
  step(() => {
    const x = tensor([1.9, -1.9, 300, -5, 3e9, -3e9, 1e20, NaN, 0.5], [9]);
    assert.deepEqual([...cast(x, "i32").readRaw()], [1, -1, 300, -5, 2147483647, -2147483648, 2147483647, 0, 0]);
    assert.deepEqual([...cast(x, "u8").readRaw()], [1, 0, 255, 0, 255, 0, 255, 0, 0]);
    assert.deepEqual([...cast(x, "i64").readRaw()], [1n, -1n, 300n, -5n, 3000000000n, -3000000000n, 9223372036854775807n, 0n, 0n]);
    const i = tensor([1, -2, 300, 16777217], [4], { dtype: "i32" });
    assert.deepEqual([...cast(i, "f32").read()], [1, -2, 300, 16777216]);
    assert.deepEqual([...cast(i, "u8").readRaw()], [1, 254, 44, 1]);
    assert.deepEqual([...cast(i, "i64").readRaw()], [1n, -2n, 300n, 16777217n]);
    assert.deepEqual([...cast(tensor([0, 1, 255], [3], { dtype: "u8" }), "bf16").read()], [0, 1, 255]);
  }));

Deno.test("cast() of the same dtype is x itself, of nothing is empty", () =>
  step(() => {
    const x = tensor([1], [1]);
    assert.equal(cast(x, "f32"), x);
    assert.deepEqual(cast(zeros([0, 2]), "f16").shape, [0, 2]);
  }));

Deno.test("cast() carries gradients back in x's dtype", () =>
  step(() => {
    const x = tensor([1, 2, 3], [3], { requiresGrad: true }), y = cast(cast(mul(x, x), "f16"), "f32");
    backward(y, tensor([1, 10, 0.1], [3]));
    assert.equal(x.grad!.dtype, "f32");
    assert.deepEqual([...x.grad!.read()], [2, 40, Math.fround(6 * Math.f16round(0.1))]);
    assert.equal(cast(x, "i32").requiresGrad, false);
  }));

Deno.test("full() fills every float dtype", () =>
  step(() => {
    assert.deepEqual([...full([3], 0.1).read()], new Array(3).fill(Math.fround(0.1)));
    assert.deepEqual([...full([3], 0.1, "f16").read()], new Array(3).fill(Math.f16round(0.1)));
    assert.deepEqual([...full([2], -2.5, "bf16").read()], [-2.5, -2.5]);
    assert.deepEqual(full([0], 1).shape, [0]);
  }));

Deno.test("k_accumulate_fwd adds any float to any float, in place too", () =>
  step(() => {
    for (const a of ["f32", "f16", "bf16"] as DType[]) {
      for (const b of ["f32", "f16", "bf16"] as DType[]) {
        const x = tensor([1, 2.5, -3], [3], { dtype: a }), y = tensor([0.5, -2, 8], [3], { dtype: b });
        kernels().k_accumulate_fwd(x.addr, x.addr, y.addr, 3n, DTYPE[a], DTYPE[b], stream());
        assert.deepEqual([...x.read()], [1.5, 0.5, 5], `${a} + ${b}`);
      }
    }
    const y = empty([1]);
    assert.throws(() => kernels().k_accumulate_fwd(y.addr, y.addr, y.addr, 1n, DTYPE.i32, 0, stream()), {
      name: "KernelError",
      message: "Cannot run k_accumulate_fwd: dtype is 3, it must be f32 (0), f16 (1) or bf16 (2)",
    });
    assert.throws(() => kernels().k_fill_fwd(y.addr, -1n, 0, 0, stream()), /n is -1, it must be at least 0/);
  }));

for (const to of ["f32", "f16", "bf16"] as const) {
  checkDevices(`cast to ${to} and back`, import.meta.url, {
    inputs: { x: { shape: [10_007], data: random(1, 10_007) } },
    run: ({ x }) => cast(cast(x, to), "f32"),
  });
}
checkDevices("cast to i32 and u8", import.meta.url, {
  inputs: { x: { shape: [10_007], data: random(1, 10_007).map((v) => v * 500), grad: false } },
  run: ({ x }) => cast(cast(cast(x, "i32"), "u8"), "f32"),
});
