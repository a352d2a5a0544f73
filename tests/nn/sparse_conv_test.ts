import assert from "node:assert/strict";
import { initialize } from "../../lib/nn/parameters.ts";
import { applySparseConv, pointwiseConv, sparseConvSpec } from "../../lib/nn/sparse_conv.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkOp, random } from "../check.ts";

Deno.test("sparseConvSpec() is uniform within 1 / sqrt(in k³), or zero", () => {
  const { conv } = sparseConvSpec(4, 6, { dtype: "bf16" });
  assert.deepEqual(conv.weight, { shape: [6, 3, 3, 3, 4], dtype: "bf16", init: { uniform: 1 / Math.sqrt(108) } });
  assert.deepEqual(conv.bias, { shape: [6], dtype: "bf16", init: { uniform: 1 / Math.sqrt(108) } });
  assert.deepEqual(sparseConvSpec(4, 6, { dtype: "f32", kernel: 1, zero: true }).conv.weight, {
    shape: [6, 1, 1, 1, 4],
    dtype: "f32",
    init: { fill: 0 },
  });
});

Deno.test("applySparseConv() of one voxel is the middle tap", () => {
  step(() => {
    const p = initialize(sparseConvSpec(2, 3, { dtype: "f32" }), new Generator(1)), x = tensor([2, -1], [1, 2]);
    const w = p.conv.weight.read(), b = p.conv.bias.read();
    const y = applySparseConv(p, { features: x, voxels: makeVoxels(Int32Array.of(0, 1, 2, 3)) }).read();
    y.forEach((v, o) => assert.ok(Math.abs(v - (2 * w[o * 54 + 26] - w[o * 54 + 27] + b[o])) < 1e-6));
    p.conv.weight.free(), p.conv.bias.free();
  });
});

Deno.test("pointwiseConv() reads its weight's memory as [in, out] like spconv, or plainly as [out, in]", () => {
  step(() => {
    const conv = { weight: tensor([1, 2, 3, 4, 5, 6], [2, 1, 1, 1, 3]), bias: tensor([0, 0], [2]) }, x = tensor([1, 0, 0], [1, 3]);
    assert.deepEqual([...pointwiseConv({ conv }, x, "spconv").read()], [1, 2]);
    assert.deepEqual([...pointwiseConv({ conv }, x, "plain").read()], [1, 4]);
  });
});

for (const reading of ["spconv", "plain"] as const) {
  Deno.test(`pointwiseConv() read as ${reading}, and its gradients match the definition`, () => {
    const N = 4, I = 3, O = 2;
    checkOp({
      inputs: {
        x: { shape: [N, I], data: random(1, N * I) },
        weight: { shape: [O, 1, 1, 1, I], data: random(2, O * I) },
        bias: { shape: [O], data: random(3, O) },
      },
      run: ({ x, weight, bias }) => pointwiseConv({ conv: { weight, bias } }, x, reading),
      reference: ({ x, weight, bias }) =>
        Array.from({ length: N * O }, (_, at) => {
          const n = Math.floor(at / O), o = at % O;
          return Array.from({ length: I }, (_, i) => weight[reading === "plain" ? o * I + i : i * O + o] * x[n * I + i]).reduce(
            (a, v) => a + v,
            bias[o],
          );
        }),
    });
  });
}
