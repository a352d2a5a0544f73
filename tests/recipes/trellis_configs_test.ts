/** The recipes take the configs that TRELLIS publishes, which are their size `published`. */
import assert from "node:assert/strict";
import { TRELLIS_CONFIGS } from "../../bench/trellis_configs.ts";
import { LINEAR_MEMORY_DEFAULTS } from "../../lib/memory/linear_controller.ts";
import { SLAT_FLOW_SIZES, slatFlowConfig } from "../../recipes/slat_flow.ts";
import { SLAT_VAE_SIZES, slatVaeConfig } from "../../recipes/slat_vae.ts";
import { SS_FLOW_SIZES, ssFlowConfig } from "../../recipes/ss_flow.ts";
import { SS_VAE_SIZES, ssVaeConfig } from "../../recipes/ss_vae.ts";

function read<T>(json: unknown, parse: (flags: { size: string; file: string; overrides: string[] }) => T): T {
  const file = Deno.makeTempFileSync({ suffix: ".json" });
  try {
    Deno.writeTextFileSync(file, JSON.stringify(json));
    return parse({ size: "tiny", file, overrides: [] });
  } finally {
    Deno.removeSync(file);
  }
}

Deno.test("each recipe takes its TRELLIS config, and it is the published size", () => {
  assert.deepEqual(read(TRELLIS_CONFIGS.ss_vae, ssVaeConfig), SS_VAE_SIZES.published);
  assert.deepEqual(read(TRELLIS_CONFIGS.ss_flow, ssFlowConfig), SS_FLOW_SIZES.published);
  const memory = { policy: "linear", ...LINEAR_MEMORY_DEFAULTS, targetRatio: 0.75, maxMemRatioStart: 0.5 };
  assert.deepEqual(read(TRELLIS_CONFIGS.slat_vae, slatVaeConfig), { ...SLAT_VAE_SIZES.published, memory });
  assert.deepEqual(read(TRELLIS_CONFIGS.slat_flow, slatFlowConfig), { ...SLAT_FLOW_SIZES.published, memory });
});
