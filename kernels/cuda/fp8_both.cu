// Rows to 8-bit floats, and their transpose, in one pass on CUDA. Bound by memory: 2 bytes read and 2 written an element.
#include "../include/fp8.h"

#include "fp8.cuh"

namespace {
constexpr int ROW_BLOCK = 256, AHEAD = 3, MOST = 4096;  // threads, rows that are on their way, columns

// Rows of a tile, which lies in shared memory in 8 bits.
constexpr int tile_rows(int group) { return group == 32 ? 32 : 16; }

// Two blocks a multiprocessor; each takes tiles in turns.
int64_t tile_blocks(int64_t P, int C) { return std::min<int64_t>(ceil_div(P, tile_rows(C <= 1024 ? 32 : 128)), 132 * 2); }

// GROUP threads a row. SUMS: partial[block, :] are the sums of columns over the block's rows.
template <class T, int GROUP, bool COLUMNS, bool SUMS>
__global__ void __launch_bounds__(ROW_BLOCK, 2)
    quantize_both(uint8_t* __restrict__ y, uint8_t* __restrict__ transposed, float* __restrict__ scale, float* __restrict__ partial,
                  const T* __restrict__ x, const float* __restrict__ columns, int N, int C, int P) {
  constexpr int V = FP8_V, RUNS = FP8_P, ROWS = ROW_BLOCK / GROUP, WARPS = ROW_BLOCK / 32, TILE = tile_rows(GROUP);
  constexpr int PACKS = V * sizeof(T) / 16, DEPTH = sizeof(T) == 2 ? AHEAD : 1;
  using Rows = Ring<ROW_BLOCK, DEPTH, RUNS * PACKS>;
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float buffer[2][WARPS];
  __shared__ int lowest[WARPS];
  uint8_t* const tile = shared + Rows::BYTES;
  Rows ring(shared);
  const int lane = threadIdx.x % GROUP, row = threadIdx.x / GROUP, warp = threadIdx.x / 32;
  const int64_t step = int64_t(gridDim.x) * TILE, start = int64_t(blockIdx.x) * TILE + row;
  // The group's k-th row is row k % (TILE / ROWS) of its rows in the block's tile k / (TILE / ROWS).
  const auto ask = [&](int slot, int k) {
    const int64_t n = start + k / (TILE / ROWS) * step + k % (TILE / ROWS) * ROWS;
    ring.ask(slot, [&](int i) -> const void* {
      const int c = (i / PACKS * GROUP + lane) * V + i % PACKS * (16 / int(sizeof(T)));
      return n < N && c < C ? x + n * C + c : nullptr;
    });
  };
#pragma unroll
  for (int i = 0; i < DEPTH; i++) ask(i, i);
  int least = FP8_NAN;
  if constexpr (COLUMNS) {
    for (int c = threadIdx.x; c < C; c += ROW_BLOCK) least = min(least, fp8_exponent(columns[c]));
    least = __reduce_min_sync(0xffffffffu, least);
    if (threadIdx.x % 32 == 0) lowest[warp] = least;
    __syncthreads();
    for (int w = 0; w < WARPS; w++) least = min(least, lowest[w]);
  }
  float sums[SUMS ? RUNS : 1][V] = {};
  bool second = false;
  int k = DEPTH;
  for (int64_t first = int64_t(blockIdx.x) * TILE; first < P; first += step) {
    for (int r = row; r < TILE; r += ROWS, second = !second) {
      const int64_t n = first + r;
      float v[RUNS][V], largest = 0;
      ring.wait();
#pragma unroll
      for (int p = 0; p < RUNS; p++) {
        const int c = (p * GROUP + lane) * V;
        float by[V];
#pragma unroll
        for (int i = 0; i < V; i++) v[p][i] = to_f32(ring.template read<T>(p * PACKS + i / (V / PACKS))[i % (V / PACKS)]);
        if constexpr (SUMS) {
#pragma unroll
          for (int i = 0; i < V; i++) sums[p][i] += v[p][i];
        }
        if (COLUMNS && c < C) {
          load_lanes(by, columns + c);
#pragma unroll
          for (int i = 0; i < V; i++) v[p][i] *= by[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) largest = larger_size(largest, v[p][i]);
      }
      ask(ring.slot, k++);
      ring.next();
#pragma unroll
      for (int o = 16; o; o >>= 1) largest = larger_size(largest, __shfl_xor_sync(0xffffffffu, largest, o));
      if constexpr (GROUP > 32) {
        if (threadIdx.x % 32 == 0) buffer[second][warp] = largest;
        __syncthreads();
#pragma unroll
        for (int w = 0; w < GROUP / 32; w++) largest = larger_size(largest, buffer[second][row * (GROUP / 32) + w]);
      }
      const RowScale at(largest);
      if (n < N && lane == 0) scale[n] = at.scale;
#pragma unroll
      for (int p = 0; p < RUNS; p++) {
        const int c = (p * GROUP + lane) * V;
        if (c >= C) continue;
        if (n < N) store_fp8(y + n * C + c, v[p], at.inverse);
        if constexpr (COLUMNS) {
          float by[V];
          load_lanes(by, columns + c);
#pragma unroll
          for (int i = 0; i < V; i++) v[p][i] *= column_factor(by[i], least);
        }
        store_fp8(tile + r * C + c, v[p], n < N ? at.inverse : 0);
      }
    }
    __syncthreads();
    for (int word = threadIdx.x; word < C / 4; word += ROW_BLOCK) {
#pragma unroll
      for (int half = 0; half < TILE / 16; half++) {
        uint4 out[4];
        transpose_words(out, [&](int i) { return reinterpret_cast<const uint32_t*>(tile + (half * 16 + i) * C)[word]; });
        if (first + half * 16 >= P) continue;
#pragma unroll
        for (int j = 0; j < 4; j++) *reinterpret_cast<uint4*>(transposed + int64_t(word * 4 + j) * P + first + half * 16) = out[j];
      }
    }
    __syncthreads();
  }
  if constexpr (SUMS) {
    asm volatile("cp.async.wait_all;" ::: "memory");
    float(*const all)[V] = reinterpret_cast<float(*)[V]>(shared);  // [ROWS][GROUP][V], a run of columns at a time
#pragma unroll
    for (int p = 0; p < RUNS; p++) {
      __syncthreads();
#pragma unroll
      for (int i = 0; i < V; i++) all[threadIdx.x][i] = sums[p][i];
      __syncthreads();
      const int c = (p * GROUP + lane) * V;
      if (row || c >= C) continue;
      float sum[V] = {};
      for (int j = 0; j < ROWS; j++) {
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] += all[j * GROUP + lane][i];
      }
      store_lanes(partial + int64_t(blockIdx.x) * C + c, sum);
    }
  }
}
}  // namespace

int32_t k_fp8_quantize_both_workspace(uint64_t* bytes, int32_t N, int32_t C) {
  uint64_t apart = 0;
  const int32_t status = k_fp8_quantize_workspace(&apart, N, C);
  *bytes = std::max<uint64_t>(256 + apart, uint64_t(tile_blocks(int64_t(N) + 15, C)) * C * sizeof(float));
  return status;
}

int32_t k_fp8_quantize_both_fwd(uint64_t y, uint64_t transposed, uint64_t scale, uint64_t sums, uint64_t x, uint64_t columns, uint64_t scratch,
                                int32_t N, int32_t C, int32_t P, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_quantize_both_fwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (P < N || P % 16) return fail(K_BAD_ARGUMENT, where, "P = %d, it must be a multiple of 16 and at least N = %d", P, N);
  if (!aligned16(y, transposed, x, columns, scratch)) return unaligned(where);
  if (C > MOST || P > N + 15) {  // in two passes
    if (const int32_t status = k_fp8_quantize_fwd(y, scale, sums, x, columns, scratch + 256, N, C, K_FP8_NONE, dtype, stream)) return status;
    if (!columns || N == 0) return k_fp8_transpose_fwd(transposed, y, N, C, P, stream);
    if (const int32_t status = k_fp8_exponents_fwd(scratch, scale, scale, columns, N, C, stream)) return status;
    return k_fp8_transpose_columns_fwd(transposed, y, columns, scratch, N, C, P, stream);
  }
  const int64_t blocks = tile_blocks(P, C);
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    const auto run = [&](auto group, auto by, auto adds) {
      const auto kernel = quantize_both<T, group, by, adds>;
      constexpr int packs = FP8_P * FP8_V * sizeof(T) / 16, rows = tile_rows(group);
      const int bytes = Ring<ROW_BLOCK, sizeof(T) == 2 ? AHEAD : 1, packs>::BYTES + rows * C;
      const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
      if (blocks) {
        kernel<<<unsigned(blocks), ROW_BLOCK, bytes, stream_of(stream)>>>(at<uint8_t>(y), at<uint8_t>(transposed), at<float>(scale),
                                                                         at<float>(scratch), at<const T>(x), at<const float>(columns), N, C, P);
        if (const int32_t status = launched(where)) return status;
      }
      return adds ? launch_sum_partials(where, Sums<float>{{at<float>(sums)}}, scratch, 1, blocks, C, 1, stream) : int32_t(K_OK);
    };
    const auto choose = [&](auto group) {
      constexpr std::true_type yes{};
      constexpr std::false_type no{};
      if (sums) return columns ? run(group, yes, yes) : run(group, no, yes);
      return columns ? run(group, yes, no) : run(group, no, no);
    };
    return C <= 1024 ? choose(std::integral_constant<int, 32>{}) : choose(std::integral_constant<int, 128>{});
  });
}
