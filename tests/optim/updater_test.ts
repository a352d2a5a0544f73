import assert from "node:assert/strict";
import { namedState } from "../../lib/optim/updater.ts";

Deno.test("namedState() names what a checkpoint keeps, scales of moments in 8 bits too", () => {
  assert.deepEqual(namedState("p", { m: "m", v: "v", scales: null }, [[0.9, "e"], [0.99, "f"]]), {
    ...{ master: "p", exp_avg: "m", exp_avg_sq: "v" },
    ...{ "ema0.9": "e", "ema0.99": "f" },
  });
  assert.deepEqual(Object.keys(namedState("p", { m: "m", v: "v", scales: { m: "a", v: "b" } }, [])).slice(3), [
    "exp_avg_scale",
    "exp_avg_sq_scale",
  ]);
});
