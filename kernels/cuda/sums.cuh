// Sums over the rows of matrices in two launches and one fixed order, so that two runs agree to the bit: blocks sum chunks of rows into
// scratch, then sum_partials adds the chunks.
#pragma once
#include <algorithm>

#include "chain.cuh"
#include "vector.cuh"
#include "../include/samples.hpp"

// Where the sums go: column k * width + j of the partial sums to element j of to[k]; null where they are not wanted. From one b to the next
// lie stride[k] elements, by default `width`. adds: rounded, to what is there.
template <class T>
struct Sums {
  T* to[4];
  int64_t stride[4] = {};
  bool adds = false;
};

constexpr int SUM_COLUMNS = 32;

// to[k][b, j] = sum over s of partial[b, s, k * width + j]; there are M columns, of which m is one; nothing where b is not below B. ROWS threads x + 32 * y
// make parts of the sum side by side. Every thread of the block must call it.
template <class T, int ROWS>
__device__ inline void sum_column(const Sums<T>& sums, const float* partial, int64_t B, int S, int width, int M, int64_t b, int m, int x, int y,
                                  float (*shared)[SUM_COLUMNS]) {
  const int k = m < width ? 0 : m < 2 * width ? 1 : m < 3 * width ? 2 : 3;
  T* const to = m >= M || b >= B ? nullptr : k == 0 ? sums.to[0] : k == 1 ? sums.to[1] : k == 2 ? sums.to[2] : sums.to[3];
  float sum = 0;
  if (to) {
#pragma unroll 8
    for (int s = y; s < S; s += ROWS) sum += partial[(b * S + s) * M + m];
  }
  shared[y][x] = sum;
  __syncthreads();
  if (y || !to) return;
  for (int i = 1; i < ROWS; i++) sum += shared[i][x];
  const int64_t stride = k == 0 ? sums.stride[0] : k == 1 ? sums.stride[1] : k == 2 ? sums.stride[2] : sums.stride[3];
  T& out = to[b * (stride ? stride : width) + m - k * width];
  const T rounded = from_f32<T>(sum);
  out = sums.adds ? from_f32<T>(to_f32(out) + to_f32(rounded)) : rounded;
}

template <class T, int ROWS>
__global__ void __launch_bounds__(SUM_COLUMNS* ROWS) sum_partials(Sums<T> sums, const float* partial, int S, int width, int M) {
  __shared__ float shared[ROWS][SUM_COLUMNS];
  after_previous();
  const int x = threadIdx.x % SUM_COLUMNS, tiles = (M + SUM_COLUMNS - 1) / SUM_COLUMNS, b = blockIdx.x / tiles;
  sum_column<T, ROWS>(sums, partial, b + 1, S, width, M, b, blockIdx.x % tiles * SUM_COLUMNS + x, x, threadIdx.x / SUM_COLUMNS, shared);
}

// Both of sum_partials' launches for the same partial sums: first the samples', ROWS parts each, in `blocks` blocks, then those over all of them.
template <class T, int ROWS, int ALL_ROWS>
__global__ void __launch_bounds__(SUM_COLUMNS* ALL_ROWS)
    sum_partials_twice(Sums<T> sums, Sums<float> all, const float* partial, int B, int S, int width, int M, int blocks) {
  __shared__ float shared[ALL_ROWS][SUM_COLUMNS];
  after_previous();
  const int x = threadIdx.x % SUM_COLUMNS, y = threadIdx.x / SUM_COLUMNS, tiles = (M + SUM_COLUMNS - 1) / SUM_COLUMNS, block = blockIdx.x;
  if (block < blocks) {
    const int part = y / ROWS, tile = block * (ALL_ROWS / ROWS) + part;
    sum_column<T, ROWS>(sums, partial, B, S, width, M, tile / tiles, tile % tiles * SUM_COLUMNS + x, x, y % ROWS, shared + part * ROWS);
  } else {
    sum_column<float, ALL_ROWS>(all, partial, 1, B * S, width, M, 0, (block - blocks) * SUM_COLUMNS + x, x, y, shared);
  }
}

inline bool many_partials(int64_t S) { return S > 128; }  // which launch more threads a column

// For `count` outputs of [B, width] each. With S = 0 they become 0. The kernel that makes the partial sums may call next_may_start().
template <class T>
int32_t launch_sum_partials(const char* where, Sums<T> sums, uint64_t partial, int64_t B, int64_t S, int64_t width, int count,
                            uint64_t stream) {
  if (B == 0) return K_OK;
  const int64_t M = width * count, blocks = B * ceil_div(M, SUM_COLUMNS);
  if (M > INT32_MAX || blocks > INT32_MAX) {
    return fail(K_BAD_ARGUMENT, where, "%lld sums are wanted, it must be fewer", static_cast<long long>(B * M));
  }
  const auto launch = [&](auto rows) {
    launch_next(sum_partials<T, rows>, dim3(unsigned(blocks)), SUM_COLUMNS * rows, 0, stream, sums, at<const float>(partial), int(S), int(width),
                int(M));
    return launched(where);
  };
  return many_partials(S) ? launch(std::integral_constant<int, 32>{}) : launch(std::integral_constant<int, 8>{});
}

// The same as launch_sum_partials for `sums`, and then for `all` with one sample of B * S.
template <class T>
int32_t launch_sum_partials_twice(const char* where, Sums<T> sums, Sums<float> all, uint64_t partial, int64_t B, int64_t S, int64_t width, int count,
                                  uint64_t stream) {
  const int64_t M = width * count, tiles = ceil_div(M, SUM_COLUMNS);
  if (M > INT32_MAX || (B + 1) * tiles > INT32_MAX || B * S > INT32_MAX) {
    return fail(K_BAD_ARGUMENT, where, "%lld sums are wanted, it must be fewer", static_cast<long long>(B * M));
  }
  const auto launch = [&](auto rows, auto all_rows) {
    const int64_t blocks = ceil_div(B * tiles, all_rows / rows);
    launch_next(sum_partials_twice<T, rows, all_rows>, dim3(unsigned(blocks + tiles)), SUM_COLUMNS * all_rows, 0, stream, sums, all,
                at<const float>(partial), int(B), int(S), int(width), int(M), int(blocks));
    return launched(where);
  };
  constexpr std::integral_constant<int, 8> few;
  constexpr std::integral_constant<int, 32> many;
  return many_partials(S) ? launch(many, many) : many_partials(B * S) ? launch(few, many) : launch(few, few);
}

// The sum over a part of a warp: `lanes` threads, a power of two. Every thread of the warp must call it.
__device__ inline float lanes_sum(float v, int lanes) {
  for (int o = lanes / 2; o; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

inline int power_of_two(int64_t at_least) {
  int p = 1;
  while (p < at_least) p *= 2;
  return p;
}

// to[k * C + c] = the sum of sums[k][i] over the Y threads that hold column c, where thread (x, y) holds the columns (tile * X + x) * V +
// i. `shared` has room for every thread's sums.
template <int K, int V>
__device__ inline void store_column_sums(float* to, const float (&sums)[K][V], float* shared, int C, int tile, int X, int Y, int x, int y) {
#pragma unroll
  for (int k = 0; k < K; k++) {
#pragma unroll
    for (int i = 0; i < V; i++) shared[((y * K + k) * V + i) * X + x] = sums[k][i];
  }
  __syncthreads();
  for (int j = y * X + x; j < K * V * X; j += X * Y) {
    const int k = j / (V * X), c = (tile * X + j % X) * V + j / X % V;
    float sum = 0;
    for (int i = 0; i < Y; i++) sum += shared[i * K * V * X + j];
    if (c < C) to[int64_t(k) * C + c] = sum;
  }
}

// How launch_column_sums cuts the rows of B samples, L rows each or in the mean: S chunks of `rows` rows each, or of each sample's own S-th
// part where samples differ. It does not depend on the GPU, nor do the sums' bits.
struct Chunks {
  int S, rows;
  Chunks(int64_t B, int64_t L) {
    const int64_t most = std::max<int64_t>(1, ceil_div(L, 32)), wanted = std::max<int64_t>(1, 264 / std::max<int64_t>(1, B));
    rows = int(std::max<int64_t>(1, ceil_div(L, std::min(most, wanted))));
    S = int(ceil_div(L, rows));
  }
};

// The rows of one chunk: from `start`, which is the sample's first row, + `first` to start + end.
struct Chunk {
  int64_t start, first, end;
  __device__ Chunk(const Samples& samples, int b, int s, int S, int rows) : start(samples.first(b)) {
    const int64_t L = samples.first(b + 1) - start, step = samples.offsets ? (L + S - 1) / S : rows;
    first = s * step;
    end = first + step < L ? first + step : L;
  }
};

constexpr int SUM_THREADS = 256, SUM_LOADS = 4;

// partial[b, s, k, c] = the sum over the rows of chunk s of what terms.add adds to sums[k][j] for the columns c + j, j < V.
//   Loaded load(i): reads the inputs at the elements i to i + V of [N, C]    add(sums, loaded, i, b, c)
template <int K, int V, class F>
__global__ void __launch_bounds__(SUM_THREADS) column_sums(float* partial, Samples samples, int C, int S, int rows, int X, F terms) {
  __shared__ float shared[SUM_THREADS * K * V];
  next_may_start();
  const int tiles = (C / V + X - 1) / X, tile = blockIdx.x % tiles, chunk = blockIdx.x / tiles, b = chunk / S;
  const int x = threadIdx.x & (X - 1), y = threadIdx.x / X, Y = SUM_THREADS / X, c = (tile * X + x) * V;
  const Chunk at(samples, b, chunk % S, S, rows);
  float sums[K][V] = {};
  if (c < C) {
    for (int64_t l = at.first + y; l < at.end; l += Y * SUM_LOADS) {
      const int64_t i = (at.start + l) * C + c, step = int64_t(Y) * C;
      typename F::Loaded loaded[SUM_LOADS];
#pragma unroll
      for (int j = 0; j < SUM_LOADS; j++) {
        if (l + j * Y < at.end) loaded[j] = terms.load(i + j * step);
      }
#pragma unroll
      for (int j = 0; j < SUM_LOADS; j++) {
        if (l + j * Y < at.end) terms.add(sums, loaded[j], i + j * step, b, c);
      }
    }
  }
  store_column_sums(partial + int64_t(chunk) * K * C, sums, shared, C, tile, X, Y, x, y);
}

template <int K, int V, class F>
int32_t launch_column_sums(const char* where, uint64_t partial, const Samples& samples, int C, uint64_t stream, F terms) {
  const Chunks chunks(samples.B, samples.mean());
  const int X = std::min(32, power_of_two(C / V));
  const int64_t blocks = int64_t(samples.B) * chunks.S * ceil_div(C / V, X);
  if (blocks == 0) return K_OK;
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "B = %d and C = %d, their product must be smaller", samples.B, C);
  column_sums<K, V, F>
      <<<unsigned(blocks), SUM_THREADS, 0, stream_of(stream)>>>(at<float>(partial), samples, C, chunks.S, chunks.rows, X, terms);
  return launched(where);
}
