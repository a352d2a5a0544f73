import assert from "node:assert/strict";
import { leaves } from "../../lib/nn/parameters.ts";
import type { Tensor } from "../../lib/tensor/tensor.ts";
import type { Json } from "../../lib/train/config.ts";
import { loadPipeline, savePipeline } from "../../lib/train/pipeline.ts";
import { tinyPipeline, tinyPipelineFolder } from "../tiny_pipeline.ts";

type Tree = { [key: string]: Json };

function values(params: unknown): [string, number[]][] {
  return leaves<Tensor>(params).map(([name, t]) => [name, Array.from(t.read())]);
}

/** Runs `body` in a fresh pipeline folder; `edit` changes its pipeline.json first. */
function withFolder(body: (folder: string) => void, edit?: (args: Tree) => void): void {
  const folder = tinyPipelineFolder(), path = `${folder}/pipeline.json`;
  try {
    const file = JSON.parse(Deno.readTextFileSync(path));
    edit?.(file.args);
    Deno.writeTextFileSync(path, JSON.stringify(file));
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function editArgs(path: string, edit: (args: Tree) => void): void {
  const file = JSON.parse(Deno.readTextFileSync(path));
  edit(file.args);
  Deno.writeTextFileSync(path, JSON.stringify(file));
}

Deno.test("savePipeline() and loadPipeline() keep every value", () => {
  const saved = tinyPipeline();
  withFolder((folder) => {
    savePipeline(folder, saved); // over itself
    const loaded = loadPipeline(folder);
    assert.deepEqual(values(loaded.flow.params), values(saved.flow.params));
    assert.deepEqual(values(loaded.decoder.params), values(saved.decoder.params));
    assert.deepEqual(values(loaded.condition.trained), values(saved.condition.trained));
    assert.deepEqual(loaded.condition.config, saved.condition.config);
    assert.deepEqual([loaded.flow.args, loaded.decoder.args], [saved.flow.args, saved.decoder.args]);
    assert.deepEqual(loaded.sampler, { ...saved.sampler, sigmaMin: saved.sigmaMin });
    assert.deepEqual(loaded.normalization, saved.normalization);
  });
});

Deno.test("savePipeline() writes pipeline.json as TRELLIS does, and nothing else but the models", () => {
  withFolder((folder) => {
    const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
    const pairs = ["decoder", "flow", "image_encoder"].flatMap((name) => [`${name}.json`, `${name}.safetensors`]);
    assert.deepEqual(names, [...pairs, "pipeline.json"]);
    assert.deepEqual(JSON.parse(Deno.readTextFileSync(`${folder}/pipeline.json`)), {
      name: "TrellisImageTo3DPipeline",
      args: {
        models: { sparse_structure_decoder: "decoder", sparse_structure_flow_model: "flow" },
        sparse_structure_sampler: {
          name: "FlowEulerGuidanceIntervalSampler",
          args: { sigma_min: 1e-4 },
          params: { steps: 3, cfg_strength: 2, cfg_interval: [0.25, 0.75], rescale_t: 2 },
        },
        image_cond_model: { name: "PatchEncoder", path: "image_encoder" },
        sparse_structure_normalization: { mean: [0.5, -0.5], std: [2, 3] },
      },
    });
  });
});

Deno.test("loadPipeline() takes a published layout: models in a folder below, other stages beside it, no normalization", () => {
  const move = (folder: string): void => {
    Deno.mkdirSync(`${folder}/ckpts`);
    for (const name of ["decoder", "flow"]) {
      for (const end of ["json", "safetensors"]) Deno.renameSync(`${folder}/${name}.${end}`, `${folder}/ckpts/ss_${name}.${end}`);
    }
  };
  withFolder((folder) => {
    move(folder);
    const { sampler, normalization } = loadPipeline(folder);
    assert.deepEqual(sampler, { steps: 50, rescaleT: 1, cfgStrength: 7, cfgInterval: [0, 1], sigmaMin: 1e-5 });
    assert.deepEqual(normalization, { mean: [0, 0], std: [1, 1] });
  }, (args) => {
    args.models = {
      sparse_structure_decoder: "ckpts/ss_decoder",
      sparse_structure_flow_model: "ckpts/ss_flow",
      slat_flow_model: "ckpts/slat",
    };
    args.sparse_structure_sampler = { name: "FlowEulerCfgSampler", args: { sigma_min: 1e-5 }, params: { cfg_strength: 7 } };
    args.slat_sampler = { name: "FlowEulerGuidanceIntervalSampler" };
    args.slat_normalization = { mean: [0], std: [1] };
    delete args.sparse_structure_normalization;
  });
});

for (const path of ["../flow", "/etc/flow", "ckpts/../../flow", "C:/flow", "..\\flow", ""]) {
  Deno.test(`loadPipeline() refuses the model path ${JSON.stringify(path)}`, () => {
    const models = { sparse_structure_decoder: "decoder", sparse_structure_flow_model: path };
    withFolder((folder) => assert.throws(() => loadPipeline(folder), /must be a path inside the folder/), (args) => args.models = models);
    const image = { name: "PatchEncoder", path };
    withFolder(
      (folder) => assert.throws(() => loadPipeline(folder), /must be a path inside the folder/),
      (args) => args.image_cond_model = image,
    );
  });
}

const REFUSALS: [what: string, message: RegExp, edit: (args: Tree) => void][] = [
  ["a DINOv2 without its weights", /--dino must name/, (args) => args.image_cond_model = "dinov2_vitl14_reg"],
  ["another image encoder", /image_cond_model is "clip", it must be dinov2/, (args) => args.image_cond_model = "clip"],
  ["means that are too few", /means .* is 1, it must be 2/, (args) => args.sparse_structure_normalization = { mean: [0], std: [1, 1] }],
  [
    "a sampler it does not know",
    /sparse_structure_sampler\.name is "Heun"/,
    (args) => (args.sparse_structure_sampler as Tree).name = "Heun",
  ],
  ["no models", /args\.models is missing/, (args) => delete args.models],
];
for (const [what, message, edit] of REFUSALS) {
  Deno.test(`loadPipeline() refuses ${what}`, () => withFolder((folder) => assert.throws(() => loadPipeline(folder), message), edit));
}

Deno.test("loadPipeline() names the file where models are missing, mixed up or do not fit", () => {
  assert.throws(() => loadPipeline("/nowhere"), /Cannot read .*pipeline.json/);
  withFolder((folder) => {
    Deno.removeSync(`${folder}/flow.safetensors`);
    assert.throws(() => loadPipeline(folder), /flow\.safetensors/);
  });
  withFolder((folder) => {
    Deno.copyFileSync(`${folder}/decoder.safetensors`, `${folder}/flow.safetensors`);
    assert.throws(() => loadPipeline(folder), /Cannot load .*flow\.safetensors: missing .*; unexpected/);
  });
  withFolder((folder) => {
    Deno.copyFileSync(`${folder}/decoder.json`, `${folder}/flow.json`);
    assert.throws(() => loadPipeline(folder), /describes a SparseStructureDecoder, it must describe a SparseStructureFlowModel/);
  });
  withFolder((folder) => {
    editArgs(`${folder}/flow.json`, (args) => args.num_heads = 3);
    assert.throws(() => loadPipeline(folder), /num_heads/);
  });
  withFolder((folder) => {
    editArgs(`${folder}/flow.json`, (args) => args.resolutoin = 3);
    assert.throws(() => loadPipeline(folder), /did you mean resolution/);
  });
  withFolder((folder) => {
    editArgs(`${folder}/image_encoder.json`, (args) => delete args.channels);
    assert.throws(() => loadPipeline(folder), /channels is missing/);
  });
  withFolder((folder) => {
    const path = `${folder}/flow.safetensors`, half = Deno.readFileSync(path);
    Deno.writeFileSync(path, half.subarray(0, half.length / 2));
    assert.throws(() => loadPipeline(folder), /flow\.safetensors/);
  });
});

Deno.test("loadPipeline() refuses a DINOv2 file with other tensors", () => {
  withFolder((folder) => {
    assert.throws(() => loadPipeline(folder, { dino: `${folder}/flow.safetensors` }), /Cannot load .*: missing cls_token/);
  }, (args) => args.image_cond_model = "dinov2_vitl14_reg");
});
