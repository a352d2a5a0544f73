// library: ops
// Group norm of channels-last tensors: statistics over the L positions and the C / G neighbouring channels of a group, for each batch item.
#pragma once
#include "k.h"

// y = xhat * w + b with xhat = (x - mean) * rstd, rstd = 1 / sqrt(var + eps), var not bias-corrected
//   y, x: [B, L, C] dtype    mean, rstd: [B, G] f32, kept for the backward pass    w, b: [C] f32, or 0 for none    G divides C
K_API int32_t k_group_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, uint64_t scratch, int32_t B,
                               int32_t L, int32_t C, int32_t G, float eps, int32_t dtype, uint64_t stream);

// Bytes of scratch that either pass needs.
K_API int32_t k_group_norm_workspace(uint64_t* bytes, int32_t B, int32_t L, int32_t C, int32_t G);

// With g = dy * w and means over a group:  dx = rstd * (g - mean(g) - xhat * mean(g * xhat))    dw = sum_BL(dy * xhat)    db = sum_BL(dy)
//   dx, dy, x: [B, L, C] dtype    dw, db: [C] f32; each of dx, dw, db is 0 where it is not wanted    w: [C] f32, or 0 for none
K_API int32_t k_group_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd,
                               uint64_t scratch, int32_t B, int32_t L, int32_t C, int32_t G, int32_t dtype, uint64_t stream);
