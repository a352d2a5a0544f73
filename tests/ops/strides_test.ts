import assert from "node:assert/strict";
import { axisOf, broadcastShape, broadcastStrides, collapse, contiguousStrides } from "../../lib/ops/strides.ts";

Deno.test("contiguousStrides() has the last axis fastest", () => {
  assert.deepEqual(contiguousStrides([2, 3, 4]), [12, 4, 1]);
  assert.deepEqual(contiguousStrides([]), []);
});

Deno.test("collapse() drops axes of 1 and merges what every operand walks evenly", () => {
  assert.deepEqual(collapse([2, 3, 4], [[12, 4, 1]]), { extents: [24], strides: [[1]] });
  assert.deepEqual(collapse([2, 1, 4], [[4, 4, 1], [0, 0, 1]]), { extents: [2, 4], strides: [[4, 1], [0, 1]] });
  assert.deepEqual(collapse([2, 3, 4], [[12, 4, 1], [0, 0, 0]]), { extents: [24], strides: [[1], [0]] });
  assert.deepEqual(collapse([2, 3], [[1, 2]]), { extents: [2, 3], strides: [[1, 2]] });
  assert.deepEqual(collapse([1, 1], [[1, 1]]), { extents: [], strides: [[]] });
});

Deno.test("broadcastShape() and broadcastStrides() align the last axes", () => {
  assert.deepEqual(broadcastShape("op", [2, 1, 4], [3, 1]), [2, 3, 4]);
  assert.deepEqual(broadcastShape("op", [0, 1], [1, 5]), [0, 5]);
  assert.deepEqual(broadcastStrides([3, 1], [2, 3, 4]), [0, 1, 0]);
  assert.throws(() => broadcastShape("op", [2], [3]), { message: "Cannot run op: [2] and [3] do not broadcast, axes must be equal or 1" });
});

Deno.test("axisOf() counts negative axes from the end", () => {
  assert.deepEqual([axisOf("op", 1, 3), axisOf("op", -1, 3), axisOf("op", -3, 3)], [1, 2, 0]);
  for (const axis of [3, -4, 0.5]) assert.throws(() => axisOf("op", axis, 3), RangeError);
});
