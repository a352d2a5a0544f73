/**
 * Times attention on CUDA, forward and backward, in medians of CUDA events, and writes bench/results/attention.json.
 *
 *   deno run -q -P=train bench/attention_bench.ts
 */
import { openCudart } from "../ffi/cudart.ts";
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { crossAttention, selfAttention } from "../lib/ops/attention.ts";
import { openDevice } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { stream, type Tensor } from "../lib/tensor/tensor.ts";

interface Row {
  case: string;
  metric: string;
  unit: string;
  ours: number;
  peer: number | null;
  peer_name: string | null;
  ratio: number | null;
  limit: number;
  fraction_of_limit: number;
}

/** Dense 16-bit TFLOP/s of an H100 or H200 by its data sheet. */
const LIMIT = 989;
const WARM_UP = 3, RUNS = 20;

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
      row(`${name} forward`, work / time(() => {}, () => void noGrad(forward))),
      row(`${name} backward`, 2.5 * work / time(fresh, (y) => backward(y, dy))),
    ];
  });
}

function row(name: string, ours: number): Row {
  console.log(`${name}: ${ours.toFixed(0)} TFLOP/s`);
  return {
    case: name,
    metric: "rate",
    unit: "TFLOP/s",
    ours,
    peer: null,
    peer_name: null,
    ratio: null,
    limit: LIMIT,
    fraction_of_limit: ours / LIMIT,
  };
}

if (import.meta.main) {
  openDevice("cuda");
  const smi = await new Deno.Command("nvidia-smi", { args: ["--query-gpu=name", "--format=csv,noheader"] }).output();
  const measured = [[4096, 4096, 64], [4096, 1374, 64], [4096, 4096, 128], [4096, 1374, 128]].flatMap(([L, M, D]) =>
    rows({ B: 8, L, M, H: 16, D })
  );
  const result = {
    bench: "attention",
    date: new Date().toISOString().slice(0, 10),
    gpu: new TextDecoder().decode(smi.stdout).trim().split("\n")[0],
    command: "deno run -q -P=train bench/attention_bench.ts",
    rows: measured,
  };
  const path = new URL("results/attention.json", import.meta.url).pathname;
  writeFileAtomic(path, new TextEncoder().encode(JSON.stringify(result, null, 2) + "\n"));
}
