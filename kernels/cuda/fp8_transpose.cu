// Transposes of 8-bit matrices on CUDA: what the products of a layer's gradients read, in one launch after the one that finds the exponents, and
// a matrix by itself. Bound by memory.
#include "../include/fp8.h"

#include "fp8.cuh"

namespace {
constexpr int TILE = 128, PARTS = 32;

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

// cells[i] = the largest exponent of a * b in block i's rows, cells[PARTS + i] = the least one of its columns.
__global__ void __launch_bounds__(256) exponents(int* __restrict__ cells, const float* __restrict__ a, const float* __restrict__ b,
                                                 const float* __restrict__ columns, int N, int M) {
  __shared__ int partial[2][8];
  next_may_start();  // what comes before is complete: this is a plain launch
  int high = -FP8_NAN, low = FP8_NAN;
#pragma unroll 4
  for (int n = blockIdx.x * 256 + threadIdx.x; n < N; n += PARTS * 256) high = max(high, fp8_exponent(a[n]) + fp8_exponent(b[n]));
  for (int m = blockIdx.x * 256 + threadIdx.x; m < M; m += PARTS * 256) low = min(low, fp8_exponent(columns[m]));
  high = __reduce_max_sync(0xffffffffu, high), low = __reduce_min_sync(0xffffffffu, low);
  if (threadIdx.x % 32 == 0) partial[0][threadIdx.x / 32] = high, partial[1][threadIdx.x / 32] = low;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i < 8; i++) high = max(high, partial[0][i]), low = min(low, partial[1][i]);
  cells[blockIdx.x] = high, cells[PARTS + blockIdx.x] = low;
}

// y [C, P] = what x [N, C] becomes, transposed.
struct Matrix {
  uint8_t* y;
  const uint8_t* x;
  int N, C, P;
};

enum By { ROWS, COLUMNS, ONE, KINDS };  // what a matrix's elements are multiplied by as they are transposed

struct Problem {
  Matrix of[KINDS];
  int end[KINDS];  // tiles of those up to each
  float* scale;
  const float *a, *b, *columns;
  const int* cells;
};

// A tile of TILE x TILE elements.
struct Tile {
  int by, column, first;
  Matrix of;
  __device__ Tile(const Problem& p, int t) {
    by = t < p.end[ROWS] ? ROWS : t < p.end[COLUMNS] ? COLUMNS : ONE;
    of = by == ROWS ? p.of[ROWS] : by == COLUMNS ? p.of[COLUMNS] : p.of[ONE];
    const int i = t - (by == ROWS ? 0 : by == COLUMNS ? p.end[ROWS] : p.end[COLUMNS]), across = (of.C + TILE - 1) / TILE;
    column = i % across * TILE, first = i / across * TILE;
  }
};

// A block a tile. Words of a row are permuted in shared memory, so that 16 rows of 4 columns are read without conflicts.
__global__ void __launch_bounds__(256, 5) transpose(const __grid_constant__ Problem p) {
  __shared__ uint4 shared[TILE][TILE / 16];
  const Tile tile(p, blockIdx.x);
  const Matrix& m = tile.of;
  const int part = threadIdx.x % 8, word = threadIdx.x / 8, c = tile.column + word * 4;
  const auto row = [](int i) { return i * 32 + int(threadIdx.x) / 8; };
  uint4 v[4];
  float a[4], b[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int n = tile.first + row(i), from = tile.column + part * 16;
    v[i] = {};
    if (n < m.N && from < m.C) v[i] = *reinterpret_cast<const uint4*>(m.x + int64_t(n) * m.C + from);
  }
  if (tile.by == ROWS) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int n = tile.first + row(i);
      a[i] = b[i] = 1;
      if (n < m.N) a[i] = p.a[n], b[i] = p.b[n];
    }
  }
  float4 columns{1, 1, 1, 1};
  if (tile.by == COLUMNS && c < m.C) columns = *reinterpret_cast<const float4*>(p.columns + c);
  wait_for_previous();  // for the exponents; what is read above was there before them
  if (tile.by == ROWS) {
    const int most = __reduce_max_sync(0xffffffffu, p.cells[threadIdx.x % PARTS]);
    if (blockIdx.x == 0) {
      const int least = __reduce_min_sync(0xffffffffu, p.cells[PARTS + threadIdx.x % PARTS]);
      if (threadIdx.x == 0) *p.scale = fp8_power(most >= FP8_NAN / 2 || least >= FP8_NAN / 2 ? FP8_NAN : most - least);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int e = tile.first + row(i) < m.N ? fp8_exponent(a[i]) + fp8_exponent(b[i]) - most : -FP8_NAN;
      const __half2 factor = __float2half2_rn(fp8_power(most >= FP8_NAN / 2 ? FP8_NAN : e));
      v[i] = {scaled(v[i].x, factor, factor), scaled(v[i].y, factor, factor), scaled(v[i].z, factor, factor), scaled(v[i].w, factor, factor)};
    }
  }
  __half2 low = {}, high = {};
  if (tile.by == COLUMNS) {
    const int least = __reduce_min_sync(0xffffffffu, p.cells[PARTS + threadIdx.x % PARTS]);
    low = __floats2half2_rn(column_factor(columns.x, least), column_factor(columns.y, least));
    high = __floats2half2_rn(column_factor(columns.z, least), column_factor(columns.w, least));
  }
#pragma unroll
  for (int i = 0; i < 4; i++) shared[row(i)][part ^ (row(i) / 16)] = v[i];
  __syncthreads();
  if (c >= m.C || tile.first + part * 16 >= m.P) return;
  uint4 out[4];  // 16 rows of 4 columns
  const auto read = [&](int i) { return reinterpret_cast<const uint32_t*>(&shared[part * 16 + i][word / 4 ^ part])[word % 4]; };
  if (tile.by == COLUMNS)
    transpose_words(out, [&](int i) { return scaled(read(i), low, high); });
  else
    transpose_words(out, read);
#pragma unroll
  for (int j = 0; j < 4; j++) *reinterpret_cast<uint4*>(m.y + int64_t(c + j) * m.P + tile.first + part * 16) = out[j];
}

int32_t check_matrix(const char* where, const Matrix& m) {
  if (m.N < 0 || m.C < 1 || m.P < m.N || m.P % 16) {
    return fail(K_BAD_ARGUMENT, where, "N = %d, C = %d and P = %d, C must be > 0 and P a multiple of 16 and at least N, which is >= 0", m.N, m.C, m.P);
  }
  if (m.C % 16) return fail(K_UNSUPPORTED, where, "C = %d, it must be a multiple of 16", m.C);
  return aligned16(uint64_t(m.x), uint64_t(m.y)) ? K_OK : unaligned(where);
}

// Fills p.end, and launches. Where there are cells, the kernel before made them.
int32_t run(const char* where, Problem& p, uint64_t stream) {
  int64_t blocks = 0;
  for (int i = 0; i < KINDS; i++) {
    const Matrix& m = p.of[i];
    if (m.C) {
      if (const int32_t status = check_matrix(where, m)) return status;
      blocks += ceil_div(m.C, TILE) * ceil_div(m.P, TILE);
    }
    if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, they must be smaller", m.N, m.C);
    p.end[i] = int(blocks);
  }
  if (blocks == 0) return K_OK;
  if (p.cells)
    launch_next(transpose, dim3(unsigned(blocks)), 256, 0, stream, p);
  else
    transpose<<<unsigned(blocks), 256, 0, stream_of(stream)>>>(p);
  return launched(where);
}
}  // namespace

int32_t k_fp8_transpose_fwd(uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, uint64_t stream) {
  const char* where = "k_fp8_transpose_fwd";
  if (C < 1) return fail(K_BAD_ARGUMENT, where, "C = %d, it must be > 0", C);
  Problem p{};
  p.of[ONE] = {at<uint8_t>(y), at<const uint8_t>(x), N, C, P};
  return run(where, p, stream);
}

int32_t k_fp8_operands_fwd(uint64_t xt, uint64_t dyt, uint64_t wt, uint64_t scale, uint64_t cells, uint64_t x, uint64_t x_scale, uint64_t dy,
                           uint64_t dy_scale, uint64_t columns, uint64_t w, int32_t M, int32_t N, int32_t K, int32_t P, uint64_t stream) {
  const char* where = "k_fp8_operands_fwd";
  if (M < 1 || N < 1 || K < 1) return fail(K_BAD_ARGUMENT, where, "M = %d, N = %d and K = %d, they must be > 0", M, N, K);
  if (!aligned16(columns)) return unaligned(where);
  Problem p{};
  p.of[ROWS] = {at<uint8_t>(xt), at<const uint8_t>(x), M, K, P}, p.of[COLUMNS] = {at<uint8_t>(dyt), at<const uint8_t>(dy), M, N, P};
  if (w) p.of[ONE] = {at<uint8_t>(wt), at<const uint8_t>(w), N, K, N};
  p.scale = at<float>(scale), p.a = at<const float>(x_scale), p.b = at<const float>(dy_scale), p.columns = at<const float>(columns);
  p.cells = at<const int>(cells);
  exponents<<<PARTS, 256, 0, stream_of(stream)>>>(at<int>(cells), p.a, p.b, p.columns, M, N);
  if (const int32_t status = launched(where)) return status;
  return run(where, p, stream);
}
