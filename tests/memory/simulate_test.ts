import assert from "node:assert/strict";
import { CARDS } from "../../lib/memory/cards.ts";
import { simulate, simulatedDevice } from "../../lib/memory/simulate.ts";
import { add } from "../../lib/ops/elementwise.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { sparseDownsample } from "../../lib/sparse/resample.ts";
import { device, onDevice } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { empty, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { scatter } from "../voxels.ts";
import { MODELS } from "./passes.ts";

for (const [name, make] of Object.entries(MODELS)) {
  for (const recompute of [0, 3, 6]) {
    Deno.test(`simulate() knows the peak of a ${name} model's pass with ${recompute} checkpoints before it runs`, () => {
      const model = make(), { memory } = device();
      model.run([40, 70], (pass) => pass({ recompute })); // what is made once, such as cuBLASLt's workspace
      for (const sizes of [[40, 70], [90, 31, 64], [1]]) {
        model.run(sizes, (pass) => {
          const { peak, seconds, launches } = simulate(() => pass({ recompute }), CARDS.H100);
          memory.resetPeak();
          const loss = pass({ recompute });
          const error = Math.abs(memory.use().peak - peak) / peak;
          assert.ok(error <= (device().name === "cpu" ? 0 : 0.002), `${peak} bytes were predicted, ${memory.use().peak} measured`);
          assert.ok(seconds > 0 && launches > 100);
          return loss;
        });
      }
      model.free();
    });
  }
}

Deno.test("simulate() leaves memory, gradients and values as they are", () => {
  for (const make of Object.values(MODELS)) {
    const model = make(), { memory } = device();
    const losses = [false, true].map((first) =>
      model.run([50, 60], (pass) => {
        const before = memory.use().used;
        if (first) simulate(() => pass());
        assert.ok(memory.use().used >= before); // maps of voxels may have been built
        return pass();
      })
    );
    assert.equal(losses[0], losses[1]);
    const [once, ...rest] = [model.takeGradients(), model.run([50, 60], (pass) => (simulate(() => pass()), pass()))];
    assert.equal(rest[0], losses[0]);
    assert.deepEqual(model.takeGradients().map((g) => 2 * g), once);
    model.free();
  }
});

Deno.test("a simulated device counts what is in use, where it is, and how long kernels would take", () => {
  const at = simulatedDevice("cpu", CARDS.H200, (bytes) => Math.ceil(bytes / 512) * 512), { meter } = at;
  onDevice(at, () =>
    step(() => {
      assert.equal(device(), at);
      const x = empty([1000]), y = add(x, x);
      assert.deepEqual([meter.used, meter.peak, meter.launches], [8192, 8192, 1]);
      meter.label(y.addr, "residual");
      meter.label(1n, "norm"); // unknown addresses are passed by
      zeros([128]).free();
      assert.deepEqual(meter.atPeak, { other: 4096 + 512, residual: 4096 });
      const before = meter.seconds, taken = meter.secondsOf(() => add(x, y).free());
      assert.ok(taken > 2e-6 && taken < 1e-5 && meter.seconds === before && meter.used === 8192 && meter.peak === 8704);
      y.free();
      assert.deepEqual([meter.used, at.memory.use()], [4096, { used: 4096, peak: 8704 }]);
      assert.equal(x.read()[0], 0);
      linear(x.view([10, 100]), empty([4, 100]));
    }));
  assert.equal(meter.used, 0);
  assert.notEqual(device(), at);
});

Deno.test("a pass that makes voxels cannot be simulated, and says what to do", () => {
  const coords = scatter(1, [20], 8);
  assert.throws(
    () =>
      simulate(() => {
        const voxels = makeVoxels(coords);
        sparseDownsample({ features: tensor(new Float32Array(20), [20, 1]), voxels }, 2);
      }),
    { message: "Cannot plan a pass: it makes voxels, they must be made before it, in the same step" },
  );
});
