import assert from "node:assert/strict";
import { matmul } from "../../lib/ops/matmul.ts";
import { observe } from "../../ffi/observer.ts";
import { addFlops, countFlops, isWatched } from "../../lib/tensor/flops.ts";
import { step } from "../../lib/tensor/scope.ts";
import { zeros } from "../../lib/tensor/tensor.ts";

Deno.test("countFlops() counts what is asked for while it counts, also one inside another", () => {
  const product = () => step(() => void matmul(zeros([3, 5]), zeros([5, 7])));
  product();
  const outer = countFlops();
  product();
  const inner = countFlops();
  product();
  assert.equal(inner(), 2 * 3 * 5 * 7);
  assert.equal(outer(), 2 * 2 * 3 * 5 * 7);
  product();
  assert.equal(outer(), 2 * 2 * 3 * 5 * 7);
});

Deno.test("addFlops() counts what was not seen, and isWatched() passes over who counts alone", () => {
  addFlops(1);
  const count = countFlops();
  addFlops(10);
  assert.equal(isWatched(), false);
  assert.equal(count(), 10);
  const before = observe((_, __, call) => call());
  assert.ok(isWatched());
  const other = countFlops();
  assert.ok(isWatched());
  other();
  observe(before);
  assert.equal(isWatched(), false);
});
