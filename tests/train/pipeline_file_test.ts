import assert from "node:assert/strict";
import { describeCondition, describeSampler, pathIn, readSampler } from "../../lib/train/pipeline_file.ts";
import { tinyPipeline } from "../tiny_pipeline.ts";

const SAMPLER = { steps: 12, cfgStrength: 5, cfgInterval: [0.5, 1] as [number, number], rescaleT: 3 };

Deno.test("readSampler() takes back what describeSampler() says, and knows TRELLIS's three samplers", () => {
  const file = describeSampler(SAMPLER, 1e-5);
  assert.deepEqual(readSampler(file), { ...SAMPLER, sigmaMin: 1e-5 });
  assert.deepEqual(readSampler({ ...file, name: "FlowEulerSampler" }).cfgStrength, 0);
  assert.deepEqual(readSampler({ ...file, name: "FlowEulerCfgSampler" }).cfgInterval, [0, 1]);
  assert.equal(readSampler({ ...file, params: {} }).steps, 50);
});

Deno.test("describeCondition() names a patch encoder's file, and DINOv2 alone where its pictures are as published", () => {
  const { condition } = tinyPipeline(), config = { encoder: "dinov2_vitl14_reg", weights: "x", image_size: 518 } as const;
  assert.deepEqual(describeCondition(condition), { name: "PatchEncoder", path: "image_encoder" });
  assert.equal(describeCondition({ ...condition, config }), "dinov2_vitl14_reg");
  const small = { ...condition, config: { ...config, image_size: 224 } };
  assert.deepEqual(describeCondition(small), { name: "dinov2_vitl14_reg", image_size: 224 });
});

Deno.test("pathIn() refuses what leads out of the folder", () => {
  assert.equal(pathIn("a", "b/c"), "a/b/c");
  for (const name of ["", "/x", "../x", "b/../../x", "C:x", "a\\b"]) assert.throws(() => pathIn("a", name), /a path inside the folder/);
});
