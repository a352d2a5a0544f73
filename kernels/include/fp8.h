// library: ops
// 8-bit floats of the format E4M3 (4 bits of exponent, 3 of mantissa, no infinity, largest value 448) with a scale for each row: the operands of
// products in 8 bits (Micikevicius et al., 2022). Scales are powers of two, so that a scale can move from one operand to the other, and from a row
// into its elements, without another rounding. On CUDA, C is a multiple of 16 and at most 8192.
#pragma once
#include "k.h"

enum { K_FP8_NONE = 0, K_FP8_GELU = 1 };  // what x passes first: tanh-GELU as in elementwise.h

// v = act(x) * columns    scale[n] = the least power of two with max_C |v[n, :]| <= 448 scale[n], or 1 where v is 0
// y = v / scale, rounded to nearest even    sums = sum_N(x)
//   y: [N, C] u8, the bits of E4M3    scale: [N] f32    x: [N, C] dtype    columns: [C] f32, or 0 for 1    sums: [C] f32, or 0; then act is NONE
// Computed in f32. A row with a value that is not finite has the scale NaN. Exponents of scales lie between -120 and 120.
K_API int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t sums, uint64_t x, uint64_t columns, uint64_t scratch, int32_t N, int32_t C,
                                 int32_t act, int32_t dtype, uint64_t stream);

// Bytes of scratch of k_fp8_quantize_fwd with sums.
K_API int32_t k_fp8_quantize_workspace(uint64_t* bytes, int32_t N, int32_t C);

// y = x * scale[n]
//   y: [N, C] dtype    x: [N, C] u8, the bits of E4M3    scale: [N] f32, or 0 for 1
K_API int32_t k_fp8_dequantize_fwd(uint64_t y, uint64_t x, uint64_t scale, int32_t N, int32_t C, int32_t dtype, uint64_t stream);

// The backward pass of the tanh-GELU between two linear layers, see gelu.h, whose results are quantized as by k_fp8_quantize_fwd:
//   d = dg gelu'(z)    db = sum_N(d)    dz, dz_scale: d * columns    g, g_scale: gelu(z)
//   dz, g: [N, C] u8    dz_scale, g_scale: [N] f32    dg, z: [N, C] dtype    columns: [C] f32, or 0 for 1    db: [C] f32, or 0
K_API int32_t k_fp8_gelu_bwd(uint64_t dz, uint64_t dz_scale, uint64_t g, uint64_t g_scale, uint64_t db, uint64_t dg, uint64_t z, uint64_t columns,
                             uint64_t scratch, int32_t N, int32_t C, int32_t dtype, uint64_t stream);

// Bytes of scratch of k_fp8_gelu_bwd with db.
K_API int32_t k_fp8_gelu_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C);

// y = xᵀ, and 0 past its N-th column
//   y: [C, P] u8 with P >= N, a multiple of 16    x: [N, C] u8
K_API int32_t k_fp8_transpose_fwd(uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, uint64_t stream);

// The operands of the products of a linear layer's gradients, dw = dyᵀ x, which sums over M rows that have scales, and dx = dy w. S is the largest of
// x_scale * dy_scale, `least` that of columns, which are in dy's elements:
//   xt = (x * (x_scale * dy_scale / S))ᵀ and dyt = (dy * (least / columns))ᵀ, rounded to nearest even, and 0 past their M-th column
//   scale = S / least, or NaN where any of x_scale, dy_scale and columns is    wt = wᵀ
//   xt: [K, P] u8, dyt: [N, P] u8 with P >= M, a multiple of 16    wt: [K, N] u8    scale: [1] f32    cells: [64] i32, scratch
//   x: [M, K] u8    dy: [M, N] u8    w: [N, K] u8, or 0    x_scale, dy_scale: [M] f32, columns: [N] f32: powers of two, or NaN
// M > 0, N and K are multiples of 16.
K_API int32_t k_fp8_operands_fwd(uint64_t xt, uint64_t dyt, uint64_t wt, uint64_t scale, uint64_t cells, uint64_t x, uint64_t x_scale, uint64_t dy,
                                 uint64_t dy_scale, uint64_t columns, uint64_t w, int32_t M, int32_t N, int32_t K, int32_t P, uint64_t stream);
