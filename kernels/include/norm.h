// library: ops
// Layer norms over the last axis: plain, modulated, and of a residual sum that is made in the same pass. Rows are independent; statistics and
// sums are f32. On CUDA, C is 1 to 8192.
#pragma once
#include "k.h"

// With the gate, scale and shift of the row's sample:
//   sum = x + h * gate, rounded once (h 0: sum is x; gate 0: sum = x + h)
//   xhat = (sum - mean) * rstd with rstd = 1 / sqrt(var + eps), where var is not bias-corrected
//   y = xhat * (1 + scale) + shift, or xhat * w + b, rounded once; each of the four may be 0, scale and shift not beside w and b
typedef struct k_norm {
  int64_t struct_size;  // sizeof(k_norm): the version
  int64_t dtype, N, B, C;
  double eps;
  uint64_t offsets;               // [B + 1] i32, from 0 to N: sample b has the rows from offsets[b] to offsets[b + 1]; or 0: each has N / B rows
  uint64_t x, h, gate;            // x, h: [N, C] dtype    gate: [B, C] dtype, gate_stride elements from a sample's to the next one's
  uint64_t w, b;                  // [C] f32
  uint64_t scale, shift;          // [B, C] dtype, stride elements from a sample's to the next one's
  int64_t gate_stride, stride;
  uint64_t sum, y;                // [N, C] dtype; sum is not written where h is 0
  uint64_t mean, rstd;            // [N] f32, kept for the backward pass
  uint64_t dy, dsum;              // [N, C] dtype; dsum: the gradient that reaches sum by other ways, or 0
  uint64_t dx, dh, dgate;         // as x, h, gate; dh and dgate need dx
  uint64_t dw, db, dscale, dshift;
  int64_t adds;                   // 1: dgate, dscale and dshift are rounded and added to what is there
  uint64_t workspace;
  int64_t workspace_bytes;
  uint64_t dbias;                 // [C] f32: of a bias that h was made with; needs dh, or dx without a gate
} k_norm;

// Reads x, or x, h and gate; w, b, scale, shift. Writes y, mean, rstd, and sum where there is h.
K_API int32_t k_norm_fwd(const k_norm* problem, uint64_t stream);

// bytes [1]: the workspace of the backward pass where any of dgate, dw, db, dscale, dshift, dbias is wanted. Reads dtype, N, B, C,
// offsets, and whether dh or dgate is wanted.
K_API int32_t k_norm_bwd_workspace(uint64_t* bytes, const k_norm* problem);

// With g = dy * (1 + scale), or dy * w:
//   dx = rstd * (g - mean_C(g) - xhat * mean_C(g * xhat)) + dsum    dh = dx * gate
// and, summed over the rows of a sample:  dgate = sum(dx * h)    dscale = sum(dy * xhat)    dshift = sum(dy)
// and over all rows:  dw = sum(dy * xhat)    db = sum(dy)    dbias = sum(dh), or sum(dx) without a gate
// Reads sum, or x where h is 0; what is not wanted is 0. Without a gate the gradient of h is dx.
K_API int32_t k_norm_bwd(const k_norm* problem, uint64_t stream);

// k_norm_fwd, and k_fp8_quantize_fwd (fp8.h) of the y that it writes, in one pass; y itself is written where it is given.
//   values: [N, C] u8, the bits of E4M3    scale: [N] f32. On CUDA, C is a multiple of 16.
K_API int32_t k_fp8_norm_fwd(uint64_t values, uint64_t scale, const k_norm* problem, uint64_t stream);
