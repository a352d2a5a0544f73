/**
 * Times what a training step of SS-Flow image-L does beside products and attention: norms, residuals, head norms, GELU, the optimizer. Bound by
 * memory: each row has the time that its bytes take at the speed of a copy, and torch.compile's in the same run. Writes
 * bench/results/step_kernels.json.
 *
 *   deno task bench bench/step_kernels_bench.ts
 */
import { add, gelu } from "../lib/ops/elementwise.ts";
import { gateAdd, layerNormModulate } from "../lib/ops/modulate.ts";
import { modulationParts } from "../lib/ops/norm.ts";
import { residualNorm } from "../lib/ops/residual_norm.ts";
import { headRmsNorm } from "../lib/ops/rms_norm.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { initialize, leaves } from "../lib/nn/parameters.ts";
import { ssFlowSpec } from "../lib/models/ss_flow.ts";
import { PUBLISHED_SS_FLOW } from "../lib/models/published.ts";
import { device } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, time, timePeers } from "./harness.ts";

const B = 8, L = 4096, C = 1024, H = 16, D = 64, BF16 = { dtype: "bf16" as const };
/** Bytes of a pass over [B, L, C] bf16. */
const UNIT = 2 * B * L * C;

/**
 * Bytes a parameter that the optimizer moves: its gradient is read twice, since clipping needs the norm of all; master, both moments and the mean are
 * read and written, the 16-bit copy is written.
 */
const OPTIMIZER_BYTES = 4 + 4 + 4 * 8 + 2;

/** Milliseconds of a copy that reads and writes `bytes` in all. */
function copyTime(bytes: number): number {
  const { memory } = device(), half = bytes / 2;
  return time(() => [memory.alloc(half), memory.alloc(half)], ([a, b]) => {
    memory.copy(b, a, half);
    for (const t of [a, b]) memory.free(t, half);
  });
}

/** What plain copies of the bytes of `all` take in the same run: a launch, its first and last rows, and zeros that the cache has yet to write. */
function copies(all: Case[], speed: number): Row[] {
  const counts = [...new Set(all.flatMap((c) => c.passes))].sort((a, b) => a - b);
  return counts.map((passes) => {
    const ours = 1e3 * copyTime(passes * UNIT), limit = 1e6 * passes * UNIT / speed;
    return measured({ case: `copy, ${passes} passes`, metric: "time", unit: "µs", ours, limit, fraction_of_limit: limit / ours });
  });
}

interface Case {
  name: string;
  inputs: Tensor[];
  run(): Tensor;
  /** Passes over [B, L, C] forward and backward. */
  passes: [forward: number, backward: number];
}

function rowsOf({ name, inputs, run, passes }: Case, speed: number, peers: PeerTime[]): Row[] {
  const dy = noGrad(() => new Generator(9).normal(run().shape, BF16));
  const fresh = (): Tensor => {
    for (const t of inputs) t.grad = null, t.requiresGrad = true;
    return run();
  };
  const ms = { forward: time(() => {}, () => void noGrad(run)), backward: time(fresh, (y) => backward(y, dy)) };
  return (["forward", "backward"] as const).map((pass, i) => {
    const limit = 1e6 * passes[i] * UNIT / speed, ours = 1e3 * ms[pass], peer = fastest(peers, `${name} ${pass}`);
    const beside = peer && { peer: 1e3 * peer.ms, peer_name: peer.name, ratio: peer.ms / ms[pass] };
    return measured({ case: `${name} ${pass}`, metric: "time", unit: "µs", ours, limit, fraction_of_limit: limit / ours, ...beside });
  });
}

function cases(): Case[] {
  const random = new Generator(1), make = (...shape: number[]): Tensor => random.normal(shape, BF16);
  const x = make(B, L, C), h = make(B, L, C), m = make(B, 6 * C), w = random.normal([C]), b = random.normal([C]);
  const [shift, scale, gate] = modulationParts(m, 6), qkv = make(B, L, 3, H, D), z = make(B, L, 4 * C), eps = 1e-6;
  const gammas = [random.normal([H, D]), random.normal([H, D])];
  return [
    { name: "LayerNorm, modulate", inputs: [x, m], run: () => layerNormModulate(x, shift, scale), passes: [2, 3] },
    { name: "gated residual", inputs: [x, h, m], run: () => gateAdd(x, h, gate), passes: [3, 3] },
    {
      name: "gated residual, LayerNorm, modulate",
      inputs: [x, h, m],
      run: () => residualNorm(x, h, gate, { shift, scale, eps })[1],
      passes: [4, 5],
    },
    {
      name: "gated residual, LayerNorm, modulate, plus the residual's gradient",
      inputs: [x, h, m],
      run: () => add(...residualNorm(x, h, gate, { shift, scale, eps })),
      passes: [7, 6],
    },
    { name: "residual, LayerNorm", inputs: [x, h, w, b], run: () => residualNorm(x, h, null, { w, b, eps })[1], passes: [4, 3] },
    { name: "q/k RMS norm of packed qkv", inputs: [qkv, ...gammas], run: () => headRmsNorm(qkv, gammas), passes: [6, 9] },
    { name: "GELU", inputs: [z], run: () => gelu(z), passes: [8, 12] },
  ];
}

/** Clipping, AdamW, mean and 16-bit copy of 555.5 M parameters. */
function optimizer(speed: number, peers: PeerTime[]): Row {
  const specs = ssFlowSpec({ ...PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16, use_fp16: false }, "bf16");
  const made = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS), name = "optimizer, 555.5 M parameters";
  const written = (): void => leaves<Tensor>(made.params).forEach(([, t]) => t.outdated = false); // as after a backward pass
  const ms = time(written, () => void made.stepLater()), limit = 1e3 * OPTIMIZER_BYTES * made.size / speed, peer = fastest(peers, name);
  made.free();
  const beside = peer && { peer: peer.ms, peer_name: peer.name, ratio: peer.ms / ms };
  return measured({ case: name, metric: "time", unit: "ms", ours: ms, limit, fraction_of_limit: limit / ms, ...beside });
}

benchmark("step_kernels", (save) => {
  const peers = timePeers("step_kernels"), large = 2 ** 31, speed = large / copyTime(large) * 1e3;
  const rows = [measured({ case: "copy of 1 GiB", metric: "rate", unit: "GB/s", ours: speed / 1e9 }), optimizer(speed, peers)];
  step(() => {
    const all = cases();
    rows.push(...copies(all, speed));
    for (const c of all) {
      rows.push(...rowsOf(c, speed, peers));
      save(rows);
    }
  });
  return rows;
});
