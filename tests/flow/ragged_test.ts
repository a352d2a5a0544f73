import assert from "node:assert/strict";
import { meanBySample, repeatByRow } from "../../lib/flow/ragged.ts";

Deno.test("repeatByRow() gives each row the time of its sample, meanBySample() takes the mean back", () => {
  const starts = [0, 2, 2, 5];
  assert.deepEqual([...repeatByRow([0.25, 0.5, 0.75], starts)], [0.25, 0.25, 0.75, 0.75, 0.75]);
  assert.deepEqual([...meanBySample([1, 3, 1, 2, 6], starts)], [2, 0, 3]);
  assert.deepEqual([...meanBySample(repeatByRow([0.5, 1], [0, 3, 7]), [0, 3, 7])], [0.5, 1]);
  assert.deepEqual([...repeatByRow([], [0])], []);
});
