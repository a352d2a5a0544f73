// library: flash_attn
// Softmax attention without a mask. No [L, M] matrix is ever stored: memory is linear in L + M. Two runs agree to the bit.
//
// Shapes: o, d_o, q, dq [B, L, H, D] and k, v, dk, dv [B, M, H, D], of the dtype, lse and delta [B, H, L] f32 and contiguous. Element
// (b, l, h, d) of x lies at x + b x_batch + l x_token + h x_head + d: the strides count elements, so the parts of a packed
// [B, L, 3, H, D] or [B, M, 2, H, D] are read, and their gradients written, where they lie.
// D is 1 to 128; in f16 and bf16 a multiple of 8, with strides that are multiples of 8 and addresses that are multiples of 16.
// scale is finite and > 0. Scores, sums and lse are f32; in f16 and bf16 the probabilities, and in the backward pass the gradients of the
// scores, are rounded to the dtype before they are multiplied.
#pragma once
#include "k.h"

// o = softmax_M(scale q k^T) v and lse = ln sum_M exp(scale q k^T); with M = 0, o = 0 and lse = -inf.
K_API int32_t k_attention_fwd(uint64_t o, uint64_t lse, uint64_t q, uint64_t k, uint64_t v, int32_t B, int32_t L, int32_t M, int32_t H,
                              int32_t D, int64_t o_batch, int64_t o_token, int64_t o_head, int64_t q_batch, int64_t q_token, int64_t q_head,
                              int64_t k_batch, int64_t k_token, int64_t k_head, int64_t v_batch, int64_t v_token, int64_t v_head,
                              float scale, int32_t dtype, uint64_t stream);

// With p = exp(scale q k^T - lse), delta = sum_D(d_o * o) and ds = p * (d_o v^T - delta):
//   dq = scale ds k    dk = scale ds^T q    dv = p^T d_o
// dq, dk, dv: each or 0 where not wanted    o, lse: of the forward pass    delta: scratch
K_API int32_t k_attention_bwd(uint64_t dq, uint64_t dk, uint64_t dv, uint64_t d_o, uint64_t o, uint64_t lse, uint64_t q, uint64_t k,
                              uint64_t v, uint64_t delta, int32_t B, int32_t L, int32_t M, int32_t H, int32_t D, int64_t dq_batch,
                              int64_t dq_token, int64_t dq_head, int64_t dk_batch, int64_t dk_token, int64_t dk_head, int64_t dv_batch,
                              int64_t dv_token, int64_t dv_head, int64_t d_o_batch, int64_t d_o_token, int64_t d_o_head, int64_t o_batch,
                              int64_t o_token, int64_t o_head, int64_t q_batch, int64_t q_token, int64_t q_head, int64_t k_batch,
                              int64_t k_token, int64_t k_head, int64_t v_batch, int64_t v_token, int64_t v_head, float scale,
                              int32_t dtype, uint64_t stream);
