/** What an optimizer keeps beside the model, and how a step changes it: all of it in every process, or spread over them. */
import { type Bucket, layOutBuckets } from "../dist/gradients.ts";
import type { Communicator } from "../dist/communicator.ts";
import type { Kept } from "../tensor/snapshot.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adamw, adamwStep, type AdamwStepOptions, makeAdamw } from "./adamw.ts";
import { makeEmas } from "./ema.ts";
import { type FlatParameters, parametersFrom, refreshCopy } from "./parameters.ts";

/** How the state of an optimizer is kept. */
export interface UpdaterOptions {
  ranks: Communicator;
  /** Moments in 8 bits. */
  codes: boolean;
  emaRates: readonly number[];
  /** Whether the means, and whether the moments, are in the host's memory. */
  hostMeans: boolean;
  hostMoments: boolean;
  /** Bytes of gradients that are on their way together. */
  bucketBytes?: number;
}

/** The state of an optimizer. */
export interface Updater {
  /** What a checkpoint keeps. */
  tensors: Record<string, Tensor | Kept>;
  /** The memory that this process holds for it, masters included. */
  held: Record<string, Tensor>;
  /** With the count of applied steps, and the statistics of the last one. */
  adamw: Adamw;
  buckets: Bucket[];
  /** The parts of the gradient buffer that have the sums after the buckets were sent, and who has the others, if this rank has not all. */
  own: { parts: Bucket[]; others?: Communicator };
  /** Queues the sum of a bucket of gradients over the ranks. */
  send(view: Tensor, index: number): void;
  /** Queues a step on gradients that are summed over the ranks. */
  step(options: Omit<AdamwStepOptions, "emas">): void;
  /** `params` averaged at the first rate, in the caller's scope. */
  averaged<P>(params: P): P;
  /** Makes the model's parameters from the masters, after these were filled. */
  refresh(): void;
  free(): void;
}

/** The state of moments and means as a checkpoint names it. */
export function namedState<T>(
  master: T,
  { m, v, scales }: { m: T; v: T; scales: { m: T; v: T } | null },
  means: [rate: number, values: T][],
): Record<string, T> {
  return {
    master,
    exp_avg: m,
    exp_avg_sq: v,
    ...(scales && { exp_avg_scale: scales.m, exp_avg_sq_scale: scales.v }),
    ...Object.fromEntries(means.map(([rate, values]) => [`ema${rate}`, values])),
  };
}

/** All of the state in this process: every one takes the same step. */
export function wholeUpdater(flat: FlatParameters, options: UpdaterOptions): Updater {
  const { ranks, codes, emaRates, hostMeans, hostMoments, bucketBytes } = options;
  const adamw = makeAdamw(flat.master.size, { codes, onHost: hostMoments }), emas = makeEmas(flat.master, emaRates, { onHost: hostMeans });
  const tensors = namedState(flat.master, adamw, emas.map(({ rate, values }) => [rate, values]));
  return {
    ...{ tensors, held: tensors, adamw },
    buckets: layOutBuckets(flat.grad.size, { bucketBytes, boundary: flat.boundary }),
    own: { parts: [{ offset: 0, size: flat.grad.size }] },
    send: (view) => ranks.allReduce(view),
    step: (step) => adamwStep(flat, adamw, { ...step, emas }),
    averaged: (params) => parametersFrom(flat, params, emas[0].values),
    refresh: () => refreshCopy(flat),
    free() {
      for (const t of [...Object.values(tensors), adamw.stats]) if (t !== flat.master) t.free();
    },
  };
}
