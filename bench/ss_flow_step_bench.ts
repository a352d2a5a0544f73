/**
 * Times a training step of SS-Flow image-L (555.5 M parameters, 4096 tokens, 1374 condition tokens, bf16, batch 8) on CUDA, and compares its loss
 * with that of the attention kernels for any card. Writes bench/results/ss_flow_step.json.
 *
 *   deno task bench bench/ss_flow_step_bench.ts
 */
import { ssFlow, ssFlowSpec } from "../lib/models/ss_flow.ts";
import { PUBLISHED_SS_FLOW } from "../lib/models/published.ts";
import { initialize, leaves, type ParameterSpec } from "../lib/nn/parameters.ts";
import { mse } from "../lib/ops/loss.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { device } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { persist, step } from "../lib/tensor/scope.ts";
import { backward } from "../lib/tensor/tape.ts";
import { kernels, tensor } from "../lib/tensor/tensor.ts";
import { benchmark, measured, type Row, time } from "./harness.ts";

const B = 8, TOKENS = 1374, RUNS = 10;
/** Forward and backward of one sample, counted. */
const TFLOP = 15.7;
/** K_ATTENTION_SM80, and where a k_attention has its flags. */
const ANY_CARD = 4n, FLAGS = 2;

/** Runs `body` with the attention kernels for any card since sm_80. */
function withAnyCardKernels<T>(body: () => T): T {
  const table = kernels(), { k_attention_workspace, k_attention_fwd, k_attention_bwd } = table;
  const mark = <P extends ArrayBufferView>(problem: P): P => {
    new BigInt64Array(problem.buffer, problem.byteOffset)[FLAGS] |= ANY_CARD;
    return problem;
  };
  Object.assign(table, {
    k_attention_workspace: (...[bytes, problem]: Parameters<typeof k_attention_workspace>) => k_attention_workspace(bytes, mark(problem)),
    k_attention_fwd: (...[problem, stream]: Parameters<typeof k_attention_fwd>) => k_attention_fwd(mark(problem), stream),
    k_attention_bwd: (...[problem, stream]: Parameters<typeof k_attention_bwd>) => k_attention_bwd(mark(problem), stream),
  });
  try {
    return body();
  } finally {
    Object.assign(table, { k_attention_workspace, k_attention_fwd, k_attention_bwd });
  }
}

function measure(): Row[] {
  const args = { ...PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16, use_fp16: false }, specs = ssFlowSpec(args, "bf16");
  for (const [, spec] of leaves<ParameterSpec>(specs)) {
    if ("fill" in spec.init && spec.init.fill === 0 && spec.shape.length > 1) spec.init = { normal: 0.02 }; // at zero, blocks would do nothing
  }
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS);
  const model = { args, dtype: "bf16", params: optimizer.params } as const, random = new Generator(2), { memory } = device();
  const { resolution: R, in_channels: C } = args;
  const [x, noise, cond] = persist(() => [
    random.normal([B, C, R, R, R]),
    random.normal([B, C, R, R, R]),
    random.normal([B, TOKENS, args.cond_channels]),
  ]);
  const t = persist(() => tensor(Float32Array.from({ length: B }, (_, i) => 1000 * (i + 0.5) / B), [B]));
  const pass = (): number =>
    step(() => {
      const loss = mse(ssFlow(model, x, t, cond), noise);
      backward(loss);
      return loss.item();
    });
  const clear = (): void => {
    for (const [, p] of leaves<typeof x>(optimizer.params)) if (p.grad) device().memory.zero(p.grad.addr, p.grad.bytes);
  };
  const loss = pass(), simple = (clear(), withAnyCardKernels(pass));
  clear();
  memory.resetPeak();
  const passMs = time(clear, () => void pass(), RUNS), simpleMs = withAnyCardKernels(() => time(clear, () => void pass(), RUNS));
  const stepMs = time(() => {}, () => {
    pass();
    optimizer.step();
  }, RUNS);
  const name = `SS-Flow image-L bf16 batch ${B}`, share = (ms: number): number => B * TFLOP / ms * 1e3 / 989;
  return [
    measured({
      case: `${name} forward and backward`,
      metric: "time",
      unit: "ms",
      ours: passMs,
      limit: B * TFLOP / 0.989,
      fraction_of_limit: share(passMs),
    }),
    measured({
      case: `${name} training step`,
      metric: "time",
      unit: "ms",
      ours: stepMs,
      limit: B * TFLOP / 0.989,
      fraction_of_limit: share(stepMs),
    }),
    measured({
      case: `${name} forward and backward, attention for any card`,
      metric: "time",
      unit: "ms",
      ours: simpleMs,
      limit: B * TFLOP / 0.989,
      fraction_of_limit: share(simpleMs),
    }),
    measured({
      case: `${name} peak memory`,
      metric: "memory",
      unit: "GiB",
      ours: memory.use().peak / 2 ** 30,
      limit: 139,
      fraction_of_limit: memory.use().peak / 2 ** 30 / 139,
    }),
    measured({
      case: `${name} loss, and with attention for any card`,
      metric: "mse",
      unit: "",
      ours: loss,
      peer: simple,
      peer_name: "attention for any card",
      ratio: simple / loss,
    }),
  ];
}

benchmark("ss_flow_step", measure);
