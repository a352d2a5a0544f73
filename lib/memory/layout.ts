/** Where allocations whose lifetimes are known lie in one piece of memory. */

/** Memory that is taken at one moment and given back at another, later one; moments are whole numbers in the order of time. */
export interface Lifetime {
  bytes: number;
  from: number;
  to: number;
}

/** Places of allocations in one piece of memory. */
export interface Layout {
  /** Bytes from its start, of each. */
  offsets: number[];
  /** Bytes of all. */
  total: number;
}

/** Places multiples of `alignment` bytes, so that those that live at once do not meet: the largest first, each as low as it fits. */
export function layOut(lifetimes: readonly Lifetime[], alignment = 512): Layout {
  const order = [...lifetimes.keys()].sort((a, b) => lifetimes[b].bytes - lifetimes[a].bytes || a - b);
  const offsets = new Array<number>(lifetimes.length).fill(0), placed: number[] = []; // placed: by offset
  let total = 0;
  for (const i of order) {
    const { bytes, from, to } = lifetimes[i];
    let at = 0;
    for (const k of placed) {
      const other = lifetimes[k];
      if (other.from >= to || other.to <= from) continue;
      if (offsets[k] >= at + bytes) break;
      at = Math.max(at, Math.ceil((offsets[k] + other.bytes) / alignment) * alignment);
    }
    offsets[i] = at;
    total = Math.max(total, at + bytes);
    let low = 0;
    for (let high = placed.length; low < high;) {
      const middle = (low + high) >> 1;
      if (offsets[placed[middle]] <= at) low = middle + 1;
      else high = middle;
    }
    placed.splice(low, 0, i);
  }
  return { offsets, total };
}
