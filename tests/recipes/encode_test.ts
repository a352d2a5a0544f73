import assert from "node:assert/strict";
import { openDataset } from "../../lib/data/dataset.ts";
import { readLatents, readSsLatent, readStatistics, writeFeatures } from "../../lib/data/latents.ts";
import { assetPaths } from "../../lib/data/layout.ts";
import { isTrue } from "../../lib/data/metadata.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { savePretrained } from "../../lib/io/pretrained.ts";
import { slatEncoderSpec } from "../../lib/models/slat_encoder.ts";
import { ssEncoderSpec } from "../../lib/models/ss_vae.ts";
import { freeLeaves, initialize, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { encode, type EncodeOptions } from "../../recipes/encode.ts";
import { withFolder } from "../data/assets.ts";

const SS = { in_channels: 1, latent_channels: 2, num_res_blocks: 1, channels: [4, 8], num_res_blocks_middle: 0 };
const SLAT = { resolution: 16, in_channels: 9, model_channels: 16, latent_channels: 3, num_blocks: 1, num_heads: 2, window_size: 4 };

/** Writes the two encoders with random weights, those of `seed`. */
function writeEncoders(root: string, seed: number): void {
  const slat = slatEncoderSpec(SLAT), ss = ssEncoderSpec(SS);
  (slat.out_layer.weight as ParameterSpec).init = { normal: 1 };
  for (
    const [folder, name, args, spec] of [["ss_vae", "SparseStructureEncoder", SS, ss], ["slat_vae", "SLatEncoder", SLAT, slat]] as const
  ) {
    const params = initialize(spec, new Generator(seed));
    Deno.mkdirSync(`${root}/runs/${folder}/models`, { recursive: true });
    savePretrained(`${root}/runs/${folder}/models/encoder`, { name, args: { ...args } }, params);
    freeLeaves(params);
  }
}

Deno.test("encode() writes latents and statistics, goes on where it was, and refuses to mix encoders", async () => {
  const { log, error } = console;
  try {
    console.log = console.error = () => {};
    await withFolder({}, async (root) => {
      const data = `${root}/data`, models = (run: string): string => `${root}/runs/${run}/models/encoder`;
      await prepareDataset({
        ...{ output: data, objects: 3, views: 0, resolution: 16, features: ["appearance"], workers: 0, device: "cpu" },
      });
      writeEncoders(root, 1);
      const options: EncodeOptions = { data, ssEncoder: models("ss_vae"), slatEncoder: models("slat_vae"), resolution: 16 };
      const { ss, slat } = await encode(options);
      assert.deepEqual([ss?.name, ss?.objects, slat?.name, slat?.objects], ["ss_vae", 3, "appearance_slat_vae", 3]);
      assert.deepEqual(readStatistics(data, "appearance_slat_vae", 3), slat!.statistics);
      const { items } = openDataset(data, { require: ["voxelized", "ss_latent_ss_vae", "latent_appearance_slat_vae"] });
      assert.equal(items.length, 3);
      for (const item of items) {
        const { latents, ssLatents } = assetPaths(data, item.sha256), { coords, feats } = readLatents(latents(slat!.name));
        assert.deepEqual([coords.length / 3, feats.length / 3], [item.numVoxels, item.numVoxels]);
        assert.ok(feats.some((x) => Math.abs(x) > 0.1));
        assert.deepEqual([readSsLatent(ssLatents("ss_vae")).C, readSsLatent(ssLatents("ss_vae")).mean.length], [2, 2 * 8 ** 3]);
        assert.ok(isTrue(item.row.feature_appearance) && item.row.file_identifier);
      }

      const path = assetPaths(data, items[1].sha256).latents(slat!.name), bytes = Deno.readFileSync(path);
      Deno.removeSync(path);
      assert.deepEqual((await encode(options)).slat!.statistics, slat!.statistics);
      assert.deepEqual(Deno.readFileSync(path), bytes);

      writeEncoders(root, 2);
      await assert.rejects(encode(options), /its latents are of another encoder.*choose another name, or --again to replace them/);
      assert.notDeepEqual((await encode({ ...options, again: true })).slat!.statistics, slat!.statistics);

      writeFeatures(assetPaths(data, items[0].sha256).features("appearance"), {
        coords: Int32Array.from([1, 2, 3]),
        feats: Float32Array.from([1, 2]),
      });
      await assert.rejects(encode({ ...options, again: true }), /the encoder .* must have as many and has 9/);
    });
    await assert.rejects(encode({ data: "x" }), /neither --ss-encoder nor --slat-encoder/);
    await assert.rejects(encode({ data: "/nowhere", ssEncoder: "x" }), /Cannot open the dataset \/nowhere/);
  } finally {
    Object.assign(console, { log, error });
  }
});
