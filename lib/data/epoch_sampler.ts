/** The order in which a training run sees a data set: a new permutation each epoch, shared out among ranks, resumable to the sample. */
import { createRandom, permutation } from "./random.ts";

/** How far a rank is; goes into a checkpoint. */
export interface SamplerState {
  epoch: number;
  /** Samples of this epoch that this rank has taken. */
  idx: number;
}

/** Options of {@linkcode createEpochSampler}. */
export interface SamplerOptions {
  /** Samples of the data set. */
  length: number;
  /** By default 0. */
  seed?: number;
  /** This process's part `rank` of `worldSize`; by default all. */
  rank?: number;
  worldSize?: number;
  /** Whether each epoch has an order of its own; by default true. */
  shuffle?: boolean;
  /** Whether the rest that does not fill all ranks is left out; by default samples from the front are repeated to fill it. */
  dropLast?: boolean;
  /** With `overfit`, the data set is its first `size` samples alone: each step then has the same. */
  batch?: { size: number; overfit?: boolean };
  /** Where to go on. */
  state?: SamplerState;
}

/** Gives out indices without an end. */
export interface EpochSampler {
  /** The next `count` indices of this rank; a batch may reach into the next epoch. */
  next(count: number): number[];
  /** What {@linkcode SamplerOptions.state} takes: a sampler made from it goes on with exactly the next index. */
  state(): SamplerState;
}

/**
 * The sampler of one rank. Epoch e has the permutation of `seed + e`; rank r takes entries r, r + worldSize, ... of it, and every rank takes
 * equally many. Throws a RangeError where a rank would have nothing.
 */
export function createEpochSampler(options: SamplerOptions): EpochSampler {
  const { batch, seed = 0, rank = 0, worldSize = 1, shuffle = true, dropLast = false } = options;
  const length = batch?.overfit ? Math.min(batch.size, options.length) : options.length;
  const share = dropLast ? Math.floor(length / worldSize) : Math.ceil(length / worldSize);
  if (!(share >= 1)) throw new RangeError(`Cannot sample: the data set has ${length} samples for ${worldSize} ranks, each must have one`);
  if (!(rank >= 0 && rank < worldSize)) throw new RangeError(`Cannot sample: rank is ${rank}, it must be from 0 to ${worldSize - 1}`);
  let { epoch, idx } = options.state ?? { epoch: 0, idx: 0 };
  const orderOf = (e: number): Uint32Array =>
    shuffle ? permutation(createRandom(4, seed + e), length) : Uint32Array.from({ length }, (_, i) => i);
  let order = orderOf(epoch);
  return {
    next(count) {
      return Array.from({ length: count }, () => {
        if (idx >= share) {
          idx = 0;
          order = orderOf(++epoch);
        }
        return order[(rank + worldSize * idx++) % length];
      });
    },
    state: () => ({ epoch, idx }),
  };
}
