import assert from "node:assert/strict";
import { ALONE } from "../../lib/dist/place.ts";
import { openCommunicator } from "../../lib/dist/communicator.ts";
import { layOutBuckets, shareGradients } from "../../lib/dist/gradients.ts";
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

Deno.test("buckets go out during the backward pass from the second step on", () => {
  const { grad, parameters, sent, ranks, tensors: [a, b, c] } = setUp();
  const sharing = shareGradients(grad, parameters, ranks, { buckets: layOutBuckets(24, { bucketBytes: 32 }) }), order: number[] = [];
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

Deno.test("in bursts, buckets wait until enough of them are whole, and the last ones until the end", () => {
  for (const [bursts, during] of [[[], 3], [[2 / 3], 2], [[0.3, 0.6], 2], [[1 / 3, 1], 3]] as const) {
    const { grad, parameters, sent, ranks, tensors: [a, b, c] } = setUp();
    const sharing = shareGradients(grad, parameters, { ...ranks, bursts }, { buckets: layOutBuckets(24, { bucketBytes: 32 }) });
    for (const wanted of [0, during]) {
      sent.length = 0;
      grad.write(new Float32Array(24));
      step(() => backward(sum(add(mul(a, b), mul(b, c)))));
      assert.equal(sent.length, wanted);
      sharing.finish();
      assert.equal(sent.length, 3);
      assert.deepEqual(
        [...grad.read()],
        [b.read(), a.read().map((v, k) => v + c.read()[k]), b.read()].flatMap((v) => [...v]).map((v) => 2 * v),
      );
    }
    sharing.free();
  }
});

Deno.test("a gradient that comes after its bucket was sent is an error", () => {
  const { grad, parameters, ranks, tensors: [a, b, c] } = setUp();
  const sharing = shareGradients(grad, parameters, ranks, { buckets: layOutBuckets(24, { bucketBytes: 32 }) });
  step(() => backward(sum(add(add(a, b), c))));
  sharing.finish();
  step(() => backward(sum(add(add(a, b), c))));
  assert.throws(
    () => step(() => backward(sum(c))),
    /Cannot share gradients: c \[8\] .* got 2 in a step, it must be at most the 1 of earlier steps/,
  );
  sharing.free();
});

Deno.test("buckets go in the order in which they were whole, those without a gradient at the end", () => {
  const { grad, parameters, sent, ranks, tensors: [a, b, c] } = setUp(), order: number[] = [];
  const send = (view: Tensor, index: number): void => {
    order.push(index);
    ranks.allReduce(view);
  };
  const sharing = shareGradients(grad, parameters, ranks, { buckets: layOutBuckets(24, { bucketBytes: 32 }), send });
  const pass = (loss: () => Tensor): number => {
    order.length = sent.length = 0;
    step(() => backward(loss()));
    const during = sent.length;
    sharing.finish();
    return during;
  };
  const first = (): Tensor => sum(add(mul(mul(c, 2), 2), mul(a, 2))), second = (): Tensor => sum(add(mul(b, 2), mul(a, 2)));
  assert.deepEqual([pass(first), order], [0, [2, 1, 0]]);
  assert.deepEqual([pass(first), order], [2, [0, 2, 1]]); // a comes first, then c, never b
  assert.deepEqual([pass(second), order], [1, [0, 2, 1]]); // b waits for c, which does not come
  assert.deepEqual([pass(second), order], [2, [0, 1, 2]]);
  sharing.free();
});

Deno.test("a parameter in two buckets holds both back", () => {
  const { grad, parameters, sent, ranks, tensors: [a, b, c] } = setUp();
  const sharing = shareGradients(grad, parameters, ranks, { buckets: layOutBuckets(24, { bucketBytes: 48 }) });
  for (let i = 0; i < 2; i++) {
    step(() => backward(sum(add(add(a, c), mul(b, 2)))));
    assert.equal(sent.length, i === 0 ? 0 : 4);
    sharing.finish();
  }
  assert.deepEqual(sent, [12, 12, 12, 12]);
  sharing.free();
});

Deno.test("layOutBuckets() keeps to the boundary and to whole units", () => {
  assert.deepEqual(layOutBuckets(0), []);
  assert.deepEqual(layOutBuckets(10, { bucketBytes: 16, boundary: 6 }).map(({ offset, size }) => [offset, size]), [[0, 4], [4, 2], [6, 4]]);
  assert.deepEqual(layOutBuckets(20, { bucketBytes: 4, boundary: 8, unit: 4 }).map(({ size }) => size), [4, 4, 4, 4, 4]);
});

Deno.test("two ranks with half of a batch each have the gradients of one with all of it", async () => {
  const outcomes = await runRanks(
    2,
    `
    import { layOutBuckets, shareGradients } from("lib/dist/gradients.ts");
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
