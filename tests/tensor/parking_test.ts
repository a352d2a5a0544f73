import assert from "node:assert/strict";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";

Deno.test("memory on the host comes back as it was, is not counted meanwhile, and can be forgotten", () =>
  step(() => {
    const { memory } = device(), n = 1 << 16, bytes = 4 * n, values = [1, 2, 3, 4].map((seed) => random(seed, n));
    const before = memory.use().used,
      held = values.map((v) => {
        const at = memory.alloc(bytes);
        memory.upload(at, v);
        return at;
      });
    const parked = held.map((at) => memory.park(at, bytes));
    memory.synchronize();
    assert.equal(memory.use().used, before);
    const others = tensor(random(5, n), [n]); // lies where they lay
    parked[3].drop();
    parked[2].bring();
    parked[2].bring();
    parked[2].drop();
    const back = [parked[1], parked[0]].map((p) => p.take()), seen = new Float32Array(n);
    for (const [i, at] of [1, 0].map((i, k) => [i, back[k]] as const)) {
      memory.download(seen, at);
      assert.deepEqual(seen, values[i]);
      memory.free(at, bytes);
    }
    assert.deepEqual(others.read(), random(5, n));
    others.free();
    memory.synchronize();
    assert.equal(memory.use().used, before);
    memory.trim();
  }));

Deno.test("memory goes to the host and back many times while other work uses what it leaves", () =>
  step(() => {
    const { memory } = device(), n = 1 << 14, bytes = 4 * n, seen = new Float32Array(n);
    for (let round = 0; round < 20; round++) {
      const all = [0, 1, 2].map((k) => {
        const at = memory.alloc(bytes);
        memory.upload(at, random(3 * round + k, n));
        const stay = memory.park(at, bytes), other = memory.alloc(bytes);
        memory.zero(other, bytes);
        memory.free(other, bytes);
        return stay;
      });
      all.reverse().forEach((stay, k) => {
        const at = stay.take();
        memory.download(seen, at);
        memory.free(at, bytes);
        assert.deepEqual(seen, random(3 * round + 2 - k, n));
      });
    }
  }));
