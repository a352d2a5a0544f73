/** Places for the tests of sparse ops. */
import { random } from "./check.ts";

/** `counts[b]` distinct places of sample b below `side`, in ascending order: rows of (sample, x, y, z). */
export function scatter(seed: number, counts: number[], side: number): Int32Array<ArrayBuffer> {
  const rows = counts.flatMap((count, b) => {
    const cells = new Set<number>(), draws = random(seed + b, 8 * count + 64);
    for (let i = 0; cells.size < count; i++) {
      if (i === draws.length) throw new RangeError(`Cannot scatter ${count} places in ${side}³ cells`);
      cells.add(Math.floor((draws[i] + 1) / 2 * side ** 3));
    }
    return [...cells].sort((p, q) => p - q).map((p) => [b, Math.floor(p / side ** 2), Math.floor(p / side) % side, p % side]);
  });
  return Int32Array.from(rows.flat());
}

/** A thin shell around the middle of a grid, as real surfaces are: rows of (sample, x, y, z). */
export function shell(samples: number, side: number): Int32Array<ArrayBuffer> {
  const rows: number[] = [], middle = (side - 1) / 2;
  for (let b = 0; b < samples; b++) {
    const radius = middle - 1 - b;
    for (let x = 0; x < side; x++) {
      for (let y = 0; y < side; y++) {
        for (let z = 0; z < side; z++) {
          if (Math.abs(Math.hypot(x - middle, y - middle, z - middle) - radius) < 0.5) rows.push(b, x, y, z);
        }
      }
    }
  }
  return Int32Array.from(rows);
}

/** The same rows with those of each sample in another order. */
export function shuffle(seed: number, coords: Int32Array): Int32Array<ArrayBuffer> {
  const keys = random(seed, coords.length / 4), rows = Array.from(keys, (key, n) => ({ key, row: [...coords.subarray(4 * n, 4 * n + 4)] }));
  rows.sort((p, q) => p.row[0] - q.row[0] || p.key - q.key);
  return Int32Array.from(rows.flatMap(({ row }) => row));
}

/** Where each place is among rows of (sample, x, y, z). */
export function indexOf(coords: Int32Array): Map<string, number> {
  return new Map(Array.from({ length: coords.length / 4 }, (_, n) => [`${coords.subarray(4 * n, 4 * n + 4)}`, n]));
}
