import assert from "node:assert/strict";
import { patchCondition, type PatchEncoderArgs, patchEncoderSpec, volumeHead, volumeHeadSpec } from "../../lib/models/patch_encoder.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";

const PATCH: PatchEncoderArgs = { image_size: 8, patch_size: 4, channels: 8, num_blocks: 2, num_heads: 2 };
const WHOLE: PatchEncoderArgs = { ...PATCH, num_blocks: 1, stem_channels: [4, 6], grid_size: 2 };
const image = tensor(random(90, 2 * 3 * 64).map((v) => (v + 1) / 2), [2, 3, 8, 8], { requiresGrad: true });

function free(params: unknown): void {
  for (const [, t] of leaves<Tensor>(params)) t.free();
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

Deno.test("patchCondition() reads each patch row by row, its channels last", () => {
  const args = { ...PATCH, num_blocks: 0 }, spec = patchEncoderSpec(args), params = initialize(spec, new Generator(1));
  const one = (channel: number, y: number, x: number): number[] => {
    const values = new Float32Array(3 * 64).fill(0.5);
    values[channel * 64 + y * 8 + x] = 1;
    return step(() => noGrad(() => [...patchCondition({ args, params }, tensor(values, [1, 3, 8, 8])).read()]));
  };
  // the projection takes the value 34 = (row 2, column 3, channel 1) of each patch to channel 0
  const weight = new Float32Array(8 * 48);
  weight[34] = 1;
  params.proj.weight.write(weight);
  params.pos_embed.write(new Float32Array(4 * 8));
  const none = one(0, 0, 0);
  assert.deepEqual(one(0, 2, 3), none);
  const seen = one(1, 4 + 2, 3).map((v, i) => v !== none[i] ? Math.floor(i / 8) : -1).filter((patch) => patch >= 0);
  assert.deepEqual([...new Set(seen)], [2], "patches run along the rows of the image");
  free(params);
});

Deno.test("patchCondition() with a stem and a grid gives their tokens too, and its gradient is its differences", () => {
  const spec = patchEncoderSpec(WHOLE), params = initialize(spec, new Generator(1)), model = { args: WHOLE, params };
  randomize(params, spec);
  step(() => assert.deepEqual(patchCondition(model, image).shape, [2, 4 + 8, 8]));
  checkGradients({ ...trained(params, spec), image }, () => patchCondition(model, image));
  assert.throws(
    () => patchEncoderSpec({ ...WHOLE, patch_size: 2 }),
    /patch_size is 2, it must be a multiple of 4 for 2 stem_channels/,
  );
  free(params);
});

Deno.test("patchEncoderSpec() starts every place of the picture and of the grid as another point", () => {
  const spec = patchEncoderSpec({ ...WHOLE, image_size: 32, channels: 24, grid_size: 3 });
  for (const { shape, init } of [spec.pos_embed, spec.grid_embed!]) {
    const values = "values" in init ? init.values() : new Float32Array(),
      rows = Array.from({ length: shape[1] }, (_, i) => values.slice(i * 24, i * 24 + 24));
    assert.equal(values.length, shape[1] * 24);
    rows.forEach((a, i) => rows.slice(0, i).forEach((b) => assert.ok(Math.hypot(...a.map((v, k) => v - b[k])) > 0.5)));
  }
});

Deno.test("volumeHead() takes each cube of the volume from its own grid token", () => {
  const args = { ...WHOLE, channels: 3 }, R = 4, params = initialize(volumeHeadSpec(args, 2, R), new Generator(1));
  const weight = new Float32Array(16 * 3), tokens = new Float32Array((5 + 8) * 3);
  weight[(8 + 1) * 3] = 1; // channel 1, the cell (0, 0, 1) of a cube
  params.weight.write(weight);
  for (let cube = 0; cube < 8; cube++) tokens[(5 + cube) * 3] = cube + 1;
  step(() => {
    const volume = noGrad(() => volumeHead(params, args, tensor(tokens, [1, 13, 3]), R)), values = volume.read();
    assert.deepEqual(volume.shape, [1, 2, 4, 4, 4]);
    const found = [...values.keys()].filter((i) => values[i] !== 0).map((i) => [i - 64, values[i]]);
    assert.deepEqual(found, Array.from({ length: 8 }, (_, q) => [(2 * (q >> 2) * 4 + 2 * (q >> 1 & 1)) * 4 + 2 * (q & 1) + 1, q + 1]));
  });
  assert.throws(() => volumeHeadSpec(args, 2, 5), /grid_size is 2, it must be above 0 and divide the volume's side, 5/);
  assert.throws(() => volumeHeadSpec(PATCH, 2, 4), /grid_size is 0/);
  free(params);
});
