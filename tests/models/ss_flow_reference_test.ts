import { ssFlow, type SsFlowArgs, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { mul } from "../../lib/ops/elementwise.ts";
import { mean } from "../../lib/ops/reduce.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { referenceTest } from "../reference.ts";

for (const file of ["ss_flow_ape_p1.safetensors", "ss_flow_ape_p2_sharemod.safetensors"]) {
  for (const recompute of [0, 2]) {
    referenceTest(`ssFlow() equals ${file} with ${recompute} blocks recomputed`, file, (r) => {
      const args = r.meta<SsFlowArgs>("args"), params = r.parameters(ssFlowSpec(args));
      step(() => {
        const x = r.tensor("inputs/x", true), cond = r.tensor("inputs/cond", true);
        const v = ssFlow({ args, dtype: "f32", params }, x, r.tensor("inputs/t"), cond, { recompute });
        r.expect("outputs/v", v);
        const loss = mean(mul(v, r.tensor("inputs/probe")));
        r.expect("loss", loss);
        backward(loss);
        r.expectGradients(params);
        r.expect("input_grads/x", x.grad!, 1e-3);
        r.expect("input_grads/cond", cond.grad!, 1e-3);
      });
    });
  }
}
