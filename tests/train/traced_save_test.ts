import assert from "node:assert/strict";
import { listCheckpoints } from "../../lib/train/checkpoint.ts";
import { withFolder } from "../io/corrupt.ts";
import { hasStrace, sweepCalls } from "./traced_save.ts";

Deno.test({
  name: "a save whose system calls fail one by one leaves the last good checkpoint, and says so (needs strace)",
  ignore: !hasStrace(),
  fn() {
    withFolder((folder) => {
      const { calls, faults, wrong } = sweepCalls(folder, ["error=EIO"]);
      assert.deepEqual(wrong, []);
      assert.ok(faults === calls.length && calls.filter((name) => name === "rename").length === 2);
      assert.ok(listCheckpoints(folder)[0] >= 2);
    });
  },
});
