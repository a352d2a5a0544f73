import assert from "node:assert/strict";
import { device } from "../../lib/tensor/device.ts";
import { type DType } from "../../lib/tensor/dtype.ts";
import { persist, step } from "../../lib/tensor/scope.ts";
import { dim, empty, expectDtype, expectShape, sizeOf, Tensor, tensor, tensorFromBytes, zeros } from "../../lib/tensor/tensor.ts";

function used(): number {
  const { memory } = device();
  memory.synchronize();
  return memory.use().used;
}

Deno.test("tensor() keeps values in every dtype, rounded to it", () =>
  step(() => {
    for (const dtype of ["f32", "f16", "bf16", "i32", "u8"] as DType[]) {
      const t = tensor([1, 2, 3, 250], [2, 2], { dtype });
      assert.deepEqual([...t.read()], [1, 2, 3, 250], dtype);
      assert.deepEqual([t.size, t.shape, t.dtype], [4, [2, 2], dtype]);
    }
    assert.deepEqual([...tensor([0.1], [1], { dtype: "f16" }).read()], [Math.f16round(0.1)]);
    assert.deepEqual([...tensor([1 + 2 ** -8], [1], { dtype: "bf16" }).read()], [1]);
    assert.deepEqual([...tensor([1, -2], [2], { dtype: "i64" }).readRaw()], [1n, -2n]);
    assert.throws(() => tensor([1], [1], { dtype: "i64" }).read(), { message: "Cannot read i64 as f32: use readRaw()" });
  }));

Deno.test("tensor() takes part of a larger host array", () =>
  step(() => {
    const host = Float32Array.of(0, 1, 2, 3, 4);
    assert.deepEqual([...tensor(host.subarray(1, 4), [3]).read()], [1, 2, 3]);
    assert.deepEqual([...tensorFromBytes(new Uint8Array(host.buffer, 8, 8), [2], "f32").read()], [2, 3]);
    assert.throws(() => tensorFromBytes(new Uint8Array(3), [1], "f32"), /3 bytes are given, it must be 4/);
  }));

Deno.test("Tensor.view() sees the same memory", () =>
  step(() => {
    const t = tensor([1, 2, 3, 4, 5, 6], [2, 3]), v = t.view([2, 2], { offset: 2 });
    assert.deepEqual([...v.read()], [3, 4, 5, 6]);
    assert.equal(v.addr - t.addr, 8n);
    v.write([7, 8, 9, 10]);
    assert.deepEqual([...t.read()], [1, 2, 7, 8, 9, 10]);
    assert.deepEqual([...v.view([1], { offset: 3 }).read()], [10]);
    assert.deepEqual(t.view([6, 4], { dtype: "u8" }).bytes, t.bytes);
    assert.deepEqual([...tensor([1], [1]).view([2], { dtype: "bf16" }).read()], [0, 1]);
    assert.throws(() => t.view([7]), { message: "Cannot view [2,3] f32: [7] f32 from 0 is outside, it must lie inside" });
    assert.throws(() => t.view([2], { offset: 5 }), RangeError);
    assert.throws(() => t.view([1], { offset: -1 }), RangeError);
    assert.deepEqual(t.view([0], { offset: 6 }).size, 0);
  }));

Deno.test("Tensor.free() gives memory back with the last view", () =>
  persist(() => {
    const before = used(), t = tensor([1, 2, 3, 4], [4]), v = t.view([2], { offset: 2 });
    assert.ok(used() > before);
    t.free();
    assert.ok(used() > before);
    assert.deepEqual([...v.read()], [3, 4]);
    v.free();
    assert.equal(used(), before);
    v.free();
    t.free();
    assert.equal(used(), before);
  }));

Deno.test("a freed tensor throws where it is used", () =>
  persist(() => {
    const t = tensor([1, 2], [2]);
    t.free();
    const error = {
      name: "ReferenceError",
      message: "Cannot use a freed tensor [2] f32: its step() ended, it must be returned from it to live on",
    };
    assert.equal(t.freed, true);
    assert.throws(() => t.addr, error);
    assert.throws(() => t.read(), error);
    assert.throws(() => t.view([1]), error);
    assert.throws(() => t.write([1, 2]), error);
  }));

Deno.test("tensors of no elements need no memory", () =>
  step(() => {
    const before = used(), t = empty([3, 0]);
    assert.deepEqual([t.size, t.bytes, [...t.read()], used()], [0, 0, [], before]);
    assert.equal(zeros([0]).write([]).size, 0);
  }));

Deno.test("Tensor.item() and write() say what does not fit", () =>
  step(() => {
    const t = tensor([5], []);
    assert.equal(t.item(), 5);
    assert.throws(() => tensor([1, 2], [2]).item(), { message: "Cannot read one value: the tensor is [2], it must have one element" });
    assert.throws(() => t.write([1, 2]), { message: "Cannot write []: 2 values are given, it must be 1" });
    assert.throws(() => empty([-1]), RangeError);
    assert.throws(() => empty([1.5]), RangeError);
  }));

Deno.test("an allocation beyond the limit names the tensor and what to try", () =>
  step(() => {
    const before = used();
    assert.throws(() => empty([2 ** 40]), (error: Error) => {
      assert.equal(error.name, "OutOfMemoryError");
      assert.match(error.message, /^Cannot allocate 4096\.00 GiB: .* in use, the sum must fit .*; the tensor is \[1099511627776\] f32$/);
      return true;
    });
    assert.equal(used(), before);
  }));

Deno.test("zeros() are zero in reused memory", () =>
  persist(() => {
    tensor(new Float32Array(64).fill(7), [64]).free();
    const z = zeros([64]);
    assert.deepEqual(z.read(), new Float32Array(64));
    z.free();
  }));

Deno.test("expectShape(), expectDtype() and dim() let the right ones through", () =>
  step(() => {
    const t: Tensor = tensor([1, 2], [2]);
    expectShape("op", "x", t, [2]);
    expectShape("op", "x", null, [3]);
    expectDtype("op", "x", undefined, "f16");
    assert.throws(() => expectShape("op", "x", t, [1, 2]), { message: "Cannot run op: x is [2], it must be [1,2]" });
    assert.throws(() => expectDtype("op", "x", t, "i32"), { message: "Cannot run op: x is f32, it must be i32" });
    assert.equal(dim("op", "n", 5), 5);
    assert.throws(() => dim("op", "n", 2 ** 31), { message: "Cannot run op: n is 2147483648, it must be a whole number below 2^31" });
    assert.equal(sizeOf([]), 1);
  }));
