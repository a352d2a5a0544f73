import assert from "node:assert/strict";
import { type Call, runOn } from "../../lib/render/run.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";

function voxelizeOnce({ kernels, stream, input, output }: Call, out: Uint8Array<ArrayBuffer>): void {
  kernels.k_voxelize_fwd(output(out), input(new Float32Array(9)), input(new Int32Array([0, 1, 2])), 3, 1, 1, stream);
}

for (const choice of ["cpu", "cuda"] as const) {
  const ignore = choice === "cuda" && (!hasCuda() || device().name !== "cuda");
  Deno.test({
    name: `runOn() brings the outputs back from ${choice}`,
    ignore,
    fn: () => {
      const out = new Uint8Array([7]);
      runOn(choice, (call) => voxelizeOnce(call, out));
      assert.equal(out[0], 1);
    },
  });
  Deno.test({
    name: `runOn() gives 0 for what is absent, and memory back after an error on ${choice}`,
    ignore,
    fn: () => {
      const use = () => choice === "cuda" ? device().memory.use().used : 0, before = use();
      assert.throws(() =>
        runOn(choice, ({ input, output, scratch }) => {
          assert.deepEqual([input(undefined), output(undefined), input(new Float32Array(0))], [0n, 0n, 0n]);
          assert.notEqual(scratch(1000), 0n);
          throw new Error("stop");
        }), /stop/);
      assert.equal(use(), before);
    },
  });
}

Deno.test("runOn() without a choice uses the open device", () => {
  const out = new Uint8Array(1);
  runOn(undefined, (call) => {
    assert.equal(call.stream, device().stream);
    voxelizeOnce(call, out);
  });
  assert.equal(out[0], 1);
});
