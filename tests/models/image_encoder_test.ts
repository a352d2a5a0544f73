import assert from "node:assert/strict";
import {
  type DinoArgs,
  dinoCondition,
  dinoNorm,
  dinoSpec,
  dinoTokens,
  patchCondition,
  type PatchEncoderArgs,
  patchEncoderSpec,
} from "../../lib/models/image_encoder.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";

const PATCH: PatchEncoderArgs = { image_size: 8, patch_size: 4, channels: 8, num_blocks: 2, num_heads: 2 };
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

Deno.test("patchCondition() gives a token a patch, and its gradient is its differences", () => {
  const spec = patchEncoderSpec(PATCH), params = initialize(spec, new Generator(1)), model = { args: PATCH, params };
  randomize(params, spec);
  step(() => assert.deepEqual(patchCondition(model, image).shape, [2, 4, 8]));
  checkGradients({ ...trained(params, spec), image }, () => patchCondition(model, image));
  assert.throws(
    () => step(() => void patchCondition(model, zeros([1, 3, 8, 12]))),
    /patchCondition: image is \[1,3,8,12\], it must be \[1,3,8,8\]/,
  );
  assert.throws(() => patchEncoderSpec({ ...PATCH, image_size: 9 }), /image_size is 9, it must be a multiple of patch_size, 4/);
  assert.throws(() => patchEncoderSpec({ ...PATCH, num_heads: 3 }), /its heads are 3, they must divide its 8 channels/);
  free(params);
});

Deno.test("patchCondition() reads each patch in the order of a convolution's weight", () => {
  const args = { ...PATCH, num_blocks: 0 }, spec = patchEncoderSpec(args), params = initialize(spec, new Generator(1));
  const one = (channel: number, y: number, x: number): number[] => {
    const values = new Float32Array(3 * 64).fill(0.5);
    values[channel * 64 + y * 8 + x] = 1;
    return step(() => noGrad(() => [...patchCondition({ args, params }, tensor(values, [1, 3, 8, 8])).read()]));
  };
  // the projection takes the one pixel 27 = (channel 1, row 2, column 3) of each patch to channel 0
  const weight = new Float32Array(8 * 48);
  weight[27] = 1;
  params.proj.weight.write(weight);
  params.pos_embed.write(new Float32Array(4 * 8));
  const none = one(0, 0, 0);
  assert.deepEqual(one(0, 2, 3), none);
  const seen = one(1, 4 + 2, 3).map((v, i) => v !== none[i] ? Math.floor(i / 8) : -1).filter((patch) => patch >= 0);
  assert.deepEqual([...new Set(seen)], [2], "patches run along the rows of the image");
  free(params);
});

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
