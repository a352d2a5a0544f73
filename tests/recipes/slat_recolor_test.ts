import assert from "node:assert/strict";
import { openDataset } from "../../lib/data/dataset.ts";
import { readFeatures, type VoxelRows } from "../../lib/data/latents.ts";
import { assetPaths } from "../../lib/data/layout.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { createRandom } from "../../lib/data/random.ts";
import { drawRecolor, recolorFeatures } from "../../lib/data/recolor.ts";
import { savePretrained } from "../../lib/io/pretrained.ts";
import { slatEncode, type SlatEncoder, slatEncoderSpec } from "../../lib/models/slat_encoder.ts";
import { freeLeaves, initialize, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { batchCoords, makeVoxels } from "../../lib/sparse/voxels.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { openRecolored } from "../../recipes/slat_recolor.ts";
import { assertClose } from "../check.ts";

const FOLDER = Deno.makeTempDirSync({ prefix: "espalier_recolor_" }), DATA = `${FOLDER}/data`, PATH = `${FOLDER}/encoder`;
const ARGS = { resolution: 16, in_channels: 9, model_channels: 16, latent_channels: 4, num_blocks: 1, num_heads: 2, window_size: 4 };
const NORMAL = { mean: [1, 2, 3, 4], std: [1, 2, 4, 8] };

Deno.test("openRecolored() encodes what is drawn in other colours, changes its picture, and leaves the others", async () => {
  const { log, error } = console;
  console.log = console.error = () => {};
  try {
    const features = ["appearance"] as const;
    await prepareDataset({ output: DATA, objects: 3, views: 1, size: 16, resolution: 16, features, workers: 0, device: "cpu" });
  } finally {
    Object.assign(console, { log, error });
  }
  const spec = slatEncoderSpec(ARGS);
  (spec.out_layer.weight as ParameterSpec).init = { normal: 0.5 };
  const encoder: SlatEncoder = { args: ARGS, dtype: "f32", params: initialize(spec, new Generator(3)) };
  savePretrained(PATH, { name: "SLatEncoder", args: { ...ARGS } }, encoder.params);
  const { items } = openDataset(DATA, { require: ["feature_appearance"] });
  const open = (path: string | null, C = 4, R = 16) => openRecolored(items, path, { C, R, normalization: NORMAL });
  assert.throws(() => open(null), /recolor\.encoder is null, it must be the latents' encoder/);
  const recolored = open(PATH),
    indices = [2, 0, 1, 0],
    stored = (k: number): VoxelRows => ({
      coords: Int32Array.of(k, k, k),
      feats: new Float32Array(4),
    });
  const drawn = {
    images: indices.map(() => Uint8Array.of(10, 20, 30)),
    variations: [],
    gains: Array(12).fill(1),
    kept: new Float32Array(4),
  };
  const options = { part: 0.6, gain: 0.5 }, random = createRandom(7), colors = indices.map(() => drawRecolor(options, random));
  const rows = recolored.draw(indices, stored, drawn, { ...options, random: createRandom(7) });
  assert.ok(new Set(colors).size > 1 && rows.some(({ coords }) => coords.length === 3), "some are changed, some are not");
  indices.forEach((k, b) => {
    const { channels, gains } = colors[b];
    assert.deepEqual([...drawn.images[b]], channels.map((c) => 10 + 10 * c));
    assert.deepEqual(drawn.gains.slice(3 * b, 3 * b + 3), gains);
    if (rows[b].coords.length === 3) return assert.deepEqual(rows[b], stored(k));
    const { coords, feats } = readFeatures(assetPaths(items[k].root, items[k].sha256).features("appearance"));
    const want = step(() =>
      noGrad(() => {
        const voxels = makeVoxels(batchCoords([coords]));
        return slatEncode(encoder, { features: tensor(recolorFeatures(feats, 9, colors[b]), [voxels.N, 9]), voxels }).mean.read();
      })
    );
    assert.deepEqual(rows[b].coords, coords);
    assertClose(`latents ${b}`, rows[b].feats, want.map((v, i) => (v - NORMAL.mean[i % 4]) / NORMAL.std[i % 4]), {
      rtol: 1e-4,
      atol: 1e-4,
    });
  });
  recolored.free();
  const before = device().memory.use().used, again = open(PATH); // what products work in was taken by now
  again.draw(indices, stored, drawn, { ...options, random: createRandom(7) });
  again.free();
  assert.equal(device().memory.use().used, before);
  assert.throws(() => open(PATH, 8), /its latent_channels is 4, it must be 8/);
  assert.throws(() => open(PATH, 4, 32), /its resolution is 16, it must be 32/);
  freeLeaves(encoder.params);
});
