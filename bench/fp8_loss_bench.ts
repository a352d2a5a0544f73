/**
 * Trains a small SS-Flow in bf16 and with linear layers in fp8, 2,000 steps on the same draws, and in bf16 on other draws: how far the loss with fp8
 * is from that without it, beside how far two runs in bf16 are apart. Writes bench/results/fp8_loss.json.
 *
 *   deno task bench bench/fp8_loss_bench.ts
 */
import { drawTimes, flowPath } from "../lib/flow/path.ts";
import { createRandom } from "../lib/data/random.ts";
import { ssFlow, ssFlowSpec } from "../lib/models/ss_flow.ts";
import { initialize } from "../lib/nn/parameters.ts";
import { mse } from "../lib/ops/loss.ts";
import { slice } from "../lib/ops/movement.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { benchmark, measured, type Row } from "./harness.ts";

const STEPS = 2000, WINDOW = 100, B = 8, ITEMS = 64, TOKENS = 32, C = 256;
const ARGS = {
  ...{ resolution: 8, in_channels: 8, out_channels: 8, model_channels: C, cond_channels: C, num_blocks: 3, num_heads: 4 },
  ...{ mlp_ratio: 4, patch_size: 2, qk_rms_norm: true, share_mod: false, pe_mode: "ape" as const },
};

/** The mean losses of each window of a run. */
function train(fp8: boolean, seed: number): number[] {
  const specs = ssFlowSpec(ARGS, "bf16"), data = new Generator(1), { resolution: R, in_channels } = ARGS;
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(2)), {
    ...OPTIMIZER_DEFAULTS,
    lr: 5e-4,
    warmup: 50,
    emaRates: [0.99],
  });
  const model = { args: ARGS, dtype: "bf16" as const, fp8, params: optimizer.params };
  const latents = data.normal([ITEMS, in_channels, R, R, R]), conditions = data.normal([ITEMS, TOKENS, C]), windows: number[] = [];
  let losses: Tensor[] = [];
  for (let i = 0; i < STEPS; i++) {
    const host = createRandom(seed, i), at = i * B % ITEMS, times = drawTimes({ name: "logitNormal", mean: 0, std: 1 }, B, host);
    losses.push(step(() => {
      const [x0, cond] = [latents, conditions].map((t) => noGrad(() => slice(t, 0, at, at + B)));
      const { xt, velocity } = flowPath(x0, new Generator(BigInt(seed) << 32n | BigInt(i)).normal(x0.shape), times, { sigmaMin: 1e-5 });
      const loss = mse(ssFlow(model, xt, tensor(times.map((t) => 1000 * t), [B]), cond), velocity);
      backward(loss);
      return loss;
    }));
    optimizer.step();
    if (losses.length < WINDOW) continue;
    windows.push(losses.reduce((sum, t) => sum + t.item(), 0) / WINDOW);
    for (const t of losses) t.free();
    losses = [];
  }
  optimizer.free();
  for (const t of [latents, conditions]) t.free();
  return windows;
}

/** Root mean square of the relative differences of two curves. */
function apart(a: number[], b: number[]): number {
  return Math.sqrt(a.reduce((sum, v, i) => sum + (v / b[i] - 1) ** 2, 0) / a.length);
}

function row(name: string, ours: number, peer: number, unit = ""): Row {
  return measured({ case: name, metric: "loss", unit, ours, peer, peer_name: "bf16", ratio: peer / ours });
}

benchmark("fp8_loss", () => {
  const half = train(false, 1),
    eight = train(true, 1),
    other = train(false, 2),
    round = (list: number[]) => list.map((v) => v.toFixed(4)).join(" ");
  console.log(`bf16  ${round(half)}\nfp8   ${round(eight)}\nbf16, other draws ${round(other)}`);
  const name = `small SS-Flow, ${STEPS} steps`;
  return [
    row(`${name}: mean loss of the last ${WINDOW}, fp8`, eight.at(-1)!, half.at(-1)!),
    row(`${name}: mean loss of the last ${WINDOW}, bf16 on other draws`, other.at(-1)!, half.at(-1)!),
    measured({
      case: `${name}: distance of the curves in windows of ${WINDOW}, fp8 from bf16`,
      metric: "relative RMS",
      unit: "",
      ours: apart(eight, half),
      peer: apart(other, half),
      peer_name: "bf16 on other draws, from bf16",
      ratio: apart(other, half) / apart(eight, half),
    }),
  ];
});
