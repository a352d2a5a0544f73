/** Times and errors of samples of unequal size, whose rows lie together: those of sample b from starts[b] to starts[b + 1]. */

/** The time of each row's sample: t [B] gives [N]. */
export function repeatByRow(t: ArrayLike<number>, starts: readonly number[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(starts.at(-1)!);
  for (let b = 0; b + 1 < starts.length; b++) out.fill(t[b], starts[b], starts[b + 1]);
  return out;
}

/** The mean over each sample's rows: [N] gives [B]; 0 where a sample has none. */
export function meanBySample(rows: ArrayLike<number>, starts: readonly number[]): Float64Array<ArrayBuffer> {
  const out = new Float64Array(starts.length - 1);
  for (let b = 0; b < out.length; b++) {
    for (let n = starts[b]; n < starts[b + 1]; n++) out[b] += rows[n];
    out[b] /= Math.max(1, starts[b + 1] - starts[b]);
  }
  return out;
}
