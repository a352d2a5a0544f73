// The instructions that 16-bit tile products are made of: asynchronous copies into shared memory, matrix loads from it, tensor core products.
//
// Where elements lie, in lane 4 g + t of a warp:
//   C [16, 8] f32: c[0], c[1] = C[g][2t], C[g][2t + 1]; c[2], c[3] = the same of row g + 8
//   A [16, 16]: a[0] = A[g][2t, 2t + 1], a[1] = A[g + 8][2t, ..], a[2] = A[g][2t + 8, ..], a[3] = A[g + 8][2t + 8, ..]
//   B [16, 8]: b0 = B[2t, 2t + 1][g], b1 = B[2t + 8, 2t + 9][g]
#pragma once
#include "device.cuh"

namespace tensor_core {
__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Starts a copy of 16 bytes, or of 16 zero bytes where they are not wanted. `keep_in_l1` is for rows that are read again soon.
template <bool keep_in_l1>
__device__ inline void copy_async16(uint32_t to, const void* from, bool wanted) {
  if constexpr (keep_in_l1) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(wanted ? 16 : 0) : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(wanted ? 16 : 0) : "memory");
  }
}
// Ends a group of the copies that this thread started.
__device__ inline void copy_group_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of this thread's groups are under way.
template <int pending>
__device__ inline void copy_groups_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
// The same, each matrix transposed.
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// c += a b
__device__ inline void multiply_add(__half, float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(__nv_bfloat16, float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
}  // namespace tensor_core
