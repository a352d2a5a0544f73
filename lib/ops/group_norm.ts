/** Group norm of channels-last tensors. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, sizeOf, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode groupNorm}. */
export interface GroupNormOptions {
  /** Scale [C] f32; none leaves it at 1. */
  w?: Tensor | null;
  /** Shift [C] f32; none leaves it at 0. */
  b?: Tensor | null;
  /** Added to the variance; 1e-5 by default. */
  eps?: number;
}

/**
 * `(x - mean) / sqrt(var + eps) * w + b` with statistics over all positions and the C / groups neighbouring channels of a group, for each
 * batch item: x [B, ..., C] gives [B, ..., C]. `groups` must divide C.
 */
export function groupNorm(x: Tensor, groups: number, { w, b, eps = 1e-5 }: GroupNormOptions = {}): Tensor {
  if (x.shape.length < 2) throw new RangeError(`Cannot run groupNorm: x is [${x.shape}], it must be [B, ..., C]`);
  const B = x.shape[0], C = x.shape.at(-1)!, dtype = DTYPE[x.dtype];
  const L = dim("groupNorm", "the number of positions", sizeOf(x.shape.slice(1, -1)));
  if (!Number.isInteger(groups) || groups < 1 || C % groups) {
    throw new RangeError(`Cannot run groupNorm: groups is ${groups}, it must divide C = ${C}`);
  }
  for (const [name, t] of [["w", w], ["b", b]] as const) {
    expectShape("groupNorm", name, t, [C]);
    expectDtype("groupNorm", name, t, "f32");
  }
  const y = empty(x.shape, x.dtype), mean = empty([B, groups]), rstd = empty([B, groups]), k = kernels();
  const query = (bytes: BigUint64Array<ArrayBuffer>) => k.k_group_norm_workspace(bytes, B, L, C, groups);
  withWorkspace(query, (scratch) => {
    const wAddr = w?.addr ?? 0n, bAddr = b?.addr ?? 0n;
    k.k_group_norm_fwd(y.addr, mean.addr, rstd.addr, x.addr, wAddr, bAddr, scratch, B, L, C, groups, eps, dtype, stream());
  });

  return record("groupNorm", y, [x, w, b], [x, w, mean, rstd], (dy) => {
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    const dw = w?.requiresGrad ? empty([C]) : null, db = b?.requiresGrad ? empty([C]) : null;
    withWorkspace(query, (scratch) =>
      k.k_group_norm_bwd(
        dx?.addr ?? 0n,
        dw?.addr ?? 0n,
        db?.addr ?? 0n,
        dy.addr,
        x.addr,
        w?.addr ?? 0n,
        mean.addr,
        rstd.addr,
        scratch,
        B,
        L,
        C,
        groups,
        dtype,
        stream(),
      ));
    return [dx, dw, db];
  });
}
