// library: ops
// Elements written in another type: cast, accumulate, fill. The CPU library has them for every dtype too.
#pragma once
#include "k.h"

// y[i] = x[i] in the dtype of y, any pair of f32, f16, bf16, i32, i64 and u8. Into a float: rounded to nearest, ties to even (i32, i64 go
// through f32). From a float into an integer: towards zero, clamped to the range, NaN gives 0. Into a narrower integer: the low bits.
//   y: [n] y_dtype    x: [n] x_dtype
K_API int32_t k_cast_fwd(uint64_t y, uint64_t x, int64_t n, int32_t y_dtype, int32_t x_dtype, uint64_t stream);

// y[i] = a[i] + b[i], summed in f32 and rounded once. y may be a.
//   y, a: [n] dtype_a    b: [n] dtype_b    both f32, f16 or bf16
K_API int32_t k_accumulate_fwd(uint64_t y, uint64_t a, uint64_t b, int64_t n, int32_t dtype_a, int32_t dtype_b, uint64_t stream);

// y[i] = value in any dtype, converted as by k_cast_fwd from f32.
//   y: [n]
K_API int32_t k_fill_fwd(uint64_t y, int64_t n, float value, int32_t dtype, uint64_t stream);
