/** Batches whose samples have their own numbers of rows: rows [N, C] with offsets, beside the dense [B, ..., C]. */
import { dim, expectDtype, sizeOf, type Tensor } from "../tensor/tensor.ts";

/** What the ops that treat each sample for itself take. */
export interface SampleOptions {
  /** [B + 1] i32: x is [N, C], and sample b has its rows from offsets[b] to offsets[b + 1]. By default x is [B, ..., C]. */
  offsets?: Tensor;
}

/** Rows, samples and channels of `x`. */
export function rowsOf(op: string, x: Tensor, offsets?: Tensor): [N: number, B: number, C: number] {
  const want = offsets ? "[N, C]" : "[B, ..., C]", C = x.shape.at(-1) ?? 0;
  if (offsets ? x.shape.length !== 2 : x.shape.length < 2) {
    throw new RangeError(`Cannot run ${op}: x is [${x.shape}], it must be ${want}`);
  }
  expectDtype(op, "offsets", offsets, "i32");
  if (offsets && (offsets.shape.length !== 1 || offsets.size === 0)) {
    throw new RangeError(`Cannot run ${op}: offsets is [${offsets.shape}], it must be [B + 1]`);
  }
  const N = dim(op, "the number of rows", sizeOf(x.shape.slice(0, -1)));
  return [N, offsets ? offsets.size - 1 : x.shape[0], dim(op, "C", C)];
}
