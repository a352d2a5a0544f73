import assert from "node:assert/strict";
import { loadParameters } from "../../lib/io/pretrained.ts";
import { slatGaussianDecoderSpec } from "../../lib/models/slat_decoder_gaussian.ts";
import { freeLeaves } from "../../lib/nn/parameters.ts";
import { batchCoords, makeVoxels } from "../../lib/sparse/voxels.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { sampleLatents, splatsOfLatents } from "../../lib/train/slat_sample.ts";
import { assertClose, random } from "../check.ts";
import { tinySlatStage } from "../tiny_pipeline.ts";

const FEW = Int32Array.of(0, 1, 2, 3, 3, 3), MORE = Int32Array.of(7, 7, 7, 0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 1, 1);

Deno.test("sampleLatents() gives each object what it gets alone: its own noise, voxels and picture", () => {
  const folder = Deno.makeTempDirSync(), { flow, condition, sampler } = tinySlatStage(folder);
  const model = { condition, flow: { ...flow, dtype: "f32" as const } };
  const objects = [FEW, MORE].map((coords, k) => ({ coords, seed: 7 + k, picture: Float32Array.from(random(k, 3 * 16 * 16), Math.abs) }));
  try {
    const together = sampleLatents(model, objects, sampler);
    assert.deepEqual(together.map((z) => z.length), [4, 10]);
    objects.forEach((object, k) => {
      assertClose(`object ${k}`, together[k], sampleLatents(model, [object], sampler)[0], { rtol: 1e-4, atol: 1e-4 });
    });
    assert.notDeepEqual(sampleLatents(model, [{ ...objects[0], seed: 9 }], sampler)[0], together[0]);
  } finally {
    freeLeaves([flow.params, condition.trained]);
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("splatsOfLatents() puts each voxel's Gaussians around it", () => {
  const folder = Deno.makeTempDirSync(), stage = tinySlatStage(folder);
  const representation_config = JSON.parse(Deno.readTextFileSync(`${folder}/slat_decoder.json`)).args.representation_config;
  const args = { resolution: 8, model_channels: 16, latent_channels: 2, num_blocks: 1, num_heads: 2, representation_config };
  const decoder = {
    args,
    dtype: "f32" as const,
    params: loadParameters(slatGaussianDecoderSpec(args), `${folder}/slat_decoder.safetensors`),
  };
  const { positions, starts } = step(() => {
    const splats = splatsOfLatents(decoder, { features: tensor(random(3, 14), [7, 2]), voxels: makeVoxels(batchCoords([FEW, MORE])) });
    return { positions: splats.positions.read(), starts: splats.starts };
  });
  assert.deepEqual(starts, [0, 8, 28]);
  [...FEW, ...MORE].forEach((cell, i) => {
    for (let g = 0; g < 4; g++) {
      const at = positions[(Math.floor(i / 3) * 4 + g) * 3 + i % 3];
      assert.ok(Math.abs(at - ((cell + 0.5) / 8 - 0.5)) <= 0.75 / 8 + 1e-6);
    }
  });
  freeLeaves([decoder.params, stage.flow.params, stage.condition.trained]);
  Deno.removeSync(folder, { recursive: true });
});
