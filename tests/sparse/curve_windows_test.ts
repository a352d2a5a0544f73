import assert from "node:assert/strict";
import { curveWindows } from "../../lib/sparse/curve_windows.ts";

/** The windows of one sample of n voxels by the formulas in real numbers. */
function plainWindows(n: number, window: number, shift: number): { queries: number[]; keys: number[] }[] {
  const m = Math.ceil(n / window),
    v = n / m,
    wrap = (from: number, end: number): number[] => {
      return Array.from({ length: end - from }, (_, i) => ((from + i) % n + n) % n);
    };
  return Array.from({ length: m }, (_, i) => {
    const first = Math.floor((i + 0.5) * v + shift - window / 2 + 1e-9);
    return {
      queries: wrap(Math.floor(i * v + shift + 1e-9), Math.floor((i + 1) * v + shift + 1e-9)),
      keys: m === 1 ? wrap(0, n) : wrap(first, first + window),
    };
  });
}

for (const [n, window, shift] of [[1, 4, 0], [4, 4, 2], [5, 4, 0], [9, 4, 2], [23, 5, 3], [16, 4, 2], [100, 7, 0]]) {
  Deno.test(`curveWindows() of ${n} voxels, ${window} a window, shifted by ${shift}, has each as a query once`, () => {
    const { queries, queryOffsets, keys, keyOffsets } = curveWindows([0, n], { window, shift }), want = plainWindows(n, window, shift);
    const cut = (list: Int32Array, offsets: Int32Array): number[][] =>
      [...offsets.subarray(1)].map((end, i) => [...list.subarray(offsets[i], end)]);
    const sorted = (list: number[]): number[] => list.toSorted((p, q) => p - q);
    assert.deepEqual(cut(keys, keyOffsets).map(sorted), want.map((w) => sorted(w.keys)));
    assert.deepEqual(cut(queries, queryOffsets).map(sorted), want.map((w) => sorted(w.queries)));
    assert.deepEqual(sorted([...queries]), Array.from({ length: n }, (_, i) => i));
  });
}

Deno.test("curveWindows() keeps samples apart", () => {
  const { queries, queryOffsets, keys, keyOffsets } = curveWindows([0, 3, 3, 8], { window: 3, shift: 1 });
  assert.deepEqual([...queryOffsets], [0, 3, 5, 8]);
  assert.deepEqual([...keyOffsets], [0, 3, 6, 9]);
  assert.deepEqual([...queries], [1, 2, 0, 4, 5, 6, 7, 3]);
  assert.deepEqual([...keys].map((k, i) => i < 3 ? k < 3 : k >= 3), new Array(9).fill(true));
  assert.deepEqual(curveWindows([0, 0], { window: 3, shift: 0 }).queries.length, 0);
});
