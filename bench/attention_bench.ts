/**
 * Times attention on CUDA, forward and backward, in medians of CUDA events, and writes bench/results/attention.json.
 *
 *   deno task bench bench/attention_bench.ts
 */
import { crossAttention, selfAttention } from "../lib/ops/attention.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { benchmark, type Row, row, time } from "./harness.ts";

/** Dense 16-bit TFLOP/s of an H100 or H200 by its data sheet. */
const LIMIT = 989;
/** Forward and backward of one shape; useful work alone is counted: 4 B H L M D forward, 2.5 times that backward. */
function rows({ B, L, M, H, D }: { B: number; L: number; M: number; H: number; D: number }): Row[] {
  return step(() => {
    const random = new Generator(1), options = { dtype: "bf16" as const }, self = L === M;
    const q = random.normal(self ? [B, L, 3, H, D] : [B, L, H, D], options), kv = random.normal([B, M, 2, H, D], options);
    const dy = random.normal([B, L, H, D], options), inputs = self ? [q] : [q, kv];
    for (const t of inputs) t.requiresGrad = true;
    const forward = (): Tensor => self ? selfAttention(q) : crossAttention(q, kv);
    const fresh = (): Tensor => {
      for (const t of inputs) t.grad = null;
      return forward();
    };
    const work = 4 * B * H * L * M * D / 1e9, name = `bf16 B ${B} H ${H} D ${D} ${L} x ${M}`;
    return [
      measured(`${name} forward`, work / time(() => {}, () => void noGrad(forward))),
      measured(`${name} backward`, 2.5 * work / time(fresh, (y) => backward(y, dy))),
    ];
  });
}

function measured(name: string, ours: number): Row {
  console.log(`${name}: ${ours.toFixed(0)} TFLOP/s`);
  return row({ case: name, metric: "rate", unit: "TFLOP/s", ours, limit: LIMIT, fraction_of_limit: ours / LIMIT });
}

benchmark(
  "attention",
  () => [[4096, 4096, 64], [4096, 1374, 64], [4096, 4096, 128], [4096, 1374, 128]].flatMap(([L, M, D]) => rows({ B: 8, L, M, H: 16, D })),
);
