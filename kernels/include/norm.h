// library: ops
// Layer norms over the last axis. Rows are independent; statistics and sums are f32. On CUDA, C is 1 to 8192.
// xhat = (x - mean) * rstd with rstd = 1 / sqrt(var + eps), where var is not bias-corrected.
#pragma once
#include "k.h"

// y = xhat * w + b
//   y, x: [N, C] dtype    mean, rstd: [N] f32, kept for the backward pass    w, b: [C] f32, or 0 for none
K_API int32_t k_layer_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, int32_t N, int32_t C,
                               float eps, int32_t dtype, uint64_t stream);

// Bytes of scratch that k_layer_norm_bwd needs where dw or db is wanted.
K_API int32_t k_layer_norm_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C);

// With g = dy * w:  dx = rstd * (g - mean_C(g) - xhat * mean_C(g * xhat))    dw = sum_N(dy * xhat)    db = sum_N(dy)
//   dx, dy, x: [N, C] dtype    dw, db: [C] f32; each of dx, dw, db is 0 where it is not wanted    w: [C] f32, or 0 for none
K_API int32_t k_layer_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd,
                               uint64_t scratch, int32_t N, int32_t C, int32_t dtype, uint64_t stream);

// y = xhat * (1 + scale) + shift, rounded once, with the scale and shift of the row's sample
//   y, x: [N, C] dtype    mean, rstd: [N] f32, kept for the backward pass    shift, scale: [B, C] dtype
//   offsets: [B + 1] i32, from 0 to N: sample b has the rows from offsets[b] to offsets[b + 1]; or 0 where each has N / B rows
K_API int32_t k_layer_norm_modulate_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t shift, uint64_t scale,
                                        uint64_t offsets, int32_t N, int32_t B, int32_t C, float eps, int32_t dtype, uint64_t stream);

// Bytes of scratch that k_layer_norm_modulate_bwd needs where dshift or dscale is wanted.
K_API int32_t k_layer_norm_modulate_bwd_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t C);

// With g = dy * (1 + scale):  dx = rstd * (g - mean_C(g) - xhat * mean_C(g * xhat))
// and, summed over the rows of a sample:  dshift = sum(dy)    dscale = sum(dy * xhat)
//   dx, dy, x: [N, C] dtype    dshift, dscale, scale: [B, C] dtype; each of dx, dshift, dscale is 0 where it is not wanted
K_API int32_t k_layer_norm_modulate_bwd(uint64_t dx, uint64_t dshift, uint64_t dscale, uint64_t dy, uint64_t x, uint64_t scale,
                                        uint64_t mean, uint64_t rstd, uint64_t offsets, uint64_t scratch, int32_t N, int32_t B, int32_t C,
                                        int32_t dtype, uint64_t stream);
