/**
 * One training of a small SS-Flow for fp8_loss_bench.ts: `fp8_loss_run.ts bf16|bf16-again|fp8|fp8-all SEED STEPS` prints the mean losses of windows of 100 steps. Latents
 * are a fixed smooth function of codes that are drawn anew each step, which the condition tells: nothing can be learned by heart. The seed decides
 * the first parameters and all draws, so that runs of one seed differ in their precision alone; "bf16-again" in a learning rate that is 1e-4 of itself higher, as much as a change of rounding.
 */
import { createRandom } from "../lib/data/random.ts";
import { drawTimes, flowPath } from "../lib/flow/path.ts";
import { ssFlow, ssFlowSpec } from "../lib/models/ss_flow.ts";
import { initialize } from "../lib/nn/parameters.ts";
import { scale, tanh } from "../lib/ops/elementwise.ts";
import { mse } from "../lib/ops/loss.ts";
import { matmul } from "../lib/ops/matmul.ts";
import { reshape } from "../lib/ops/movement.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { device, openDevice } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";

/** Steps whose losses are averaged. */
export const WINDOW = 100;

const B = 8, TOKENS = 32, C = 256, CODES = 16, R = 8, CHANNELS = 8;
const ARGS = {
  ...{ resolution: R, in_channels: CHANNELS, out_channels: CHANNELS, model_channels: C, cond_channels: C, num_blocks: 3, num_heads: 4 },
  ...{ mlp_ratio: 4, patch_size: 2, qk_rms_norm: true, share_mod: false, pe_mode: "ape" as const },
};

/** How a run is told to compute. */
export type Variant = "bf16" | "bf16-again" | "fp8" | "fp8-all";

/** The mean losses of each window of a run. */
function train(precision: Variant, seed: number, steps: number): number[] {
  const dtype = device().name === "cpu" ? "f32" as const : "bf16" as const, specs = ssFlowSpec(ARGS, dtype), world = new Generator(1);
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(100 + seed)), {
    ...OPTIMIZER_DEFAULTS,
    lr: precision === "bf16-again" ? 5e-4 * (1 + 1e-4) : 5e-4,
    warmup: 50,
    emaRates: [0.99],
  });
  const model = { args: ARGS, dtype, fp8: precision === "fp8-all" ? "all" as const : precision === "fp8", params: optimizer.params };
  const toLatents = scale(world.normal([CODES, CHANNELS * R ** 3]), 0.5), toTokens = scale(world.normal([CODES, TOKENS * C]), 0.25);
  const windows: number[] = [];
  let losses: Tensor[] = [];
  for (let i = 0; i < steps; i++) {
    const times = drawTimes({ name: "logitNormal", mean: 0, std: 1 }, B, createRandom(seed, i));
    losses.push(step(() => {
      const draw = new Generator(BigInt(seed) << 32n | BigInt(i)), codes = draw.normal([B, CODES]);
      const [x0, cond] = noGrad(() => [
        reshape(tanh(matmul(codes, toLatents)), [B, CHANNELS, R, R, R]),
        reshape(matmul(codes, toTokens), [B, TOKENS, C]),
      ]);
      const { xt, velocity } = flowPath(x0, draw.normal(x0.shape), times, { sigmaMin: 1e-5 });
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
  return windows;
}

if (import.meta.main) {
  const [precision, seed, steps] = Deno.args;
  openDevice();
  console.log(JSON.stringify(train(precision as Variant, Number(seed), Number(steps))));
  Deno.exit(0);
}
