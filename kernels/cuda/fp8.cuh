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

// The tanh-GELU and its derivative by the hardware's exponential and reciprocal: exact to about 1e-6, far below what E4M3 keeps.
struct FastGelu {
  float x, s;
  __device__ explicit FastGelu(float x) : x(x) {
    float e;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-2.30220819f * (x + 0.044715f * x * x * x)));  // 2 sqrt(2 / pi) log2(e)
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(1.0f + e));
  }
  __device__ float value() const { return x * s; }
  __device__ float derivative() const { return s + x * s * (1.0f - s) * (1.59576912f + 0.21406459f * x * x); }
};

// Rows on their way from memory, DEPTH of them ahead: each thread copies what it reads itself, COUNT accesses of 16 bytes a row.
template <int THREADS, int DEPTH_, int COUNT>
struct Ring {
  static constexpr int DEPTH = DEPTH_, BYTES = THREADS * DEPTH * COUNT * 16;
  uint8_t* mine;
  int slot = 0;
  __device__ explicit Ring(uint8_t* shared) : mine(shared + threadIdx.x * 16) {}
  __device__ uint8_t* place(int slot, int i) const { return mine + (slot * COUNT + i) * THREADS * 16; }
  // Begins to copy a row into the slot that was read last; from(i) is the address of access i, or null for zeros. Once a row, also past the last.
  template <class F>
  __device__ void ask(int slot, F from) const {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const void* source = from(i);
      const uint32_t to = uint32_t(__cvta_generic_to_shared(place(slot, i)));
      if (source)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(source));
      else
        *reinterpret_cast<uint4*>(place(slot, i)) = {};
    }
    asm volatile("cp.async.commit_group;");
  }
  // Waits for the oldest row.
  __device__ void wait() const { asm volatile("cp.async.wait_group %0;" ::"n"(DEPTH - 1) : "memory"); }
  __device__ void next() { slot = slot + 1 == DEPTH ? 0 : slot + 1; }
  template <class T>
  __device__ const T* read(int i) const {
    return reinterpret_cast<const T*>(place(slot, i));
  }
};

// 2^(least - exponent of a column).
__device__ inline float column_factor(float column, int least) { return fp8_power(least - fp8_exponent(column)); }

// The largest of a warp's sizes, or NaN: their bits are in the same order.
__device__ inline float warp_largest(float v) { return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(v))); }

// The largest of COUNT sizes each over a group of GROUP threads: a warp, or the whole block, where calls take turns with two buffers.
template <int GROUP, int COUNT>
__device__ inline void group_largest(float (&v)[COUNT], float (*buffer)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) v[i] = warp_largest(v[i]);
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

// out[j] = byte j of each of 16 words word(0) to word(15).
template <class F>
__device__ inline void transpose_words(uint4 (&out)[4], F word) {
  uint32_t to[4][4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t in[4];
#pragma unroll
    for (int j = 0; j < 4; j++) in[j] = word(i * 4 + j);
    const uint32_t low01 = __byte_perm(in[0], in[1], 0x5140), high01 = __byte_perm(in[0], in[1], 0x7362);
    const uint32_t low23 = __byte_perm(in[2], in[3], 0x5140), high23 = __byte_perm(in[2], in[3], 0x7362);
    to[0][i] = __byte_perm(low01, low23, 0x5410), to[1][i] = __byte_perm(low01, low23, 0x7632);
    to[2][i] = __byte_perm(high01, high23, 0x5410), to[3][i] = __byte_perm(high01, high23, 0x7632);
  }
#pragma unroll
  for (int j = 0; j < 4; j++) out[j] = {to[j][0], to[j][1], to[j][2], to[j][3]};
}

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
