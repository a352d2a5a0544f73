// 8-bit floats with a scale for each row, on CUDA. Bound by memory: a row is read once and stays in registers between its largest value and
// its rounding. 2 bytes read and 1 written an element.
#include "../include/fp8.h"

#include <cuda_fp8.h>

#include <algorithm>

#include "../include/elementwise_ops.hpp"
#include "vector.cuh"

namespace {
constexpr float LARGEST = 448;
constexpr int V = 8, P = 4;  // a thread holds P runs of V elements

__device__ inline float larger(float a, float b) { return a > b || a != a ? a : b; }  // NaN wins

// The largest of a group of GROUP threads: a warp, or the whole block.
template <int GROUP>
__device__ inline float group_largest(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = larger(v, __shfl_xor_sync(0xffffffffu, v, o));
  if constexpr (GROUP > 32) {
    __shared__ float partial[GROUP / 32];
    __syncthreads();  // the last call's values were read
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < GROUP / 32; i++) v = larger(v, partial[i]);
  }
  return v;
}

// Blocks that a multiprocessor holds, by their registers; the grid is as large, and each takes rows in turns.
constexpr int resident(int group) { return group > 128 ? 2 : 5; }

// In 16 bits a block's next rows are loaded before the present ones are worked on.
template <class T, int GROUP>
__global__ void __launch_bounds__(GROUP > 128 ? GROUP : 128, resident(GROUP))
    quantize(uint8_t* __restrict__ y, float* __restrict__ scale, const T* __restrict__ x, const float* __restrict__ columns, int N, int C,
             bool gelu) {
  constexpr int ROWS = GROUP > 128 ? 1 : 128 / GROUP;
  constexpr bool AHEAD = sizeof(T) == 2;
  const int lane = threadIdx.x % GROUP, row = threadIdx.x / GROUP;
  const int64_t step = int64_t(gridDim.x) * ROWS;
  Pack<T, AHEAD ? V : 1> next[AHEAD ? P : 1];
  const auto load = [&](int64_t n) {
    if constexpr (AHEAD) {
#pragma unroll
      for (int p = 0; p < P; p++) {
        const int c = (p * GROUP + lane) * V;
        if (n < N && c < C)
          next[p] = *reinterpret_cast<const Pack<T, V>*>(x + n * C + c);
        else
          next[p] = {};
      }
    }
  };
  load(int64_t(blockIdx.x) * ROWS + row);
  for (int64_t base = int64_t(blockIdx.x) * ROWS; base < N; base += step) {
    const int64_t n = base + row;
    float v[P][V], largest = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
#pragma unroll
      for (int i = 0; i < V; i++) v[p][i] = 0;
      if constexpr (AHEAD) {
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] = to_f32(next[p].v[i]);
      } else if (n < N && c < C) {
        load_lanes(v[p], x + n * C + c);
      }
    }
    load(n + step);
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
      if (gelu) {
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] = Gelu::fwd(v[p][i]);
      }
      if (columns && c < C) {
        float by[V];
        load_lanes(by, columns + c);
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] *= by[i];
      }
#pragma unroll
      for (int i = 0; i < V; i++) largest = larger(fabsf(v[p][i]), largest);
    }
    largest = group_largest<GROUP>(largest);
    const float inverse = largest == 0 ? 1 : LARGEST / largest;
    if (n < N && lane == 0) scale[n] = largest == 0 ? 1 : largest / LARGEST;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
      if (n >= N || c >= C) continue;
      Pack<uint8_t, V> out;
#pragma unroll
      for (int i = 0; i < V; i += 2) {
        const __nv_fp8x2_storage_t two = __nv_cvt_float2_to_fp8x2({v[p][i] * inverse, v[p][i + 1] * inverse}, __NV_SATFINITE, __NV_E4M3);
        out.v[i] = uint8_t(two), out.v[i + 1] = uint8_t(two >> 8);
      }
      *reinterpret_cast<Pack<uint8_t, V>*>(y + n * C + c) = out;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    dequantize(T* __restrict__ y, const uint8_t* __restrict__ x, const float* __restrict__ scale, int64_t packs, int C) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= packs) return;
  const Pack<uint8_t, V> in = *reinterpret_cast<const Pack<uint8_t, V>*>(x + i * V);
  const float by = scale ? scale[i * V / C] : 1;
  float out[V];
#pragma unroll
  for (int j = 0; j < V; j++) out[j] = __half2float(__half(__nv_cvt_fp8_to_halfraw(in.v[j], __NV_E4M3))) * by;
  store_lanes(y + i * V, out);
}

int32_t check(const char* where, int32_t N, int32_t C) {
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", N, C);
  if (C % V || C > 8192) return fail(K_UNSUPPORTED, where, "C = %d, it must be a multiple of %d and at most 8192", C, V);
  return K_OK;
}
}  // namespace

int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t x, uint64_t columns, int32_t N, int32_t C, int32_t act, int32_t dtype,
                           uint64_t stream) {
  const char* where = "k_fp8_quantize_fwd";
  if (const int32_t status = check(where, N, C)) return status;
  if (N == 0) return K_OK;
  if (!aligned16(x, columns) || (y & 7)) return fail(K_UNSUPPORTED, where, "an address is not aligned, it must be a multiple of 16");
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    const auto run = [&](auto group) {
      constexpr int GROUP = group, rows = GROUP < 128 ? 128 / GROUP : 1;
      const int64_t blocks = std::min<int64_t>(ceil_div(N, rows), 132 * resident(GROUP));
      quantize<T, GROUP><<<unsigned(blocks), GROUP < 128 ? 128 : GROUP, 0, stream_of(stream)>>>(
          at<uint8_t>(y), at<float>(scale), at<const T>(x), at<const float>(columns), N, C, act == K_FP8_GELU);
      return launched(where);
    };
    if (C <= 32 * V * P) return run(std::integral_constant<int, 32>{});
    return C <= 128 * V * P ? run(std::integral_constant<int, 128>{}) : run(std::integral_constant<int, 256>{});
  });
}

int32_t k_fp8_dequantize_fwd(uint64_t y, uint64_t x, uint64_t scale, int32_t N, int32_t C, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_dequantize_fwd";
  if (const int32_t status = check(where, N, C)) return status;
  const int64_t packs = int64_t(N) * C / V;
  if (packs == 0) return K_OK;
  if (!aligned16(y) || (x & 7)) return fail(K_UNSUPPORTED, where, "an address is not aligned, it must be a multiple of 16");
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    dequantize<T><<<unsigned(ceil_div(packs, 256)), 256, 0, stream_of(stream)>>>(at<T>(y), at<const uint8_t>(x), at<const float>(scale), packs, C);
    return launched(where);
  });
}
