// library: ops
// 8-bit floats of the format E4M3 (4 bits of exponent, 3 of mantissa, no infinity, largest value 448) with a scale for each row: the operands of
// products in 8 bits (Micikevicius et al., 2022). On CUDA, C is a multiple of 8 and at most 8192.
#pragma once
#include "k.h"

enum { K_FP8_NONE = 0, K_FP8_GELU = 1 };  // what x passes first: tanh-GELU as in elementwise.h

// v = act(x) * columns    scale[n] = max_C |v[n, :]| / 448, or 1 where that is 0    y = v / scale, rounded to nearest even, at most +-448
//   y: [N, C] u8, the bits of E4M3    scale: [N] f32    x: [N, C] dtype    columns: [C] f32, or 0 for 1
// Computed in f32, v / scale as v * (448 / max). A row with a value that is not finite has a scale or elements that are not.
K_API int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t x, uint64_t columns, int32_t N, int32_t C, int32_t act, int32_t dtype,
                                 uint64_t stream);

// y = x * scale[n]
//   y: [N, C] dtype    x: [N, C] u8, the bits of E4M3    scale: [N] f32, or 0 for 1
K_API int32_t k_fp8_dequantize_fwd(uint64_t y, uint64_t x, uint64_t scale, int32_t N, int32_t C, int32_t dtype, uint64_t stream);
