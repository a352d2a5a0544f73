/** Samples of unequal size in groups of nearly equal load. */
import { communicator } from "../dist/communicator.ts";
import type { MicroBatch } from "./batch.ts";

/**
 * Indices of `loads` in `groups` lists: taken from the heaviest to the lightest, each goes to the group with the least load so far, the first of
 * equals. With `equalSize` no group gets more than its share of indices. Throws a RangeError where a group would be empty.
 */
export function balancedGroups(loads: readonly number[], groups: number, { equalSize = false } = {}): number[][] {
  if (!(groups >= 1 && groups <= loads.length)) {
    throw new RangeError(`Cannot balance a batch: batch.split is ${groups}, it must be from 1 to the number of samples, ${loads.length}`);
  }
  const order = loads.keys().toArray().sort((a, b) => loads[b] - loads[a] || b - a), most = Math.floor(loads.length / groups);
  const out: number[][] = Array.from({ length: groups }, () => []), sums = new Array<number>(groups).fill(0);
  for (const index of order) {
    const least = sums.indexOf(Math.min(...sums));
    out[least].push(index);
    sums[least] += loads[index];
    if (equalSize && out[least].length === most) sums[least] = Infinity;
  }
  return out;
}

/**
 * The parts of step `step`'s batch that fall to this process, each of about the same load: the batch is shared out among the processes, equally many
 * samples each, then the share among `split` parts of any number, or among as many more as it takes that none has a load above `most` (one process
 * alone, since all must have as many parts). `weight` is what a part counts in the step's loss: all alike, however many voxels they have. Throws a
 * RangeError where the samples do not go round.
 */
export function balancedMicroBatches<T>(
  batch: readonly T[],
  loadOf: (sample: T) => number,
  split: number,
  step: number,
  { most = null }: { most?: number | null } = {},
): (MicroBatch<T> & { weight: number })[] {
  const { rank, world } = communicator();
  if (batch.length % world) {
    throw new RangeError(`Cannot balance a batch: batch.size is ${batch.length}, it must be a multiple of the ${world} processes`);
  }
  const own = balancedGroups(batch.map(loadOf), world, { equalSize: true })[rank].map((place) => batch[place]);
  if (most !== null && world > 1) {
    throw new RangeError(`Cannot balance a batch: batch.voxels is ${most} with ${world} processes, it must be null: use batch.split`);
  }
  const loads = own.map(loadOf), load = (places: number[]): number => places.reduce((sum, k) => sum + loads[k], 0);
  const tooMuch = (groups: number[][]): boolean => most !== null && groups.some((places) => places.length > 1 && load(places) > most);
  let groups = balancedGroups(loads, split);
  while (tooMuch(groups)) groups = balancedGroups(loads, groups.length + 1);
  const streams = most === null ? split : own.length;
  return groups.map((places, k) => {
    return { stream: (step * world + rank) * streams + k, list: places.map((place) => own[place]), weight: 1 / (world * groups.length) };
  });
}

/** The indices of `loads`, in their order, in runs whose sum is at most `most`, or that have one element. */
export function groupByLoad(loads: readonly number[], most: number): number[][] {
  const groups: number[][] = [];
  let sum = Infinity;
  loads.forEach((load, i) => {
    if (sum + load > most) {
      groups.push([]);
      sum = 0;
    }
    groups.at(-1)!.push(i);
    sum += load;
  });
  return groups;
}
