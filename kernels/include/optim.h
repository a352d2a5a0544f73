// library: ops
// The optimizer on flat f32 buffers. Rates are doubles, so that 1 - rate keeps its digits.
#pragma once
#include "k.h"

// Bytes of scratch that k_grad_norm_fwd needs.
K_API int32_t k_grad_norm_workspace(uint64_t* bytes, int64_t n);

// stats[0] = sqrt(sum((grad * unscale)^2))    stats[1] = 1 where every element of grad is finite, else 0
//   stats: [2] f32    grad: [n] f32
K_API int32_t k_grad_norm_fwd(uint64_t stats, uint64_t grad, uint64_t scratch, int64_t n, double unscale, uint64_t stream);

// One AdamW step (Loshchilov and Hutter, 2019) with clipping, an exponential mean of the parameters and their 16-bit copy, all in one pass:
//   g = grad * unscale * min(1, max_norm / (stats[0] + 1e-6)); no limit where max_norm <= 0
//   m = m + (1 - beta1) (g - m)    v = beta2 v + (1 - beta2) g^2
//   p = p (1 - lr weight_decay) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//   ema = ema_rate ema + (1 - ema_rate) p    copy = p rounded to copy_dtype, the first n_copy elements    grad = 0 where zero_grad
// Where stats[1] is 0 the step is skipped: p, m, v and copy stay, ema and grad are still written.
//   p, m, v, grad: [n] f32    ema: [n] f32, or 0    copy: [n_copy] f16 or bf16, or 0    stats: [2] f32 from k_grad_norm_fwd
//   t: which step this is, from 1, not counting skipped ones
K_API int32_t k_adamw_fwd(uint64_t p, uint64_t m, uint64_t v, uint64_t ema, uint64_t copy, uint64_t grad, uint64_t stats, int64_t n,
                          int64_t n_copy, int64_t t, double lr, double beta1, double beta2, double eps, double weight_decay, double unscale,
                          double max_norm, double ema_rate, int32_t zero_grad, int32_t copy_dtype, uint64_t stream);

// ema = rate ema + (1 - rate) p
//   ema, p: [n] f32
K_API int32_t k_ema_fwd(uint64_t ema, uint64_t p, int64_t n, double rate, uint64_t stream);
