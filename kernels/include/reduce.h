// library: ops
// Sums along one axis of [O, R, I] (outer, reduced, inner); other reductions are compositions of them.
#pragma once
#include "k.h"

// y[o, i] = scale sum over r of x[o, r, i], summed in f32 (CPU: f64) in a fixed order and rounded once. R = 0 gives 0.
//   y: [O, I] f32, or x's dtype    x: [O, R, I] x_dtype    workspace: bytes as k_sum_workspace says, 0 where it says 0
K_API int32_t k_sum_fwd(uint64_t y, uint64_t x, uint64_t workspace, int64_t O, int64_t R, int64_t I, float scale, int32_t y_dtype,
                        int32_t x_dtype, uint64_t stream);

// Bytes that k_sum_fwd needs for these extents.
K_API int32_t k_sum_workspace(uint64_t* bytes, int64_t O, int64_t R, int64_t I);

// dx[o, r, i] = scale dy[o, i]: the gradient of k_sum_fwd.
//   dx: [O, R, I] x_dtype    dy: [O, I] f32, or x's dtype
K_API int32_t k_sum_bwd(uint64_t dx, uint64_t dy, int64_t O, int64_t R, int64_t I, float scale, int32_t y_dtype, int32_t x_dtype,
                        uint64_t stream);
