/**
 * Times attention on CUDA, forward and backward, in medians of CUDA events, beside PyTorch's cuDNN and FlashAttention backends in the same run
 * (where python3 has torch), and writes bench/results/attention.json.
 *
 *   deno task bench bench/attention_bench.ts
 */
import { K_ATTENTION_SM80 } from "../ffi/symbols.ts";
import { crossAttention, selfAttention } from "../lib/ops/attention.ts";
import { affine, square, sub } from "../lib/ops/elementwise.ts";
import { sum } from "../lib/ops/reduce.ts";
import { Generator } from "../lib/tensor/random.ts";
import { persist, step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { withFields } from "../tests/ops/attention_reference.ts";
import { ssFlowWork, type WorkOptions } from "./flow_models.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, time, timePeers } from "./harness.ts";

/** Dense 16-bit TFLOP/s of an H100 or H200 by its data sheet, and the bytes a second that an H200 copies at. */
const LIMIT = 989, BANDWIDTH = 4.3e12;
const BF16 = { dtype: "bf16" as const };

/** Milliseconds of an op's forward and backward pass. */
interface Times {
  forward: number;
  backward: number;
}

/** Times `run`, which takes `inputs`. */
function timeOp(inputs: Tensor[], run: () => Tensor): Times {
  const dy = noGrad(() => new Generator(2).normal(run().shape, BF16));
  for (const t of inputs) t.requiresGrad = true;
  const fresh = (): Tensor => {
    for (const t of inputs) t.grad = null;
    return run();
  };
  return { forward: time(() => {}, () => void noGrad(run)), backward: time(fresh, (y) => backward(y, dy)) };
}

/** A row in TFLOP/s, from milliseconds and a peer's. */
function rate(name: string, tflop: number, ms: number, peer?: { name: string; ms: number }): Row {
  const ours = 1e3 * tflop / ms, beside = peer && { peer: 1e3 * tflop / peer.ms, peer_name: peer.name, ratio: peer.ms / ms };
  return measured({ case: name, metric: "rate", unit: "TFLOP/s", ours, limit: LIMIT, fraction_of_limit: ours / LIMIT, ...beside });
}

const DENSE = "ours, dense of equal work";

/** One dense shape; useful work alone is counted: 4 B H L M D forward, 2.5 times that backward. */
function dense(peers: PeerTime[], [L, M, D]: number[], B = 8, H = 16): Row[] {
  return step(() => {
    const random = new Generator(1), self = L === M;
    const q = random.normal(self ? [B, L, 3, H, D] : [B, L, H, D], BF16), kv = self ? [] : [random.normal([B, M, 2, H, D], BF16)];
    const ms = timeOp([q, ...kv], () => self ? selfAttention(q) : crossAttention(q, kv[0]));
    const work = 4 * B * H * L * M * D / 1e12, name = `bf16 B ${B} H ${H} D ${D} ${L} x ${M}`;
    const free = fastest(peers, `${name} backward in any order`);
    return [
      rate(`${name} forward`, work, ms.forward, fastest(peers, `${name} forward`)),
      rate(`${name} backward`, 2.5 * work, ms.backward, fastest(peers, `${name} backward`)),
      ...free ? [rate(`${name} backward, deterministic, beside the fastest that adds in any order`, 2.5 * work, ms.backward, free)] : [],
    ];
  });
}

/** Eight sequences of 2048 to 8192 tokens, beside eight of one length with the same work. */
function varlen(H = 16, D = 64): Row[] {
  const lengths = [2048, 2926, 3803, 4681, 5559, 6436, 7314, 8192], offsets = [0];
  for (const n of lengths) offsets.push(offsets.at(-1)! + n);
  const squares = lengths.reduce((sum, n) => sum + n * n, 0), L = Math.round(Math.sqrt(squares / 8)), N = offsets.at(-1)!;
  const work = (sum: number): number => 4 * H * D * sum / 1e12, even = 8 * L * L;
  return step(() => {
    const random = new Generator(1), sequences = { offsets: tensor(offsets, [9], { dtype: "i32" }), longest: 8192 };
    const ragged = random.normal([N, 3, H, D], BF16), same = random.normal([8, L, 3, H, D], BF16);
    const ours = timeOp([ragged], () => selfAttention(ragged, { sequences }));
    const plain = timeOp([same], () => selfAttention(same)), scale = squares / even;
    const name = `bf16 8 sequences of 2048 to 8192 H ${H} D ${D}`, beside = (ms: number) => ({ name: DENSE, ms: ms * scale });
    return [
      rate(`${name} forward`, work(squares), ours.forward, beside(plain.forward)),
      rate(`${name} backward`, 2.5 * work(squares), ours.backward, beside(plain.backward)),
    ];
  });
}

/** The shifted windows of `samples` sphere shells in R³: the voxels window by window, and each window's count. */
function shellWindows(samples: number, R = 64, window = 8): { rows: number[]; lengths: number[] } {
  const windows = new Map<number, number[]>(),
    middle = (R - 1) / 2,
    side = R / window + 1,
    cell = (x: number): number => Math.floor((x + window / 2) / window);
  let voxels = 0;
  for (let b = 0; b < samples; b++) {
    for (let x = 0; x < R; x++) {
      for (let y = 0; y < R; y++) {
        for (let z = 0; z < R; z++) {
          const distance = Math.hypot(x - middle, y - middle, z - middle);
          if (distance < R / 2 - 1.25 || distance > R / 2) continue;
          const key = ((b * side + cell(x)) * side + cell(y)) * side + cell(z), rows = windows.get(key) ?? [];
          windows.set(key, rows);
          rows.push(voxels++);
        }
      }
    }
  }
  const sorted = [...windows].sort(([a], [b]) => a - b).map(([, rows]) => rows);
  return { rows: sorted.flat(), lengths: sorted.map((rows) => rows.length) };
}

/** Attention within windows: bound by memory, four arrays of [N, H, D] forward and eight backward. */
function windowed(peers: PeerTime[], samples: number, H = 12, D = 64): Row[] {
  return step(() => {
    const { rows, lengths } = shellWindows(samples), N = rows.length, offsets = [0], i32 = { dtype: "i32" } as const;
    for (const n of lengths) offsets.push(offsets.at(-1)! + n);
    const sequences = {
      offsets: tensor(offsets, [offsets.length], i32),
      longest: Math.max(...lengths),
      rows: tensor(rows, [N], i32),
    };
    const qkv = new Generator(1).normal([N, 3, H, D], BF16), ms = timeOp([qkv], () => selfAttention(qkv, { sequences }));
    const name = `bf16 windows of ${N} voxels H ${H} D ${D}`,
      micros = (pass: "forward" | "backward", arrays: number): Row => {
        const peer = fastest(peers, `${name} ${pass}`), limit = 1e6 * arrays * N * H * D * 2 / BANDWIDTH, ours = 1e3 * ms[pass];
        const beside = peer && { peer: 1e3 * peer.ms, peer_name: peer.name, ratio: peer.ms / ms[pass] };
        return measured({ case: `${name} ${pass}`, metric: "time", unit: "µs", ours, limit, fraction_of_limit: limit / ours, ...beside });
      };
    return [micros("forward", 4), micros("backward", 8)];
  });
}

/**
 * The loss of the half-billion-parameter sparse-structure flow model and its gradients, beside those with the kernels for any card; and the loss
 * of one sample beside f32's, which says what bf16 itself does.
 */
function flowModel(): Row[] {
  const pass = (options: WorkOptions, flags = 0n): { loss: number; gradients: Tensor } => {
    const work = ssFlowWork(options), loss = withFields({ flags }, () => work.pass());
    const outcome = { loss: loss.item(), gradients: persist(() => affine(work.optimizer.held.gradients, { scale: 1 })) };
    loss.free();
    work.free();
    return outcome;
  };
  const name = "SS-Flow image-L", any = "the kernels for any card";
  const ours = pass({ batch: 8 }), simple = pass({ batch: 8 }, BigInt(K_ATTENTION_SM80));
  const apart = step(() => {
    const a = ours.gradients, b = simple.gradients;
    return Math.sqrt(sum(square(sub(a, b))).item() / sum(square(b)).item());
  });
  const half = pass({ batch: 1 }), full = pass({ batch: 1, dtype: "f32" });
  for (const { gradients } of [ours, simple, half, full]) gradients.free();
  const loss = (what: string, ours: number, peer: number, peer_name: string): Row =>
    measured({ case: `${name} ${what} loss`, metric: "loss", unit: "", ours, peer, peer_name, ratio: ours / peer });
  return [
    loss("bf16 batch 8", ours.loss, simple.loss, any),
    loss("bf16 batch 1", half.loss, full.loss, "f32"),
    measured({ case: `${name} bf16 batch 8 gradients, distance from ${any}`, metric: "relative L2", unit: "", ours: apart }),
  ];
}

benchmark("attention", (save) => {
  const peers = timePeers("attention");
  const rows = [
    ...[[4096, 4096, 64], [4096, 1374, 64], [4096, 4096, 128], [4096, 1374, 128]].flatMap((shape) => dense(peers, shape)),
    ...varlen(),
    ...[1, 4].flatMap((samples) => windowed(peers, samples)),
  ];
  save(rows);
  return [...rows, ...flowModel()];
});
