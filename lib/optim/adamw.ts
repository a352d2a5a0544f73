/**
 * AdamW (Loshchilov and Hutter, 2019) on flat parameters, in the formulas of PyTorch's. A step is skipped on the device, without asking the
 * host, where a gradient is not finite. The host learns of it from {@linkcode readStats}, which waits for that step alone: best called
 * after the next work is queued. `adamwStep` calls it for a step that was not read, so the count of applied steps, which the bias
 * correction needs, is exact.
 */
import { K_ADAMW8_BLOCK } from "../../ffi/symbols.ts";
import { DTYPE } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import { empty, emptyOnHost, kernels, stream, type Tensor, zeros } from "../tensor/tensor.ts";
import { withWorkspace } from "../ops/workspace.ts";
import { type Ema, updateEma } from "./ema.ts";
import type { FlatBuffers } from "./parameters.ts";

/** What a step found in the gradients. */
export interface GradStats {
  /** The L2 norm of the unscaled gradients, before clipping; not finite where one of them is not. */
  norm: number;
  /** Whether all gradients were finite: the step was applied, else skipped. */
  finite: boolean;
}

/**
 * The optimizer's state. It lives until its tensors are freed by hand. A checkpoint holds `m` and `v` (see namedViews) and, after
 * {@linkcode readStats}, `applied`; putting these three back restores it.
 */
export interface Adamw {
  /** First and second moments, [n] f32 laid out as the masters, or u8 codes. */
  m: Tensor;
  v: Tensor;
  /** Of codes: a scale for each block of {@linkcode K_ADAMW8_BLOCK}, f32. */
  scales: { m: Tensor; v: Tensor } | null;
  /** [2] f32 on the device: norm and whether finite, of the last step. */
  stats: Tensor;
  /** Steps that were applied, not counting an unread one. */
  applied: number;
  /** The last step's statistics on their way to the host; null where they were read. */
  coming: (() => Float32Array) | null;
  /** The last statistics read. */
  last: GradStats;
}

/** Options of {@linkcode adamwStep}. */
export interface AdamwStepOptions {
  /** The learning rate of this step. */
  lr: number;
  /** Decay rates of the moments; 0.9 and 0.999 by default. */
  betas?: readonly [number, number];
  /** Added to the root of the second moment; 1e-8 by default. */
  eps?: number;
  /** Decoupled weight decay, times the learning rate; 0.01 by default. */
  weightDecay?: number;
  /** Gradients of a larger norm are scaled down to it; none by default. */
  maxNorm?: number;
  /** Multiplies the gradients first: 1 / the loss scale. 1 by default. */
  unscale?: number;
  /** Means to update after the step, also where it is skipped; the first costs no pass of its own. */
  emas?: readonly Ema[];
  /** Whether gradients are set to 0; true by default. */
  zeroGrad?: boolean;
}

/** Options of {@linkcode makeAdamw}. */
export interface AdamwOptions {
  /** Moments in 8 bits instead of f32: 2.06 bytes a parameter where there were 8, rounded at random without bias. */
  codes?: boolean;
  /** Whether the moments are in the host's memory. */
  onHost?: boolean;
}

/** An optimizer of n values at rest: moments 0, no step applied. */
export function makeAdamw(n: number, { codes = false, onHost = false }: AdamwOptions = {}): Adamw {
  const moment = (): Tensor => {
    if (!onHost) return zeros([n], codes ? "u8" : "f32");
    const words = emptyOnHost([codes ? Math.ceil(n / 4) : n]); // zeros of f32 are codes of 0
    kernels().k_fill_fwd(words.addr, BigInt(words.size), 0, DTYPE.f32, stream());
    if (!codes) return words;
    const bytes = words.view([n], { dtype: "u8" });
    words.free();
    return bytes;
  };
  const blocks = [Math.ceil(n / K_ADAMW8_BLOCK)];
  return persist(() => ({
    m: moment(),
    v: moment(),
    scales: codes ? { m: zeros(blocks), v: zeros(blocks) } : null,
    stats: empty([2]),
    applied: 0,
    coming: null,
    last: { norm: 0, finite: true },
  }));
}

/** Queues one step: norm of the gradients, clipping, AdamW on the masters, means, the model's 16-bit copies, gradients back to 0. */
export function adamwStep(flat: FlatBuffers, state: Adamw, options: AdamwStepOptions): void {
  readStats(state);
  queueNorm(state.stats.addr, flat.grad, options.unscale);
  applyAdamw(flat, state, options);
  state.coming = state.stats.readLater();
}

/** Queues the norm of `grad * unscale` and whether all of `grad` is finite, two f32 at `address`. */
export function queueNorm(address: bigint, grad: Tensor, unscale = 1): void {
  const n = BigInt(grad.size), k = kernels();
  withWorkspace(
    (bytes) => k.k_grad_norm_workspace(bytes, n),
    (scratch) => k.k_grad_norm_fwd(address, grad.addr, scratch, n, unscale, stream()),
  );
}

/** Queues a step whose norm is in `state.stats`. */
export function applyAdamw(
  { master, grad, copy }: FlatBuffers,
  state: Adamw,
  { lr, betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, maxNorm = 0, unscale = 1, emas = [], zeroGrad = true }:
    AdamwStepOptions,
): void {
  const { m, v, scales, stats } = state, n = BigInt(master.size), k = kernels(), [first, ...others] = emas;
  const t = BigInt(state.applied + 1), zero = zeroGrad ? 1 : 0;
  const [emaAddr, emaRate] = first ? [first.values.addr, first.rate] : [0n, 0];
  const [copyAddr, copySize, copyDtype] = copy ? [copy.addr, BigInt(copy.size), DTYPE[copy.dtype]] : [0n, 0n, DTYPE.f32];
  const rest = [emaAddr, copyAddr, grad.addr, stats.addr, n, copySize, t, lr, beta1, beta2, eps, weightDecay, unscale, maxNorm] as const;
  const end = [emaRate, zero, copyDtype, stream()] as const;
  if (scales) k.k_adamw8_fwd(master.addr, m.addr, v.addr, scales.m.addr, scales.v.addr, ...rest, ...end);
  else k.k_adamw_fwd(master.addr, m.addr, v.addr, ...rest, ...end);
  for (const ema of others) updateEma(master, ema);
}

/** The statistics of the last step; waits for it where they were not read yet. */
export function readStats(state: Adamw): GradStats {
  if (state.coming) {
    const [norm, finite] = state.coming();
    state.last = { norm, finite: finite === 1 };
    state.coming = null;
    if (state.last.finite) state.applied++;
  }
  return state.last;
}
