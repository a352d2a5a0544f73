import assert from "node:assert/strict";
import { onceADevice, PLAIN, product } from "../../lib/ops/product.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";

const [M, N, K] = [3, 5, 4];

Deno.test("product() writes op(a) op(b) + bias, or adds it to what is there", () => {
  step(() => {
    const [a, b, bias, before] = [random(1, M * K), random(2, K * N), random(3, N), random(4, M * N)];
    const y = tensor(before, [M, N]), shape = { ...PLAIN, M, N, K }, operands = { a: tensor(a, [M, K]), b: tensor(b, [K, N]) };
    const want = Array.from(before, (_, i) => {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += a[Math.floor(i / N) * K + k] * b[k * N + i % N];
      return sum;
    });
    product({ ...shape, ...operands, y, adds: true });
    assertClose("added", y.read(), want.map((v, i) => v + before[i]), { rtol: 1e-5, atol: 1e-6 });
    product({ ...shape, ...operands, y, bias: tensor(bias, [N]) });
    assertClose("written", y.read(), want.map((v, i) => v + bias[i % N]), { rtol: 1e-5, atol: 1e-6 });
    const kept = y.read();
    product({ ...shape, K: 0, a: zeros([M, 0]), b: zeros([0, N]), y, adds: true });
    assert.deepEqual(y.read(), kept);
    product({ ...shape, K: 0, a: zeros([M, 0]), b: zeros([0, N]), y });
    assert.deepEqual([...y.read()], new Array(M * N).fill(0));
  });
});

Deno.test("onceADevice() makes its tensor once, outside of any step", () => {
  let count = 0;
  const make = onceADevice(() => tensor([++count], [1])), first = step(make);
  assert.equal(step(make), first);
  assert.deepEqual([first.item(), count], [1, 1]);
  first.free();
});
