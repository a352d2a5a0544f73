/** Strides of shapes, and axes merged so that the kernels see as few as they can. */

/** Strides in elements of a contiguous array. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const out = new Array<number>(shape.length);
  for (let d = shape.length - 1, stride = 1; d >= 0; stride *= shape[d--]) out[d] = stride;
  return out;
}

/** Extents and, for each operand, strides of the same walk with axes of extent 1 dropped and neighbours merged where all operands allow it. */
export function collapse(extents: readonly number[], strides: readonly (readonly number[])[]): { extents: number[]; strides: number[][] } {
  const outExtents: number[] = [], out: number[][] = strides.map(() => []);
  for (let d = extents.length - 1; d >= 0; d--) {
    if (extents[d] === 1) continue;
    const merges = outExtents.length > 0 && strides.every((s, k) => s[d] === out[k][0] * outExtents[0]);
    if (merges) outExtents[0] *= extents[d];
    else {
      outExtents.unshift(extents[d]);
      strides.forEach((s, k) => out[k].unshift(s[d]));
    }
  }
  return { extents: outExtents, strides: out };
}

/** The axis counted from the front; negative ones count from the end. Throws where there is none. */
export function axisOf(op: string, axis: number, rank: number): number {
  const at = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(at) || at < 0 || at >= rank) {
    throw new RangeError(`Cannot run ${op}: axis is ${axis}, it must be ${-rank} to ${rank - 1}`);
  }
  return at;
}

/** The shape that two shapes broadcast to, aligned at their last axes. */
export function broadcastShape(op: string, a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, d) => {
    const p = a[d - rank + a.length] ?? 1, q = b[d - rank + b.length] ?? 1;
    if (p !== q && p !== 1 && q !== 1) {
      throw new RangeError(`Cannot run ${op}: [${a}] and [${b}] do not broadcast, axes must be equal or 1`);
    }
    return p === 1 ? q : p;
  });
}

/** Strides that walk a contiguous array of `shape` over `target`, 0 along axes that repeat. */
export function broadcastStrides(shape: readonly number[], target: readonly number[]): number[] {
  const own = contiguousStrides(shape), missing = target.length - shape.length;
  return target.map((_, d) => d < missing || shape[d - missing] === 1 ? 0 : own[d - missing]);
}
