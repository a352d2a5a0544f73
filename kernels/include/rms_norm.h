// library: ops
// The RMS norm that multi-head attention applies to queries and keys, on their packed tensor: G is 3 for qkv, 2 for kv, 1 for q.
#pragma once
#include "k.h"

// For each vector v of D elements in group g:  y = v / max(|v|, 1e-12) * gamma_g[h] * sqrt(D), or y = v where gamma_g is 0
//   y: [N, y_groups, H, D] dtype, x: [N, x_groups, H, D]; the first G of their groups are read and written    G: 1 to 3    D: 1 to 256
//   gamma_0, gamma_1, gamma_2: [H, D] f32, or 0
K_API int32_t k_head_rms_norm_fwd(uint64_t y, uint64_t x, uint64_t gamma_0, uint64_t gamma_1, uint64_t gamma_2, int32_t N, int32_t G,
                                  int32_t H, int32_t D, int32_t y_groups, int32_t x_groups, int32_t dtype, uint64_t stream);

// Bytes of scratch that k_head_rms_norm_bwd needs where a dgamma is wanted.
K_API int32_t k_head_rms_norm_bwd_workspace(uint64_t* bytes, int32_t N, int32_t G, int32_t H, int32_t D);

// With n = max(|v|, 1e-12), vhat = v / n, u = dy * gamma_g[h]:
//   dx = sqrt(D) / n * (u - vhat * sum_D(vhat * u)), without the second term where |v| <= 1e-12; dx = dy where gamma_g is 0
//   dgamma_g = sum_N(dy * vhat) * sqrt(D)
//   dx, dy: [N, dy_groups, H, D] dtype, x: [N, x_groups, H, D], as above; dx may be dy    dgamma_0, dgamma_1, dgamma_2: [H, D] f32; dx and each dgamma is 0 where it is not wanted
K_API int32_t k_head_rms_norm_bwd(uint64_t dx, uint64_t dgamma_0, uint64_t dgamma_1, uint64_t dgamma_2, uint64_t dy, uint64_t x,
                                  uint64_t gamma_0, uint64_t gamma_1, uint64_t gamma_2, uint64_t scratch, int32_t N, int32_t G, int32_t H,
                                  int32_t D, int32_t dy_groups, int32_t x_groups, int32_t dtype, uint64_t stream);
