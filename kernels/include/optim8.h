// library: ops
// AdamW with moments of 8 bits a value, in blocks of K_ADAMW8_BLOCK values with a scale each.
#pragma once
#include "k.h"

#define K_ADAMW8_BLOCK 128

// The step of k_adamw_fwd (optim.h) on moments that are kept in 8 bits. A code stands for a value in [0, 1] times its block's scale, the largest
// magnitude in the block: with e = code / 8 and f = code % 8, f 2^-L / 15 for e = 0 and (8 + f) 2^(e - 1 - L) / 15 above. Codes of v have 8 bits
// (L = 30); those of m have 7 (L = 14) and a sign in the highest bit. Values between two codes are rounded to either by a number that is hashed from
// the element and t, so that means of many steps are not lost: two runs agree to the bit. A v above 0 has a code above 0.
//   p, grad: [n] f32    m, v: [n] u8    m_scale, v_scale: [ceil(n / 128)] f32    ema: [n] f32, or 0    copy: [n_copy] f16 or bf16, or 0
//   stats: [2] f32 from k_grad_norm_fwd    t: which step this is, from 1, not counting skipped ones; all zeros before the first
K_API int32_t k_adamw8_fwd(uint64_t p, uint64_t m, uint64_t v, uint64_t m_scale, uint64_t v_scale, uint64_t ema, uint64_t copy,
                           uint64_t grad, uint64_t stats, int64_t n, int64_t n_copy, int64_t t, double lr, double beta1, double beta2,
                           double eps, double weight_decay, double unscale, double max_norm, double ema_rate, int32_t zero_grad,
                           int32_t copy_dtype, uint64_t stream);
