/** Samples of unequal size in groups of nearly equal load. */

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
