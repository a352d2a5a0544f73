/** Group norm of channels-last tensors. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { rowsOf, type SampleOptions } from "./samples.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode groupNorm}. */
export interface GroupNormOptions extends SampleOptions {
  /** Scale [C] f32; none leaves it at 1. */
  w?: Tensor | null;
  /** Shift [C] f32; none leaves it at 0. */
  b?: Tensor | null;
  /** Added to the variance; 1e-5 by default. */
  eps?: number;
}

/**
 * `(x - mean) / sqrt(var + eps) * w + b` with statistics over all positions and the C / groups neighbouring channels of a group, for each
 * sample: x [B, ..., C] gives [B, ..., C]. `groups` must divide C.
 */
export function groupNorm(x: Tensor, groups: number, { w, b, eps = 1e-5, offsets }: GroupNormOptions = {}): Tensor {
  const [N, B, C] = rowsOf("groupNorm", x, offsets), dtype = DTYPE[x.dtype];
  if (!Number.isInteger(groups) || groups < 1 || C % groups) {
    throw new RangeError(`Cannot run groupNorm: groups is ${groups}, it must divide C = ${C}`);
  }
  for (const [name, t] of [["w", w], ["b", b]] as const) {
    expectShape("groupNorm", name, t, [C]);
    expectDtype("groupNorm", name, t, "f32");
  }
  const y = empty(x.shape, x.dtype), mean = empty([B, groups]), rstd = empty([B, groups]), k = kernels();
  const query = (bytes: BigUint64Array<ArrayBuffer>) => k.k_group_norm_workspace(bytes, N, B, C, groups);
  const fill = (y: Tensor): void =>
    withWorkspace(query, (scratch) => {
      const [wAddr, bAddr, at] = [w, b, offsets].map((t) => t?.addr ?? 0n);
      k.k_group_norm_fwd(y.addr, mean.addr, rstd.addr, x.addr, wAddr, bAddr, at, scratch, N, B, C, groups, eps, dtype, stream());
    });
  fill(y);

  return record("groupNorm", y, [x, w, b], [x, w, mean, rstd, offsets], (dy, soFar) => {
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    const dw = w?.requiresGrad ? soFar.fresh(w) : null, db = b?.requiresGrad ? soFar.fresh(b) : null;
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
        offsets?.addr ?? 0n,
        scratch,
        N,
        B,
        C,
        groups,
        dtype,
        stream(),
      ));
    return [dx, dw, db];
  }, { kind: "norm", from: [x, w, b, mean, rstd, offsets], fill });
}
