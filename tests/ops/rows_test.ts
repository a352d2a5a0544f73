import assert from "node:assert/strict";
import { gatherRows, rowIndex, selectRows } from "../../lib/ops/rows.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

function gathered(x: ArrayLike<number>, index: ArrayLike<number>, C: number): Float64Array {
  return Float64Array.from({ length: index.length * C }, (_, k) => {
    const n = index[Math.floor(k / C)];
    return n < 0 ? 0 : x[n * C + k % C];
  });
}

Deno.test("gatherRows() picks rows, its gradient sums what was picked twice", () => {
  const index = Int32Array.of(2, 0, -1, 2, 3, 2);
  for (const C of [1, 3, 8]) {
    checkOp({
      inputs: { x: { shape: [5, C], data: random(1, 5 * C) } },
      run: ({ x }) => gatherRows(x, rowIndex(index, 5)),
      reference: ({ x }) => gathered(x, index, C),
    });
  }
});

Deno.test("rowIndex() lists the places of each row in order", () =>
  step(() => {
    const { offsets, order } = rowIndex(Int32Array.of(2, 0, -1, 2), 4);
    assert.deepEqual([...offsets.readRaw()], [0, 1, 1, 3, 3]);
    assert.deepEqual([...order.readRaw()].slice(0, 3), [1, 0, 3]);
    assert.throws(() => rowIndex(Int32Array.of(4), 4), { message: "Cannot make a row index: an entry is 4, it must be below 4" });
  }));

Deno.test("gatherRows() by a plain index has no gradient and moves any dtype", () =>
  step(() => {
    const index = tensor([1, 1, 0], [3], { dtype: "i32" });
    assert.deepEqual([...gatherRows(tensor([1, 2, 3, 4], [2, 2], { dtype: "u8" }), index).read()], [3, 4, 3, 4, 1, 2]);
    assert.deepEqual(gatherRows(zeros([2, 3]), tensor([], [0], { dtype: "i32" })).shape, [0, 3]);
    const x = tensor([1, 2], [2, 1], { requiresGrad: true });
    assert.throws(() => gatherRows(x, index), /it has no backward pass/);
    assert.throws(() => gatherRows(x, rowIndex(Int32Array.of(0), 3)), { message: "Cannot run gatherRows: x is [2,1], it must be [3,1]" });
  }));

Deno.test("selectRows() takes each row from one of two tensors", () => {
  const mask = { shape: [4], data: Float32Array.of(1, 0, 0, 1), dtype: "u8" as const };
  checkOp({
    inputs: { mask, a: { shape: [4, 2, 3], data: random(1, 24) }, b: { shape: [1, 2, 3], data: random(2, 6) } },
    run: ({ mask, a, b }) => selectRows(mask, a, b),
    reference: ({ mask, a, b }) => a.map((v, i) => mask[Math.floor(i / 6)] ? v : b[i % 6]),
  });
});

for (const C of [1, 31, 64]) {
  checkDevices(`gatherRows of ${C} channels`, import.meta.url, {
    inputs: { x: { shape: [501, C], data: random(1, 501 * C) } },
    run: ({ x }) => gatherRows(x, rowIndex(Int32Array.from(random(5, 2000), (v) => Math.floor((v + 1) * 250)), 501)),
  });
}
