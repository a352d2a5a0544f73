import assert from "node:assert/strict";
import { learningRate } from "../../lib/optim/lr.ts";

Deno.test("learningRate() is constant, or rises to its value over the warm-up", () => {
  assert.deepEqual([0, 5, 1e6].map((step) => learningRate(step, { lr: 1e-4 })), [1e-4, 1e-4, 1e-4]);
  assert.deepEqual([0, 1, 3, 4, 9].map((step) => learningRate(step, { lr: 8, warmupSteps: 4 })), [2, 4, 8, 8, 8]);
});
