// What the gradients of linear layers in 8-bit floats need, on CUDA: the backward pass of the GELU between two of them, and operands of products
// that sum over rows. Bound by memory.
#include "../include/fp8.h"

#include "../include/elementwise_ops.hpp"
#include "fp8.cuh"

namespace {
// Blocks of 512 threads, or half as many blocks of 1024, that a multiprocessor holds; each takes rows in turns.
int64_t gelu_blocks(int64_t N, int C) { return std::min<int64_t>(N, 132 * (C > 4096 ? 1 : 2)); }

// A block a row, 8 columns a thread, whose sums over the block's rows go to partial[block, :]. The next row is loaded before the present one is
// worked on.
template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    gelu_bwd(uint8_t* __restrict__ dz, float* __restrict__ dz_scale, uint8_t* __restrict__ g, float* __restrict__ g_scale,
             float* __restrict__ partial, const T* __restrict__ dg, const T* __restrict__ z, const float* __restrict__ columns, int N, int C) {
  constexpr int V = FP8_V;
  __shared__ float buffer[2][THREADS / 32][2];
  const int c = threadIdx.x * V;
  const bool live = c < C;
  float by[V], sums[V] = {};
#pragma unroll
  for (int i = 0; i < V; i++) by[i] = 1;
  if (columns && live) load_lanes(by, columns + c);
  Pack<T, 16 / sizeof(T)> next_dg[V * sizeof(T) / 16] = {}, next_z[V * sizeof(T) / 16] = {};
  const auto load = [&](int64_t n) {
    if (n >= N || !live) return;
#pragma unroll
    for (int i = 0; i < V * sizeof(T) / 16; i++) {
      next_dg[i] = reinterpret_cast<const Pack<T, 16 / sizeof(T)>*>(dg + n * C + c)[i];
      next_z[i] = reinterpret_cast<const Pack<T, 16 / sizeof(T)>*>(z + n * C + c)[i];
    }
  };
  load(blockIdx.x);
  bool second = false;
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x, second = !second) {
    float d[V], y[V], largest[2] = {};
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float v = to_f32(reinterpret_cast<const T*>(next_z)[i]), above = to_f32(reinterpret_cast<const T*>(next_dg)[i]);
      d[i] = Gelu::bwd(v, above);
      y[i] = Gelu::fwd(v);
      sums[i] += d[i];
      d[i] *= by[i];
      largest[0] = larger_size(largest[0], d[i]);
      largest[1] = larger_size(largest[1], y[i]);
    }
    load(n + gridDim.x);
    group_largest<THREADS>(largest, buffer[second]);
    const RowScale of_d(largest[0]), of_y(largest[1]);
    if (threadIdx.x == 0) dz_scale[n] = of_d.scale, g_scale[n] = of_y.scale;
    if (!live) continue;
    store_fp8(dz + n * C + c, d, of_d.inverse);
    store_fp8(g + n * C + c, y, of_y.inverse);
  }
  if (partial && live) store_lanes(partial + int64_t(blockIdx.x) * C + c, sums);
}

constexpr int TILE = 128;

// Four elements times a power of two up to 1, to nearest even: exact in f16 wherever the result is not 0.
__device__ inline uint32_t scaled(uint32_t four, __half2 by) {
  uint32_t out = 0;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const __half2 two = __hmul2(__half2(__nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t(four >> 16 * i), __NV_E4M3)), by);
    out |= uint32_t(__nv_cvt_halfraw2_to_fp8x2(__half2_raw(two), __NV_SATFINITE, __NV_E4M3)) << 16 * i;
  }
  return out;
}

constexpr int PARTS = 32;

// most[i] = the largest exponent of a * b in block i's rows.
__global__ void __launch_bounds__(256) largest_exponents(int* __restrict__ most, const float* __restrict__ a, const float* __restrict__ b, int N) {
  __shared__ int partial[8];
  int e = -FP8_NAN;
#pragma unroll 4
  for (int n = blockIdx.x * 256 + threadIdx.x; n < N; n += PARTS * 256) e = max(e, fp8_exponent(a[n]) + fp8_exponent(b[n]));
  e = __reduce_max_sync(0xffffffffu, e);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = e;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i < 8; i++) e = max(e, partial[i]);
  most[blockIdx.x] = e;
}

// Scales of rows: factor(n) = 2^(exponents of a and b - the largest of `most`), and scale[m].
struct RowFactors {
  float* scale;
  const float *a, *b, *columns;
  const int* most;
  int M;
};

// A tile of 128 x 128 elements a block, words of a row permuted in shared memory so that 16 rows of 4 columns are read without conflicts.
template <bool FACTOR>
__global__ void __launch_bounds__(256) transpose(uint8_t* __restrict__ y, const uint8_t* __restrict__ x, RowFactors rows, int N, int C, int P) {
  __shared__ uint4 tile[TILE][TILE / 16];
  const int tiles = (C + TILE - 1) / TILE, column = blockIdx.x % tiles * TILE;
  const int64_t first = int64_t(blockIdx.x / tiles) * TILE;
  int most = 0;
  if constexpr (FACTOR) {
    most = __reduce_max_sync(0xffffffffu, rows.most[threadIdx.x % PARTS]);
    for (int m = blockIdx.x * 256 + threadIdx.x; m < rows.M; m += gridDim.x * 256) {
      const int e = fp8_exponent(rows.columns[m]);
      rows.scale[m] = fp8_power(most >= FP8_NAN / 2 || e == FP8_NAN ? FP8_NAN : most - e);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int r = i * 32 + threadIdx.x / 8, q = threadIdx.x % 8;
    uint4 v = {};
    if (first + r < N && column + q * 16 < C) v = *reinterpret_cast<const uint4*>(x + (first + r) * C + column + q * 16);
    if constexpr (FACTOR) {
      const int e = first + r < N ? fp8_exponent(rows.a[first + r]) + fp8_exponent(rows.b[first + r]) - most : -FP8_NAN;
      const __half2 by = __float2half2_rn(fp8_power(most >= FP8_NAN / 2 ? FP8_NAN : e));
      v = {scaled(v.x, by), scaled(v.y, by), scaled(v.z, by), scaled(v.w, by)};
    }
    tile[r][q ^ (r / 16)] = v;
  }
  __syncthreads();
  const int part = threadIdx.x % 8, word = threadIdx.x / 8, c = column + word * 4;  // 16 rows of 4 columns
  if (c >= C || first + part * 16 >= P) return;
  uint32_t out[4][4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t in[4];
#pragma unroll
    for (int j = 0; j < 4; j++) in[j] = reinterpret_cast<const uint32_t*>(&tile[part * 16 + i * 4 + j][word / 4 ^ part])[word % 4];
    const uint32_t low01 = __byte_perm(in[0], in[1], 0x5140), high01 = __byte_perm(in[0], in[1], 0x7362);
    const uint32_t low23 = __byte_perm(in[2], in[3], 0x5140), high23 = __byte_perm(in[2], in[3], 0x7362);
    out[0][i] = __byte_perm(low01, low23, 0x5410), out[1][i] = __byte_perm(low01, low23, 0x7632);
    out[2][i] = __byte_perm(high01, high23, 0x5410), out[3][i] = __byte_perm(high01, high23, 0x7632);
  }
#pragma unroll
  for (int j = 0; j < 4; j++) {
    *reinterpret_cast<uint4*>(y + int64_t(c + j) * P + first + part * 16) = {out[j][0], out[j][1], out[j][2], out[j][3]};
  }
}

int32_t transposed(const char* where, uint64_t y, uint64_t x, const RowFactors* rows, int32_t N, int32_t C, int32_t P, uint64_t stream) {
  if (N < 0 || C < 1 || P < N || P % 16) {
    return fail(K_BAD_ARGUMENT, where, "N = %d, C = %d and P = %d, C must be > 0 and P a multiple of 16 and at least N, which is >= 0", N, C, P);
  }
  if (C % 16) return fail(K_UNSUPPORTED, where, "C = %d, it must be a multiple of 16", C);
  if (!aligned16(x, y)) return unaligned(where);
  const int64_t blocks = ceil_div(C, TILE) * ceil_div(P, TILE);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, they must be smaller", N, C);
  if (blocks == 0) return K_OK;
  const auto kernel = rows ? transpose<true> : transpose<false>;
  kernel<<<unsigned(blocks), 256, 0, stream_of(stream)>>>(at<uint8_t>(y), at<const uint8_t>(x), rows ? *rows : RowFactors{}, N, C, P);
  return launched(where);
}
}  // namespace

int32_t k_fp8_gelu_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C) {
  *bytes = uint64_t(gelu_blocks(N, C)) * C * sizeof(float);
  return K_OK;
}

int32_t k_fp8_gelu_bwd(uint64_t dz, uint64_t dz_scale, uint64_t g, uint64_t g_scale, uint64_t db, uint64_t dg, uint64_t z, uint64_t columns,
                       uint64_t scratch, int32_t N, int32_t C, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_gelu_bwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (!aligned16(dg, z, columns, scratch) || ((dz | g) & 7)) return unaligned(where);
  const int64_t blocks = gelu_blocks(N, C);
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    const auto run = [&](auto threads) {
      constexpr int THREADS = threads;
      gelu_bwd<T, THREADS><<<unsigned(blocks), THREADS, 0, stream_of(stream)>>>(
          at<uint8_t>(dz), at<float>(dz_scale), at<uint8_t>(g), at<float>(g_scale), db ? at<float>(scratch) : nullptr, at<const T>(dg),
          at<const T>(z), at<const float>(columns), N, C);
      return launched(where);
    };
    int32_t status = K_OK;
    if (blocks) {
      if (C <= 1024) status = run(std::integral_constant<int, 128>{});
      else status = C <= 4096 ? run(std::integral_constant<int, 512>{}) : run(std::integral_constant<int, 1024>{});
    }
    return status || !db ? status : launch_sum_partials(where, Sums<float>{{at<float>(db)}}, scratch, 1, blocks, C, 1, stream);
  });
}

int32_t k_fp8_transpose_fwd(uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, uint64_t stream) {
  return transposed("k_fp8_transpose_fwd", y, x, nullptr, N, C, P, stream);
}

int32_t k_fp8_transpose_scaled_fwd(uint64_t y, uint64_t scale, uint64_t x, uint64_t a, uint64_t b, uint64_t columns, uint64_t scratch, int32_t N,
                                   int32_t C, int32_t P, int32_t M, uint64_t stream) {
  const char* where = "k_fp8_transpose_scaled_fwd";
  if (N < 1 || M < 0) return fail(K_BAD_ARGUMENT, where, "N = %d and M = %d, N must be > 0 and M >= 0", N, M);
  if (scratch & 3) return unaligned(where);
  largest_exponents<<<PARTS, 256, 0, stream_of(stream)>>>(at<int>(scratch), at<const float>(a), at<const float>(b), N);
  if (const int32_t status = launched(where)) return status;
  const RowFactors rows{at<float>(scale), at<const float>(a), at<const float>(b), at<const float>(columns), at<const int>(scratch), M};
  return transposed(where, y, x, &rows, N, C, P, stream);
}
