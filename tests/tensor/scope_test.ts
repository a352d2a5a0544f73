import assert from "node:assert/strict";
import { add, exp, mul } from "../../lib/ops/elementwise.ts";
import { sum } from "../../lib/ops/reduce.ts";
import { device } from "../../lib/tensor/device.ts";
import { beside, keep, persist, step, tidy } from "../../lib/tensor/scope.ts";
import { backward, noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";

const N = 1 << 14, BYTES = N * 4;

function big(value = 1, requiresGrad = false): Tensor {
  return tensor(new Float32Array(N).fill(value), [N], { requiresGrad });
}

/** Tensors of N floats that are alive beyond `before` bytes. */
function alive(before: number): number {
  return (used() - before) / BYTES;
}

function used(): number {
  const { memory } = device();
  memory.synchronize();
  return memory.use().used;
}

Deno.test("step() frees what it made, but what it returns", () => {
  const before = used();
  const [a, { b }] = step(() => {
    const a = big(), b = big();
    big();
    return [a, { b, n: 1, text: "x", none: null }] as const;
  });
  assert.equal(alive(before), 2);
  assert.equal(a.read()[0], 1);
  a.free(), b.free();
  assert.equal(alive(before), 0);
});

Deno.test("step() frees everything when its body throws", () => {
  const before = used();
  assert.throws(() =>
    step(() => {
      big();
      step(() => big());
      throw new Error("no");
    }), { message: "no" });
  assert.equal(alive(before), 0);
});

Deno.test("step() refuses a promise and frees what was made", () => {
  const before = used();
  // deno-lint-ignore require-await
  assert.throws(() => step(async () => void big()), {
    name: "TypeError",
    message: "Cannot end a scope: its body returned a promise, it must be synchronous",
  });
  assert.equal(alive(before), 0);
});

Deno.test("a tensor returned by an inner scope belongs to the outer one", () => {
  const before = used();
  const t = step(() => {
    const inner = step(() => big()), tidied = tidy(() => big());
    assert.equal(alive(before), 2);
    assert.equal(inner.freed || tidied.freed, false);
    return tidied;
  });
  assert.equal(alive(before), 1);
  t.free();
});

Deno.test("a view keeps the memory of a freed tensor", () => {
  const before = used(), v = step(() => big(3).view([2], { offset: 5 }));
  assert.equal(alive(before), 1);
  assert.deepEqual([...v.read()], [3, 3]);
  v.free();
  assert.equal(alive(before), 0);
});

Deno.test("persist() and keep() make tensors that outlive every scope", () => {
  const before = used();
  const made: Tensor[] = [];
  step(() => {
    made.push(persist(() => big()));
    made.push(keep(big()));
    tidy(() => void made.push(persist(() => tidy(() => big()))));
  });
  assert.equal(alive(before), 3);
  made.forEach((t) => t.free());
  assert.equal(alive(before), 0);
});

Deno.test("tidy() frees temporaries at once, without a tape", () =>
  step(() => {
    const x = big(), before = used();
    const y = tidy(() => noGrad(() => add(exp(mul(x, x)), x)));
    assert.equal(alive(before), 1);
    assert.equal(Math.fround(Math.E + 1), y.read()[0]);
  }));

Deno.test("tidy() keeps what backward passes read until they ran, and frees the rest", () =>
  step(() => {
    const x = big(1, true), before = used();
    // mul saves x twice, exp its input x * x; the sum of exp and x is read by nobody, nor is exp's own output
    const loss = tidy(() => {
      const y = tidy(() => add(exp(mul(x, x)), x));
      return sum(y);
    });
    assert.equal(Math.floor(alive(before)), 1);
    backward(loss);
    assert.equal(Math.floor(alive(before)), 1); // x's gradient alone
    assert.ok(Math.abs(x.grad!.read()[0] - (2 * Math.E + 1)) < 1e-5);
  }));

Deno.test("what a dropped tape kept ends with its step", () => {
  const before = used();
  step(() => {
    const x = big(1, true);
    tidy(() => sum(exp(mul(x, x))));
    assert.ok(alive(before) >= 2);
  });
  assert.equal(alive(before), 0);
});

Deno.test("memory does not grow over training-like steps", () => {
  const w = persist(() => big(0.5, true)), seen: number[] = [];
  for (let i = 0; i < 4; i++) {
    const value = step(() => {
      const loss = tidy(() => sum(exp(mul(w, tidy(() => add(w, w))))));
      backward(loss);
      return loss.item();
    });
    w.grad = null;
    assert.ok(Number.isFinite(value));
    seen.push(used());
  }
  assert.deepEqual(new Set(seen).size, 1);
  w.free();
});

Deno.test("beside() makes tensors that live as long as another, however deep it runs", () => {
  const before = used();
  step(() => {
    const a = big();
    const b = step(() => tidy(() => persist(() => beside(a, () => big()))));
    assert.equal(alive(before), 2);
    assert.ok(!b.freed);
    const c = tidy(() => tidy(() => beside(a, () => tidy(() => add(big(), 1)))));
    assert.equal(alive(before), 3);
    const moved = tidy(() => tidy(() => big())), d = tidy(() => beside(moved, () => big()));
    assert.ok(!c.freed && !d.freed);
  });
  assert.equal(alive(before), 0);
  const kept = big(), other = step(() => beside(kept, () => big()));
  assert.equal(alive(before), 2);
  kept.free(), other.free();
  assert.throws(() => step(() => beside(big(), () => assert.fail("no"))), { message: "no" });
  assert.equal(alive(before), 0);
});
