/** The optimizer of a training recipe: flat parameters, AdamW, clipping, loss scaling, means and the learning rate, stepped together. */
import { type Communicator, communicator } from "../dist/communicator.ts";
import { shareGradients } from "../dist/gradients.ts";
import { leaves, type Parameters } from "../nn/parameters.ts";
import type { Histogram } from "../ops/histogram.ts";
import { K_ADAMW8_BLOCK } from "../../ffi/symbols.ts";
import { device } from "../tensor/device.ts";
import type { Kept } from "../tensor/snapshot.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { readStats } from "./adamw.ts";
import { type GradClipState, gradClipState, makeGradClip, recordNorm, restoreGradClip } from "./grad_clip.ts";
import { modelHistograms } from "./histograms.ts";
import { lossScale, makeLossScale, updateLossScale } from "./loss_scale.ts";
import { learningRate } from "./lr.ts";
import { ALIGNMENT, flattenParameters, freeParameters } from "./parameters.ts";
import { shardedLayout, shardedUpdater } from "./sharded.ts";
import { holdingState } from "./state_size.ts";
import { type Updater, wholeUpdater } from "./updater.ts";

/** How parameters are updated. */
export interface OptimizerConfig {
  lr: number;
  weightDecay: number;
  betas: [number, number];
  eps: number;
  /** Steps over which the learning rate rises. */
  warmup: number;
  /** Gradients are scaled down to maxNorm; with a percentile, to that of the last 1000 norms where it is lower. */
  clip: { maxNorm: number | null; percentile: number | null };
  /** Rates of the exponential means of the parameters; the first one is exported. */
  emaRates: number[];
  /** By how much the binary logarithm of the loss scale grows a step, with f16 parameters. */
  scaleGrowth: number;
  /** Bits of a moment: in 8 bits both take 2.06 bytes a parameter, in 32 they take 8. */
  momentBits: 8 | 32;
  /** What is in the host's memory, which a step reaches over the bus: nothing, the means, or the means and the moments. */
  onHost: "nothing" | "means" | "state";
  /** Whether masters, moments and means are spread over the processes that train together: each keeps and steps its part (ZeRO-1). */
  shard: boolean;
}

/** TRELLIS's values. */
export const OPTIMIZER_DEFAULTS: OptimizerConfig = {
  lr: 1e-4,
  weightDecay: 0,
  betas: [0.9, 0.999],
  eps: 1e-8,
  warmup: 0,
  clip: { maxNorm: 1, percentile: 95 },
  emaRates: [0.9999],
  scaleGrowth: 1e-3,
  momentBits: 32,
  onHost: "nothing",
  shard: false,
};

/** So many skipped steps in a row are no loss scale that is too high, which halves at each. */
export const MOST_SKIPPED = 100;

/** What an optimizer's tensors do not hold, for a checkpoint. */
export interface OptimizerState {
  steps: number;
  applied: number;
  clip: GradClipState;
  logScale: number;
  /** Steps in a row that were skipped for gradients that are not finite. */
  skipped: number;
}

/** What a step did. */
export interface OptimizerReport {
  lr: number;
  /** Norm of the gradients before clipping. */
  grad_norm: number;
  /** 1 where the step was skipped for gradients that are not finite. */
  skipped: number;
  /** Only with f16 parameters. */
  log_scale?: number;
}

/** An optimizer and the parameters it moves. */
export interface Optimizer<P> {
  /** The parameters, in the optimizer's memory: use these in place of those given. */
  readonly params: P;
  /** How many values are trained. */
  readonly size: number;
  /** Everything that a checkpoint must hold: the same names and values whether it is spread over processes or not. */
  readonly tensors: Record<string, Tensor | Kept>;
  /** The memory that this process holds for it, beside the parameters that the model sees. */
  readonly held: Record<string, Tensor>;
  /** What losses are multiplied by before the backward pass: 1 unless parameters are f16. Then it waits for the last step: ask after the forward pass. */
  lossScale(): number;
  /**
   * Queues an update of the parameters from their gradients, which are then `outdated`. What is returned gives the report: asked for after the next
   * pass was queued, it does not keep the device waiting. It throws a RangeError at the hundredth step in a row that is skipped for gradients that are
   * not finite. The next step, the next loss scale and {@linkcode Optimizer.state} ask for it where nobody did.
   * `watch` is given histograms of the parameters before the step and of its gradients, by parts of the model: all processes ask for them together.
   */
  stepLater(watch?: (found: Record<string, Histogram>) => void): () => OptimizerReport;
  /** The same, and waits for the report. */
  step(): OptimizerReport;
  /** The parameters averaged at the first EMA rate, in the model's dtypes; all processes ask for them together. They live in the caller's scope, or for good outside of one. */
  averaged(): P;
  state(): OptimizerState;
  /** Gives all its memory back, the parameters included. */
  free(): void;
  /** Puts a checkpoint back, after its tensors were filled. */
  restore(state: OptimizerState): void;
}

/** Options of {@linkcode createOptimizer}. */
export interface OptimizerOptions {
  /** The processes that train together; by default those of this one's job. */
  ranks?: Communicator;
  /** Bytes of gradients that are on their way together. */
  bucketBytes?: number;
}

/**
 * Makes the optimizer of `params`, a tree as `specs` describes; the tensors given are freed. Where several processes train, gradients are the sums
 * over all of them, and all take the same step.
 */
export function createOptimizer<S>(
  specs: S,
  params: Parameters<S>,
  config: OptimizerConfig,
  { ranks = communicator(), bucketBytes }: OptimizerOptions = {},
): Optimizer<Parameters<S>> {
  const codes = config.momentBits === 8, unit = codes ? K_ADAMW8_BLOCK : ALIGNMENT, spread = config.shard && ranks.world > 1;
  const [hostMeans, hostMoments] = [config.onHost !== "nothing", config.onHost === "state"];
  const options = { ranks, codes, emaRates: config.emaRates, hostMeans, hostMoments, bucketBytes };
  const { flat, params: seen, updater } = holdingState(specs, { ...config, world: spread ? ranks.world : 1 }, () => {
    const flattened = flattenParameters(specs, params, spread ? shardedLayout(ranks.world) : { unit }), { flat } = flattened;
    const updater: Updater = spread ? shardedUpdater(flat, { ...options, unit }) : wholeUpdater(flat, options);
    return { ...flattened, updater };
  });
  const { adamw } = updater;
  device().memory.trim(); // of what the parameters were given in
  const clip = makeGradClip({ maxNorm: config.clip.maxNorm ?? undefined, percentile: config.clip.percentile });
  const scale = makeLossScale({ growth: config.scaleGrowth }), scaled = flat.copy?.dtype === "f16";
  const tensors = new Map(leaves<Tensor>(seen));
  const shared = flat.entries.map(({ name, offset }) => ({ name, offset, tensor: tensors.get(name)! }));
  const trained = flat.entries.map(({ name }) => tensors.get(name)!);
  const sharing = shareGradients(flat.grad, shared, ranks, updater);
  let steps = 0, skipped = 0, pending: (() => OptimizerReport) | undefined;
  const settle = (): void => void pending?.();
  const finish = (lr: number): OptimizerReport => {
    pending = undefined;
    const { norm, finite } = readStats(adamw), log_scale = scale.logScale;
    recordNorm(clip, norm);
    if (scaled) updateLossScale(scale, finite);
    skipped = finite ? 0 : skipped + 1;
    if (skipped === MOST_SKIPPED) {
      throw new RangeError(
        `Cannot go on: the gradients of the last ${MOST_SKIPPED} steps are not all finite, they must be; try a smaller learning rate, or f32`,
      );
    }
    return { lr, grad_norm: finite ? norm : 0, skipped: finite ? 0 : 1, ...(scaled ? { log_scale } : {}) };
  };
  const stepLater: Optimizer<unknown>["stepLater"] = (watch) => {
    settle();
    // What got no gradient: no bucket with a part of it is on its way yet, since these go when all of theirs have come, or now.
    for (const { outdated, grad } of trained) if (outdated) device().memory.zero(grad!.addr, grad!.bytes);
    sharing.finish();
    const { parts, others } = updater.own;
    watch?.(modelHistograms(flat, tensors, { own: parts, ranks: others, unscale: scaled ? 1 / lossScale(scale) : 1 }));
    const lr = learningRate(steps++, { lr: config.lr, warmupSteps: config.warmup });
    updater.step({
      lr,
      betas: config.betas,
      eps: config.eps,
      weightDecay: config.weightDecay,
      maxNorm: Number.isFinite(clip.limit) ? clip.limit : 0,
      unscale: scaled ? 1 / lossScale(scale) : 1,
      zeroGrad: false,
    });
    for (const t of trained) t.outdated = true;
    let report: OptimizerReport | undefined;
    return pending = () => report ??= finish(lr);
  };
  return {
    params: seen,
    size: flat.entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    tensors: updater.tensors,
    held: { ...updater.held, gradients: flat.grad },
    lossScale() {
      if (!scaled) return 1;
      if (!device().simulated) settle();
      return lossScale(scale);
    },
    stepLater,
    step: () => stepLater()(),
    averaged: () => updater.averaged(seen),
    state() {
      settle();
      return { steps, applied: adamw.applied, clip: gradClipState(clip), logScale: scale.logScale, skipped };
    },
    free() {
      sharing.free();
      updater.free();
      freeParameters(flat, seen);
    },
    restore(state) {
      pending = undefined;
      adamw.coming = null;
      steps = state.steps;
      adamw.applied = state.applied;
      restoreGradClip(clip, state.clip);
      scale.logScale = state.logScale;
      skipped = state.skipped;
      updater.refresh();
    },
  };
}
