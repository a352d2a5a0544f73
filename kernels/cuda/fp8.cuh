// Rows that are rounded to 8-bit floats while they are in registers.
#pragma once
#include <cuda_fp8.h>

#include "../include/fp8_scale.hpp"
#include "sums.cuh"

namespace {
constexpr int FP8_V = 8, FP8_P = 4;  // a thread holds P runs of V elements of a row

__device__ inline float larger_size(float a, float b) {  // the larger of a and |b|; NaN wins
#if __CUDA_ARCH__ >= 800
  float out;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(fabsf(b)));
  return out;
#else
  b = fabsf(b);
  return a > b || a != a ? a : b;
#endif
}

// The largest of COUNT values each over a group of GROUP threads: a warp, or the whole block, where calls take turns with two buffers.
template <int GROUP, int COUNT>
__device__ inline void group_largest(float (&v)[COUNT], float (*buffer)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
#pragma unroll
    for (int o = 16; o; o >>= 1) v[i] = larger_size(v[i], __shfl_xor_sync(0xffffffffu, v[i], o));
  }
  if constexpr (GROUP > 32) {
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) buffer[threadIdx.x / 32][i] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int w = 0; w < GROUP / 32; w++) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) v[i] = larger_size(v[i], buffer[w][i]);
    }
  }
}

// V values times `inverse` as bits of E4M3, at `to`.
__device__ inline void store_fp8(uint8_t* to, const float (&v)[FP8_V], float inverse) {
  Pack<uint16_t, FP8_V / 2> out;
#pragma unroll
  for (int i = 0; i < FP8_V; i += 2) {
    out.v[i / 2] = __nv_cvt_float2_to_fp8x2({v[i] * inverse, v[i + 1] * inverse}, __NV_SATFINITE, __NV_E4M3);
  }
  *reinterpret_cast<Pack<uint16_t, FP8_V / 2>*>(to) = out;
}

// The scale of a row and what its elements are multiplied by, from its largest size.
struct RowScale {
  float scale, inverse;
  __device__ explicit RowScale(float largest) {
    const int e = fp8_row_exponent(largest);
    scale = fp8_power(e), inverse = fp8_power(e == FP8_NAN ? e : -e);
  }
};

inline int32_t check_fp8(const char* where, int64_t N, int64_t C) {
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", int(N), int(C));
  if (C % 16 || C > 8192) return fail(K_UNSUPPORTED, where, "C = %d, it must be a multiple of 16 and at most 8192", int(C));
  return K_OK;
}

inline int32_t unaligned(const char* where) { return fail(K_UNSUPPORTED, where, "an address is not aligned, it must be a multiple of 16"); }

// Calls run(the threads of a row).
template <class F>
int32_t with_row_threads(int C, F run) {
  if (C <= 32 * FP8_V * FP8_P) return run(std::integral_constant<int, 32>{});
  return C <= 128 * FP8_V * FP8_P ? run(std::integral_constant<int, 128>{}) : run(std::integral_constant<int, 256>{});
}

constexpr int row_block(int group) { return group < 128 ? 128 : group; }
}  // namespace
