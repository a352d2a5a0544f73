// What the gradients of linear layers in 8-bit floats need, on CUDA: the backward pass of the GELU between two of them, and operands of products
// that sum over rows. Bound by memory.
#include "../include/fp8.h"

#include "fp8_gelu.cuh"

namespace {
constexpr int TILE = 128;

// Four elements times powers of two up to 1, to nearest even: exact in f16 wherever the result is not 0.
__device__ inline uint32_t scaled(uint32_t four, __half2 low, __half2 high) {
  uint32_t out = 0;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const __half2 two = __hmul2(__half2(__nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t(four >> 16 * i), __NV_E4M3)), i ? high : low);
    out |= uint32_t(__nv_cvt_halfraw2_to_fp8x2(__half2_raw(two), __NV_SATFINITE, __NV_E4M3)) << 16 * i;
  }
  return out;
}

constexpr int PARTS = 32;

// most[i] = the largest exponent of a * b in block i's rows, least[i] = the least one of its columns.
__global__ void __launch_bounds__(256)
    exponents(int* __restrict__ most, int* __restrict__ least, const float* __restrict__ a, const float* __restrict__ b,
              const float* __restrict__ columns, int N, int M) {
  __shared__ int partial[2][8];
  int high = -FP8_NAN, low = FP8_NAN;
#pragma unroll 4
  for (int n = blockIdx.x * 256 + threadIdx.x; n < N; n += PARTS * 256) high = max(high, fp8_exponent(a[n]) + fp8_exponent(b[n]));
  for (int m = blockIdx.x * 256 + threadIdx.x; m < M; m += PARTS * 256) low = min(low, fp8_exponent(columns[m]));
  high = __reduce_max_sync(0xffffffffu, high), low = __reduce_min_sync(0xffffffffu, low);
  if (threadIdx.x % 32 == 0) partial[0][threadIdx.x / 32] = high, partial[1][threadIdx.x / 32] = low;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i < 8; i++) high = max(high, partial[0][i]), low = min(low, partial[1][i]);
  most[blockIdx.x] = high, least[blockIdx.x] = low;
}

// What elements are multiplied by as they are transposed.
struct Factors {
  float* scale;
  const float *a, *b, *columns;
  const int* cells;
};
enum By { ONE, ROWS, COLUMNS };

// A tile of 128 x 128 elements a block, words of a row permuted in shared memory so that 16 rows of 4 columns are read without conflicts.
template <By BY>
__global__ void __launch_bounds__(256) transpose(uint8_t* __restrict__ y, const uint8_t* __restrict__ x, Factors by, int N, int C, int P) {
  __shared__ uint4 tile[TILE][TILE / 16];
  const int tiles = (C + TILE - 1) / TILE, column = blockIdx.x % tiles * TILE;
  const int64_t first = int64_t(blockIdx.x / tiles) * TILE;
  int most = 0, least = 0;
  if constexpr (BY == ROWS) most = __reduce_max_sync(0xffffffffu, by.cells[threadIdx.x % PARTS]);
  if constexpr (BY != ONE) least = __reduce_min_sync(0xffffffffu, by.cells[PARTS + threadIdx.x % PARTS]);
  if constexpr (BY == ROWS) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *by.scale = fp8_power(most >= FP8_NAN / 2 ? FP8_NAN : least >= FP8_NAN / 2 ? FP8_NAN : most - least);
  }
  __half2 factors[8];
  if constexpr (BY == COLUMNS) {
    const int c = column + threadIdx.x % 8 * 16;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      factors[i] = {};
      if (c < C) factors[i] = __floats2half2_rn(column_factor(by.columns[c + 2 * i], least), column_factor(by.columns[c + 2 * i + 1], least));
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int r = i * 32 + threadIdx.x / 8, q = threadIdx.x % 8;
    uint4 v = {};
    if (first + r < N && column + q * 16 < C) v = *reinterpret_cast<const uint4*>(x + (first + r) * C + column + q * 16);
    if constexpr (BY == ROWS) {
      const int e = first + r < N ? fp8_exponent(by.a[first + r]) + fp8_exponent(by.b[first + r]) - most : -FP8_NAN;
      const __half2 factor = __float2half2_rn(fp8_power(most >= FP8_NAN / 2 ? FP8_NAN : e));
      v = {scaled(v.x, factor, factor), scaled(v.y, factor, factor), scaled(v.z, factor, factor), scaled(v.w, factor, factor)};
    }
    if constexpr (BY == COLUMNS) v = {scaled(v.x, factors[0], factors[1]), scaled(v.y, factors[2], factors[3]),
                                      scaled(v.z, factors[4], factors[5]), scaled(v.w, factors[6], factors[7])};
    tile[r][q ^ (r / 16)] = v;
  }
  __syncthreads();
  const int part = threadIdx.x % 8, word = threadIdx.x / 8, c = column + word * 4;  // 16 rows of 4 columns
  if (c >= C || first + part * 16 >= P) return;
  uint4 out[4];
  transpose_words(out, [&](int i) { return reinterpret_cast<const uint32_t*>(&tile[part * 16 + i][word / 4 ^ part])[word % 4]; });
#pragma unroll
  for (int j = 0; j < 4; j++) *reinterpret_cast<uint4*>(y + int64_t(c + j) * P + first + part * 16) = out[j];
}

template <By BY>
int32_t transposed(const char* where, uint64_t y, uint64_t x, const Factors& by, int32_t N, int32_t C, int32_t P, uint64_t stream) {
  if (N < 0 || C < 1 || P < N || P % 16) {
    return fail(K_BAD_ARGUMENT, where, "N = %d, C = %d and P = %d, C must be > 0 and P a multiple of 16 and at least N, which is >= 0", N, C, P);
  }
  if (C % 16) return fail(K_UNSUPPORTED, where, "C = %d, it must be a multiple of 16", C);
  if (!aligned16(x, y)) return unaligned(where);
  const int64_t blocks = ceil_div(C, TILE) * ceil_div(P, TILE);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, they must be smaller", N, C);
  if (blocks == 0) return K_OK;
  transpose<BY><<<unsigned(blocks), 256, 0, stream_of(stream)>>>(at<uint8_t>(y), at<const uint8_t>(x), by, N, C, P);
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
    int32_t status = K_OK;
    const auto run = [&](auto threads) {
      constexpr int THREADS = threads, bytes = GeluRows<T, THREADS>::BYTES;
      const auto kernel = gelu_bwd<T, THREADS>;
      const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
      kernel<<<unsigned(blocks), THREADS, bytes, stream_of(stream)>>>(at<uint8_t>(dz), at<float>(dz_scale), at<uint8_t>(g), at<float>(g_scale),
                                                                     db ? at<float>(scratch) : nullptr, at<const T>(dg), at<const T>(z),
                                                                     at<const float>(columns), N, C);
      return launched(where);
    };
    if (blocks) {
      if (C <= 2048) status = run(std::integral_constant<int, 128>{});
      else status = C <= 4096 ? run(std::integral_constant<int, 256>{}) : run(std::integral_constant<int, 512>{});
    }
    return status || !db ? status : launch_sum_partials(where, Sums<float>{{at<float>(db)}}, scratch, 1, blocks, C, 1, stream);
  });
}

int32_t k_fp8_transpose_fwd(uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, uint64_t stream) {
  return transposed<ONE>("k_fp8_transpose_fwd", y, x, {}, N, C, P, stream);
}

int32_t k_fp8_exponents_fwd(uint64_t cells, uint64_t a, uint64_t b, uint64_t columns, int32_t N, int32_t M, uint64_t stream) {
  const char* where = "k_fp8_exponents_fwd";
  if (N < 1 || M < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and M = %d, they must be > 0", N, M);
  exponents<<<PARTS, 256, 0, stream_of(stream)>>>(at<int>(cells), at<int>(cells) + PARTS, at<const float>(a), at<const float>(b),
                                                  at<const float>(columns), N, M);
  return launched(where);
}

int32_t k_fp8_transpose_rows_fwd(uint64_t y, uint64_t scale, uint64_t x, uint64_t a, uint64_t b, uint64_t cells, int32_t N, int32_t C, int32_t P,
                                 uint64_t stream) {
  const Factors by{at<float>(scale), at<const float>(a), at<const float>(b), nullptr, at<const int>(cells)};
  return transposed<ROWS>("k_fp8_transpose_rows_fwd", y, x, by, N, C, P, stream);
}

int32_t k_fp8_transpose_columns_fwd(uint64_t y, uint64_t x, uint64_t columns, uint64_t cells, int32_t N, int32_t C, int32_t P, uint64_t stream) {
  const Factors by{nullptr, nullptr, nullptr, at<const float>(columns), at<const int>(cells)};
  return transposed<COLUMNS>("k_fp8_transpose_columns_fwd", y, x, by, N, C, P, stream);
}
