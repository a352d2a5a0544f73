/** The distance of feature vectors brought to length 1: what LPIPS compares at each pixel. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";

/**
 * `Σ w (a / (|a| + 1e-10) - b / (|b| + 1e-10))²` of each row: a and b [N, C] and w [C] f32 give [N] f32. w has no gradient, and a row of zeros
 * gets none.
 */
export function unitDistance(a: Tensor, b: Tensor, w: Tensor): Tensor {
  const [N, C] = a.shape, dtype = DTYPE[a.dtype], k = kernels();
  expectShape("unitDistance", "a", a, [dim("unitDistance", "the number of rows", N), C]);
  expectShape("unitDistance", "b", b, [N, C]);
  expectShape("unitDistance", "w", w, [C]);
  expectDtype("unitDistance", "b", b, a.dtype);
  expectDtype("unitDistance", "w", w, "f32");
  const d = empty([N]);
  k.k_unit_distance_fwd(d.addr, a.addr, b.addr, w.addr, N, C, dtype, stream());
  return record("unitDistance", d, [a, b], [a, b, w], (dd) => {
    const gradient = (of: Tensor, other: Tensor): Tensor | null => {
      if (!of.requiresGrad) return null;
      const da = empty([N, C], a.dtype);
      k.k_unit_distance_bwd(da.addr, dd.addr, of.addr, other.addr, w.addr, N, C, dtype, stream());
      return da;
    };
    return [gradient(a, b), gradient(b, a)];
  });
}
