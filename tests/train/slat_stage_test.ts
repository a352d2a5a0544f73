import assert from "node:assert/strict";
import { leaves } from "../../lib/nn/parameters.ts";
import type { Tensor } from "../../lib/tensor/tensor.ts";
import { loadPipeline } from "../../lib/train/pipeline.ts";
import { hasSlatStage, loadSlatStage, saveSlatStage } from "../../lib/train/slat_stage.ts";
import { tinyPipelineFolder, tinySlatStage } from "../tiny_pipeline.ts";

function values(params: unknown): [string, number[]][] {
  return leaves<Tensor>(params).map(([name, t]) => [name, Array.from(t.read())]);
}

/** A folder for the stage, one with the structure's stage, and the stage to save. */
function withStage(body: (folder: string, structure: string, stage: ReturnType<typeof tinySlatStage>) => void): void {
  const structure = tinyPipelineFolder(), folder = Deno.makeTempDirSync({ prefix: "espalier-slat-stage-" });
  try {
    body(folder, structure, tinySlatStage(folder));
  } finally {
    for (const path of [folder, structure]) Deno.removeSync(path, { recursive: true });
  }
}

Deno.test("saveSlatStage() and loadSlatStage() keep every value", () => {
  withStage((folder, _, stage) => {
    saveSlatStage(`${folder}/models`, stage);
    const loaded = loadSlatStage(`${folder}/models`);
    assert.deepEqual(values(loaded.flow.params), values(stage.flow.params));
    assert.deepEqual(values(loaded.condition.trained), values(stage.condition.trained));
    assert.deepEqual(loaded.sampler, { ...stage.sampler, sigmaMin: stage.sigmaMin });
    assert.deepEqual(loaded.normalization, stage.normalization);
    assert.deepEqual([loaded.decoder.args.latent_channels, loaded.matchColors], [2, false]);
    saveSlatStage(`${folder}/models`, { ...stage, matchColors: true });
    assert.equal(loadSlatStage(`${folder}/models`).matchColors, true);
    assert.throws(() => loadPipeline(`${folder}/models`), /sparse_structure/);
  });
});

Deno.test("saveSlatStage() makes a whole pipeline of the structure's stage and its own", () => {
  withStage((folder, structure, stage) => {
    saveSlatStage(`${folder}/models`, { ...stage, structure });
    const first = loadPipeline(structure), again = loadPipeline(`${folder}/models`), second = loadSlatStage(`${folder}/models`);
    assert.deepEqual(values(again.flow.params), values(first.flow.params));
    assert.deepEqual(values(again.decoder.params), values(first.decoder.params));
    assert.deepEqual(values(again.condition.trained), values(first.condition.trained));
    assert.deepEqual([again.sampler, again.normalization], [first.sampler, first.normalization]);
    assert.deepEqual(values(second.condition.trained), values(stage.condition.trained));
    assert.ok(hasSlatStage(`${folder}/models`) && !hasSlatStage(structure));
  });
});

Deno.test("loadSlatStage() says what is missing or does not fit", () => {
  withStage((folder, _, stage) => {
    const models = `${folder}/models`, path = `${models}/pipeline.json`;
    const edited = (edit: (args: Record<string, Record<string, unknown>>) => void): () => void => {
      saveSlatStage(models, stage);
      const file = JSON.parse(Deno.readTextFileSync(path));
      edit(file.args);
      Deno.writeTextFileSync(path, JSON.stringify(file));
      return () => loadSlatStage(models);
    };
    saveSlatStage(models, { ...stage, decoder: null });
    assert.ok(!hasSlatStage(models));
    assert.throws(() => loadSlatStage(models), /its pipeline\.json has no models\.slat_decoder_gs/);
    assert.throws(edited((args) => void delete args.slat_image_cond_model), /has no image_cond_model/);
    assert.throws(
      edited((args) => void (args.slat_normalization.mean = [0])),
      /the number of means in slat_normalization is 1, it must be 2/,
    );
    assert.throws(edited((args) => void (args.models.slat_flow_model = "../x")), /it must be a path inside the folder/);
    assert.throws(edited((args) => void (args.models.slat_flow_model = "slat_decoder_gs")), /describes a SLatGaussianDecoder/);
  });
});
