/** The multi-head RMS norm of queries and keys. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, sizeOf, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

/**
 * `v / max(|v|, 1e-12) * gamma[h] * sqrt(D)` for each head vector v of packed queries, keys and values: x [..., G, H, D], where the first
 * `gammas.length` of the G parts are normalised, each with its own gamma [H, D] f32, and the others copied. `[gq, gk]` for qkv [..., 3, H,
 * D], `[gk]` for kv [..., 2, H, D], `[gq]` for q [..., 1, H, D]. D is at most 256.
 */
export function headRmsNorm(x: Tensor, gammas: Tensor[]): Tensor {
  if (x.shape.length < 3) throw new RangeError(`Cannot run headRmsNorm: x is [${x.shape}], it must be [..., G, H, D]`);
  const [G, H, D] = x.shape.slice(-3), N = dim("headRmsNorm", "N", sizeOf(x.shape.slice(0, -3))), dtype = DTYPE[x.dtype];
  if (G > 3 || gammas.length > G) {
    throw new RangeError(
      `Cannot run headRmsNorm: G is ${G} with ${gammas.length} gammas, it must be at most 3 with at most one gamma each`,
    );
  }
  gammas.forEach((gamma, g) => {
    expectShape("headRmsNorm", `gammas[${g}]`, gamma, [H, D]);
    expectDtype("headRmsNorm", `gammas[${g}]`, gamma, "f32");
  });
  const y = empty(x.shape, x.dtype),
    k = kernels(),
    addr = (t?: Tensor | null) => t?.addr ?? 0n,
    fill = (y: Tensor): void => {
      k.k_head_rms_norm_fwd(y.addr, x.addr, addr(gammas[0]), addr(gammas[1]), addr(gammas[2]), N, G, H, D, dtype, stream());
    };
  fill(y);

  return record("headRmsNorm", y, [x, ...gammas], [x, ...gammas], (dy) => {
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    const grads = gammas.map((gamma) => gamma.requiresGrad ? empty([H, D]) : null);
    withWorkspace(
      (bytes) => k.k_head_rms_norm_bwd_workspace(bytes, N, G, H, D),
      (scratch) =>
        k.k_head_rms_norm_bwd(
          addr(dx),
          addr(grads[0]),
          addr(grads[1]),
          addr(grads[2]),
          dy.addr,
          x.addr,
          addr(gammas[0]),
          addr(gammas[1]),
          addr(gammas[2]),
          scratch,
          N,
          G,
          H,
          D,
          dtype,
          stream(),
        ),
    );
    return [dx, ...grads];
  }, { kind: "norm", from: [x, ...gammas], fill });
}
