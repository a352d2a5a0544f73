import { sampleEuler } from "../../lib/flow/sampler.ts";
import { ssFlow, type SsFlowArgs, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { step } from "../../lib/tensor/scope.ts";
import { assertNear } from "../check.ts";
import { referenceTest } from "../reference.ts";

interface Settings {
  steps: number;
  rescale_t: number;
  cfg_strength: number;
  cfg_interval?: [number, number];
}

for (const kind of ["interval", "cfg"]) {
  referenceTest(`sampleEuler() equals the reference with ${kind} guidance`, "sampler.safetensors", (r) => {
    const args = r.meta<SsFlowArgs>("args"), params = r.parameters(ssFlowSpec(args)), s = r.meta<Settings>(kind);
    step(() => {
      const noise = r.tensor("noise"), size = noise.size;
      const states = kind === "interval" ? [r.values("interval_pred_x_t"), r.values("interval_pred_x_0")] : [];
      const sample = sampleEuler(
        (x, t, cond) => ssFlow({ args, dtype: "f32", params }, x, t, cond),
        noise,
        r.tensor("cond"),
        r.tensor("neg_cond"),
        {
          steps: s.steps,
          rescaleT: s.rescale_t,
          cfgStrength: s.cfg_strength,
          cfgInterval: s.cfg_interval,
          onStep: (i, xt, x0) => {
            if (!states.length) return;
            assertNear(`x_t of step ${i}`, xt.read(), states[0].subarray(i * size, (i + 1) * size), 2e-4);
            assertNear(`x_0 of step ${i}`, x0.read(), states[1].subarray(i * size, (i + 1) * size), 2e-4);
          },
        },
      );
      assertNear("sample", sample.read(), r.values(`${kind}_samples`), 2e-4);
    });
  });
}
