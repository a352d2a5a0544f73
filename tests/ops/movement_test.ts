import assert from "node:assert/strict";
import {
  broadcastTo,
  concat,
  patchify,
  permute,
  pixelShuffle3d,
  reshape,
  slice,
  split,
  transpose,
  unbind,
  unpatchify,
} from "../../lib/ops/movement.ts";
import { mul } from "../../lib/ops/elementwise.ts";
import { type DType } from "../../lib/tensor/dtype.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

function size(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function indices(shape: readonly number[]): number[][] {
  return Array.from({ length: size(shape) }, (_, k) => {
    const index = new Array<number>(shape.length);
    for (let d = shape.length - 1; d >= 0; k = Math.floor(k / shape[d--])) index[d] = k % shape[d];
    return index;
  });
}

function offset(index: number[], shape: readonly number[]): number {
  return index.reduce((at, i, d) => at * shape[d] + i, 0);
}

/** y[index] = x[source(index)]. */
function moved(
  x: ArrayLike<number>,
  xShape: readonly number[],
  yShape: readonly number[],
  source: (index: number[]) => number[],
): Float64Array {
  return Float64Array.from(indices(yShape), (index) => x[offset(source(index), xShape)]);
}

const PERMUTATIONS: [number[], number[]][] = [
  [[5, 7], [1, 0]],
  [[2, 3, 4], [2, 0, 1]],
  [[2, 3, 4, 5], [0, 2, 1, 3]],
  [[2, 3, 4, 5], [3, 1, 0, 2]],
  [[1, 3, 1, 5], [3, 0, 1, 2]],
  [[2, 1, 3, 2, 2, 1, 2, 3], [7, 6, 5, 4, 3, 2, 1, 0]],
  [[4], [0]],
  [[], []],
  [[33, 70], [1, 0]],
];

for (const [shape, axes] of PERMUTATIONS) {
  Deno.test(`permute() of [${shape}] to [${axes}] moves each element, and its gradient moves back`, () => {
    const yShape = axes.map((a) => shape[a]), source = (index: number[]) => axes.reduce((s, a, d) => (s[a] = index[d], s), [] as number[]);
    if (size(shape) > 500) {
      return step(() => {
        const x = random(1, size(shape));
        assert.deepEqual([...permute(tensor(x, shape), axes).read()], [...moved(x, shape, yShape, source)]);
      });
    }
    checkOp({
      inputs: { x: { shape, data: random(1, size(shape)) } },
      run: ({ x }) => permute(x, axes),
      reference: ({ x }) => moved(x, shape, yShape, source),
    });
  });
}

Deno.test("permute() and concat() move every dtype", () =>
  step(() => {
    for (const dtype of ["f32", "f16", "bf16", "i32", "i64", "u8"] as DType[]) {
      const x = tensor([1, 2, 3, 4, 5, 6], [2, 3], { dtype }), y = concat([transpose(x), transpose(x)], 1);
      assert.deepEqual(
        [...y.readRaw()].map(String),
        [...tensor([1, 4, 1, 4, 2, 5, 2, 5, 3, 6, 3, 6], [3, 4], { dtype }).readRaw()].map(String),
      );
    }
  }));

Deno.test("permute() of what keeps its order is a view", () =>
  step(() => {
    const x = tensor(random(1, 6), [2, 1, 3]);
    assert.equal(permute(x, [1, 0, 2]).addr, x.addr);
    assert.deepEqual(permute(x, [1, 0, 2]).shape, [1, 2, 3]);
    assert.deepEqual(permute(tensor([], [0, 3]), [1, 0]).shape, [3, 0]);
  }));

Deno.test("reshape() is a view whose gradient has the first shape", () => {
  checkOp({
    inputs: { x: { shape: [2, 6], data: random(1, 12) } },
    run: ({ x }) => reshape(mul(x, x), [3, -1]),
    reference: ({ x }) => x.map((v) => v * v),
  });
  step(() => {
    const x = tensor(random(1, 12), [2, 6]);
    assert.equal(reshape(x, [12]).addr, x.addr);
    assert.throws(() => reshape(x, [5, -1]), { message: "Cannot run reshape: [2,6] to [5,-1], it must keep 12 elements" });
    assert.throws(() => reshape(x, [-1, -1]), RangeError);
  });
});

Deno.test("broadcastTo() repeats, and its gradient sums", () => {
  for (const [from, to] of [[[3], [2, 3]], [[2, 1, 3], [2, 4, 3]], [[1, 2, 1], [3, 2, 2]], [[], [2, 2]], [[2, 2], [1, 2, 2]]]) {
    const missing = to.length - from.length;
    checkOp({
      inputs: { x: { shape: from, data: random(1, size(from)) } },
      run: ({ x }) => broadcastTo(x, to),
      reference: ({ x }) => moved(x, from, to, (index) => index.slice(missing).map((i, d) => from[d] === 1 ? 0 : i)),
    });
  }
  step(() => assert.throws(() => broadcastTo(tensor([1, 2], [2]), [3, 1]), RangeError));
});

Deno.test("slice() takes a range along any axis, and its gradient is 0 elsewhere", () => {
  for (
    const [shape, axis, start, end] of [[[5, 3], 0, 1, 4], [[5, 4], 0, 1, 4], [[2, 6, 3], 1, 2, 5], [[2, 6], -1, 0, 1], [
      [4],
      0,
      1,
      1,
    ]] as const
  ) {
    const d = axis < 0 ? axis + shape.length : axis, to = shape.map((n, k) => k === d ? end - start : n);
    checkOp({
      inputs: { x: { shape: [...shape], data: random(1, size(shape)) } },
      run: ({ x }) => slice(x, axis, start, end),
      reference: ({ x }) => moved(x, shape, to, (index) => index.with(d, index[d] + start)),
    });
  }
  step(() => {
    const x = tensor(random(1, 6), [2, 3]);
    assert.throws(() => slice(x, 1, 2, 4), { message: "Cannot run slice: the range is 2 to 4, it must lie in 0 to 3" });
    assert.throws(() => slice(x, 2, 0, 1), { message: "Cannot run slice: axis is 2, it must be -2 to 1" });
    assert.equal(slice(tensor(random(1, 8), [2, 4]), 0, 1, 2).addr % 16n, 0n);
  });
});

Deno.test("split() and unbind() give every part, gradients add up", () => {
  const x = { shape: [2, 6, 2], data: random(1, 24) };
  checkOp({
    inputs: { x },
    run: ({ x }) => {
      const [a, b, c] = split(x, 1, 3);
      return concat([c, mul(a, b)], 0);
    },
    reference: ({ x }) => {
      const at = (b: number, i: number, c: number) => x[(b * 6 + i) * 2 + c];
      const of = (f: (b: number, i: number, c: number) => number) => indices([2, 2, 2]).map(([b, i, c]) => f(b, i, c));
      return [...of((b, i, c) => at(b, 4 + i, c)), ...of((b, i, c) => at(b, i, c) * at(b, 2 + i, c))];
    },
  });
  checkOp({ inputs: { x }, run: ({ x }) => unbind(x, 2)[1], reference: ({ x }) => x.filter((_, i) => i % 2 === 1) });
  step(() => {
    const t = tensor(random(1, 10), [2, 5]);
    assert.deepEqual(split(t, 1, [2, 3]).map((s) => s.shape), [[2, 2], [2, 3]]);
    assert.throws(() => split(t, 1, 2), RangeError);
    assert.throws(() => split(t, 1, [2, 2]), RangeError);
  });
});

Deno.test("concat() joins along any axis, and each part gets its gradient", () => {
  for (const axis of [0, 1, -1]) {
    const d = axis < 0 ? 2 : axis, shapes = [1, 3, 2].map((n) => [2, 3, 2].with(d, n)), to = [2, 3, 2].with(d, 6);
    checkOp({
      inputs: Object.fromEntries(shapes.map((shape, i) => [`x${i}`, { shape, data: random(i, size(shape)) }])),
      run: (t) => concat(Object.values(t), axis),
      reference: (a) =>
        Float64Array.from(indices(to), (index) => {
          const part = index[d] < 1 ? 0 : index[d] < 4 ? 1 : 2;
          return a[`x${part}`][offset(index.with(d, index[d] - [0, 1, 4][part]), shapes[part])];
        }),
    });
  }
  step(() => {
    assert.throws(() => concat([tensor([1, 2], [2, 1]), tensor([1], [1, 1])], 1), {
      message: "Cannot run concat: a tensor is [1,1], it must be [2,1] but for axis 1",
    });
    assert.deepEqual(concat([tensor([], [0, 2]), tensor([1, 2], [1, 2])], 0).shape, [1, 2]);
  });
});

Deno.test("patchify() orders channels as ((c p + i) p + j) p + k, unpatchify() inverts it", () => {
  const shape = [2, 3, 4, 2, 6], p = 2, to = [2, 24, 2, 1, 3];
  const source = ([b, q, X, Y, Z]: number[]) => [b, q >> 3, X * p + (q >> 2 & 1), Y * p + (q >> 1 & 1), Z * p + (q & 1)];
  const x = { shape, data: random(1, size(shape)) };
  checkOp({ inputs: { x }, run: ({ x }) => patchify(x, p), reference: ({ x }) => moved(x, shape, to, source) });
  step(() => {
    const t = tensor(x.data, shape);
    assert.deepEqual(unpatchify(patchify(t, p), p).read(), x.data);
    assert.equal(patchify(t, 1), t);
    assert.throws(() => patchify(t, 4), RangeError);
    assert.throws(() => unpatchify(t, 2), RangeError);
  });
});

Deno.test("pixelShuffle3d() spreads channels ((c s + i) s + j) s + k over cubes, channels last", () => {
  const shape = [2, 1, 2, 3, 16], s = 2, to = [2, 2, 4, 6, 2];
  checkOp({
    inputs: { x: { shape, data: random(1, size(shape)) } },
    run: ({ x }) => pixelShuffle3d(x, s),
    reference: ({ x }) => moved(x, shape, to, ([b, X, Y, Z, c]) => [b, X >> 1, Y >> 1, Z >> 1, ((c * 2 + X % 2) * 2 + Y % 2) * 2 + Z % 2]),
  });
});

const DEVICE_CASES: [string, number[], (x: Tensor) => Tensor][] = [
  ["permute [0,2,1,3] of heads", [3, 130, 12, 64], (x) => permute(x, [0, 2, 1, 3])],
  ["permute [0,2,1] of channels", [2, 129, 4099], (x) => permute(x, [0, 2, 1])],
  ["permute [0,2,1] of 8 channels", [2, 8, 4096], (x) => permute(x, [0, 2, 1])],
  ["permute of 3 channels", [1, 3, 777], (x) => permute(x, [0, 2, 1])],
  ["permute of all axes", [9, 10, 11, 12, 13], (x) => permute(x, [4, 2, 0, 3, 1])],
  ["pixelShuffle3d", [2, 8, 8, 8, 512], (x) => pixelShuffle3d(x, 2)],
  ["patchify", [1, 8, 16, 16, 16], (x) => patchify(x, 2)],
  ["slice of odd columns", [65, 129], (x) => slice(x, 1, 3, 90)],
  ["slice of rows", [65, 129], (x) => slice(x, 0, 7, 64)],
  ["concat", [33, 48], (x) => concat([x, slice(x, 1, 0, 5), x], 1)],
  ["broadcastTo", [5, 1, 40], (x) => broadcastTo(x, [5, 300, 40])],
  ["one element", [1, 1], (x) => transpose(x)],
];
for (const [name, shape, run] of DEVICE_CASES) {
  checkDevices(name, import.meta.url, { inputs: { x: { shape, data: random(1, size(shape)) } }, run: ({ x }) => run(x) });
}
