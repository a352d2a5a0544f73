import assert from "node:assert/strict";
import { FLOW_DEFAULTS, trellisFlow } from "../../lib/train/flow_config.ts";
import type { TrellisConfig } from "../../lib/train/trellis.ts";

const NAME = "ImageConditionedFlowMatchingCFGTrainer";

function config(args: TrellisConfig["trainer"]["args"], name = NAME): TrellisConfig {
  return { models: {}, dataset: { name: "D", args: {} }, trainer: { name, args } };
}

Deno.test("trellisFlow() translates schedule, noise and condition, with TRELLIS's defaults", () => {
  const published = { p_uncond: 0.1, sigma_min: 1e-5, t_schedule: { name: "logitNormal", args: { mean: 1, std: 1 } } };
  const condition = { encoder: "dinov2_vitl14_reg", weights: "dinov2_vitl14_reg.safetensors", image_size: 518 };
  assert.deepEqual(trellisFlow(config(published), NAME), { condition, flow: FLOW_DEFAULTS });
  assert.deepEqual(trellisFlow(config({}), NAME).flow, {
    sigmaMin: 1e-5,
    pUncond: 0.1,
    schedule: { name: "logitNormal", mean: 0, std: 1 },
  });
  const uniform = config({ t_schedule: { name: "uniform" }, p_uncond: 0 });
  assert.deepEqual(trellisFlow(uniform, NAME).flow, { sigmaMin: 1e-5, pUncond: 0, schedule: { name: "uniform" } });
});

Deno.test("trellisFlow() refuses another trainer or encoder", () => {
  assert.throws(() => trellisFlow(config({}, "Other"), NAME), /its trainer is Other on undefined, it must be ImageConditioned/);
  assert.throws(() => trellisFlow(config({ image_cond_model: "clip" }), NAME), /on clip, it must be .* on dinov2_vitl14_reg$/);
});
