// library: ops
// The dense product of the CPU library. On CUDA cuBLASLt does it: the one op with two owners (lib/ops/product.ts).
#pragma once
#include "k.h"

// y = op(a) op(b) + bias + c, row-major and contiguous, for each of `batch` products.
//   y: [batch, M, N]    op(a): [M, K], stored [K, M] with trans_a    op(b): [K, N], stored [N, K] with trans_b    bias: [N], or 0
//   c: as y, and may be y; or 0
//   stride_a, stride_b: elements from one product's matrix to the next, 0 repeats it
K_CPU_API int32_t k_matmul_fwd(uint64_t y, uint64_t a, uint64_t b, uint64_t bias, uint64_t c, int32_t batch, int32_t M, int32_t N, int32_t K, int32_t trans_a,
                               int32_t trans_b, int64_t stride_a, int64_t stride_b, int32_t dtype, uint64_t stream);
