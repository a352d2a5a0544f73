import assert from "node:assert/strict";
import { argsOf, loadSsDecoder, loadSsVae } from "../../lib/train/trained_models.ts";
import { savePretrained } from "../../lib/io/pretrained.ts";
import { ssDecoderSpec, ssEncoderSpec } from "../../lib/models/ss_vae.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import type { Tensor } from "../../lib/tensor/tensor.ts";
import { assertRefused, withFolder } from "../io/corrupt.ts";

const SHARED = { latent_channels: 2, num_res_blocks: 1, num_res_blocks_middle: 1, channels: [8, 8], use_fp16: true };
const ENCODER = { in_channels: 1, ...SHARED }, DECODER = { out_channels: 1, ...SHARED };

/** Writes the pairs of a small VAE in f32. */
function save(folder: string): void {
  const e = initialize(ssEncoderSpec(ENCODER, "f32"), new Generator(1)), d = initialize(ssDecoderSpec(DECODER, "f32"), new Generator(2));
  savePretrained(`${folder}/encoder`, { name: "SparseStructureEncoder", args: ENCODER }, e);
  savePretrained(`${folder}/decoder`, { name: "SparseStructureDecoder", args: DECODER }, d);
  for (const tree of [e, d]) for (const [, t] of leaves<Tensor>(tree)) t.free();
}

Deno.test("loadSsVae() loads both halves in the dtype of the device", () => {
  withFolder((folder) => {
    save(folder);
    const { encoder, decoder } = loadSsVae(folder),
      alone = loadSsDecoder(`${folder}/decoder`),
      dtype = device().name === "cpu" ? "f32" : "f16";
    assert.deepEqual([encoder.args, decoder.args], [ENCODER, DECODER]);
    for (const half of [encoder, decoder, alone]) {
      assert.equal(half.dtype, dtype);
      assert.equal(leaves<Tensor>(half.params).find(([path]) => path === "middle_block.0.conv1.weight")![1].dtype, dtype);
      for (const [, t] of leaves<Tensor>(half.params)) t.free();
    }
  });
});

Deno.test("argsOf() names the class where it is another one", () => {
  withFolder((folder) => {
    save(folder);
    assert.deepEqual(argsOf(`${folder}/encoder`, "SparseStructureEncoder"), ENCODER);
    assertRefused(() => loadSsDecoder(`${folder}/encoder`), "its class is SparseStructureEncoder, it must be SparseStructureDecoder");
    Deno.removeSync(`${folder}/decoder.json`);
    assertRefused(() => loadSsVae(folder), "decoder.json says ");
    Deno.writeTextFileSync(`${folder}/encoder.json`, '{"name":"SparseStructureEncoder","args":{"in_channels":1,"channels":[8]}}');
    assertRefused(() => loadSsVae(folder), "its args are without latent_channels, num_res_blocks, they must be all of in_channels, ");
    Deno.removeSync(`${folder}/encoder.json`);
    assertRefused(() => loadSsVae(folder), `Cannot load the VAE: ${folder} has no encoder.json`);
  });
});
