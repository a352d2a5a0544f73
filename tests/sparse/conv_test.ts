import assert from "node:assert/strict";
import { inverseConv, sparseConv, stridedConv } from "../../lib/sparse/conv.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { conv3d } from "../../lib/ops/conv3d.ts";
import { permute } from "../../lib/ops/movement.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { scatter, shuffle } from "../voxels.ts";

const SIDE = 6, CIN = 3, COUT = 2;

/** Features of voxels in a dense volume [B, SIDE, SIDE, SIDE, C], and where each voxel's stand. */
function dense(coords: Int32Array, x: Float32Array, C: number): { volume: Float32Array<ArrayBuffer>; at: number[] } {
  const at = Array.from(
    { length: coords.length / 4 },
    (_, n) => coords.subarray(4 * n, 4 * n + 4).reduce((i, c, a) => a ? i * SIDE + c : c, 0) * C,
  );
  const volume = new Float32Array(3 * SIDE ** 3 * C);
  at.forEach((i, n) => volume.set(x.subarray(n * C, (n + 1) * C), i));
  return { volume, at };
}

for (
  const [name, coords] of [["in order", scatter(1, [20, 0, 31], SIDE)], [
    "in any order",
    shuffle(3, scatter(2, [12, 30, 7], SIDE)),
  ]] as const
) {
  Deno.test(`sparseConv() of voxels ${name} is the dense convolution at the voxels, and so are its gradients`, () => {
    const N = coords.length / 4,
      values = random(1, N * CIN),
      weights = random(2, COUT * 27 * CIN),
      biases = random(3, COUT),
      dy = random(4, N * COUT);
    const input = dense(coords, values, CIN), output = dense(coords, dy, COUT);
    step(() => {
      const x = tensor(input.volume, [3, SIDE, SIDE, SIDE, CIN], { requiresGrad: true }),
        b = tensor(biases, [COUT], { requiresGrad: true });
      const w = tensor(weights, [COUT, 3, 3, 3, CIN], { requiresGrad: true }),
        y = conv3d(x, permute(w, [0, 4, 1, 2, 3]), b, { padding: 1 });
      backward(y, tensor(output.volume, y.shape));
      const features = tensor(values, [N, CIN], { requiresGrad: true }), bias = tensor(biases, [COUT], { requiresGrad: true });
      const weight = tensor(weights, w.shape, { requiresGrad: true }), voxels = makeVoxels(coords);
      const got = tidy(() => sparseConv({ features, voxels }, weight, bias));
      const pick = (all: Float32Array, at: number[], C: number): number[] => at.flatMap((i) => [...all.subarray(i, i + C)]);
      assertClose("y", got.features.read(), pick(y.read(), output.at, COUT), { rtol: 1e-5, atol: 1e-5 });
      backward(got.features, tensor(dy, [N, COUT]));
      assertClose("dx", features.grad!.read(), pick(x.grad!.read(), input.at, CIN), { rtol: 1e-5, atol: 1e-5 });
      assertClose("dw", weight.grad!.read(), w.grad!.read(), { rtol: 1e-5, atol: 1e-5 });
      assertClose("db", bias.grad!.read(), b.grad!.read(), { rtol: 1e-5, atol: 1e-5 });
      assert.equal(Object.keys(voxels.maps).length, 1);
      sparseConv({ features, voxels }, weight, null);
      assert.equal(Object.keys(voxels.maps).length, 1);
    });
  });
}

for (
  const [name, coords] of [
    ["no voxels", new Int32Array(0)],
    ["one voxel", Int32Array.of(0, 4, 5, 0)],
    ["a ragged batch", scatter(1, [20, 0, 31], SIDE)],
    ["a batch in any order", shuffle(3, scatter(2, [12, 30, 7], SIDE))],
  ] as const
) {
  for (const [kernel, stride, padding] of [[2, 2, 0], [3, 2, 1], [3, 3, 0]]) {
    Deno.test(`stridedConv() of ${name} with stride ${stride}, ${kernel}³ taps, and its inverse bring back the voxels`, () => {
      step(() => {
        const N = coords.length / 4, voxels = makeVoxels(coords), features = tensor(random(1, N * CIN), [N, CIN], { requiresGrad: true });
        const weight = tensor(random(2, COUT * kernel ** 3 * CIN), [COUT, kernel, kernel, kernel, CIN], { requiresGrad: true });
        const back = tensor(random(3, CIN * kernel ** 3 * COUT), [CIN, kernel, kernel, kernel, COUT], { requiresGrad: true });
        const down = stridedConv({ features, voxels }, weight, null, { stride, padding }),
          up = inverseConv(down, voxels, back, null, { stride, padding });
        assert.equal(up.voxels, voxels);
        assert.deepEqual([...up.voxels.coords.read()], [...coords]);
        assert.deepEqual(up.features.shape, [N, CIN]);
        assert.ok(N === 0 || down.features.read().some((v) => v !== 0) && up.features.read().some((v) => v !== 0));
        backward(up.features, tensor(random(4, N * CIN), [N, CIN]));
        assert.ok(features.grad && weight.grad && back.grad);
      });
    });
  }
}

Deno.test("inverseConv() is the transpose of stridedConv(): <A x, y> = <x, Aᵀ y>", () => {
  step(() => {
    const coords = scatter(1, [20, 0, 31], SIDE), N = coords.length / 4, voxels = makeVoxels(coords), options = { stride: 2, padding: 1 };
    const w = tensor(random(2, 27), [1, 3, 3, 3, 1]),
      x = tensor(random(1, N), [N, 1]),
      down = stridedConv({ features: x, voxels }, w, null, options);
    const y = tensor(random(5, down.voxels.N), [down.voxels.N, 1]),
      up = inverseConv({ features: y, voxels: down.voxels }, voxels, w, null, options);
    const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, v, i) => sum + v * b[i], 0);
    assertClose("the products", [dot(down.features.read(), y.read())], [dot(x.read(), up.features.read())], { rtol: 1e-4 });
  });
});

Deno.test("the convolutions refuse even kernels in place, other channels and the map of another tensor", () => {
  step(() => {
    const coords = scatter(1, [9], SIDE), voxels = makeVoxels(coords), x = { features: zeros([9, 2]), voxels };
    assert.throws(() => sparseConv(x, zeros([1, 2, 2, 2, 2])), {
      message: "Cannot run sparseConv: weight is [1,2,2,2,2], its kernel must be odd",
    });
    assert.throws(() => sparseConv(x, zeros([1, 3, 3, 3, 4])), { message: "Cannot run spconv: x is [9,2], it must be [9,4]" });
    assert.throws(() => sparseConv({ features: zeros([8, 2]), voxels }, zeros([1, 3, 3, 3, 2])), {
      message: "Cannot run spconv: x is [8,2], it must be [9,2]",
    });
    const down = stridedConv(x, zeros([1, 2, 2, 2, 2]), null, { stride: 2 });
    assert.throws(
      () => inverseConv(down, makeVoxels(coords), zeros([1, 2, 2, 2, 1]), null, { stride: 2 }),
      /x lies on \d+ other voxels, it must lie on those that stridedConv gives/,
    );
  });
});
