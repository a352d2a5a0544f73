// 8-bit floats with a scale for each row, on CUDA. Bound by memory: a row is read once and stays in registers between its largest value and
// its rounding. 2 bytes read and 1 written an element.
#include "../include/fp8.h"

#include "fp8.cuh"

namespace {
// Blocks that a multiprocessor holds where each takes rows in turns, to add their columns: the grid is as large.
constexpr int resident(int group) { return group > 128 ? 2 : 4; }

int64_t sum_blocks(int64_t N, int group) {
  return std::min<int64_t>(ceil_div(N, row_block(group) / group), 132 * resident(group));
}

// A group of threads a row. SUMS: each takes several, loads the next one before it works on the present one, and writes the sums of its columns
// to partial[block, :]; otherwise there are as many groups as rows, and others hide the time that one waits.
template <class T, int GROUP, bool GELU, bool COLUMNS, bool SUMS>
__global__ void __launch_bounds__(row_block(GROUP), SUMS ? resident(GROUP) : 1024 / row_block(GROUP))
    quantize(uint8_t* __restrict__ y, float* __restrict__ scale, float* __restrict__ partial, const T* __restrict__ x,
             const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V, P = FP8_P, ROWS = row_block(GROUP) / GROUP;
  constexpr bool AHEAD = SUMS && sizeof(T) == 2;
  __shared__ float buffer[2][GROUP / 32][1];
  __shared__ float shared[SUMS && GROUP == 32 ? row_block(GROUP) * V : 1];
  const int lane = threadIdx.x % GROUP, row = threadIdx.x / GROUP;
  const int64_t step = int64_t(gridDim.x) * ROWS;
  Pack<T, AHEAD ? V : 1> next[AHEAD ? P : 1];
  float sums[SUMS ? P : 1][1][V] = {};
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
  bool second = false;
  for (int64_t base = int64_t(blockIdx.x) * ROWS; base < N; base += step, second = !second) {
    const int64_t n = base + row;
    float v[P][V], largest[1] = {};
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
      if constexpr (AHEAD) {
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] = to_f32(next[p].v[i]);
      } else {
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] = 0;
        if (n < N && c < C) load_lanes(v[p], x + n * C + c);
      }
    }
    load(n + step);
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
      if constexpr (SUMS) {
#pragma unroll
        for (int i = 0; i < V; i++) sums[p][0][i] += v[p][i];
      }
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
    group_largest<GROUP>(largest, buffer[second]);
    const RowScale at(largest[0]);
    if (n < N && lane == 0) scale[n] = at.scale;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * GROUP + lane) * V;
      if (n < N && c < C) store_fp8(y + n * C + c, v[p], at.inverse);
    }
    if constexpr (!SUMS) break;
  }
  if constexpr (SUMS) {
#pragma unroll
    for (int p = 0; p < P; p++) {
      float* const to = partial + int64_t(blockIdx.x) * C;
      if constexpr (GROUP == 32) {
        __syncthreads();
        store_column_sums(to, sums[p], shared, C, p, GROUP, ROWS, lane, row);
      } else {
        const int c = (p * GROUP + lane) * V;
        if (c < C) store_lanes(to + c, sums[p][0]);
      }
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
      const auto run = [&](auto gelu, auto by, auto adds) {
        const int64_t blocks = adds ? sum_blocks(N, group) : ceil_div(N, row_block(group) / group);
        quantize<T, group, gelu, by, adds><<<unsigned(blocks), row_block(group), 0, stream_of(stream)>>>(
            at<uint8_t>(y), at<float>(scale), at<float>(scratch), at<const T>(x), at<const float>(columns), N, C);
        const int32_t status = launched(where);
        return status || !adds ? status : add(blocks);
      };
      constexpr std::true_type yes{};
      constexpr std::false_type no{};
      if (sums) return columns ? run(no, yes, yes) : run(no, no, yes);
      if (act == K_FP8_GELU) return columns ? run(yes, yes, no) : run(yes, no, no);
      return columns ? run(no, yes, no) : run(no, no, no);
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
