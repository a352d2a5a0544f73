// The PTX of the 16-bit tensor cores since sm_80: asynchronous copies into shared memory, matrix loads, m16n8k16 products, 2^x.
#pragma once
#include "device.cuh"

__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// threadIdx.x, read anew each time: what is computed from it does not stay in registers from one use to the next.
__device__ inline int thread_again() {
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

// Begin to copy 16 or 4 bytes, or to write as many zeros where `inside` is false (nothing is read then).
__device__ inline void cp_async16(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}
__device__ inline void cp_async4(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(inside ? 4 : 0) : "memory");
}
// Waits until every copy that this thread began is complete.
__device__ inline void cp_async_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8 x 8 matrices, r[i] from the rows of 16 bytes that lanes 8 i to 8 i + 7 point to: lane 4 g + t gets elements 2t, 2t + 1 of row g.
__device__ inline void ldmatrix(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
// The same, transposed: lane 4 g + t gets element g of rows 2t and 2t + 1.
__device__ inline void ldmatrix_trans(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// c += a b. In lane 4 g + t:
//   C [16, 8] f32: c[0], c[1] = C[g][2t], C[g][2t + 1]; c[2], c[3] = the same of row g + 8
//   A [16, 16]: a[0] = A[g][2t, 2t + 1], a[1] = A[g + 8][2t, ..], a[2] = A[g][2t + 8, ..], a[3] = A[g + 8][2t + 8, ..]
//   B [16, 8]: b0 = B[2t, 2t + 1][g], b1 = B[2t + 8, 2t + 9][g]
// so two C tiles side by side, rounded, are an A tile. The first argument chooses the type.
__device__ inline void mma(__half, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void mma(__nv_bfloat16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two values rounded into one register, `low` in the lower half.
__device__ inline uint32_t pack(__half, float low, float high) {
  const __half2 v = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(v);
}
__device__ inline uint32_t pack(__nv_bfloat16, float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(v);
}

// 2^x to about 2 units in the last place; what would be denormal is 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
