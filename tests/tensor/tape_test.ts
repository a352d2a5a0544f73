import assert from "node:assert/strict";
import { cast } from "../../lib/ops/cast.ts";
import { add, exp, log, mul, sin, sqrt, square } from "../../lib/ops/elementwise.ts";
import { reshape } from "../../lib/ops/movement.ts";
import { sum } from "../../lib/ops/reduce.ts";
import { simulate } from "../../lib/memory/simulate.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { persist, step, tidy } from "../../lib/tensor/scope.ts";
import { withChoice } from "../../lib/tensor/storage.ts";
import { backward, booked, checkpoint, firstNonFinite, isRecording, Ledger, noGrad, parameter, record } from "../../lib/tensor/tape.ts";
import { OutOfMemoryError } from "../../lib/tensor/memory.ts";
import { empty, type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";

function leaf(...values: number[]): Tensor {
  return tensor(values, [values.length], { requiresGrad: true });
}

function used(): number {
  const { memory } = device();
  memory.synchronize();
  return memory.use().used;
}

Deno.test("backward() adds the gradients of a tensor that is used again and again", () =>
  step(() => {
    const x = leaf(2, 3), y = mul(x, x), z = add(add(mul(y, x), y), x); // x³ + x² + x
    backward(sum(z));
    assert.deepEqual([...x.grad!.read()], [3 * 4 + 4 + 1, 3 * 9 + 6 + 1]);
  }));

Deno.test("backward() visits a diamond in the order of recording", () =>
  step(() => {
    const x = leaf(0.5), a = square(x), b = exp(a), c = mul(a, b), d = add(c, b);
    backward(d);
    const s = 0.25, e = Math.exp(s); // d = (s + 1) e^s with s = x²
    assertClose("dx", x.grad!.read(), [(e + (s + 1) * e) * 2 * 0.5], { rtol: 1e-6 });
  }));

Deno.test("backward() takes the gradient of its output, and wants one element without", () =>
  step(() => {
    const x = leaf(1, 2);
    assert.throws(() => backward(square(x)), {
      message: "Cannot run backward from [2] without its gradient: it must have one element, or dy must be given",
    });
    assert.throws(() => backward(square(x), tensor([1], [1])), { message: "Cannot run backward: dy is [1], it must be [2]" });
    assert.throws(() => backward(tensor([1], [1])), {
      message: "Cannot run backward: the tensor [1] does not depend on any that requires a gradient",
    });
    const dy = tensor([10, 100], [2]);
    backward(square(x), dy);
    assert.deepEqual([...x.grad!.read()], [20, 400]);
    assert.deepEqual([...dy.read()], [10, 100]);
  }));

Deno.test("backward() of a leaf is its gradient", () =>
  step(() => {
    const x = leaf(1);
    backward(x);
    backward(x, tensor([4], [1]));
    assert.deepEqual([...x.grad!.read()], [5]);
  }));

Deno.test("backward() adds to gradients of earlier tapes", () =>
  step(() => {
    const x = leaf(1, 2);
    for (const k of [1, 2, 3]) backward(sum(mul(x, tensor([k, k], [2]))));
    assert.deepEqual([...x.grad!.read()], [6, 6]);
  }));

Deno.test("backward() leaves tensors without requiresGrad alone", () =>
  step(() => {
    const x = leaf(1, 2), c = tensor([3, 4], [2]), y = mul(c, c);
    assert.equal(y.requiresGrad, false);
    backward(sum(mul(x, y)));
    assert.equal(c.grad, null);
    assert.deepEqual([...x.grad!.read()], [9, 16]);
  }));

Deno.test("backward() frees what the tape kept and every gradient but those of leaves", () =>
  step(() => {
    const n = 1 << 14, x = tensor(random(1, n), [n], { requiresGrad: true }), before = used();
    const loss = withChoice(() => "keep", () => tidy(() => sum(exp(sin(square(x))))));
    assert.ok(used() - before >= 2 * n * 4);
    backward(loss);
    loss.free();
    assert.equal(used() - before, n * 4);
    x.grad!.free();
    assert.equal(used(), before);
  }));

Deno.test("a gradient that an op passes on unchanged can be shared by its inputs", () =>
  step(() => {
    const a = leaf(1), b = leaf(2), y = add(a, b);
    backward(add(y, y));
    assert.deepEqual([a.grad!.item(), b.grad!.item()], [2, 2]);
    a.grad!.free();
    assert.equal(b.grad!.item(), 2);
  }));

Deno.test("a tape runs once: going back through it again is an error", () =>
  step(() => {
    const x = leaf(1, 2), trunk = square(x), one = sum(trunk), two = sum(exp(trunk));
    backward(one);
    const error = { message: /^Cannot run backward: the tape below \[\d?\] ran already, a tape must run once/ };
    assert.throws(() => backward(one), error);
    assert.throws(() => backward(two), { message: /the tape below \[2\] ran already/ });
    assert.deepEqual([...x.grad!.read()], [2, 4]);
  }));

Deno.test("parameter() adds in place to a gradient that its owner keeps", () => {
  const [w, grad] = persist(() => [tensor([1, 2], [2], { dtype: "f32" }), zeros([2])]);
  parameter(w, grad);
  for (let i = 0; i < 3; i++) step(() => backward(sum(square(w))));
  assert.equal(w.grad, grad);
  assert.deepEqual([...grad.read()], [6, 12]);
  step(() => assert.throws(() => parameter(tensor([1], [1]), grad), { message: "Cannot run parameter: grad is [2], it must be [1]" }));
  w.free(), grad.free();
});

Deno.test("parameter() in 16 bits collects its gradient in f32", () =>
  step(() => {
    const w = parameter(tensor([1, 2], [2], { dtype: "bf16" }), zeros([2]));
    backward(sum(cast(w, "f32")));
    backward(sum(cast(w, "f32")), tensor([2 ** -10], []));
    assert.deepEqual([w.grad!.dtype, ...w.grad!.read()], ["f32", 1 + 2 ** -10, 1 + 2 ** -10]);
  }));

/** `sum(a) + sum(b)` as [1], whose backward pass adds to the gradients that a and b have; `asked` notes which it was given. */
function greedy(a: Tensor, b: Tensor, asked: (string | null)[], how: "read" | "write"): Tensor {
  return record("greedy", add(sum(a), sum(b)), [a, b], [], (dy, soFar) =>
    [a, b].map((t) => {
      const written = how === "write" ? soFar.write(t) : null, before = how === "write" ? written && written.grad : soFar.read(t);
      const mine = noGrad(() => mul(tensor(new Float32Array(t.size).fill(1), t.shape), dy.item()));
      asked.push(before && `${before.read()}`);
      if (!before) return mine;
      const both = noGrad(() => written?.outdated ? mul(mine, 1) : add(before, mine));
      if (how === "read") return both;
      device().memory.copy(before.addr, both.addr, both.bytes);
      return before;
    }));
}

Deno.test("an op may add to the gradient that an input has so far, once a pass", () =>
  step(() => {
    for (const how of ["read", "write"] as const) {
      const x = leaf(1, 2), y = square(x), asked: (string | null)[] = [];
      backward(add(greedy(y, y, asked, how), sum(mul(y, 3)))); // the sum comes first in the backward pass
      // what the sum gave is the sum's alone, so it may be overwritten; the second of equal inputs finds the first one's asked for
      assert.deepEqual(asked, ["3,3", null]);
      assert.deepEqual([...x.grad!.read()], [2 * 5, 4 * 5]);
    }
  }));

Deno.test("an outdated gradient of a parameter is written over once, by an op or by the tape, and not in a simulation", () =>
  step(() => {
    for (const how of ["read", "write"] as const) {
      const w = parameter(tensor([1, 1], [2]), tensor([10, 20], [2])), x = leaf(1, 2), pass = () => backward(greedy(w, x, [], how));
      w.outdated = true;
      simulate(pass);
      assert.ok(w.outdated);
      pass();
      assert.deepEqual([w.outdated, ...w.grad!.read()], [false, 1, 1]);
      pass();
      assert.deepEqual([...w.grad!.read()], [2, 2]);
    }
  }));

Deno.test("an op gets an outdated gradient of a parameter as memory to write, and it counts once it is returned", () =>
  step(() => {
    const w = parameter(tensor([1, 1], [2]), tensor([10, 20], [2])), x = leaf(3, 4), given: boolean[] = [];
    const writer = (...inputs: Tensor[]): Tensor =>
      record("writer", tensor([0], [1]), inputs, [], (dy, soFar) =>
        inputs.map((input, i) => {
          const d = soFar.fresh(input);
          given.push(d === input.grad);
          return d.write([dy.item() + i, 2]);
        }));
    const failing = (...inputs: Tensor[]): Tensor =>
      record("failing", tensor([0], [1]), inputs, [], (_, soFar) => {
        soFar.fresh(inputs[0]).write([NaN, NaN]);
        throw new OutOfMemoryError("for a test");
      });
    w.outdated = true;
    assert.equal(firstNonFinite(() => backward(writer(w))), null);
    const book = new Ledger();
    assert.throws(() => booked(book, () => backward(failing(w))), { message: "for a test" });
    assert.ok(w.outdated);
    book.again();
    booked(book, () => backward(writer(w)));
    assert.deepEqual([w.outdated, ...w.grad!.read()], [false, 1, 2]);
    book.again();
    booked(book, () => backward(writer(w))); // was added in the attempt before
    assert.deepEqual([...w.grad!.read()], [1, 2]);
    backward(writer(w, x));
    assert.deepEqual([[...w.grad!.read()], [...x.grad!.read()]], [[2, 4], [2, 2]]);
    w.outdated = true;
    backward(writer(w, w)); // twice an input: neither may write over the other
    assert.deepEqual([[...w.grad!.read()], given], [[3, 4], [false, true, false, false, false, false, false]]);
  }));

Deno.test("an op may write into a parameter's gradient, not into that of another leaf", () =>
  step(() => {
    const grad = tensor([10, 20], [2]), w = parameter(tensor([1, 1], [2]), grad), x = leaf(1, 2), asked: (string | null)[] = [];
    for (let i = 0; i < 2; i++) backward(greedy(w, x, asked, "write"));
    assert.deepEqual(asked, ["10,20", null, "11,21", null]);
    assert.equal(w.grad, grad);
    assert.deepEqual([[...grad.read()], [...x.grad!.read()]], [[12, 22], [2, 2]]);
    backward(greedy(w, x, asked, "read"));
    assert.deepEqual(asked.slice(4), [null, "2,2"]);
    assert.deepEqual([[...grad.read()], [...x.grad!.read()]], [[13, 23], [3, 3]]);
  }));

Deno.test("record() refuses a differentiable input without a backward pass", () =>
  step(() => {
    const x = leaf(1), y = empty([1]);
    assert.throws(() => record("op", y, [x], []), {
      name: "TypeError",
      message: "Cannot record op: it has no backward pass, its inputs must not require gradients",
    });
    assert.equal(record("op", y, [tensor([1], [1]), null], []), y);
    assert.equal(y.requiresGrad, false);
    noGrad(() => assert.equal(record("op", y, [x], []).requiresGrad, false));
  }));

Deno.test("backward() says which op gave a gradient that does not fit", () =>
  step(() => {
    const x = leaf(1, 2);
    assert.throws(() => backward(record("op", empty([1]), [x], [], () => [zeros([1])])), {
      message: "Cannot run op backward: the gradient of input 0 is [1], it must be [2]",
    });
    assert.throws(() => backward(record("op", empty([1]), [x], [], () => [])), {
      message: "Cannot run op backward: it gave 0 gradients, it must be 1",
    });
  }));

Deno.test("record() passes absent inputs by and gives each its place", () =>
  step(() => {
    const x = leaf(1), z = leaf(1);
    backward(record("op", empty([1]), [null, x, undefined, z], [null], () => [null, tensor([3], [1]), null, tensor([4], [1])]));
    assert.deepEqual([x.grad!.item(), z.grad!.item()], [3, 4]);
  }));

Deno.test("noGrad() records nothing, also after an error", () =>
  step(() => {
    const x = leaf(1);
    assert.throws(() =>
      noGrad(() => {
        assert.equal(isRecording(), false);
        assert.equal(square(x).requiresGrad, false);
        throw new Error("no");
      })
    );
    assert.equal(isRecording(), true);
    assert.equal(square(x).requiresGrad, true);
  }));

Deno.test("gradients reach through views", () =>
  step(() => {
    const x = leaf(1, 2, 3, 4);
    backward(sum(square(reshape(reshape(x, [2, 2]), [4, 1]))));
    assert.deepEqual([...x.grad!.read()], [2, 4, 6, 8]);
  }));

/** Two blocks with noise inside, in the way that models are checkpointed. */
function run(withCheckpoint: boolean): { y: Float32Array; grads: Float32Array[]; kept: number; state: string } {
  return step(() => {
    const n = 1000, x = tensor(random(1, n), [n], { requiresGrad: true }), w = tensor(random(2, n), [n], { requiresGrad: true });
    const scale = tensor(random(3, n), [n]), generator = new Generator(9), before = used();
    const block = (h: Tensor, s: Tensor) => tidy(() => sin(add(mul(exp(mul(h, w)), s), generator.normal([n]))));
    const apply = (h: Tensor) => withCheckpoint ? checkpoint(block, [h, scale], { replay: [generator] }) : block(h, scale);
    const y = apply(apply(x)), kept = used() - before;
    generator.normal([8]);
    backward(y, tensor(random(4, n), [n]));
    return { y: y.read(), grads: [x.grad!.read(), w.grad!.read()], kept, state: generator.state().offset };
  });
}

Deno.test("checkpoint() gives the same values and gradients to the bit, with random numbers, and keeps less", () => {
  const plain = run(false), again = run(true);
  assert.deepEqual(again.y, plain.y);
  assert.deepEqual(again.grads, plain.grads);
  assert.ok(again.kept < plain.kept / 2, `${again.kept} bytes against ${plain.kept}`);
  assert.equal(again.state, plain.state);
});

Deno.test("checkpoint() inside checkpoint() works", () =>
  step(() => {
    const x = leaf(0.3, 0.6), inner = (t: Tensor) => checkpoint((u) => exp(square(u)), [t]);
    backward(sum(checkpoint((t) => mul(inner(t), t), [x])));
    assertClose("dx", x.grad!.read(), [0.3, 0.6].map((v) => Math.exp(v * v) * (1 + 2 * v * v)), { rtol: 1e-6 });
  }));

Deno.test("checkpoint() without recording, and of what needs no gradient, is the plain function", () =>
  step(() => {
    const x = tensor([2], [1]);
    assert.equal(noGrad(() => checkpoint(square, [leaf(2)])).requiresGrad, false);
    const y = leaf(3);
    backward(mul(checkpoint(square, [x]), y));
    assert.deepEqual([y.grad!.item(), x.grad], [4, null]);
  }));

Deno.test("checkpoint() refuses to reach a recorded tensor that is not among its inputs", () =>
  step(() => {
    const x = leaf(1), outside = square(x);
    const y = checkpoint((t) => mul(t, outside), [leaf(2)]);
    assert.throws(() => backward(y), {
      message: "Cannot run checkpoint backward: its function reads the [1] that square made outside of it, it must be among the inputs",
    });
  }));

Deno.test("a tensor that left its step cannot pass gradients on in silence", () =>
  step(() => {
    const x = leaf(1), y = step(() => square(x));
    assert.equal(y.item(), 1);
    assert.throws(() => backward(exp(y)), { message: /^Cannot run backward: the tape below \[1\] ran already, .* or its step\(\) ended$/ });
  }));

Deno.test("firstNonFinite() leaves the gradients of parameters as they are, also where nothing is found", () =>
  step(() => {
    const w = parameter(tensor([1, 2], [2]), tensor([5, 6], [2]));
    assert.equal(firstNonFinite(() => backward(sum(mul(w, w)))), null);
    assert.match(firstNonFinite(() => backward(sum(sqrt(mul(w, 0)))))!, /gradient of its input/);
    assert.deepEqual([...w.grad!.read()], [5, 6]);
    backward(sum(mul(w, w)));
    assert.deepEqual([...w.grad!.read()], [7, 10]);
  }));

Deno.test("firstNonFinite() names the first op whose result is not finite", () =>
  step(() => {
    const x = tensor([1, 0, -1], [3]);
    assert.equal(firstNonFinite(() => mul(x, x)), null);
    assert.equal(firstNonFinite(() => mul(log(mul(x, x)), x)), "log [3] f32, whose element 1 is -Infinity");
  }));
