/**
 * Training steps of flow models whose passes run from a CUDA graph, beside the same ones launched kernel by kernel: the recipe's sizes with their patch
 * encoders, in f16, and SS-Flow image-L in bf16. Writes bench/results/replay.json.
 *
 *   deno task bench bench/replay_bench.ts
 */
import { observe } from "../ffi/observer.ts";
import { openReplays } from "../lib/memory/replay.ts";
import { PUBLISHED_SS_FLOW } from "../lib/models/published.ts";
import { ssFlow, type SsFlowArgs, ssFlowSpec } from "../lib/models/ss_flow.ts";
import { initialize } from "../lib/nn/parameters.ts";
import { mse, mseRows } from "../lib/ops/loss.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { device } from "../lib/tensor/device.ts";
import type { FloatDType } from "../lib/tensor/dtype.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { tensor } from "../lib/tensor/tensor.ts";
import { type ConditionConfig, openCondition } from "../lib/train/condition.ts";
import { SS_FLOW_SIZES } from "../recipes/ss_flow.ts";
import { startAtRandom } from "./flow_models.ts";
import { benchmark, measured, type Row } from "./harness.ts";

const WARM_UP = 4, GIB = 2 ** 30, TOKENS = 1374;

interface Case {
  name: string;
  args: SsFlowArgs;
  batch: number;
  dtype: FloatDType;
  steps: number;
  /** A patch encoder that is trained along; else the condition is random tokens. */
  condition?: ConditionConfig;
}

const { tiny, small } = SS_FLOW_SIZES;
const L = { ...PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16, use_fp16: false };
const CASES: Case[] = [
  { name: "SS-Flow tiny, f16", args: tiny.model, batch: tiny.batch.size, dtype: "f16", steps: 60, condition: tiny.condition },
  { name: "SS-Flow small, f16", args: small.model, batch: small.batch.size, dtype: "f16", steps: 30, condition: small.condition },
  { name: "SS-Flow small, f16", args: small.model, batch: 8, dtype: "f16", steps: 40, condition: small.condition },
  ...[1, 2, 8].map((batch): Case => ({ name: "SS-Flow image-L, bf16", args: L, batch, dtype: "bf16", steps: batch === 8 ? 5 : 12 })),
];

interface Found {
  /** Milliseconds of a step, of the host until a step is queued, kernels and products of a pass, bytes at most in use. */
  ms: number;
  host: number;
  launches: number;
  peak: number;
  losses: number[];
}

function train({ args, batch: B, dtype, steps, condition: config }: Case, enabled: boolean): Found {
  const opened = config && openCondition(config, dtype), specs = { flow: ssFlowSpec(args, dtype), image: opened?.spec };
  startAtRandom(specs.flow);
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS), { memory } = device();
  const model = { args, dtype, params: optimizer.params.flow }, encoder = opened?.withParameters(optimizer.params.image);
  const replays = openReplays(optimizer.params, { enabled, say: console.error });
  const shape = [B, args.in_channels, args.resolution, args.resolution, args.resolution];
  const given = config ? [B, 3, config.image_size, config.image_size] : [B, TOKENS, args.cond_channels],
    times = Array.from({ length: B }, (_, b) => 1000 * (b + 0.5) / B);
  const run = (i: number): () => Float32Array => {
    const found = replays.run({
      key: "flow",
      inputs: () => {
        const random = new Generator(i), [x, target, shown] = [shape, shape, given].map((shape) => random.normal(shape));
        return { x, target, shown, t: tensor(times, [B]), weight: () => tensor([optimizer.lossScale()], []) };
      },
      pass: ({ x, target, shown, t, weight }) =>
        step(() => {
          const v = ssFlow(model, x, t, encoder ? encoder.encode(shown) : shown);
          backward(mse(v, target), weight());
          return { rows: noGrad(() => mseRows(v, target)) };
        }),
    });
    optimizer.stepLater();
    return found.rows;
  };
  const losses: number[] = [], host: number[] = [];
  let launches = 0, last: (() => Float32Array) | undefined;
  const before = observe((name, _, call) => (launches += Number(!name.startsWith("cuda")), call()));
  run(0);
  observe(before);
  for (let i = 1; i < WARM_UP; i++) run(i);
  memory.synchronize();
  memory.resetPeak();
  const began = performance.now();
  for (let i = 0; i < steps; i++) {
    const start = performance.now(), rows = run(WARM_UP + i);
    host.push(performance.now() - start);
    losses.push(...last?.() ?? []); // a step late
    last = rows;
  }
  losses.push(...last!());
  memory.synchronize();
  const ms = (performance.now() - began) / steps, { peak } = memory.use();
  replays.free();
  optimizer.free();
  memory.trim();
  return { ms, host: host.sort((a, b) => a - b)[steps >> 1], launches, peak, losses };
}

benchmark("replay", (save) => {
  const rows: Row[] = [];
  for (const c of CASES) {
    const plain = train(c, false), recorded = train(c, true), name = `${c.name}, batch ${c.batch}`, peer_name = "kernel by kernel";
    const beside = (ours: number, peer: number): Pick<Row, "ours" | "peer" | "peer_name" | "ratio"> => ({
      ours,
      peer,
      peer_name,
      ratio: peer / ours,
    });
    const alike = plain.losses.every((v, i) => Object.is(v, recorded.losses[i]));
    rows.push(
      measured({ case: `${name}: training step from a graph`, metric: "time", unit: "ms", ...beside(recorded.ms, plain.ms) }),
      measured({ case: `${name}: host until a step is queued`, metric: "time", unit: "ms", ...beside(recorded.host, plain.host) }),
      measured({ case: `${name}: peak`, metric: "memory", unit: "GiB", ...beside(recorded.peak / GIB, plain.peak / GIB) }),
      measured({ case: `${name}: kernels and products of a step`, metric: "count", unit: "", ours: plain.launches }),
      measured({ case: `${name}: losses of ${c.steps} steps equal to the bit`, metric: "equal", unit: "", ours: Number(alike) }),
    );
    save(rows);
  }
  return rows;
});
