/** The pooling of VGG. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, kernels, stream, type Tensor } from "../tensor/tensor.ts";

/**
 * The largest value of each window of 2 x 2: x [B, H, W, C] gives [B, H / 2, W / 2, C], rounded down: a last row or column without a partner is
 * left out. The gradient goes to the first of equal values.
 */
export function maxPool2d(x: Tensor): Tensor {
  if (x.shape.length !== 4) throw new RangeError(`Cannot run maxPool2d: x is [${x.shape}], it must be [B, H, W, C]`);
  const [B, H, W, C] = x.shape.map((n) => dim("maxPool2d", "an extent of x", n)), dtype = DTYPE[x.dtype], k = kernels();
  const y = empty([B, Math.floor(H / 2), Math.floor(W / 2), C], x.dtype);
  k.k_max_pool2d_fwd(y.addr, x.addr, B, H, W, C, dtype, stream());
  return record("maxPool2d", y, [x], [x], (dy) => {
    const dx = empty(x.shape, x.dtype);
    k.k_max_pool2d_bwd(dx.addr, dy.addr, x.addr, B, H, W, C, dtype, stream());
    return [dx];
  });
}
