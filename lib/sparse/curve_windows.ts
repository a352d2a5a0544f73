/** Windows along a curve on which each sample's voxels lie. */

/** Places on the curve, counted through all samples. */
export interface CurveWindows {
  /** The queries of one window after the other: each place once. */
  queries: Int32Array<ArrayBuffer>;
  queryOffsets: Int32Array<ArrayBuffer>;
  /** The keys of one window after the other. */
  keys: Int32Array<ArrayBuffer>;
  keyOffsets: Int32Array<ArrayBuffer>;
}

/** Options of {@linkcode curveWindows}. */
export interface CurveWindowOptions {
  /** Keys of a window. */
  window: number;
  /** Places by which the windows begin later. */
  shift: number;
}

/**
 * A sample of n voxels has m = ⌈n / window⌉ windows of n / m voxels each. Window i has as queries the places from ⌊i n / m⌋ + shift to
 * ⌊(i + 1) n / m⌋ + shift, and as keys the `window` places around their middle, from ⌊(i + ½) n / m - window / 2⌋ + shift on; places count
 * modulo n. One window alone has all n as both.
 */
export function curveWindows(starts: readonly number[], { window, shift }: CurveWindowOptions): CurveWindows {
  const queries: number[] = [], keys: number[] = [], queryOffsets = [0], keyOffsets = [0];
  for (let b = 0; b + 1 < starts.length; b++) {
    const start = starts[b], n = starts[b + 1] - start, m = Math.ceil(n / window);
    const add = (to: number[], first: number, end: number): void => {
      for (let p = first; p < end; p++) to.push(start + (p % n + n) % n);
    };
    for (let i = 0; i < m; i++) {
      add(queries, Math.floor(i * n / m) + shift, Math.floor((i + 1) * n / m) + shift);
      const first = m === 1 ? 0 : Math.floor(((2 * i + 1) * n - window * m) / (2 * m)) + shift;
      add(keys, first, first + Math.min(n, window));
      queryOffsets.push(queries.length);
      keyOffsets.push(keys.length);
    }
  }
  const [q, qo, k, ko] = [queries, queryOffsets, keys, keyOffsets].map((list) => Int32Array.from(list));
  return { queries: q, queryOffsets: qo, keys: k, keyOffsets: ko };
}
