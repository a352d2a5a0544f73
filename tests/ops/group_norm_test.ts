import assert from "node:assert/strict";
import { groupNorm } from "../../lib/ops/group_norm.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

function reference(
  x: Float64Array,
  { L, C, groups, eps, w, b }: { L: number; C: number; groups: number; eps: number; w?: Float64Array; b?: Float64Array },
): Float64Array {
  const width = C / groups, y = new Float64Array(x.length);
  for (let item = 0; item < x.length; item += L * C) {
    for (let g = 0; g < groups; g++) {
      const at = Array.from({ length: L * width }, (_, i) => item + Math.floor(i / width) * C + g * width + i % width);
      const mean = at.reduce((s, i) => s + x[i], 0) / at.length, variance = at.reduce((s, i) => s + (x[i] - mean) ** 2, 0) / at.length;
      for (const i of at) y[i] = (x[i] - mean) / Math.sqrt(variance + eps) * (w?.[i % C] ?? 1) + (b?.[i % C] ?? 0);
    }
  }
  return y;
}

function inputs(B: number, L: number, C: number, offset = 0) {
  return {
    x: { shape: [B, L, C], data: random(1, B * L * C).map((v) => v + offset) },
    w: { shape: [C], data: random(2, C), dtype: "f32" as const },
    b: { shape: [C], data: random(3, C), dtype: "f32" as const },
  };
}

for (const [B, L, C, groups] of [[1, 1, 2, 1], [2, 3, 6, 3], [2, 5, 8, 2], [1, 4, 5, 5], [3, 2, 9, 1]]) {
  Deno.test(`groupNorm() and its gradients match the definition at [${B}, ${L}, ${C}] in ${groups} groups`, () => {
    checkOp({
      inputs: inputs(B, L, C),
      run: ({ x, w, b }) => groupNorm(x, groups, { w, b, eps: 1e-3 }),
      reference: ({ x, w, b }) => reference(x, { L, C, groups, eps: 1e-3, w, b }),
    });
  });
}

/** Samples of `counts` rows each. */
function ragged(counts: number[], C: number) {
  const ends = counts.map((_, b) => counts.slice(0, b + 1).reduce((a, c) => a + c, 0)), N = ends.at(-1)!;
  const offsets = { shape: [counts.length + 1], data: Float32Array.of(0, ...ends), dtype: "i32" as const }, { w, b } = inputs(1, 1, C);
  return { x: { shape: [N, C], data: random(1, N * C) }, w, b, offsets };
}

for (const counts of [[1], [3, 0, 2], [0, 4, 1, 0], [0]]) {
  Deno.test(`groupNorm() and its gradients match the definition for samples of ${counts} rows`, () => {
    const C = 6, groups = 3;
    checkOp({
      inputs: ragged(counts, C),
      run: ({ x, w, b, offsets }) => groupNorm(x, groups, { w, b, eps: 1e-3, offsets }),
      reference: ({ x, w, b, offsets }) =>
        counts.flatMap((L, i) => [
          ...(L ? reference(x.slice(offsets[i] * C, offsets[i + 1] * C), { L, C, groups, eps: 1e-3, w, b }) : []),
        ]),
    });
  });
}

Deno.test("groupNorm() without scale and shift, of a volume", () => {
  checkOp({
    inputs: { x: { shape: [2, 2, 1, 3, 4], data: random(4, 48) } },
    run: ({ x }) => groupNorm(x, 2),
    reference: ({ x }) => reference(x, { L: 6, C: 4, groups: 2, eps: 1e-5 }),
  });
});

Deno.test("groupNorm() gives parameter gradients where x needs none", () => {
  const { x, w, b } = inputs(2, 3, 4);
  checkOp({
    inputs: { x: { ...x, grad: false }, w, b },
    run: (t) => groupNorm(t.x, 2, { w: t.w, b: t.b }),
    reference: (a) => reference(a.x, { L: 3, C: 4, groups: 2, eps: 1e-5, w: a.w, b: a.b }),
  });
});

Deno.test("groupNorm() of no positions is empty and gives zero gradients", () => {
  step(() => {
    for (const shape of [[2, 0, 4], [0, 3, 4]]) {
      const w = tensor([1, 1, 1, 1], [4], { requiresGrad: true });
      backward(groupNorm(tensor([], shape), 2, { w }), tensor([], shape));
      assert.deepEqual([...w.grad!.read()], [0, 0, 0, 0]);
    }
  });
});

Deno.test("groupNorm() says which argument is wrong and what it must be", () => {
  step(() => {
    const x = tensor(random(1, 12), [1, 2, 6]);
    assert.throws(() => groupNorm(x, 4), { message: "Cannot run groupNorm: groups is 4, it must divide C = 6" });
    assert.throws(() => groupNorm(x, 2, { w: tensor([1], [1]) }), { message: "Cannot run groupNorm: w is [1], it must be [6]" });
    assert.throws(() => groupNorm(tensor([1], [1]), 1), { message: "Cannot run groupNorm: x is [1], it must be [B, ..., C]" });
  });
});

for (
  const [B, L, C, groups, offset] of [[1, 1, 32, 8, 0], [2, 4096, 32, 32, 0], [2, 333, 96, 32, 3], [3, 100, 33, 3, 0], [
    1,
    1000,
    512,
    32,
    0,
  ], [
    300,
    3,
    6,
    2,
    0,
  ], [1, 50, 1030, 10, 0]]
) {
  checkDevices(`groupNorm() at [${B}, ${L}, ${C}] in ${groups} groups`, import.meta.url, {
    inputs: inputs(B, L, C, offset),
    run: ({ x, w, b }) => groupNorm(x, groups, { w, b, eps: 1e-3 }),
  });
}

for (
  const [counts, C, groups] of [[[3, 0, 50], 6, 3], [[1000, 7], 32, 32], [[33, 0, 600, 1], 96, 32], [[5170, 64], 768, 32]] as [
    number[],
    number,
    number,
  ][]
) {
  checkDevices(`groupNorm() of samples of ${counts} rows, ${C} channels in ${groups} groups`, import.meta.url, {
    inputs: ragged(counts, C),
    run: ({ x, w, b, offsets }) => groupNorm(x, groups, { w, b, eps: 1e-3, offsets }),
  });
}
