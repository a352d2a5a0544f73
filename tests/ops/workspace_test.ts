import assert from "node:assert/strict";
import { withWorkspace } from "../../lib/ops/workspace.ts";
import { device } from "../../lib/tensor/device.ts";

Deno.test("withWorkspace() gives the bytes that are asked for, and takes them back also where the launch fails", () => {
  const used = () => (device().memory.synchronize(), device().memory.use().used), before = used();
  withWorkspace((bytes) => void (bytes[0] = 1000n), (scratch) => {
    assert.equal(scratch % 16n, 0n);
    assert.ok(used() >= before + 1000);
  });
  withWorkspace((bytes) => void (bytes[0] = 0n), (scratch) => assert.equal(scratch, 0n));
  assert.throws(() =>
    withWorkspace((bytes) => void (bytes[0] = 8n), () => {
      throw new Error("no launch");
    }), { message: "no launch" });
  assert.equal(used(), before);
});
