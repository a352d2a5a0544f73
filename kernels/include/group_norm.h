// library: ops
// Group norm of channels-last tensors: statistics over the rows of a sample and the C / G neighbouring channels of a group.
#pragma once
#include "k.h"

// y = xhat * w + b with xhat = (x - mean) * rstd, rstd = 1 / sqrt(var + eps), var not bias-corrected
//   y, x: [N, C] dtype    mean, rstd: [B, G] f32, kept for the backward pass    w, b: [C] f32, or 0 for none    G divides C
//   offsets: [B + 1] i32, from 0 to N: sample b has the rows from offsets[b] to offsets[b + 1]; or 0 where each has N / B rows
K_API int32_t k_group_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, uint64_t offsets,
                               uint64_t scratch, int32_t N, int32_t B, int32_t C, int32_t G, float eps, int32_t dtype, uint64_t stream);

// Bytes of scratch that either pass needs.
K_API int32_t k_group_norm_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t C, int32_t G);

// With g = dy * w and means over a group:  dx = rstd * (g - mean(g) - xhat * mean(g * xhat))    dw = sum_N(dy * xhat)    db = sum_N(dy)
//   dx, dy, x: [N, C] dtype    dw, db: [C] f32; each of dx, dw, db is 0 where it is not wanted    w: [C] f32, or 0 for none
K_API int32_t k_group_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd,
                               uint64_t offsets, uint64_t scratch, int32_t N, int32_t B, int32_t C, int32_t G, int32_t dtype,
                               uint64_t stream);
