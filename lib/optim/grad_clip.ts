/** Gradient clipping: a fixed norm, or one that follows the norms seen, as TRELLIS trains with. */

/** Options of {@linkcode makeGradClip}. */
export interface GradClipOptions {
  /** The largest norm let through; none where absent. */
  maxNorm?: number;
  /**
   * With a number, the limit becomes this percentile of the last norms once there are `bufferSize` of them, and never more than `maxNorm`.
   */
  percentile?: number | null;
  /** How many norms are kept; 1000 by default. */
  bufferSize?: number;
}

/** The state of clipping. */
export interface GradClip {
  /** The limit of the next step; Infinity for none. */
  limit: number;
  readonly maxNorm: number;
  readonly percentile: number | null;
  /** The last finite norms, a ring: the next goes to `pointer`. */
  norms: Float32Array;
  pointer: number;
  /** How many of `norms` are filled. */
  length: number;
}

/** A {@linkcode GradClip} as plain JSON, for checkpoints. */
export interface GradClipState {
  /** The ring as it lies, the filled part alone. */
  norms: number[];
  pointer: number;
}

/** Clipping before the first step. */
export function makeGradClip({ maxNorm = Infinity, percentile = null, bufferSize = 1000 }: GradClipOptions = {}): GradClip {
  if (!(maxNorm > 0)) throw new RangeError(`Cannot clip gradients: maxNorm is ${maxNorm}, it must be above 0`);
  if (percentile !== null && !(percentile >= 0 && percentile <= 100)) {
    throw new RangeError(`Cannot clip gradients: percentile is ${percentile}, it must be from 0 to 100`);
  }
  if (!Number.isInteger(bufferSize) || bufferSize < 1) {
    throw new RangeError(`Cannot clip gradients: bufferSize is ${bufferSize}, it must be a whole number from 1 up`);
  }
  return { limit: maxNorm, maxNorm, percentile, norms: new Float32Array(percentile === null ? 0 : bufferSize), pointer: 0, length: 0 };
}

/** Takes note of a step's norm before clipping; one that is not finite is passed over. */
export function recordNorm(clip: GradClip, norm: number): void {
  if (clip.percentile === null || !Number.isFinite(norm)) return;
  const size = clip.norms.length;
  clip.norms[clip.pointer] = norm;
  clip.pointer = (clip.pointer + 1) % size;
  clip.length = Math.min(clip.length + 1, size);
  clip.limit = limitOf(clip);
}

/** The `p`-th percentile of `values` (at least one), linear between the two nearest ranks. */
export function percentileOf(values: ArrayLike<number>, p: number): number {
  const sorted = Float64Array.from(values).sort(), rank = p / 100 * (sorted.length - 1), below = Math.floor(rank);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (rank - below) * (sorted[above] - sorted[below]);
}

/** The limit that the norms seen give. */
function limitOf({ maxNorm, percentile, norms, length }: GradClip): number {
  return percentile !== null && length === norms.length ? Math.min(percentileOf(norms, percentile), maxNorm) : maxNorm;
}

/** The state, for a checkpoint. */
export function gradClipState({ norms, pointer, length }: GradClip): GradClipState {
  return { norms: [...norms.subarray(0, length)], pointer };
}

/** Puts a state back; the limit follows from it and from `clip`'s own options. Throws where it has more norms than the buffer holds. */
export function restoreGradClip(clip: GradClip, { norms, pointer }: GradClipState): void {
  if (clip.percentile === null) return;
  if (norms.length > clip.norms.length || pointer >= Math.max(1, clip.norms.length)) {
    throw new RangeError(
      `Cannot restore gradient clipping: ${norms.length} norms are stored, it must be at most the ${clip.norms.length} of this run's config`,
    );
  }
  clip.norms.set(norms);
  clip.pointer = pointer;
  clip.length = norms.length;
  clip.limit = limitOf(clip);
}
