// library: ops
// Elementwise maths in f32: two operands with broadcasting, one operand, and scale and shift. The formulas are in elementwise_ops.hpp.
#pragma once
#include "k.h"

enum { K_ADD_OP = 0, K_SUB_OP, K_MUL_OP, K_DIV_OP, K_MIN_OP, K_MAX_OP, K_ABS_DIFF_OP, K_SQ_DIFF_OP, K_BCE_OP };  // k_binary_*
enum {  // k_unary_*
  K_ABS_OP = 0, K_SQUARE_OP, K_SQRT_OP, K_EXP_OP, K_LOG_OP, K_SIN_OP, K_COS_OP, K_RELU_OP, K_SIGMOID_OP, K_TANH_OP, K_SILU_OP,
  K_GELU_OP, K_GELU_ERF_OP, K_SOFTPLUS_OP
};

// y = op(a, b) over the extents [n0, n1, n2, n3]: y is contiguous, element (i0, i1, i2, i3) of a is at sum i_d a_d, of b at sum i_d b_d
// (strides in elements, 0 = broadcast). BCE is max(a, 0) - a b + ln(1 + e^-|a|): logit a, target b.
//   y, a, b: dtype
K_API int32_t k_binary_fwd(uint64_t y, uint64_t a, uint64_t b, int64_t n0, int64_t n1, int64_t n2, int64_t n3, int64_t a0, int64_t a1,
                           int64_t a2, int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3, int32_t op, int32_t dtype,
                           uint64_t stream);

// da = dy d op / d a, db = dy d op / d b, both [n0, n1, n2, n3] whatever was broadcast (sum them by k_sum_fwd). Ties of MIN and MAX share
// dy equally; ABS_DIFF has gradient 0 where a = b. da or db may be 0.
//   da, db, dy: contiguous, dtype
K_API int32_t k_binary_bwd(uint64_t da, uint64_t db, uint64_t dy, uint64_t a, uint64_t b, int64_t n0, int64_t n1, int64_t n2, int64_t n3,
                           int64_t a0, int64_t a1, int64_t a2, int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3, int32_t op,
                           int32_t dtype, uint64_t stream);

// y[i] = op(x[i]). GELU is x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), GELU_ERF x / 2 (1 + erf(x / sqrt 2)), SILU x sigmoid(x),
// SOFTPLUS max(x, 0) + ln(1 + e^-|x|). y may be x.
//   y, x: [n] dtype
K_API int32_t k_unary_fwd(uint64_t y, uint64_t x, int64_t n, int32_t op, int32_t dtype, uint64_t stream);

// dx[i] = dy[i] op'(x[i]); op'(0) = 0 for ABS and RELU. dx may be dy.
//   dx, dy, x: [n] dtype
K_API int32_t k_unary_bwd(uint64_t dx, uint64_t dy, uint64_t x, int64_t n, int32_t op, int32_t dtype, uint64_t stream);

// y[i] = x[i] scale + shift, rounded once. y may be x.
//   y, x: [n] dtype
K_API int32_t k_affine_fwd(uint64_t y, uint64_t x, int64_t n, float scale, float shift, int32_t dtype, uint64_t stream);
