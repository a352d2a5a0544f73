// library: ops
// What a perceptual loss needs beside convolutions: the pooling of VGG, and the distance of unit feature vectors.
#pragma once
#include "k.h"

// y[b, i, j, c] = the largest of x[b, 2 i + (0, 1), 2 j + (0, 1), c]; a last row or column that has no partner is left out.
//   x: [B, H, W, C] dtype    y: [B, H / 2, W / 2, C] dtype
K_API int32_t k_max_pool2d_fwd(uint64_t y, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype, uint64_t stream);

// dx = dy at the first largest value of each window, row by row, and 0 elsewhere.
//   dx, x: [B, H, W, C] dtype    dy: [B, H / 2, W / 2, C] dtype
K_API int32_t k_max_pool2d_bwd(uint64_t dx, uint64_t dy, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype,
                               uint64_t stream);

// d[n] = sum over c of w[c] (a[n, c] / (|a[n]| + 1e-10) - b[n, c] / (|b[n]| + 1e-10))^2
//   d: [N] f32    a, b: [N, C] dtype    w: [C] f32
K_API int32_t k_unit_distance_fwd(uint64_t d, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C, int32_t dtype, uint64_t stream);

// da = the gradient after a; that after b is the same with a and b exchanged. A vector of length 0 gets 0.
//   da: [N, C] dtype    dd: [N] f32
K_API int32_t k_unit_distance_bwd(uint64_t da, uint64_t dd, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C, int32_t dtype,
                                  uint64_t stream);
