/**
 * What computing on occupied voxels alone saves: convolutions of the structured-latent models, forward and backward, on the voxels of eight sphere
 * shells beside the same convolution of whole volumes, ours and cuDNN's (where python3 has PyTorch), with 80 GiB of memory. Milliseconds in medians
 * of CUDA events and GiB at the peak, inputs and gradients included. Writes bench/results/dense_sparse.json.
 *
 *   deno task bench bench/dense_sparse_bench.ts
 */
import { conv3d } from "../lib/ops/conv3d.ts";
import { sparseConv } from "../lib/sparse/conv.ts";
import { makeVoxels } from "../lib/sparse/voxels.ts";
import { device } from "../lib/tensor/device.ts";
import { OutOfMemoryError } from "../lib/tensor/memory.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step, tidy } from "../lib/tensor/scope.ts";
import { backward } from "../lib/tensor/tape.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, time, timePeers } from "./harness.ts";
import { shells } from "./shells.ts";

const B = 8, GIB = 2 ** 30, LIMIT = 80 * GIB, RUNS = 5, F16 = { dtype: "f16" } as const;

/** Channels and taps of a convolution. */
interface Case {
  what: string;
  Cin: number;
  Cout: number;
  kernel: number;
}

const CASES: Case[] = [
  { what: "SLat-Flow input block", Cin: 128, Cout: 128, kernel: 3 },
  { what: "SLat-Flow first output block", Cin: 2048, Cout: 128, kernel: 3 },
  { what: "SLat-VAE input stage", Cin: 1024, Cout: 768, kernel: 1 },
];

/** Milliseconds and GiB. */
interface Cost {
  ms: number;
  GiB: number;
}

/** The cost of `run`'s forward and backward pass from x; null where memory does not suffice. */
function cost(make: () => { x: Tensor; inputs: Tensor[]; run: () => Tensor }): Cost | null {
  const { memory } = device();
  memory.trim();
  memory.resetPeak();
  try {
    return step(() => {
      const { inputs, run } = make(), dy = new Generator(2).normal(tidy(run).shape, F16);
      for (const t of inputs) t.requiresGrad = true;
      const once = (): void => {
        for (const t of inputs) t.grad = null;
        tidy(() => {
          backward(run(), dy);
        });
      };
      step(once);
      const GiB = memory.use().peak / GIB;
      return { ms: time(() => {}, once, RUNS), GiB };
    });
  } catch (error) {
    if (error instanceof OutOfMemoryError) return null;
    throw error;
  }
}

function compare(peers: PeerTime[], { what, Cin, Cout, kernel }: Case, R: number): Row[] {
  const made = (shape: number[], weight: number[]): { x: Tensor; w: Tensor } => {
    const random = new Generator(1);
    return { x: random.normal(shape, F16), w: random.normal(weight, F16) };
  };
  const sparse = cost(() => {
    const voxels = makeVoxels(shells(new Array(B).fill(R))), { x, w } = made([voxels.N, Cin], [Cout, kernel, kernel, kernel, Cin]);
    return { x, inputs: [x, w], run: () => sparseConv({ features: x, voxels }, w).features };
  });
  if (!sparse) throw new Error(`${what} at ${R}³ does not fit ${LIMIT / GIB} GiB on voxels`);
  const dense = cost(() => {
    const { x, w } = made([B, R, R, R, Cin], [Cout, Cin, kernel, kernel, kernel]);
    return { x, inputs: [x, w], run: () => conv3d(x, w, null, { padding: (kernel - 1) / 2 }) };
  });
  const name = `${what} ${Cin} -> ${Cout}, ${kernel}³ taps, ${R}³, batch ${B}`;
  const rows = (unit: "ms" | "GiB", metric: string, ours: number, others: [string, number | undefined][]): Row[] =>
    others.map(([who, theirs]) =>
      measured({
        case: `${name}: ${metric}, sparse beside ${who}`,
        metric,
        unit,
        ours,
        ...(theirs === undefined
          ? { peer_name: `${who}: out of memory or not run` }
          : { peer: theirs, peer_name: who, ratio: theirs / ours }),
      })
    );
  const cudnn = fastest(peers, `${name} time`)?.ms, cudnnGiB = fastest(peers, `${name} peak GiB`)?.ms;
  return [
    ...rows("ms", "time", sparse.ms, [["our dense convolution", dense?.ms], ["cuDNN's dense convolution", cudnn]]),
    ...rows("GiB", "memory", sparse.GiB, [["our dense convolution", dense?.GiB], ["cuDNN's dense convolution", cudnnGiB]]),
  ];
}

benchmark("dense_sparse", () => {
  const peers = timePeers("dense_sparse");
  return [64, 128].flatMap((R) => CASES.flatMap((c) => compare(peers, c, R)));
}, { memoryLimit: LIMIT });
