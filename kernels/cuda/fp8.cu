// 8-bit floats with a scale for each row, on CUDA. Bound by memory: a row is read once and stays in registers between its largest value and
// its rounding. 2 bytes read and 1 written an element.
#include "../include/fp8.h"

#include "fp8.cuh"

namespace {
// A group of threads a row; there are as many groups as rows, and others hide the time that one waits.
template <class T, int GROUP, bool GELU, bool COLUMNS>
__global__ void __launch_bounds__(row_block(GROUP), 1024 / row_block(GROUP))
    quantize(uint8_t* __restrict__ y, float* __restrict__ scale, const T* __restrict__ x, const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V, P = FP8_P;
  __shared__ float buffer[GROUP / 32][1];
  const int lane = threadIdx.x % GROUP;
  const int64_t n = int64_t(blockIdx.x) * (row_block(GROUP) / GROUP) + threadIdx.x / GROUP;
  if (n >= N) return;  // a whole group
  float v[P][V], largest[1] = {};
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
#pragma unroll
    for (int i = 0; i < V; i++) v[p][i] = 0;
    if (c < C) load_lanes(v[p], x + n * C + c);
  }
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
    if constexpr (GELU) {
#pragma unroll
      for (int i = 0; i < V; i++) v[p][i] = FastGelu(v[p][i]).value();
    }
    if (COLUMNS && c < C) {
      float by[V];
      load_lanes(by, columns + c);
#pragma unroll
      for (int i = 0; i < V; i++) v[p][i] *= by[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++) largest[0] = larger_size(largest[0], v[p][i]);
  }
  group_largest<GROUP>(largest, buffer);
  const RowScale at(largest[0]);
  if (lane == 0) scale[n] = at.scale;
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
    if (c < C) store_fp8(y + n * C + c, v[p], at.inverse);
  }
}

// Rows of a group that are on their way where columns are added, and blocks that a multiprocessor holds then; each takes rows in turns.
constexpr int AHEAD = 4;
constexpr int resident(int group) { return group > 128 ? 2 : 4; }

int64_t sum_blocks(int64_t N, int group) {
  return std::min<int64_t>(ceil_div(N, row_block(group) / group), 132 * resident(group));
}

template <class T, int GROUP>
using Rows = Ring<row_block(GROUP), sizeof(T) == 2 ? AHEAD : 1, FP8_P * FP8_V * sizeof(T) / 16>;

// Writes the sums of the block's columns, too, to partial[block, :].
template <class T, int GROUP, bool COLUMNS>
__global__ void __launch_bounds__(row_block(GROUP), resident(GROUP))
    quantize_sums(uint8_t* __restrict__ y, float* __restrict__ scale, float* __restrict__ partial, const T* __restrict__ x,
                  const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V, P = FP8_P, BLOCK = row_block(GROUP), ROWS = BLOCK / GROUP, PACKS = V * sizeof(T) / 16;
  constexpr int DEPTH = sizeof(T) == 2 ? AHEAD : 1;
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float buffer[2][GROUP / 32][1];
  Rows<T, GROUP> ring(shared);
  const int lane = threadIdx.x % GROUP, row = threadIdx.x / GROUP;
  const int64_t step = int64_t(gridDim.x) * ROWS, start = int64_t(blockIdx.x) * ROWS + row;
  const auto ask = [&](int slot, int64_t n) {
    ring.ask(slot, [&](int i) -> const void* {
      const int c = (i / PACKS * GROUP + lane) * V + i % PACKS * (16 / int(sizeof(T)));
      return n < N && c < C ? x + n * C + c : nullptr;
    });
  };
#pragma unroll
  for (int i = 0; i < DEPTH; i++) ask(i, start + i * step);
  float sums[P][1][V] = {};
  bool second = false;
  for (int64_t n = start; n - row < N; n += step, second = !second) {
    float v[P][V], largest[1] = {};
    ring.wait();
#pragma unroll
    for (int p = 0; p < P; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) v[p][i] = to_f32(ring.template read<T>(p * PACKS + i / (V / PACKS))[i % (V / PACKS)]);
    }
    ask(ring.slot, n + DEPTH * step);
    ring.next();
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
#pragma unroll
      for (int i = 0; i < V; i++) sums[p][0][i] += v[p][i];
      if (COLUMNS && c < C) {
        float by[V];
        load_lanes(by, columns + c);
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] *= by[i];
      }
#pragma unroll
      for (int i = 0; i < V; i++) largest[0] = larger_size(largest[0], v[p][i]);
    }
    group_largest<GROUP>(largest, buffer[second]);
    const RowScale at(largest[0]);
    if (n >= N) continue;
    if (lane == 0) scale[n] = at.scale;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
      if (c < C) store_fp8(y + n * C + c, v[p], at.inverse);
    }
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
  float* const to = partial + int64_t(blockIdx.x) * C;
#pragma unroll
  for (int p = 0; p < P; p++) {
    if constexpr (GROUP == 32) {
      __syncthreads();
      store_column_sums(to, sums[p], reinterpret_cast<float*>(shared), C, p, GROUP, ROWS, lane, row);
    } else {
      const int c = (p * GROUP + lane) * V;
      if (c < C) store_lanes(to + c, sums[p][0]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    dequantize(T* __restrict__ y, const uint8_t* __restrict__ x, const float* __restrict__ scale, int64_t packs, int C) {
  constexpr int V = FP8_V;
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= packs) return;
  const Pack<uint8_t, V> in = *reinterpret_cast<const Pack<uint8_t, V>*>(x + i * V);
  const float by = scale ? scale[i * V / C] : 1;
  float out[V];
#pragma unroll
  for (int j = 0; j < V; j++) out[j] = __half2float(__half(__nv_cvt_fp8_to_halfraw(in.v[j], __NV_E4M3))) * by;
  store_lanes(y + i * V, out);
}
}  // namespace

int32_t k_fp8_quantize_workspace(uint64_t* bytes, int32_t N, int32_t C) {
  return with_row_threads(C, [&](auto group) {
    *bytes = uint64_t(sum_blocks(N, group)) * C * sizeof(float);
    return int32_t(K_OK);
  });
}

int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t sums, uint64_t x, uint64_t columns, uint64_t scratch, int32_t N, int32_t C,
                           int32_t act, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_quantize_fwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (sums && act != K_FP8_NONE) return fail(K_BAD_ARGUMENT, where, "sums are wanted with an activation, act must be 0");
  if (!aligned16(x, columns, scratch) || (y & 7)) return unaligned(where);
  const auto add = [&](int64_t blocks) {
    return launch_sum_partials(where, Sums<float>{{at<float>(sums)}}, scratch, 1, blocks, C, 1, stream);
  };
  if (N == 0) return sums ? add(0) : int32_t(K_OK);
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    return with_row_threads(C, [&](auto group) {
      constexpr int GROUP = group;
      constexpr std::true_type yes{};
      constexpr std::false_type no{};
      const auto run = [&](auto gelu, auto by) {
        quantize<T, GROUP, gelu, by><<<unsigned(ceil_div(N, row_block(GROUP) / GROUP)), row_block(GROUP), 0, stream_of(stream)>>>(
            at<uint8_t>(y), at<float>(scale), at<const T>(x), at<const float>(columns), N, C);
        return launched(where);
      };
      const auto run_sums = [&](auto by) {
        const auto kernel = quantize_sums<T, GROUP, by>;
        constexpr int bytes = Rows<T, GROUP>::BYTES;
        const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
        const int64_t blocks = sum_blocks(N, GROUP);
        kernel<<<unsigned(blocks), row_block(GROUP), bytes, stream_of(stream)>>>(at<uint8_t>(y), at<float>(scale), at<float>(scratch),
                                                                                at<const T>(x), at<const float>(columns), N, C);
        const int32_t status = launched(where);
        return status ? status : add(blocks);
      };
      if (sums) return columns ? run_sums(yes) : run_sums(no);
      if (act == K_FP8_GELU) return columns ? run(yes, yes) : run(yes, no);
      return columns ? run(no, yes) : run(no, no);
    });
  });
}

int32_t k_fp8_dequantize_fwd(uint64_t y, uint64_t x, uint64_t scale, int32_t N, int32_t C, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_dequantize_fwd";
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", N, C);
  if (C % FP8_V) return fail(K_UNSUPPORTED, where, "C = %d, it must be a multiple of %d", C, FP8_V);
  const int64_t packs = int64_t(N) * C / FP8_V;
  if (packs == 0) return K_OK;
  if (!aligned16(y) || (x & 7)) return unaligned(where);
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    dequantize<T><<<unsigned(ceil_div(packs, 256)), 256, 0, stream_of(stream)>>>(at<T>(y), at<const uint8_t>(x), at<const float>(scale), packs, C);
    return launched(where);
  });
}
