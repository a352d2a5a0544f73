/**
 * Times dense convolutions of the sparse-structure VAE on CUDA, forward and backward, in medians of CUDA events, and writes
 * bench/results/conv3d.json. The limit is the larger of FLOP at 989 TFLOP/s and bytes (each tensor once) at 4.3 TB/s.
 *
 *   deno run -q -P=train bench/conv3d_bench.ts
 */
import { openCudart } from "../ffi/cudart.ts";
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { conv3d } from "../lib/ops/conv3d.ts";
import { openDevice } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { stream, type Tensor } from "../lib/tensor/tensor.ts";

interface Case {
  B: number;
  R: number;
  Cin: number;
  Cout: number;
  kernel: number;
  stride: number;
  padding: number;
}

interface Row {
  case: string;
  metric: string;
  unit: string;
  ours: number;
  peer: null;
  peer_name: null;
  ratio: null;
  limit: number;
  fraction_of_limit: number;
}

const FLOPS = 989e12, BANDWIDTH = 4.3e12, WARM_UP = 3, RUNS = 20;

/** Median milliseconds on the device of `run`, each time on what `prepare` made. */
function time<T>(prepare: () => T, run: (made: T) => void): number {
  const cuda = openCudart(), events = [new BigUint64Array(1), new BigUint64Array(1)], elapsed = new Float32Array(1), all: number[] = [];
  for (const e of events) cuda.cudaEventCreate(e);
  const [start, end] = events.map((e) => e[0]);
  for (let i = -WARM_UP; i < RUNS; i++) {
    step(() => {
      const made = prepare();
      cuda.cudaEventRecord(start, stream());
      run(made);
      cuda.cudaEventRecord(end, stream());
      cuda.cudaEventSynchronize(end);
      cuda.cudaEventElapsedTime(elapsed, start, end);
      if (i >= 0) all.push(elapsed[0]);
    });
  }
  for (const e of [start, end]) cuda.cudaEventDestroy(e);
  return all.sort((a, b) => a - b)[RUNS >> 1];
}

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
      row(`${name} forward`, time(() => {}, () => void noGrad(forward)), flop, bytes),
      row(`${name} backward`, time(fresh, (y) => backward(y, dy)), passes * flop, passes * bytes),
    ];
  });
}

function row(name: string, ours: number, flop: number, bytes: number): Row {
  const limit = 1e3 * Math.max(flop / FLOPS, bytes / BANDWIDTH);
  console.log(`${name}: ${ours.toFixed(3)} ms, ${(flop / ours / 1e9).toFixed(0)} TFLOP/s, ${(bytes / ours / 1e6).toFixed(0)} GB/s`);
  return {
    case: name,
    metric: "time",
    unit: "ms",
    ours,
    peer: null,
    peer_name: null,
    ratio: null,
    limit,
    fraction_of_limit: limit / ours,
  };
}

if (import.meta.main) {
  openDevice("cuda");
  const smi = await new Deno.Command("nvidia-smi", { args: ["--query-gpu=name", "--format=csv,noheader"] }).output();
  const same = { B: 8, kernel: 3, stride: 1, padding: 1 }, down = { B: 8, kernel: 2, stride: 2, padding: 0 };
  const measured = [
    { ...same, R: 64, Cin: 128, Cout: 128 },
    { ...same, R: 16, Cin: 512, Cout: 512 },
    { ...same, R: 32, Cin: 128, Cout: 128 },
    { ...same, R: 64, Cin: 32, Cout: 32 },
    { ...same, R: 64, Cin: 1, Cout: 32 },
    { ...same, R: 64, Cin: 32, Cout: 1 },
    { ...down, R: 64, Cin: 32, Cout: 128 },
  ].flatMap(rows);
  const result = {
    bench: "conv3d",
    date: new Date().toISOString().slice(0, 10),
    gpu: new TextDecoder().decode(smi.stdout).trim().split("\n")[0],
    command: "deno run -q -P=train bench/conv3d_bench.ts",
    rows: measured,
  };
  const path = new URL("results/conv3d.json", import.meta.url).pathname;
  writeFileAtomic(path, new TextEncoder().encode(JSON.stringify(result, null, 2) + "\n"));
}
