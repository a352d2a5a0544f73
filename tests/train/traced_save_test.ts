import assert from "node:assert/strict";
import { listCheckpoints } from "../../lib/train/checkpoint.ts";
import { withFolder } from "../io/corrupt.ts";
import { hasStrace, sweepCalls } from "./traced_save.ts";

Deno.test({
  name: "a save that fails or is killed at any of its system calls leaves the last good checkpoint, a failing one says so (needs strace)",
  ignore: !hasStrace(),
  fn() {
    withFolder((folder) => {
      const { calls, faults, wrong } = sweepCalls(folder, ["error=EIO", "signal=KILL"]);
      assert.deepEqual(wrong, []);
      assert.ok(faults === 2 * calls.length && calls.filter((name) => name === "rename").length === 2);
      assert.ok(listCheckpoints(folder)[0] >= 2);
    });
  },
});
