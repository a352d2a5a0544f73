import assert from "node:assert/strict";
import { ALONE } from "../../lib/dist/place.ts";
import { openCommunicator } from "../../lib/dist/communicator.ts";
import { shareGradients } from "../../lib/dist/gradients.ts";
import { persist, step } from "../../lib/tensor/scope.ts";
import { backward, parameter } from "../../lib/tensor/tape.ts";
import { add, mul } from "../../lib/ops/elementwise.ts";
import { sum } from "../../lib/ops/reduce.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { runRanks } from "./ranks.ts";

/** Three parameters of 8 values in one flat gradient, and a communicator that doubles: two ranks with equal gradients. */
function setUp() {
  const grad = persist(() => zeros([24])), sent: number[] = [], names = ["a", "b", "c"];
  const parameters = names.map((name, i) => ({
    name,
    tensor: persist(() => parameter(tensor(Float32Array.from({ length: 8 }, (_, k) => i + k), [8]), grad.view([8], { offset: 8 * i }))),
    offset: 8 * i,
  }));
  const ranks = {
    ...openCommunicator({}, ALONE),
    world: 2,
    allReduce: (t: Tensor) => {
      sent.push(t.size);
      t.write(t.read().map((v) => 2 * v));
    },
  };
  return { grad, parameters, sent, ranks, tensors: parameters.map((p) => p.tensor) };
}

Deno.test("buckets go out during the backward pass from the second step on, the last one first", () => {
  const { grad, parameters, sent, ranks, tensors: [a, b, c] } = setUp();
  const sharing = shareGradients(grad, parameters, ranks, { bucketBytes: 32 }), order: number[] = [];
  for (let i = 0; i < 2; i++) {
    step(() => backward(sum(add(mul(a, b), mul(b, c)))));
    order.push(sent.length);
    sharing.finish();
    const wanted = [b.read(), a.read().map((v, k) => v + c.read()[k]), b.read()].flatMap((v) => [...v]).map((v) => 2 * v);
    assert.deepEqual([...grad.read()], wanted);
    grad.write(new Float32Array(24));
  }
  assert.deepEqual(order, [0, 6]); // the first step sends at its end alone: 3, then 3 more before the second one's end
  sharing.free();
});

Deno.test("a gradient that comes after its bucket was sent is an error", () => {
  const { grad, parameters, ranks, tensors: [a, b, c] } = setUp();
  const sharing = shareGradients(grad, parameters, ranks, { bucketBytes: 32 });
  step(() => backward(sum(add(add(a, b), c))));
  sharing.finish();
  step(() => backward(sum(add(add(a, b), c))));
  assert.throws(
    () => step(() => backward(sum(c))),
    /Cannot share gradients: c \[8\] .* got 2 in a step, it must be at most the 1 of earlier steps/,
  );
  sharing.free();
});

Deno.test("a parameter that gets no gradient holds its bucket back to the end", () => {
  const { grad, parameters, sent, ranks, tensors: [a, , c] } = setUp();
  const sharing = shareGradients(grad, parameters, ranks, { bucketBytes: 32 });
  for (let i = 0; i < 2; i++) {
    step(() => backward(sum(add(a, c))));
    sent.length = i === 0 ? 0 : sent.length;
    assert.deepEqual(sent.length, i === 0 ? 0 : 1); // c alone: b never comes, a waits behind it
    sharing.finish();
    sent.length = 0;
  }
  sharing.free();
});

Deno.test("two ranks with half of a batch each have the gradients of one with all of it", async () => {
  const outcomes = await runRanks(
    2,
    `
    import { shareGradients } from("lib/dist/gradients.ts");
    import { persist, step } from("lib/tensor/scope.ts");
    import { backward, parameter } from("lib/tensor/tape.ts");
    import { linear } from("lib/ops/matmul.ts");
    import { sum } from("lib/ops/reduce.ts");
    import { tensor, zeros } from("lib/tensor/tensor.ts");
    const grad = persist(() => zeros([16])), w = persist(() => parameter(tensor(Array.from({ length: 12 }, (_, i) => i), [3, 4]), grad.view([3, 4])));
    const sharing = shareGradients(grad, [{ name: "w", tensor: w, offset: 0 }], ranks);
    const x = tensor(Array.from({ length: 16 }, (_, i) => i * i), [4, 4]);
    step(() => backward(sum(linear(x.view([2, 4], { offset: 8 * rank }), w))));
    sharing.finish();
    const shared = grad.read();
    grad.write(new Float32Array(16));
    w.arrived = null;
    step(() => backward(sum(linear(x, w))));
    console.log(grad.read().every((v, i) => v === shared[i]));
    ranks.close();`,
  );
  for (const { stdout, stderr } of outcomes) assert.equal(stdout.trim(), "true", stderr);
});
