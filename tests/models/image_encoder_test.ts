import assert from "node:assert/strict";
import { type DinoArgs, dinoCondition, dinoNorm, dinoSpec, dinoTokens } from "../../lib/models/image_encoder.ts";
import { initialize, leaves, mapLeaves } from "../../lib/nn/parameters.ts";
import { cast } from "../../lib/ops/cast.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";

const DINO: DinoArgs = { img_size: 8, patch_size: 4, embed_dim: 8, depth: 2, num_heads: 2, mlp_ratio: 2, num_register_tokens: 3 };
const image = tensor(random(90, 2 * 3 * 64).map((v) => (v + 1) / 2), [2, 3, 8, 8], { requiresGrad: true });

function free(params: unknown): void {
  for (const [, t] of leaves<Tensor>(params)) t.free();
}

/** The mean and the variance of each row of C values. */
function rowMoments(values: Float32Array, C: number): { means: number[]; variances: number[] } {
  const rows = Array.from({ length: values.length / C }, (_, i) => values.subarray(i * C, (i + 1) * C));
  const means = rows.map((row) => row.reduce((a, v) => a + v, 0) / C);
  return { means, variances: rows.map((row, i) => row.reduce((a, v) => a + (v - means[i]) ** 2, 0) / C) };
}

Deno.test("dinoTokens() gives class, register and patch tokens, at other sizes too", () => {
  const spec = dinoSpec(DINO), params = initialize(spec, new Generator(1)), model = { args: DINO, params };
  randomize(params, spec);
  step(() => {
    for (const [size, tokens] of [[8, 1 + 3 + 4], [12, 1 + 3 + 9], [4, 1 + 3 + 1]]) {
      const y = noGrad(() => dinoTokens(model, tensor(random(5, 2 * 3 * size * size), [2, 3, size, size])));
      assert.deepEqual(y.shape, [2, tokens, 8]);
      assert.ok(y.read().every(Number.isFinite));
      assert.deepEqual(dinoNorm(model, y).shape, y.shape);
    }
    const { means, variances } = rowMoments(noGrad(() => dinoCondition(model, image)).read(), 8);
    assertClose("means", means, means.map(() => 0), { rtol: 0, atol: 1e-5 });
    assertClose("variances", variances, variances.map(() => 1), { rtol: 0, atol: 1e-3 });
    assert.throws(() => dinoTokens(model, zeros([1, 3, 8, 10])), /dinoTokens: image is \[1,3,8,10\], its sides must be multiples of 4/);
    assert.throws(() => dinoTokens(model, zeros([1, 1, 8, 8])), /dinoTokens: image is \[1,1,8,8\], it must be \[1,3,8,8\]/);
  });
  free(params);
});

Deno.test({
  name: "dinoCondition() with blocks in f16, on a GPU, gives f32 tokens within f16's rounding of those in f32",
  ignore: device().name !== "cuda", // the CPU computes in f32
  fn() {
    const args = { ...DINO, embed_dim: 64 }, spec = dinoSpec(args), params = initialize(spec, new Generator(1));
    randomize(params, spec);
    const values = new Map(leaves<Tensor>(params));
    const [exact, rounded] = (["f32", "f16"] as const).map((dtype) =>
      step(() => {
        const model = { args, params: mapLeaves(dinoSpec(args, dtype), (p, path) => cast(values.get(path)!, p.dtype)) };
        const tokens = noGrad(() => dinoCondition(model, image));
        assert.equal(tokens.dtype, "f32");
        return tokens.read();
      })
    );
    assertClose("tokens", rounded, exact, { rtol: 0, atol: 1e-2 });
    assert.notDeepEqual(rounded, exact);
    free(params);
  },
});

Deno.test("dinoTokens() has gradients that are their differences, and keeps nothing where none are asked for", () => {
  const spec = dinoSpec(DINO), params = initialize(spec, new Generator(1)), model = { args: DINO, params };
  randomize(params, spec);
  step(() =>
    noGrad(() => {
      const before = device().memory.use().used;
      dinoCondition(model, image).free();
      if (device().name === "cpu") assert.equal(device().memory.use().used, before);
    })
  );
  const { mask_token: _, ...rest } = trained(params, spec); // the mask stands in for patches that training hides: unused here
  const { "norm.weight": __, "norm.bias": ___, ...wrt } = rest;
  checkGradients({ ...wrt, image }, () => dinoTokens(model, image));
  free(params);
});
