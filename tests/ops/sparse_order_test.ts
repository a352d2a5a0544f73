import assert from "node:assert/strict";
import { argsort, type Curve, curveKeys, segments, windowKeys } from "../../lib/ops/sparse_order.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, random } from "../check.ts";
import { scatter, shell, shuffle } from "../voxels.ts";

function upload(coords: Int32Array<ArrayBuffer>): Tensor {
  return tensor(coords, [coords.length / 4, 4], { dtype: "i32" });
}

function keysOf(t: Tensor): number[] {
  return Array.from(t.readRaw() as BigInt64Array, Number);
}

Deno.test("windowKeys() numbers the cubes that voxels are in", () => {
  const coords = shuffle(1, scatter(1, [20, 0, 30], 9));
  for (const [window, shift, bits] of [[4, 0, 2], [4, 2, 2], [3, 1, 2], [1, 0, 4], [16, 0, 1]]) {
    const got = step(() => keysOf(windowKeys(upload(coords), { window, shift, bits })));
    const want = got.map((_, n) => {
      return [...coords.subarray(4 * n + 1, 4 * n + 4)].reduce(
        (key, c) => key * 2 ** bits + Math.floor((c + shift) / window),
        coords[4 * n],
      );
    });
    assert.deepEqual(got, want);
  }
});

Deno.test("windowKeys() of windows of 8 parts (3, 4, 7) and (4, 4, 8), and shifts them together apart", () => {
  const coords = Int32Array.of(0, 3, 4, 7, 0, 4, 4, 8);
  const ids = (shift: number) => step(() => keysOf(windowKeys(upload(coords), { window: 8, shift, bits: 1 })));
  assert.deepEqual(ids(0), [0b000, 0b001]);
  assert.deepEqual(ids(4), [0b011, 0b111]);
});

Deno.test("curveKeys() has the codes of known voxels", () => {
  const known: [place: number[], codes: number[]][] = [
    [[1, 0, 0], [4, 7, 2, 3]],
    [[0, 1, 0], [2, 3, 4, 7]],
    [[0, 0, 1], [1, 1, 1, 1]],
    [[3, 5, 7], [239, 391, 351, 305]],
    [[63, 0, 63], [187245, 140434, 112347, 224694]],
    [[12, 34, 56], [105232, 227704, 169632, 136440]],
    [[1023, 512, 1], [882002213, 556044878, 843654291, 599186284]],
  ];
  const curves: Curve[] = ["zOrder", "hilbert", "zOrderTransposed", "hilbertTransposed"];
  const coords = Int32Array.from([0, 5].flatMap((b) => known.flatMap(([place]) => [b, ...place])));
  curves.forEach((curve, i) => {
    const got = step(() => keysOf(curveKeys(upload(coords), curve)));
    assert.deepEqual(got, [0, 5].flatMap((b) => known.map(([, codes]) => b * 2 ** 30 + codes[i])));
  });
  const shifted = step(() => keysOf(curveKeys(upload(Int32Array.of(0, 1, 3, 5)), "zOrder", { shift: 2 })));
  assert.deepEqual(shifted, [239]);
});

Deno.test("curveKeys() along the Hilbert curve steps from cell to neighbouring cell", () => {
  const all = Int32Array.from(Array.from({ length: 512 }, (_, i) => [0, i >> 6, i >> 3 & 7, i & 7]).flat());
  const keys = step(() => keysOf(curveKeys(upload(all), "hilbert")));
  const walk = keys.map((key, n) => ({ key, place: all.subarray(4 * n, 4 * n + 4) })).sort((p, q) => p.key - q.key);
  walk.slice(1).forEach(({ place }, i) => {
    assert.equal(place.reduce((sum, c, a) => sum + Math.abs(c - walk[i].place[a]), 0), 1);
  });
});

for (const [N, bits] of [[0, 3], [1, 1], [777, 4], [3000, 40]]) {
  Deno.test(`argsort() and segments() of ${N} keys of ${bits} bits put equal ones together, in their own order`, () => {
    const keys = Array.from(random(N, N), (v) => Math.floor((v + 1) / 2 * 2 ** bits));
    const got = step(() => {
      const t = tensor(keys, [N], { dtype: "i64" }), { order, inverse } = argsort(t, bits);
      return [order, inverse, segments(t, order)].map((t) => [...t.read()]);
    });
    const order = keys.map((_, n) => n).sort((p, q) => keys[p] - keys[q] || p - q);
    assert.deepEqual(got[0], order);
    order.forEach((n, at) => assert.equal(got[1][n], at));
    const starts = order.flatMap((n, at) => at === 0 || keys[n] !== keys[order[at - 1]] ? [at] : []);
    assert.deepEqual(got[2], [...starts, ...new Array<number>(N + 1 - starts.length).fill(N)]);
  });
}

Deno.test("the orders say what does not fit", () => {
  step(() => {
    const t = tensor([1, 2, 3, 4], [1, 4]);
    assert.throws(() => windowKeys(t, { window: 8, shift: 0, bits: 3 }), {
      message: "Cannot run windowKeys: coords is f32, it must be i32",
    });
    assert.throws(() => curveKeys(tensor([1, 2], [1, 2], { dtype: "i32" }), "zOrder"), {
      message: "Cannot run curveKeys: coords is [1,2], it must be [1,4]",
    });
    assert.throws(() => argsort(t, 4), { message: "Cannot run argsort: keys is f32, it must be i64" });
  });
});

const SHELL = shuffle(9, shell(3, 30)), COUNT = SHELL.length / 4;
for (
  const [name, keysOf, bits] of [
    ["windows", (coords: Tensor) => windowKeys(coords, { window: 8, shift: 4, bits: 3 }), 11],
    ["a Hilbert curve", (coords: Tensor) => curveKeys(coords, "hilbertTransposed", { shift: 16 }), 32],
  ] as const
) {
  const inputs = { coords: { shape: [COUNT, 4], data: Float32Array.from(SHELL), dtype: "i32" as const } };
  checkDevices(`argsort() of ${COUNT} voxels by ${name}`, import.meta.url, {
    inputs,
    run: ({ coords }) => argsort(keysOf(coords), bits).order,
    dtypes: ["f32"],
    tolerance: { f32: 0 },
  });
  checkDevices(`segments() of ${COUNT} voxels by ${name}`, import.meta.url, {
    inputs,
    run: ({ coords }) => {
      const keys = keysOf(coords);
      return segments(keys, argsort(keys, bits).order);
    },
    dtypes: ["f32"],
    tolerance: { f32: 0 },
  });
}
