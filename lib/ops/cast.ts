/** Elements in another type, and constants. */
import { DTYPE, type DType, type FloatDType, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { empty, kernels, stream, type Tensor } from "../tensor/tensor.ts";

/**
 * `x` in another dtype: rounded to nearest even into floats; from floats into integers towards zero and clamped. Returns `x` itself where it has
 * this dtype. Gradients flow between floats and come back in x's dtype.
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x;
  const from = x.dtype, y = empty(x.shape, dtype);
  kernels().k_cast_fwd(y.addr, x.addr, BigInt(x.size), DTYPE[dtype], DTYPE[from], stream());
  return isFloat(dtype) ? record("cast", y, [x], [], (dy) => [cast(dy, from)]) : y;
}

/** A tensor of one value. */
export function full(shape: readonly number[], value: number, dtype: FloatDType = "f32"): Tensor {
  const y = empty(shape, dtype);
  kernels().k_fill_fwd(y.addr, BigInt(y.size), value, DTYPE[dtype], stream());
  return y;
}
