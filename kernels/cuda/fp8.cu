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

// Threads of a row where columns are summed, 8 or 16 columns each, and blocks that a multiprocessor holds; each takes rows in turns.
constexpr int sum_threads(int C) { return C <= 2048 ? 128 : C <= 4096 ? 256 : 512; }
constexpr int sum_resident(int threads) { return 512 / threads; }

int64_t sum_blocks(int64_t N, int C) { return std::min<int64_t>(N, 132 * sum_resident(sum_threads(C))); }

// Rows on their way: 64 KB of bf16 in the blocks of a multiprocessor.
template <class T>
constexpr int sum_depth(int runs) {
  return sizeof(T) == 2 ? 8 / runs : 1;
}

// A block a row, RUNS runs of V columns a thread; the sums of the columns of x over the block's rows go to partial[block, :].
template <class T, int THREADS, int RUNS>
__global__ void __launch_bounds__(THREADS, sum_resident(THREADS))
    quantize_sums(uint8_t* __restrict__ y, float* __restrict__ scale, float* __restrict__ partial, const T* __restrict__ x,
                  const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V, PACKS = V * sizeof(T) / 16, DEPTH = sum_depth<T>(RUNS);
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float buffer[2][THREADS / 32][1];
  Ring<THREADS, DEPTH, RUNS * PACKS> ring(shared);
  float sums[RUNS][V] = {}, by[RUNS][V];
#pragma unroll
  for (int p = 0; p < RUNS; p++) {
    const int c = (p * THREADS + threadIdx.x) * V;
#pragma unroll
    for (int i = 0; i < V; i++) by[p][i] = 1;
    if (columns && c < C) load_lanes(by[p], columns + c);
  }
  const auto ask = [&](int slot, int64_t n) {
    ring.ask(slot, [&](int i) -> const void* {
      const int c = (i / PACKS * THREADS + threadIdx.x) * V + i % PACKS * (16 / int(sizeof(T)));
      return n < N && c < C ? x + n * C + c : nullptr;
    });
  };
#pragma unroll
  for (int i = 0; i < DEPTH; i++) ask(i, blockIdx.x + int64_t(i) * gridDim.x);
  bool second = false;
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x, second = !second) {
    float v[RUNS][V], largest[1] = {};
    ring.wait();
#pragma unroll
    for (int p = 0; p < RUNS; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) {
        v[p][i] = to_f32(ring.template read<T>(p * PACKS + i / (V / PACKS))[i % (V / PACKS)]);
        sums[p][i] += v[p][i];
        v[p][i] *= by[p][i];
        largest[0] = larger_size(largest[0], v[p][i]);
      }
    }
    ask(ring.slot, n + int64_t(DEPTH) * gridDim.x);
    ring.next();
    group_largest<THREADS>(largest, buffer[second]);
    const RowScale at(largest[0]);
    if (threadIdx.x == 0) scale[n] = at.scale;
#pragma unroll
    for (int p = 0; p < RUNS; p++) {
      const int c = (p * THREADS + threadIdx.x) * V;
      if (c < C) store_fp8(y + n * C + c, v[p], at.inverse);
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
  const auto run = [&](auto threads, auto runs) {
    constexpr int THREADS = threads, RUNS = runs, bytes = Ring<THREADS, sum_depth<T>(RUNS), RUNS * FP8_V * sizeof(T) / 16>::BYTES;
    const auto kernel = quantize_sums<T, THREADS, RUNS>;
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
    kernel<<<unsigned(blocks), THREADS, bytes, stream_of(stream)>>>(at<uint8_t>(y), at<float>(scale), at<float>(scratch), at<const T>(x),
                                                                   at<const float>(columns), N, C);
    return launched(where);
  };
  int32_t status = K_OK;
  if (blocks) {
    constexpr std::integral_constant<int, 1> one{};
    constexpr std::integral_constant<int, 2> two{};
    if (C <= 1024) status = run(std::integral_constant<int, 128>{}, one);
    else if (C <= 2048) status = run(std::integral_constant<int, 128>{}, two);
    else status = C <= 4096 ? run(std::integral_constant<int, 256>{}, two) : run(std::integral_constant<int, 512>{}, two);
  }
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
