// library: ops
// Dense 3D convolution (cross-correlation) of channels-last volumes with a cubic kernel:
//   y[b, p, o] = bias[o] + sum over taps t in [0, kernel)^3 and channels i of w[o, i, t] x[b, p * stride + t - padding, i]
// where x is 0 outside of its extents. An axis of D cells becomes (D + 2 * padding - kernel) / stride + 1 cells, rounded down.
//
// All functions take the forward pass's sizes: B, X, Y, Z, Cin of x, Cout, kernel 1, 2 or 3, and either stride 1 with padding below kernel,
// or stride = kernel with padding 0 (windows that do not overlap). Positions of x and of y number at most 2^31 - 1. Sums are f32.
//   x: [B, X, Y, Z, Cin] dtype    y: [B, X', Y', Z', Cout] dtype    w: [Cout, Cin, kernel, kernel, kernel] weight_dtype
//   weight_dtype, bias_dtype: f32 or dtype    scratch: as many bytes as the pass's _workspace says, aligned to 16
#pragma once
#include "k.h"

K_API int32_t k_conv3d_fwd_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout, int32_t kernel,
                                     int32_t stride, int32_t padding, int32_t dtype);

// The formula above.
//   bias: [Cout] bias_dtype, or 0 for none
K_API int32_t k_conv3d_fwd(uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z,
                           int32_t Cin, int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, int32_t weight_dtype,
                           int32_t bias_dtype, uint64_t stream);

K_API int32_t k_conv3d_bwd_input_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout,
                                           int32_t kernel, int32_t stride, int32_t padding, int32_t dtype);

// dx[b, q, i] = sum over o and the (p, t) with p * stride + t - padding = q of w[o, i, t] dy[b, p, o]
//   dx: as x    dy: as y
K_API int32_t k_conv3d_bwd_input(uint64_t dx, uint64_t dy, uint64_t w, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z,
                                 int32_t Cin, int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype,
                                 int32_t weight_dtype, uint64_t stream);

K_API int32_t k_conv3d_bwd_weight_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout,
                                            int32_t kernel, int32_t stride, int32_t padding, int32_t dtype);

// dw[o, i, t] = sum over b and p of dy[b, p, o] x[b, p * stride + t - padding, i]    (the gradient of bias is the sum of dy: k_sum_fwd)
//   dw: [Cout, Cin, kernel, kernel, kernel] f32
K_API int32_t k_conv3d_bwd_weight(uint64_t dw, uint64_t dy, uint64_t x, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z,
                                  int32_t Cin, int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype,
                                  uint64_t stream);
