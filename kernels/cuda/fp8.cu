// 8-bit floats with a scale for each row, on CUDA. Bound by memory: a row is read once and stays in registers between its largest value and
// its rounding. 2 bytes read and 1 written an element.
#include "../include/fp8.h"

#include "fp8.cuh"

namespace {
// A group of threads a row, as many groups as rows: others hide the time that one waits.
template <class T, int GROUP, bool GELU, bool COLUMNS>
__global__ void __launch_bounds__(row_block(GROUP), 1024 / row_block(GROUP))
    quantize(uint8_t* __restrict__ y, float* __restrict__ scale, const T* __restrict__ x, const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V, P = FP8_P;
  __shared__ float buffer[GROUP / 32][1];
  const int lane = threadIdx.x % GROUP;
  const int64_t n = int64_t(blockIdx.x) * (row_block(GROUP) / GROUP) + threadIdx.x / GROUP;
  float v[P][V], largest[1] = {};
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
#pragma unroll
    for (int i = 0; i < V; i++) v[p][i] = 0;
    if (n < N && c < C) load_lanes(v[p], x + n * C + c);
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
  if (n < N && lane == 0) scale[n] = at.scale;
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
    if (n < N && c < C) store_fp8(y + n * C + c, v[p], at.inverse);
  }
}

// How rows are taken where their columns are summed: threads of a row, with RUNS runs of 8 columns each, rows that a block takes at a time, blocks that a
// multiprocessor holds, and such groups of rows that are on their way in 16 bits. Each block takes groups in turns.
template <int THREADS_, int RUNS_, int ROWS_, int RESIDENT_, int AHEAD>
struct SumRows {
  static constexpr int THREADS = THREADS_, RUNS = RUNS_, ROWS = ROWS_, RESIDENT = RESIDENT_;
  template <class T>
  using Rows = Ring<THREADS, sizeof(T) == 2 ? AHEAD : 1, ROWS * RUNS * FP8_V * sizeof(T) / 16>;
};

// Calls run(SumRows).
template <class F>
auto with_sum_rows(int C, F run) {
  if (C <= 1024) return run(SumRows<64, 2, 1, 8, 6>{});
  if (C <= 2048) return run(SumRows<128, 2, 2, 4, 3>{});
  if (C <= 3072) return run(SumRows<128, 3, 2, 4, 2>{});
  return C <= 4096 ? run(SumRows<256, 2, 1, 2, 4>{}) : run(SumRows<512, 2, 1, 1, 4>{});
}

int64_t sum_blocks(int64_t N, int C) {
  return std::min<int64_t>(N, with_sum_rows(C, [](auto rows) { return 132 * rows.RESIDENT; }));
}

// The sums of the columns of x over a block's rows go to partial[block, :].
template <class T, class At>
__global__ void __launch_bounds__(At::THREADS, At::RESIDENT)
    quantize_sums(uint8_t* __restrict__ y, float* __restrict__ scale, float* __restrict__ partial, const T* __restrict__ x,
                  const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V, THREADS = At::THREADS, WARPS = THREADS / 32, RUNS = At::RUNS, ROWS = At::ROWS, PACKS = V * sizeof(T) / 16;
  using Rows = typename At::template Rows<T>;
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float buffer[2][ROWS][WARPS];
  next_may_start();
  Rows ring(shared);
  float sums[RUNS][V] = {}, by[RUNS][V];
#pragma unroll
  for (int p = 0; p < RUNS; p++) {
    const int c = (p * THREADS + threadIdx.x) * V;
#pragma unroll
    for (int i = 0; i < V; i++) by[p][i] = 1;
    if (columns && c < C) load_lanes(by[p], columns + c);
  }
  const auto ask = [&](int slot, int64_t first) {
    ring.ask(slot, [&](int i) -> const void* {
      const int c = (i / PACKS % RUNS * THREADS + threadIdx.x) * V + i % PACKS * (16 / int(sizeof(T)));
      const int64_t n = first + i / (PACKS * RUNS);
      return n < N && c < C ? x + n * C + c : nullptr;
    });
  };
  const int64_t step = int64_t(gridDim.x) * ROWS;
#pragma unroll
  for (int i = 0; i < Rows::DEPTH; i++) ask(i, blockIdx.x * ROWS + i * step);
  bool second = false;
  for (int64_t first = blockIdx.x * ROWS; first < N; first += step, second = !second) {
    float v[ROWS][RUNS][V];
    ring.wait();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float largest = 0;
#pragma unroll
      for (int p = 0; p < RUNS; p++) {
#pragma unroll
        for (int i = 0; i < V; i++) {
          float& e = v[r][p][i];
          e = to_f32(ring.template read<T>((r * RUNS + p) * PACKS + i / (V / PACKS))[i % (V / PACKS)]);
          sums[p][i] += e;
          e *= by[p][i];
          largest = larger_size(largest, e);
        }
      }
      largest = warp_largest(largest);
      if (threadIdx.x % 32 == 0) buffer[second][r][threadIdx.x / 32] = largest;
    }
    ask(ring.slot, first + Rows::DEPTH * step);
    ring.next();
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int64_t n = first + r;
      if (n >= N) break;  // the whole block
      const int warp = threadIdx.x % 32;
      const RowScale at(warp_largest(warp < WARPS ? buffer[second][r][warp] : 0));
      if (threadIdx.x == 0) scale[n] = at.scale;
#pragma unroll
      for (int p = 0; p < RUNS; p++) {
        const int c = (p * THREADS + threadIdx.x) * V;
        if (c < C) store_fp8(y + n * C + c, v[r][p], at.inverse);
      }
    }
  }
#pragma unroll
  for (int p = 0; p < RUNS; p++) {
    const int c = (p * THREADS + threadIdx.x) * V;
    if (c < C) store_lanes(partial + int64_t(blockIdx.x) * C + c, sums[p]);
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
  *bytes = uint64_t(sum_blocks(N, C)) * C * sizeof(float);
  return K_OK;
}

namespace {
template <class T>
int32_t run_with_sums(const char* where, uint64_t y, uint64_t scale, uint64_t sums, uint64_t x, uint64_t columns, uint64_t scratch, int N, int C,
                      uint64_t stream) {
  const int64_t blocks = sum_blocks(N, C);
  const int32_t status = blocks == 0 ? int32_t(K_OK) : with_sum_rows(C, [&](auto rows) {
    using At = decltype(rows);
    constexpr int bytes = At::template Rows<T>::BYTES;
    const auto kernel = quantize_sums<T, At>;
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
    kernel<<<unsigned(blocks), At::THREADS, bytes, stream_of(stream)>>>(at<uint8_t>(y), at<float>(scale), at<float>(scratch), at<const T>(x),
                                                                       at<const float>(columns), N, C);
    return launched(where);
  });
  return status ? status : launch_sum_partials(where, Sums<float>{{at<float>(sums)}}, scratch, 1, blocks, C, 1, stream);
}
}  // namespace

int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t sums, uint64_t x, uint64_t columns, uint64_t scratch, int32_t N, int32_t C,
                           int32_t act, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_quantize_fwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (sums && act != K_FP8_NONE) return fail(K_BAD_ARGUMENT, where, "sums are wanted with an activation, act must be 0");
  if (!aligned16(x, columns, scratch) || (y & 7)) return unaligned(where);
  if (N == 0 && !sums) return K_OK;
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    if (sums) return run_with_sums<T>(where, y, scale, sums, x, columns, scratch, N, C, stream);
    return with_row_threads(C, [&](auto group) {
      const auto run = [&](auto gelu, auto by) {
        quantize<T, group, gelu, by><<<unsigned(ceil_div(N, row_block(group) / group)), row_block(group), 0, stream_of(stream)>>>(
            at<uint8_t>(y), at<float>(scale), at<const T>(x), at<const float>(columns), N, C);
        return launched(where);
      };
      constexpr std::true_type yes{};
      constexpr std::false_type no{};
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
