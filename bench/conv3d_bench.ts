/**
 * Times dense convolutions of the sparse-structure VAE on CUDA, forward and backward, in medians of CUDA events, and writes
 * bench/results/conv3d.json. The limit is the larger of FLOP at 989 TFLOP/s and bytes (each tensor once) at 4.3 TB/s.
 *
 *   deno task bench bench/conv3d_bench.ts
 */
import { conv3d } from "../lib/ops/conv3d.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { benchmark, type Row, row, time } from "./harness.ts";

interface Case {
  B: number;
  R: number;
  Cin: number;
  Cout: number;
  kernel: number;
  stride: number;
  padding: number;
}

const FLOPS = 989e12, BANDWIDTH = 4.3e12;

/** Forward, and backward to the weight, the bias and, except for a first layer of one channel, x. */
function rows({ B, R, Cin, Cout, kernel, stride, padding }: Case): Row[] {
  return step(() => {
    const random = new Generator(1), options = { dtype: "f16" as const };
    const x = random.normal([B, R, R, R, Cin], options), bias = random.normal([Cout], options);
    const weight = random.normal([Cout, Cin, kernel, kernel, kernel], options);
    x.requiresGrad = Cin > 1;
    weight.requiresGrad = bias.requiresGrad = true;
    const forward = (): Tensor => conv3d(x, weight, bias, { stride, padding });
    const dy = random.normal(noGrad(forward).shape, options);
    const fresh = (): Tensor => {
      for (const t of [x, weight, bias]) t.grad = null;
      return forward();
    };
    const flop = 2 * dy.size * Cin * kernel ** 3, bytes = x.bytes + weight.bytes + dy.bytes, passes = x.requiresGrad ? 2 : 1;
    const name = `f16 B ${B} ${R}³ ${Cin} -> ${Cout} kernel ${kernel} stride ${stride}`;
    return [
      measured(`${name} forward`, time(() => {}, () => void noGrad(forward)), flop, bytes),
      measured(`${name} backward`, time(fresh, (y) => backward(y, dy)), passes * flop, passes * bytes),
    ];
  });
}

function measured(name: string, ours: number, flop: number, bytes: number): Row {
  const limit = 1e3 * Math.max(flop / FLOPS, bytes / BANDWIDTH);
  console.log(`${name}: ${ours.toFixed(3)} ms, ${(flop / ours / 1e9).toFixed(0)} TFLOP/s, ${(bytes / ours / 1e6).toFixed(0)} GB/s`);
  return row({ case: name, metric: "time", unit: "ms", ours, limit, fraction_of_limit: limit / ours });
}

const SAME = { B: 8, kernel: 3, stride: 1, padding: 1 }, DOWN = { B: 8, kernel: 2, stride: 2, padding: 0 };

benchmark("conv3d", () =>
  [
    { ...SAME, R: 64, Cin: 128, Cout: 128 },
    { ...SAME, R: 16, Cin: 512, Cout: 512 },
    { ...SAME, R: 32, Cin: 128, Cout: 128 },
    { ...SAME, R: 64, Cin: 32, Cout: 32 },
    { ...SAME, R: 64, Cin: 1, Cout: 32 },
    { ...SAME, R: 64, Cin: 32, Cout: 1 },
    { ...DOWN, R: 64, Cin: 32, Cout: 128 },
  ].flatMap(rows));
