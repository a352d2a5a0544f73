import assert from "node:assert/strict";
import { logged, recorded } from "../../lib/memory/recording.ts";
import { add, mul } from "../../lib/ops/elementwise.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";

Deno.test("a recorded pass runs on what its inputs hold, in one piece of memory, and leaves the device's as it was", () =>
  step(() => {
    const { memory } = device(), methods = { ...memory }, x = tensor([1, 2, 3], [3]), before = memory.use().used;
    const pass = (): { y: Tensor } => step(() => ({ y: add(mul(x, x), add(zeros([3]), tensor([10, 20, 30], [3]))) })); // a fill and a constant
    const { result, log } = logged(pass);
    assert.deepEqual([...result.y.read()], [11, 24, 39]);
    assert.deepEqual([log.refusal, log.uploads.length, log.allocations.length >= 4], [undefined, 1, true]);
    result.y.free();
    const recording = recorded(pass, log), { y } = recording.outputs;
    x.write([2, 3, 4]);
    for (let i = 0; i < 2; i++) {
      recording.replay();
      assert.deepEqual([...y.read()], [14, 29, 46]);
    }
    recording.free();
    assert.equal(memory.use().used, before);
    assert.deepEqual({ ...memory }, methods);
  }));

Deno.test("a pass that does something else while it is recorded is refused, and nothing is left of it", () =>
  step(() => {
    const { memory } = device(), methods = { ...memory }, x = tensor([1, 2], [2]), before = memory.use().used;
    let also = 0;
    const pass = (): { y: Tensor } => step(() => ({ y: also === 2 ? (x.read(), mul(x, x)) : also ? x.view([2]) : mul(x, x) }));
    const { result, log } = logged(pass);
    result.y.free();
    for (also of [1, 2]) {
      assert.throws(() => recorded(pass, log), { message: also === 1 ? "it takes less memory than before" : /^it waits/ });
    }
    assert.equal(memory.use().used, before);
    assert.deepEqual({ ...memory }, methods);
    assert.deepEqual([...mul(x, x).read()], [1, 4]);
  }));
