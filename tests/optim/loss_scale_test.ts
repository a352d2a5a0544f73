import assert from "node:assert/strict";
import { lossScale, makeLossScale, updateLossScale } from "../../lib/optim/loss_scale.ts";

Deno.test("updateLossScale() doubles the scale every 1000 good steps and halves it at an overflow", () => {
  const scale = makeLossScale();
  assert.equal(lossScale(scale), 2 ** 20);
  for (let i = 0; i < 1000; i++) updateLossScale(scale, true);
  assert.ok(Math.abs(lossScale(scale) / 2 ** 21 - 1) < 1e-9);
  updateLossScale(scale, false);
  assert.ok(Math.abs(lossScale(scale) / 2 ** 20 - 1) < 1e-9);
  assert.deepEqual(makeLossScale(JSON.parse(JSON.stringify(scale))), scale);
});
