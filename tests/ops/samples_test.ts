import assert from "node:assert/strict";
import { rowsOf } from "../../lib/ops/samples.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";

Deno.test("rowsOf() counts rows, samples and channels, dense and with offsets", () => {
  step(() => {
    const offsets = tensor([0, 2, 2, 6], [4], { dtype: "i32" });
    assert.deepEqual(rowsOf("op", zeros([2, 3, 4, 5])), [24, 2, 5]);
    assert.deepEqual(rowsOf("op", zeros([2, 5])), [2, 2, 5]);
    assert.deepEqual(rowsOf("op", zeros([6, 5]), offsets), [6, 3, 5]);
  });
});

Deno.test("rowsOf() says what does not fit", () => {
  step(() => {
    const x = zeros([6, 5]);
    assert.throws(() => rowsOf("op", zeros([5])), { message: "Cannot run op: x is [5], it must be [B, ..., C]" });
    assert.throws(() => rowsOf("op", zeros([2, 3, 5]), tensor([0, 2], [2], { dtype: "i32" })), {
      message: "Cannot run op: x is [2,3,5], it must be [N, C]",
    });
    assert.throws(() => rowsOf("op", x, tensor([0, 6], [2])), { message: "Cannot run op: offsets is f32, it must be i32" });
    assert.throws(() => rowsOf("op", x, tensor([], [0], { dtype: "i32" })), {
      message: "Cannot run op: offsets is [0], it must be [B + 1]",
    });
  });
});
