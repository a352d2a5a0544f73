import assert from "node:assert/strict";
import { countBins, histogramOf } from "../../lib/ops/histogram.ts";
import { cast } from "../../lib/ops/cast.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";

/** Counts of the 11 highest bits. */
function reference(values: Float32Array): number[] {
  const counts = new Array(2048).fill(0);
  for (const bits of new Uint32Array(values.slice().buffer)) counts[bits >>> 21]++;
  return counts;
}

function counted(...list: Tensor[]): number[] {
  const counts = zeros([2048], "i64");
  for (const x of list) countBins(counts, x);
  return [...counts.readRaw() as BigInt64Array].map(Number);
}

for (const dtype of ["f32", "f16", "bf16"] as const) {
  for (const size of [0, 1, 7, 4096, 300_001]) {
    Deno.test(`countBins() of ${size} values in ${dtype}, in the same order of bits on every device`, () => {
      step(() => {
        const x = cast(tensor(random(size, size).map((v, i) => i % 5 === 0 ? 0 : v * 2 ** (i % 30 - 20)), [size]), dtype);
        assert.deepEqual(counted(x), reference(x.read()));
      });
    });
  }
}

Deno.test("countBins() adds up tensors, those at odd addresses too, and knows what is not finite", () => {
  step(() => {
    const special = [0, -0, 1, -1, 1e-45, -1e-40, 3.4e38, -3.4e38, Infinity, -Infinity, NaN],
      x = tensor(special, [11]),
      odd = x.view([7], { offset: 3 });
    const counts = counted(x, odd), all = Float32Array.from([...special, ...special.slice(3, 10)]);
    const finite = reference(all).map((n, b) => (b & 1023) >= 1020 ? 0 : n);
    assert.deepEqual(counts.map((n, b) => (b & 1023) >= 1020 ? 0 : n), finite); // which of NaN's bits are set is nobody's concern
    assert.equal(histogramOf(counts).notFinite, 5);
    assert.throws(() => countBins(zeros([5], "i64"), x), { message: "Cannot count values: counts is [5] i64, it must be [2048] i64" });
  });
});

Deno.test("histogramOf() has rising limits with every value in its interval, and empty ones as one", () => {
  step(() => {
    const values = [-1, -1.2, 0.5, 0.5, 0.55, 3], { limits, counts, notFinite } = histogramOf(counted(tensor(values, [6])));
    assert.deepEqual([limits, counts, notFinite], [[-1.25, -1, 0.5, 0.625, 3, 3.5], [2, 0, 3, 0, 1], 0]);
    assert.deepEqual(histogramOf(counted(zeros([3]))), { limits: [0, 2 ** -128], counts: [3], notFinite: 0 });
    assert.deepEqual(histogramOf(counted()), { limits: [], counts: [], notFinite: 0 });
    assert.deepEqual(histogramOf(counted(tensor([3], [1])), 0.5).limits, [1.5, 1.75]);
  });
});
