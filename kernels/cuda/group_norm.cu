// Group norm of channels-last tensors on CUDA. Forward: column sums, statistics of each group, one pass that writes y. Backward: column
// sums, the means of each group, one pass that writes dx.
#include "../include/group_norm.h"

#include "sums.cuh"

namespace {
constexpr int THREADS = 256;

// Sums of x - x0 and (x - x0)^2, where x0 is the first position's value of the channel: differences keep the digits of a large mean.
template <class T, int V>
struct Moments {
  const T* x;
  Samples samples;
  int C;
  using Loaded = Pack<T, V>;

  __device__ Loaded load(int64_t i) const { return *reinterpret_cast<const Loaded*>(x + i); }
  __device__ void add(float (&sums)[2][V], const Loaded& at, int64_t, int b, int c) const {
    float x0[V];
    load_lanes(x0, x + samples.first(b) * C + c);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float d = to_f32(at.v[j]) - x0[j];
      sums[0][j] += d;
      sums[1][j] += d * d;
    }
  }
};

// The statistics of group blockIdx.x % G of sample blockIdx.x / G, from the moments of its channels in S chunks.
template <class T>
__global__ void __launch_bounds__(THREADS)
    group_stats(float* mean, float* rstd, const float* partial, const T* x, Samples samples, int C, int G, int S, int rows, float eps) {
  const int b = blockIdx.x / G, width = C / G, first = blockIdx.x % G * width;
  const float* const sums = partial + int64_t(b) * S * 2 * C + first;
  const int64_t start = samples.first(b), L = samples.first(b + 1) - start;
  if (L == 0) return;
  x += start * C + first;
  const float count = float(L) * width, x00 = to_f32(x[0]);
  const auto x0 = [&](int c) { return to_f32(x[c]) - x00; };
  const auto rows_of = [&](int s) {
    const Chunk chunk(samples, b, s, S, rows);
    return chunk.end - chunk.first;
  };
  float sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < int64_t(S) * width; i += THREADS) {
    const int64_t s = i / width, c = i % width, n = rows_of(s);
    if (n > 0) sum += sums[s * 2 * C + c] + n * x0(c);
  }
  const float m = block_sum<THREADS>(sum) / count;
  for (int64_t i = threadIdx.x; i < int64_t(S) * width; i += THREADS) {
    const int64_t s = i / width, c = i % width, n = rows_of(s);
    if (n <= 0) continue;
    const float s1 = sums[s * 2 * C + c], d = s1 / n + x0(c) - m;
    squares += fmaxf(sums[(s * 2 + 1) * C + c] - s1 * (s1 / n), 0) + n * d * d;
  }
  const float variance = block_sum<THREADS>(squares) / count;
  if (threadIdx.x == 0) mean[blockIdx.x] = x00 + m, rstd[blockIdx.x] = rsqrtf(variance + eps);
}

// Walks the channels c, c + 1, ... of a pack together with the groups that they are in.
struct GroupAt {
  int group, left, width;
  __device__ GroupAt(int c, int width) : group(c / width), left(width - c % width), width(width) {}
  __device__ void next() {
    if (--left == 0) left = width, group++;
  }
};

// y = xhat * w + b, or dx where `dy` is not null: rstd * (g - means[0] - xhat * means[1]).
// A block is X threads along a row times THREADS / X rows.
template <class T, int V>
__global__ void __launch_bounds__(THREADS)
    group_norm(T* __restrict__ y, const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ w,
               const float* __restrict__ bias, const float* __restrict__ mean, const float* __restrict__ rstd,
               const float2* __restrict__ means, Samples samples, int C, int G, int X) {
  const unsigned n = blockIdx.x * (THREADS / X) + threadIdx.x / X;
  if (n >= samples.N) return;
  const int64_t row = int64_t(n) * C, stats = samples.of(n) * G;
  for (int c = (threadIdx.x & (X - 1)) * V; c < C; c += X * V) {
    float v[V], d[V];
    load_lanes(v, x + row + c);
    if (dy) load_lanes(d, dy + row + c);
    GroupAt at(c, C / G);
#pragma unroll
    for (int i = 0; i < V; i++, at.next()) {
      const float r = rstd[stats + at.group], xhat = (v[i] - mean[stats + at.group]) * r, scale = w ? w[c + i] : 1;
      if (dy) {
        const float2 m = means[stats + at.group];
        v[i] = r * (d[i] * scale - m.x - xhat * m.y);
      } else {
        v[i] = xhat * scale + (bias ? bias[c + i] : 0);
      }
    }
    store_lanes(y + row + c, v);
  }
}

// Sums of dy * xhat and dy.
template <class T, int V>
struct Products {
  const T *dy, *x;
  const float *mean, *rstd;
  int G, width;
  struct Loaded {
    Pack<T, V> dy, x;
  };

  __device__ Loaded load(int64_t i) const {
    return {*reinterpret_cast<const Pack<T, V>*>(dy + i), *reinterpret_cast<const Pack<T, V>*>(x + i)};
  }
  __device__ void add(float (&sums)[2][V], const Loaded& at, int64_t, int b, int c) const {
    GroupAt place(c, width);
#pragma unroll
    for (int j = 0; j < V; j++, place.next()) {
      const int64_t g = int64_t(b) * G + place.group;
      const float d = to_f32(at.dy.v[j]);
      sums[0][j] += d * (to_f32(at.x.v[j]) - mean[g]) * rstd[g];
      sums[1][j] += d;
    }
  }
};

// means[b, g] = the means over a group of dy * w and of dy * w * xhat, from the sums of S chunks
__global__ void __launch_bounds__(THREADS)
    group_means(float2* means, const float* partial, const float* w, Samples samples, int C, int G, int S) {
  const int b = blockIdx.x / G, width = C / G, first = blockIdx.x % G * width;
  const float* const sums = partial + int64_t(b) * S * 2 * C + first;
  float g = 0, gx = 0;
  for (int64_t i = threadIdx.x; i < int64_t(S) * width; i += THREADS) {
    const int64_t s = i / width, c = i % width;
    const float scale = w ? w[first + c] : 1;
    gx += sums[s * 2 * C + c] * scale;
    g += sums[(s * 2 + 1) * C + c] * scale;
  }
  g = block_sum<THREADS>(g);
  gx = block_sum<THREADS>(gx);
  const float count = float(samples.first(b + 1) - samples.first(b)) * width;
  if (threadIdx.x == 0) means[blockIdx.x] = {g / count, gx / count};
}

int32_t check(Samples& samples, const char* where, uint64_t offsets, int32_t N, int32_t B, int32_t C, int32_t G) {
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  if (G < 1 || C % G) return fail(K_BAD_ARGUMENT, where, "G = %d, it must divide C = %d", G, C);
  if (int64_t(B) * G > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "B * G = %lld, it must be below 2^31", static_cast<long long>(B) * G);
  return K_OK;
}

// Calls run with the lanes of a pack: 16 bytes of T where `packed`, else one element.
template <class T, class F>
int32_t with_lanes(bool packed, F run) {
  return packed ? run(std::integral_constant<int, 16 / sizeof(T)>{}) : run(std::integral_constant<int, 1>{});
}

template <class T, int V>
int32_t write_rows(const char* where, uint64_t y, uint64_t dy, uint64_t x, uint64_t w, uint64_t b, uint64_t mean, uint64_t rstd,
                   uint64_t means, const Samples& samples, int C, int G, uint64_t stream) {
  const int X = std::min(THREADS, power_of_two(C / V));
  group_norm<T, V><<<unsigned(ceil_div(samples.N, THREADS / X)), THREADS, 0, stream_of(stream)>>>(
      at<T>(y), at<const T>(dy), at<const T>(x), at<const float>(w), at<const float>(b), at<const float>(mean), at<const float>(rstd),
      at<const float2>(means), samples, C, G, X);
  return launched(where);
}
}  // namespace

int32_t k_group_norm_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t C, int32_t G) {
  *bytes = uint64_t(B) * (uint64_t(Chunks(B, ceil_div(N, std::max(1, B))).S) * C + G) * 2 * sizeof(float);
  return K_OK;
}

int32_t k_group_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, uint64_t offsets, uint64_t scratch,
                         int32_t N, int32_t B, int32_t C, int32_t G, float eps, int32_t dtype, uint64_t stream) {
  const char* where = "k_group_norm_fwd";
  Samples samples;
  if (const int32_t status = check(samples, where, offsets, N, B, C, G)) return status;
  if (N == 0) return K_OK;
  return with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    return with_lanes<T>(C % (16 / sizeof(T)) == 0 && aligned16(y, x), [&](auto v) {
      const Chunks chunks(B, samples.mean());
      const Moments<T, v> terms{at<const T>(x), samples, C};
      if (const int32_t status = launch_column_sums<2, v>(where, scratch, samples, C, stream, terms)) return status;
      group_stats<T><<<unsigned(B * G), THREADS, 0, stream_of(stream)>>>(at<float>(mean), at<float>(rstd), at<const float>(scratch),
                                                                         at<const T>(x), samples, C, G, chunks.S, chunks.rows, eps);
      return write_rows<T, v>(where, y, 0, x, w, b, mean, rstd, 0, samples, C, G, stream);
    });
  });
}

int32_t k_group_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd,
                         uint64_t offsets, uint64_t scratch, int32_t N, int32_t B, int32_t C, int32_t G, int32_t dtype, uint64_t stream) {
  const char* where = "k_group_norm_bwd";
  Samples samples;
  if (const int32_t status = check(samples, where, offsets, N, B, C, G)) return status;
  const int S = Chunks(B, samples.mean()).S;
  const int32_t status = N == 0 ? K_OK : with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    return with_lanes<T>(C % (16 / sizeof(T)) == 0 && aligned16(dx, dy, x), [&](auto v) {
      const Products<T, v> terms{at<const T>(dy), at<const T>(x), at<const float>(mean), at<const float>(rstd), G, C / G};
      const int32_t status = launch_column_sums<2, v>(where, scratch, samples, C, stream, terms);
      if (status || !dx) return status;
      const uint64_t means = scratch + uint64_t(B) * S * 2 * C * sizeof(float);
      group_means<<<unsigned(B * G), THREADS, 0, stream_of(stream)>>>(at<float2>(means), at<const float>(scratch), at<const float>(w),
                                                                      samples, C, G, S);
      return write_rows<T, v>(where, dx, dy, x, w, 0, mean, rstd, means, samples, C, G, stream);
    });
  });
  if (status || (!dw && !db)) return status;
  return launch_sum_partials(where, Sums<float>{{at<float>(dw), at<float>(db)}}, scratch, 1, int64_t(B) * S, C, 2, stream);
}
