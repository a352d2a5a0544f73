/** Twelve optimizer steps of a small flow model against the reference system's. */
import { flowPath } from "../../lib/flow/path.ts";
import { ssFlow, type SsFlowArgs, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { leaves } from "../../lib/nn/parameters.ts";
import { mse } from "../../lib/ops/loss.ts";
import { adamwStep, makeAdamw, readStats } from "../../lib/optim/adamw.ts";
import { makeEmas } from "../../lib/optim/ema.ts";
import { flattenParameters, parametersFrom } from "../../lib/optim/parameters.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, assertNear } from "../check.ts";
import { referenceTest } from "../reference.ts";

interface AdamW {
  lr: number;
  weight_decay: number;
  betas: [number, number];
  eps: number;
}

referenceTest("twelve steps of training equal the reference's losses, norms, weights and means", "train_ss_flow.safetensors", (r) => {
  const args = r.meta<SsFlowArgs>("args"), { lr, weight_decay, betas, eps } = r.meta<AdamW>("optimizer"), spec = ssFlowSpec(args);
  const { flat, params } = flattenParameters(spec, r.parameters(spec, "init/")), adamw = makeAdamw(flat.master.size);
  const emas = makeEmas(flat.master, [r.meta<number>("ema_rate")]), losses: number[] = [], norms: number[] = [];
  const at = (name: string, i: number): Tensor => {
    const [n, ...shape] = r.shape(name), size = shape.reduce((a, b) => a * b, 1);
    if (i >= n) throw new RangeError(`${name} has ${n} steps`);
    return tensor(r.values(name).slice(i * size, (i + 1) * size), shape);
  };
  for (let i = 0; i < r.shape("loss")[0]; i++) {
    losses.push(step(() => {
      const t = at("t", i).read(), { xt, velocity } = flowPath(at("x0", i), at("eps", i), t, { sigmaMin: r.meta<number>("sigma_min") });
      const v = ssFlow({ args, dtype: "f32", params }, xt, tensor(t.map((v) => 1000 * v), [t.length]), at("cond", i));
      const loss = mse(v, velocity);
      backward(loss);
      return loss.item();
    }));
    adamwStep(flat, adamw, { lr, betas, eps, weightDecay: weight_decay, maxNorm: r.meta<number>("clip_grad_norm"), emas });
    norms.push(readStats(adamw).norm);
  }
  assertClose("loss", losses, r.values("loss"), { rtol: 1e-4, atol: 0 });
  assertClose("grad_norm", norms, r.values("grad_norm"), { rtol: 1e-3, atol: 0 });
  step(() => {
    for (const [kind, tree] of [["final", params], ["ema", parametersFrom(flat, params, emas[0].values)]] as const) {
      for (const [name, t] of leaves<Tensor>(tree)) {
        if (kind === "ema" && name === "pos_emb") continue; // a buffer has no mean
        // A bias of the keys moves all scores of a query alike: its gradient is zero but for rounding, and Adam's step from it is arbitrary.
        const first = name.endsWith("cross_attn.to_kv.bias") ? t.size / 2 : 0;
        assertNear(`${kind}/${name}`, t.read().subarray(first), r.values(`${kind}/${name}`).subarray(first), 1e-3);
      }
    }
  });
});
