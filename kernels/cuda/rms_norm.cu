// The multi-head RMS norm on CUDA: a vector of D elements is held by a group of threads, a part of a warp, 8 elements a thread.
#include "../include/rms_norm.h"

#include "ring.cuh"
#include "sums.cuh"

namespace {
constexpr int THREADS = 128, COLUMNS = 8, ROWS = 4, BACKWARD_ROWS = 2, RING_ROWS = 4;  // vectors of the same head in flight
constexpr int USUAL_LANES = 8;  // of vectors of 64 elements: kernels of their own, where indices cost less
constexpr float SMALLEST = 1e-12f;

struct Gammas {
  const float* of[3];
};

// A thread's place: `slot` counts the G * H vectors of one n, c its first element of the vector.
struct Place {
  int slot, c;
  bool live;
  const float* gamma;  // of these elements; null where the group is copied

  __device__ Place(const Gammas& gammas, int slots, int H, int D, int lanes, int tile) {
    slot = tile * (THREADS / lanes) + threadIdx.x / lanes;
    c = (threadIdx.x & (lanes - 1)) * COLUMNS;
    live = slot < slots;
    const int g = slot / H;
    gamma = !live ? nullptr : g == 0 ? gammas.of[0] : g == 1 ? gammas.of[1] : gammas.of[2];
    if (gamma) gamma += int64_t(slot % H) * D + c;
  }

  // Gamma of the first `count` of a thread's elements; else 0. ALIGNED: count is COLUMNS or 0, and gammas may be read by 16 bytes.
  template <bool ALIGNED>
  __device__ void load(float (&to)[COLUMNS], int count) const {
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) to[i] = !ALIGNED && gamma && i < count ? gamma[i] : 0;
    if (ALIGNED && gamma) load_lanes(to, gamma);
  }
};

template <class T, int V>
struct Elements {
  Pack<T, V> pack[COLUMNS / V];

  // Of the elements from..from + D those that lie in the first `count`; the others are 0.
  __device__ void load(const T* from, int count) {
#pragma unroll
    for (int p = 0; p < COLUMNS / V; p++) {
      if (p * V < count)
        pack[p] = *reinterpret_cast<const Pack<T, V>*>(from + p * V);
      else
        pack[p] = {};
    }
  }
  __device__ void store(T* to, int count) const {
#pragma unroll
    for (int p = 0; p < COLUMNS / V; p++) {
      if (p * V < count) *reinterpret_cast<Pack<T, V>*>(to + p * V) = pack[p];
    }
  }
  __device__ float get(int i) const { return to_f32(pack[i / V].v[i % V]); }
  __device__ void set(int i, float v) { pack[i / V].v[i % V] = from_f32<T>(v); }
};

// LANES: threads a vector, which then has LANES * COLUMNS elements; 0: as given.
template <class T, int V, int LANES>
__global__ void __launch_bounds__(THREADS)
    head_rms_norm_fwd(T* __restrict__ y, const T* __restrict__ x, Gammas gammas, int N, int slots, int H, int given_D, int y_slots, int x_slots,
                      int given_lanes, int tiles) {
  const int D = LANES ? LANES * COLUMNS : given_D, lanes = LANES ? LANES : given_lanes;
  const Place at(gammas, slots, H, D, lanes, blockIdx.x % tiles);
  const int64_t first = int64_t(blockIdx.x / tiles) * ROWS;
  const int count = !at.live ? 0 : LANES ? COLUMNS : D - at.c;
  Elements<T, V> v[ROWS];
#pragma unroll
  for (int j = 0; j < ROWS; j++) v[j].load(x + ((first + j) * x_slots + at.slot) * D + at.c, first + j < N ? count : 0);
  float gamma[COLUMNS];
  at.load<LANES != 0>(gamma, count);
#pragma unroll
  for (int j = 0; j < ROWS; j++) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) squares += v[j].get(i) * v[j].get(i);
    const float scale = sqrtf(float(D)) / fmaxf(sqrtf(lanes_sum(squares, lanes)), SMALLEST);
    if (at.gamma) {
#pragma unroll
      for (int i = 0; i < COLUMNS; i++) v[j].set(i, v[j].get(i) * scale * gamma[i]);
    }
    if (first + j < N) v[j].store(y + ((first + j) * y_slots + at.slot) * D + at.c, count);
  }
}

// Block s * tiles + t takes every S-th run of BACKWARD_ROWS rows, or, packed and in 16 bits, the s-th of S runs from a ring. It writes dx and,
// where partial is not null,
// partial[s, slot, :] = sum(dy * vhat) * sqrt(D).
template <class T, int V, int LANES>
__global__ void __launch_bounds__(THREADS)
    head_rms_norm_bwd(T* dx, float* __restrict__ partial, const T* dy, const T* __restrict__ x, Gammas gammas, int N, int slots, int H,
                      int given_D, int dy_slots, int x_slots, int given_lanes, int tiles, int S) {
  next_may_start();
  const int D = LANES ? LANES * COLUMNS : given_D, lanes = LANES ? LANES : given_lanes;
  const Place at(gammas, slots, H, D, lanes, blockIdx.x % tiles);
  const int count = !at.live ? 0 : LANES ? COLUMNS : D - at.c, s = blockIdx.x / tiles;
  float gamma[COLUMNS], sums[COLUMNS] = {};
  at.load<LANES != 0>(gamma, count);
  const auto row = [&](T* to, const Elements<T, V>& v, Elements<T, V>& d) {  // to: where its gradient goes, or null
    float squares = 0, dot = 0;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      squares += v.get(i) * v.get(i);
      dot += v.get(i) * d.get(i) * gamma[i];
    }
    const float size = sqrtf(lanes_sum(squares, lanes)), inverse = 1 / fmaxf(size, SMALLEST), scale = sqrtf(float(D)) * inverse;
    dot = lanes_sum(dot, lanes) * (size > SMALLEST ? inverse : 0);
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      const float vhat = v.get(i) * inverse, g = d.get(i);
      sums[i] += g * vhat;
      if (at.gamma) d.set(i, scale * (g * gamma[i] - vhat * dot));
    }
    if (to) d.store(to, count);
  };
  if constexpr (sizeof(T) == 2 && V == COLUMNS) {
    alignas(16) __shared__ Elements<T, V> ring[RING_ROWS][2][THREADS];
    const int first = int(int64_t(N) * s / S), end = int(int64_t(N) * (s + 1) / S);
    const int64_t x_row = int64_t(x_slots) * D, dy_row = int64_t(dy_slots) * D, place = at.live ? at.slot * D + at.c : 0;
    const T *next_x = x + first * x_row + place, *next_dy = dy + first * dy_row + place;
    const auto load = [&](int n) {
      if (n < end) {
        auto& to = ring[(n - first) % RING_ROWS];
        ring_copy(&to[0][threadIdx.x], next_x, at.gamma && count > 0);
        ring_copy(&to[1][threadIdx.x], next_dy, count > 0);
      }
      ring_commit();
      next_x += x_row, next_dy += dy_row;
    };
#pragma unroll
    for (int k = 0; k < RING_ROWS - 1; k++) load(first + k);
    T* to = dx ? dx + first * dy_row + place : nullptr;
    for (int n = first; n < end; n++) {
      load(n + RING_ROWS - 1);
      ring_wait<RING_ROWS - 1>();
      const auto& from = ring[(n - first) % RING_ROWS];
      const Elements<T, V> v = from[0][threadIdx.x];
      Elements<T, V> d = from[1][threadIdx.x];
      row(to, v, d);
      if (to) to += dy_row;
    }
  } else {
    for (int64_t first = int64_t(s) * BACKWARD_ROWS; first < N; first += int64_t(S) * BACKWARD_ROWS) {
      Elements<T, V> v[BACKWARD_ROWS], d[BACKWARD_ROWS];
#pragma unroll
      for (int j = 0; j < BACKWARD_ROWS; j++) {
        v[j].load(x + ((first + j) * x_slots + at.slot) * D + at.c, first + j < N && at.gamma ? count : 0);
        d[j].load(dy + ((first + j) * dy_slots + at.slot) * D + at.c, first + j < N ? count : 0);
      }
#pragma unroll
      for (int j = 0; j < BACKWARD_ROWS; j++) {
        row(dx && first + j < N ? dx + ((first + j) * dy_slots + at.slot) * D + at.c : nullptr, v[j], d[j]);
      }
    }
  }
  if (!partial || !at.gamma) return;
#pragma unroll
  for (int i = 0; i < COLUMNS; i++) {
    if (i < count) partial[(int64_t(s) * slots + at.slot) * D + at.c + i] = sums[i] * sqrtf(float(D));
  }
}

// Threads a vector, and blocks that cover the vectors of one n.
int lanes_of(int D) { return power_of_two(ceil_div(D, COLUMNS)); }
int64_t tiles_of(int64_t slots, int D) { return ceil_div(slots, THREADS / lanes_of(D)); }

// Blocks a tile in the backward pass: 8 for each of 132 multiprocessors in all. Fixed, so that every GPU gives the same bits.
int64_t backward_blocks(int64_t N, int64_t tiles) { return std::max<int64_t>(1, std::min(1056 / tiles, ceil_div(N, 2 * BACKWARD_ROWS))); }

// Whether the kernels for vectors of 64 elements take them.
template <class T>
bool usual_vectors(int D, const Gammas& gammas) {
  return sizeof(T) == 2 && D == USUAL_LANES * COLUMNS && aligned16(uint64_t(gammas.of[0]), uint64_t(gammas.of[1]), uint64_t(gammas.of[2]));
}

int32_t check(const char* where, int32_t N, int32_t G, int32_t H, int32_t D, int32_t groups, int32_t x_groups) {
  if (groups < G || x_groups < G) {
    return fail(K_BAD_ARGUMENT, where, "there are %d and %d groups, it must be at least G = %d", groups, x_groups, G);
  }
  if (N < 0 || H < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and H = %d, N must be >= 0 and H > 0", N, H);
  if (G < 1 || G > 3) return fail(K_BAD_ARGUMENT, where, "G = %d, it must be 1 to 3", G);
  if (D < 1 || D > 256) return fail(K_BAD_ARGUMENT, where, "D = %d, it must be 1 to 256", D);
  const int64_t blocks = ceil_div(N, ROWS) * tiles_of(int64_t(G) * H, D);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "N = %d and H = %d, their product must be smaller", N, H);
  return K_OK;
}
}  // namespace

int32_t k_head_rms_norm_fwd(uint64_t y, uint64_t x, uint64_t gamma_0, uint64_t gamma_1, uint64_t gamma_2, int32_t N, int32_t G, int32_t H,
                            int32_t D, int32_t y_groups, int32_t x_groups, int32_t dtype, uint64_t stream) {
  const char* where = "k_head_rms_norm_fwd";
  if (const int32_t status = check(where, N, G, H, D, y_groups, x_groups)) return status;
  if (N == 0) return K_OK;
  const int slots = G * H, tiles = int(tiles_of(slots, D));
  const Gammas gammas{{at<const float>(gamma_0), at<const float>(gamma_1), at<const float>(gamma_2)}};
  return with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int V = 16 / sizeof(T);
    const bool packed = D % V == 0 && aligned16(y, x), usual = packed && usual_vectors<T>(D, gammas);
    const auto kernel = usual ? head_rms_norm_fwd<T, V, sizeof(T) == 2 ? USUAL_LANES : 0> : packed ? head_rms_norm_fwd<T, V, 0> : head_rms_norm_fwd<T, 1, 0>;
    kernel<<<unsigned(ceil_div(N, ROWS) * tiles), THREADS, 0, stream_of(stream)>>>(
        at<T>(y), at<const T>(x), gammas, N, slots, H, D, y_groups * H, x_groups * H, lanes_of(D), tiles);
    return launched(where);
  });
}

int32_t k_head_rms_norm_bwd_workspace(uint64_t* bytes, int32_t N, int32_t G, int32_t H, int32_t D) {
  const int64_t slots = int64_t(G) * H;
  *bytes = backward_blocks(N, tiles_of(slots, D)) * slots * D * sizeof(float);
  return K_OK;
}

int32_t k_head_rms_norm_bwd(uint64_t dx, uint64_t dgamma_0, uint64_t dgamma_1, uint64_t dgamma_2, uint64_t dy, uint64_t x, uint64_t gamma_0,
                            uint64_t gamma_1, uint64_t gamma_2, uint64_t scratch, int32_t N, int32_t G, int32_t H, int32_t D, int32_t dy_groups,
                            int32_t x_groups, int32_t dtype, uint64_t stream) {
  const char* where = "k_head_rms_norm_bwd";
  if (const int32_t status = check(where, N, G, H, D, dy_groups, x_groups)) return status;
  const int slots = G * H, tiles = int(tiles_of(slots, D)), S = int(backward_blocks(N, tiles));
  const bool sums = dgamma_0 || dgamma_1 || dgamma_2;
  const Gammas gammas{{at<const float>(gamma_0), at<const float>(gamma_1), at<const float>(gamma_2)}};
  const int32_t status = N == 0 ? K_OK : with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int V = 16 / sizeof(T);
    const bool packed = D % V == 0 && aligned16(dx, dy, x), usual = packed && usual_vectors<T>(D, gammas);
    const auto kernel = usual ? head_rms_norm_bwd<T, V, sizeof(T) == 2 ? USUAL_LANES : 0> : packed ? head_rms_norm_bwd<T, V, 0> : head_rms_norm_bwd<T, 1, 0>;
    kernel<<<unsigned(S * tiles), THREADS, 0, stream_of(stream)>>>(at<T>(dx), sums ? at<float>(scratch) : nullptr, at<const T>(dy),
                                                                   at<const T>(x), gammas, N, slots, H, D, dy_groups * H, x_groups * H,
                                                                   lanes_of(D), tiles, S);
    return launched(where);
  });
  if (status || !sums) return status;
  const Sums<float> to{{at<float>(dgamma_0), at<float>(dgamma_1), at<float>(dgamma_2)}};
  return launch_sum_partials(where, to, scratch, 1, N ? S : 0, int64_t(H) * D, G, stream);
}
