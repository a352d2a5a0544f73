import assert from "node:assert/strict";
import { coarser, halves, sparseDownsample, sparseSubdivide, sparseUpsample, stridedVoxels } from "../../lib/sparse/resample.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkOp, random } from "../check.ts";
import { scatter, shuffle } from "../voxels.ts";

const SETS: Record<string, Int32Array<ArrayBuffer>> = {
  "no voxels": new Int32Array(0),
  "one voxel": Int32Array.of(0, 5, 0, 3),
  "a ragged batch": scatter(1, [9, 0, 14], 7),
  "a batch in any order": shuffle(4, scatter(2, [9, 5, 6], 6)),
};

for (const [name, coords] of Object.entries(SETS)) {
  Deno.test(`coarser() of ${name} has the cells that hold a voxel, in order, and is built once`, () => {
    step(() => {
      const fine = makeVoxels(coords), { voxels, family } = coarser(fine, 2);
      const cells = new Set(
        Array.from({ length: fine.N }, (_, n) => `${[...coords.subarray(4 * n, 4 * n + 4)].map((c, a) => a ? c >> 1 : c)}`),
      );
      const got = Array.from({ length: voxels.N }, (_, m) => `${voxels.coords.read().subarray(4 * m, 4 * m + 4)}`);
      assert.deepEqual(new Set(got), cells);
      assert.equal(voxels.N, cells.size);
      assert.deepEqual([voxels.B, voxels.side], [fine.B, Math.ceil(fine.side / 2)]);
      assert.equal(family.parent.size, fine.N);
      assert.equal(coarser(fine, 2).voxels, voxels);
      assert.notEqual(coarser(fine, 3).voxels, voxels);
    });
  });

  Deno.test(`sparseDownsample() of ${name} divides by n + 1, and sparseUpsample() brings the voxels back`, () => {
    const N = coords.length / 4, cell = (n: number): string => `${[...coords.subarray(4 * n, 4 * n + 4)].map((c, a) => a ? c >> 1 : c)}`;
    const cells = Array.from({ length: N }, (_, n) => cell(n));
    for (const [pooling, more] of [["meanWithZero", 1], ["mean", 0]] as const) {
      checkOp({
        inputs: { x: { shape: [N, 2], data: random(1, 2 * N) } },
        run: ({ x }) => {
          const voxels = makeVoxels(coords), y = sparseUpsample(sparseDownsample({ features: x, voxels }, 2, { pooling }), voxels, 2);
          assert.equal(y.voxels, voxels);
          return y.features;
        },
        reference: ({ x }) =>
          Array.from({ length: 2 * N }, (_, i) => {
            const mine = cells.flatMap((c, n) => c === cells[Math.floor(i / 2)] ? [n] : []);
            return mine.reduce((sum, n) => sum + x[2 * n + i % 2], 0) / (mine.length + more);
          }),
      });
    }
  });

  Deno.test(`sparseSubdivide() of ${name} gives each half its voxel's features`, () => {
    step(() => {
      const voxels = makeVoxels(coords), N = voxels.N, y = sparseSubdivide({ features: tensor(random(1, 3 * N), [N, 3]), voxels });
      assert.deepEqual([y.voxels.N, y.voxels.B, y.voxels.side], [8 * N, voxels.B, 2 * voxels.side]);
      assert.deepEqual(y.voxels.starts, voxels.starts.map((s) => 8 * s));
      assert.deepEqual([...y.features.read()], Array.from({ length: 24 * N }, (_, i) => random(1, 3 * N)[Math.floor(i / 24) * 3 + i % 3]));
      assert.equal(halves(voxels), y.voxels);
      const back = y.voxels.coords.read().map((c, i) => i % 4 ? Math.floor(c / 2) : c);
      assert.deepEqual(
        [...back],
        Array.from({ length: 8 * N }, (_, r) => [...coords.subarray(4 * Math.floor(r / 8)).subarray(0, 4)]).flat(),
      );
    });
  });
}

Deno.test("two levels down and up again keep their own maps", () => {
  step(() => {
    const voxels = makeVoxels(scatter(1, [30], 16)), x = { features: tensor(random(1, 30), [30, 1]), voxels };
    const once = sparseDownsample(x, 2), twice = sparseDownsample(once, 2);
    assert.equal(twice.voxels.side, Math.ceil(Math.ceil(voxels.side / 2) / 2));
    assert.equal(sparseUpsample(sparseUpsample(twice, once.voxels, 2), voxels, 2).voxels, voxels);
  });
});

Deno.test("stridedVoxels() of stride 2 with 3³ taps reaches beyond the cells of the voxels", () => {
  step(() => {
    const { voxels, parent } = stridedVoxels(makeVoxels(Int32Array.of(0, 1, 1, 1)), { kernel: 3, stride: 2, padding: 1 });
    assert.equal(parent, null);
    assert.deepEqual([voxels.N, voxels.side], [1, 1]); // a grid of 2 cells becomes one of 1
  });
});

Deno.test("resampling refuses the map of another tensor and grids that are too fine", () => {
  step(() => {
    const coords = SETS["a ragged batch"], fine = makeVoxels(coords), other = makeVoxels(coords);
    const x = sparseDownsample({ features: zeros([fine.N, 1]), voxels: fine }, 2);
    assert.throws(() => sparseUpsample(x, other, 2), {
      message: `Cannot run sparseUpsample: x lies on ${x.voxels.N} other voxels, it must lie on those that sparseDownsample by 2 gives`,
    });
    assert.throws(() => sparseDownsample({ features: zeros([3, 1]), voxels: fine }, 2), {
      message: "Cannot run sparseDownsample: features is [3,1], it must be [23,1]",
    });
    assert.throws(() => halves(makeVoxels(Int32Array.of(0, 600, 0, 0))), {
      message: "Cannot subdivide voxels: they reach 601 cells, it must be at most 512",
    });
  });
});
