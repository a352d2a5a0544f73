import assert from "node:assert/strict";
import { modulatedCrossBlock, type ModulatedCrossBlockSpec, modulatedCrossBlockSpec, runBlocks } from "../../lib/nn/block.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { add, exp, mul, sin, square } from "../../lib/ops/elementwise.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { makeVoxels, type Voxels } from "../../lib/sparse/voxels.ts";
import { device } from "../../lib/tensor/device.ts";
import { type FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { type Choose, chooseFree, rebuildable, type Recipe, withChoice } from "../../lib/tensor/storage.ts";
import { backward, checkpoint, record } from "../../lib/tensor/tape.ts";
import { empty, type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";
import { expectSameBits, gradientsOf, randomize, trained } from "../gradients.ts";
import { scatter } from "../voxels.ts";

const ALL: Choose = () => "drop", NONE: Choose = () => "keep";

function used(): number {
  const { memory } = device();
  memory.synchronize();
  return memory.use().used;
}

Deno.test("a tensor with a recipe is given up when only recorded ops know it, made again once, and freed after its last use", () =>
  step(() => {
    const n = 1 << 14, x = tensor(random(1, n), [n], { requiresGrad: true }), made: string[] = [];
    const twice = (x: Tensor, name: string): Tensor => {
      const fill = (y: Tensor): void => {
        made.push(name);
        device().memory.copy(y.addr, x.addr, x.bytes);
      };
      const y = empty(x.shape);
      fill(y);
      return record("twice", y, [x], [y], (dy) => [add(dy, dy)], { kind: "norm", from: [x], fill });
    };
    const before = used(), y = tidy(() => twice(twice(x, "first"), "second"));
    assert.deepEqual([made, used() - before], [["first", "second"], 4 * n]); // y is known here, the first is not
    const z = tidy(() => exp(square(y)));
    y.leave();
    assert.equal(used() - before, 4 * n);
    backward(z, tensor(random(2, n), [n]));
    assert.deepEqual(made, ["first", "second", "first", "second"]);
    z.free();
    x.grad!.free();
    assert.ok(used() - before <= 4 * n); // the gradient that was given
  }));

Deno.test("using a tensor that was given up is an error that says what to do", () =>
  step(() => {
    const x = tensor([1, 2], [2], { requiresGrad: true });
    let inner: Tensor | undefined;
    const y = withChoice(ALL, () => tidy(() => square(inner = square(x))));
    assert.throws(() => inner!.addr, { message: /^Cannot use a tensor that was given up .* must list it as saved$/ });
    assert.throws(() => inner!.storage.address, { name: "ReferenceError" });
    backward(y, tensor([1, 1], [2]));
    assert.deepEqual([...x.grad!.read()], [4, 32]);
  }));

Deno.test("rebuildable() does nothing where a choice keeps the tensor, or where it has no elements", () =>
  step(() => {
    const x = tensor([], [0], { requiresGrad: true }), w = tensor([1, 2], [2]), seen: Recipe[] = [];
    withChoice((_, recipe) => {
      seen.push(recipe);
      return "keep";
    }, () => {
      square(x);
      rebuildable(w, { kind: "norm", from: [null, undefined], fill: () => assert.fail("it is kept") });
    });
    assert.deepEqual(seen.map((r) => r.kind), ["norm"]);
    w.storage.restore();
    assert.equal(chooseFree(w, { kind: "linear", from: [], fill: () => {} }), "keep");
    assert.equal(chooseFree(w, { kind: "activation", from: [], fill: () => {} }), "drop");
  }));

Deno.test("what a view shows is given up and made again for all of its views", () =>
  step(() => {
    const x = tensor(random(1, 6), [2, 3], { requiresGrad: true }), w = tensor(random(2, 9), [3, 3], { requiresGrad: true });
    const run = (choice: Choose): number[] =>
      step(() => {
        x.grad = w.grad = null;
        const y = withChoice(choice, () =>
          tidy(() => {
            const h = linear(x, w), flat = h.view([6]);
            const a = record("a", empty([6]), [h], [flat, h], () => [add(h, flat.view([2, 3]))]);
            return mul(a, tensor(random(3, 6), [6]));
          }));
        backward(y, tensor(random(4, 6), [6]));
        return [...x.grad!.read(), ...w.grad!.read()];
      });
    assert.deepEqual(run(ALL), run(NONE));
  }));

const C = 64, H = 2, X = 32, M = 5, B = 2, L = 9;

function blocks(
  dtype: FloatDType,
  n: number,
): { p: ReturnType<typeof initialize<ModulatedCrossBlockSpec>>[]; spec: ModulatedCrossBlockSpec[] } {
  const spec = Array.from({ length: n }, () => {
    return modulatedCrossBlockSpec({ C, X, hidden: 4 * C, H, shareMod: false, qkRmsNorm: true, qkRmsNormCross: true, dtype });
  });
  const p = spec.map((s, i) => initialize(s, new Generator(i)));
  p.forEach((tree, i) => randomize(tree, spec[i]));
  return { p, spec };
}

const POLICIES: Record<string, { choice?: Choose; recompute?: number; nested?: boolean }> = {
  "everything made again": { choice: ALL },
  "linear layers made again": { choice: (t, r) => r.kind === "linear" ? "drop" : chooseFree(t, r) },
  "attention and residuals made again": { choice: (t, r) => ["attention", "residual"].includes(r.kind) ? "drop" : chooseFree(t, r) },
  "linear layers and attention on the host": { choice: (t, r) => ["linear", "attention"].includes(r.kind) ? "offload" : chooseFree(t, r) },
  "everything on the host": { choice: () => "offload" },
  "all blocks as checkpoints": { recompute: 3 },
  "two blocks as checkpoints, the rest made again": { recompute: 2, choice: ALL },
  "a checkpoint inside a checkpoint": { nested: true, recompute: 1 },
};

for (const dtype of device().name === "cuda" ? ["f32", "f16", "bf16"] as const : ["f32"] as const) {
  for (const sparse of [false, true]) {
    Deno.test(`blocks have the same gradients to the bit, whatever is made again: ${sparse ? "voxels" : "dense"} in ${dtype}`, () => {
      const { p, spec } = blocks(dtype, 3), voxels: Voxels | undefined = sparse ? makeVoxels(scatter(1, [3, 14], 5)) : undefined;
      const shape = voxels ? [voxels.N, C] : [B, L, C], size = shape.reduce((a, b) => a * b);
      const leaf = (seed: number, shape: number[]): Tensor => {
        return tensor(random(seed, shape.reduce((a, b) => a * b)), shape, { dtype, requiresGrad: true });
      };
      const x = leaf(60, shape), context = leaf(61, [B, M, X]), mod = leaf(62, [B, C]);
      const wrt = { ...trained(p, spec), x, mod, context }, out = tensor(random(63, size), shape, { dtype });
      const run = ({ choice = chooseFree, recompute = 0, nested = false }: typeof POLICIES[string]): Tensor =>
        withChoice(choice, () => {
          const through = (h: Tensor, mod: Tensor, context: Tensor): Tensor =>
            runBlocks(
              p,
              [h, mod, context],
              recompute,
              (block, _, h, mod, context) => modulatedCrossBlock(block, h, mod, context, H, { voxels }),
            );
          const start = sin(x); // not the leaf itself: it may be freed
          return tidy(() => mul(nested ? checkpoint(through, [start, mod, context]) : through(start, mod, context), out));
        });
      const want = gradientsOf(wrt, () => run({}));
      for (const [name, policy] of Object.entries(POLICIES)) expectSameBits(gradientsOf(wrt, () => run(policy)), want, name);
      for (const [, t] of leaves<Tensor>(p)) t.free();
      for (const t of [x, context, mod, out]) t.free();
    });
  }
}
