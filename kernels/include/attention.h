// library: flash_attn
// Softmax attention without a mask, forward and backward: dense, of variable length, or through row maps (windows). No [L, M] matrix
// is ever stored: memory is linear in the rows. Two runs agree to the bit.
//
// A problem is one struct whose fields all have 8 bytes, so that any language can fill it as an array. There are B sequences of queries
// and as many of keys, in H heads of width D.
//   dense: q_offsets and k_offsets are 0. Every sequence has L queries and M keys; element (b, l, h, d) of x lies at
//     x + b x_batch + l x_token + h x_head + d, lse at [b, h, l] of [B, H, L].
//   of variable length: q_offsets and k_offsets are [B + 1] i32 on the device, from 0, never decreasing, to q_total and k_total.
//     Sequence b has the rows from offsets[b] to offsets[b + 1]; row r of x lies at x + r x_token + h x_head + d, and lse at [h, r] of
//     [H, q_total]. L and M are bounds of the lengths. Batch strides are not read.
//   of variable length with row maps: q_rows [q_total] and k_rows [k_total] i32 on the device, each 0 or a permutation: row r lies at
//     x + rows[r] x_token + h x_head + d. q_rows is of q, o, d_o and dq, k_rows of k, v, dk and dv; lse stays in the order of the
//     sequences.
// Strides count elements, so the parts of a packed [.., 3, H, D] or [.., 2, H, D] are read, and their gradients written, where they lie.
//
// D is 1 to 128. In f16 and bf16 D and the strides are multiples of 8, and addresses of 16. scale is finite and > 0. Scores, sums and
// lse are f32; in f16 and bf16 the probabilities, and in the backward pass the gradients of the scores, are rounded to the dtype before
// they are multiplied.
#pragma once
#include "k.h"

// Flags. CHECK makes a call wait for the device, look at the offsets and row maps, and refuse those that decrease, point outside or name a
// row twice: for finding faults (the CPU library always looks). SM80 takes the kernels for any card since sm_80 where there are faster
// ones: for comparisons.
#define K_ATTENTION_CHECK 2
#define K_ATTENTION_SM80 4

typedef struct k_attention {
  int64_t struct_size;  // sizeof(k_attention): the version
  int64_t dtype, flags;
  int64_t B, L, M, H, D;
  int64_t q_total, k_total;
  double scale;
  uint64_t q_offsets, k_offsets, q_rows, k_rows;
  uint64_t q;
  int64_t q_batch, q_token, q_head;
  uint64_t k;
  int64_t k_batch, k_token, k_head;
  uint64_t v;
  int64_t v_batch, v_token, v_head;
  uint64_t o;
  int64_t o_batch, o_token, o_head;
  uint64_t lse;
  uint64_t d_o;
  int64_t d_o_batch, d_o_token, d_o_head;
  uint64_t dq;
  int64_t dq_batch, dq_token, dq_head;
  uint64_t dk;
  int64_t dk_batch, dk_token, dk_head;
  uint64_t dv;
  int64_t dv_batch, dv_token, dv_head;
  uint64_t workspace;
  int64_t workspace_bytes;
} k_attention;

// bytes [2]: the workspace of the forward and of the backward pass, which lies at a multiple of 16. Reads sizes, dtype and flags, and
// whether offsets and rows are 0; no address.
K_API int32_t k_attention_workspace(uint64_t* bytes, const k_attention* problem);

// o = softmax_M(scale q k^T) v and lse = ln sum_M exp(scale q k^T), of each sequence; where it has no keys, o = 0 and lse = -inf.
K_API int32_t k_attention_fwd(const k_attention* problem, uint64_t stream);

// With p = exp(scale q k^T - lse), delta = sum_D(d_o * o) and ds = p * (d_o v^T - delta):
//   dq = scale ds k    dk = scale ds^T q    dv = p^T d_o
// dq, dk, dv: each or 0 where not wanted    o, lse: of the forward pass
K_API int32_t k_attention_bwd(const k_attention* problem, uint64_t stream);
