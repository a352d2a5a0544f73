// The gated residual on CUDA.
#include "../include/gate_add.h"

#include "ring.cuh"
#include "sums.cuh"

namespace {
constexpr int THREADS = 256;

// A block is X threads along a row times THREADS / X rows; each thread takes every X-th pack of its row.
template <class T, int V>
__global__ void __launch_bounds__(THREADS) gate_add(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ h,
                                                    const T* __restrict__ gate, Samples samples, int C, int64_t gate_stride, int X) {
  const unsigned n = blockIdx.x * (THREADS / X) + threadIdx.x / X;
  if (n >= samples.N) return;
  const int64_t row = int64_t(n) * C, gate_row = samples.of(n) * gate_stride;
  for (int c = (threadIdx.x & (X - 1)) * V; c < C; c += X * V) {
    float a[V], b[V], g[V];
    load_lanes(a, x + row + c);
    load_lanes(b, h + row + c);
    load_lanes(g, gate + gate_row + c);
#pragma unroll
    for (int i = 0; i < V; i++) a[i] += b[i] * g[i];
    store_lanes(y + row + c, a);
  }
}

// Writes dh on the way; see column_sums. With K = 2 it sums dh too.
template <class T, int V, int K>
struct GateBackward {
  T* dh;
  const T *dy, *h, *gate;
  int64_t gate_stride;
  struct Loaded {
    Pack<T, V> dy, h;
  };

  __device__ Loaded load(int64_t i) const {
    return {*reinterpret_cast<const Pack<T, V>*>(dy + i), *reinterpret_cast<const Pack<T, V>*>(h + i)};
  }
  __device__ void add(float (&sums)[K][V], const Loaded& at, int64_t i, int b, int c) const {
    float g[V];
    load_lanes(g, gate + int64_t(b) * gate_stride + c);
#pragma unroll
    for (int j = 0; j < V; j++) {
      sums[0][j] += to_f32(at.dy.v[j]) * to_f32(at.h.v[j]);
      g[j] *= to_f32(at.dy.v[j]);
      if constexpr (K == 2) sums[1][j] += g[j];
    }
    if (dh) store_lanes(dh + i, g);
  }
};

constexpr int RING_THREADS = 128, RING_COLUMNS = 8, RING_SLOTS = 6, RING_RESIDENT = 4;

// The same for packed rows of 16 bits, 513 to 1024 elements: block b * S + s takes every S-th row of sample b, from a ring, and a thread the same
// columns of each. The sums go to partial[b, s, k, :].
template <class T, int K>
__global__ void __launch_bounds__(RING_THREADS, RING_RESIDENT)
    gate_bwd_ring(T* dh, float* __restrict__ partial, const T* dy, const T* __restrict__ h, const T* __restrict__ gate, Samples samples, int C,
                  int64_t gate_stride, int S) {
  using Packed = Pack<T, RING_COLUMNS>;
  __shared__ Packed ring[RING_SLOTS][2][RING_THREADS];
  next_may_start();
  const int b = blockIdx.x / S, s = blockIdx.x % S, c = threadIdx.x * RING_COLUMNS;
  const int64_t start = samples.first(b), first = start + s, end = samples.first(b + 1);
  const bool mine = c < C;
  const int count = first < end ? int((end - first + S - 1) / S) : 0;
  const int64_t step = int64_t(S) * C, at = first * C + (mine ? c : 0);
  const T *next_dy = dy + at, *next_h = h + at;
  const auto load = [&](int k) {
    if (k < count) {
      ring_copy(&ring[k % RING_SLOTS][0][threadIdx.x], next_dy, mine);
      ring_copy(&ring[k % RING_SLOTS][1][threadIdx.x], next_h, mine);
    }
    ring_commit();
    next_dy += step, next_h += step;
  };
#pragma unroll
  for (int k = 0; k < RING_SLOTS - 1; k++) load(k);
  float factor[RING_COLUMNS] = {}, sums[K][RING_COLUMNS] = {};
  if (mine) load_lanes(factor, gate + b * gate_stride + c);
  T* to = dh ? dh + at : nullptr;
  for (int k = 0; k < count; k++) {
    load(k + RING_SLOTS - 1);
    ring_wait<RING_SLOTS - 1>();
    const Packed d = ring[k % RING_SLOTS][0][threadIdx.x], v = ring[k % RING_SLOTS][1][threadIdx.x];
    float out[RING_COLUMNS];
#pragma unroll
    for (int i = 0; i < RING_COLUMNS; i++) {
      sums[0][i] += to_f32(d.v[i]) * to_f32(v.v[i]);
      out[i] = factor[i] * to_f32(d.v[i]);
      if constexpr (K == 2) sums[1][i] += out[i];
    }
    if (to) {
      if (mine) store_lanes(to, out);
      to += step;
    }
  }
#pragma unroll
  for (int k = 0; k < K; k++) {
    if (mine) store_lanes(partial + (int64_t(blockIdx.x) * K + k) * C + c, sums[k]);
  }
}

// Whether the ring takes rows of C elements, and the blocks of a sample of L rows then. They do not depend on the GPU.
bool ring_suits(int C) { return C > RING_THREADS * RING_COLUMNS / 2 && C <= RING_THREADS * RING_COLUMNS; }
int ring_blocks(int64_t B, int64_t L) {
  return int(std::max<int64_t>(1, std::min<int64_t>(132 * RING_RESIDENT / std::max<int64_t>(1, B), ceil_div(L, RING_SLOTS))));
}
}  // namespace

int32_t k_gate_add_fwd(uint64_t y, uint64_t x, uint64_t h, uint64_t gate, uint64_t offsets, int32_t N, int32_t B, int32_t C, int64_t gate_stride,
                       int32_t dtype, uint64_t stream) {
  const char* where = "k_gate_add_fwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  if (N == 0) return K_OK;
  return with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int V = 16 / sizeof(T);
    const bool packed = C % V == 0 && gate_stride % V == 0 && aligned16(y, x, h, gate);
    const int X = std::min(THREADS, power_of_two(packed ? C / V : C));
    const auto kernel = packed ? gate_add<T, V> : gate_add<T, 1>;
    kernel<<<unsigned(ceil_div(N, THREADS / X)), THREADS, 0, stream_of(stream)>>>(at<T>(y), at<const T>(x), at<const T>(h),
                                                                                  at<const T>(gate), samples, C, gate_stride, X);
    return launched(where);
  });
}

int32_t k_gate_add_bwd_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t C) {
  const int64_t L = ceil_div(N, std::max(1, B));
  *bytes = 2 * uint64_t(B) * std::max(Chunks(B, L).S, ring_suits(C) ? ring_blocks(B, L) : 0) * C * sizeof(float);
  return K_OK;
}

int32_t k_gate_add_bwd(uint64_t dh, uint64_t dgate, uint64_t dbias, uint64_t dy, uint64_t h, uint64_t gate, uint64_t offsets, uint64_t scratch, int32_t N,
                       int32_t B, int32_t C, int64_t gate_stride, int32_t adds, int32_t dtype, uint64_t stream) {
  const char* where = "k_gate_add_bwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  if (N > 0 && dbias && !dh) return fail(K_BAD_ARGUMENT, where, "dbias is wanted, dh must be given");
  return with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int V = 16 / sizeof(T);
    const bool packed = C % V == 0 && gate_stride % V == 0 && aligned16(dh, dy, h, gate), rings = sizeof(T) == 2 && packed && ring_suits(C) && aligned16(scratch);
    const int64_t L = samples.mean(), S = N == 0 ? 0 : rings ? ring_blocks(B, L) : Chunks(B, L).S;
    const auto sum = [&](auto v, auto k) {
      if constexpr (sizeof(T) == 2 && v > 1) {
        if (rings) {
          gate_bwd_ring<T, k><<<unsigned(B * S), RING_THREADS, 0, stream_of(stream)>>>(at<T>(dh), at<float>(scratch), at<const T>(dy), at<const T>(h),
                                                                                      at<const T>(gate), samples, C, gate_stride, int(S));
          return launched(where);
        }
      }
      const GateBackward<T, v, k> terms{at<T>(dh), at<const T>(dy), at<const T>(h), at<const T>(gate), gate_stride};
      return launch_column_sums<k, v>(where, scratch, samples, C, stream, terms);
    };
    const auto run = [&](auto v) {
      return dbias ? sum(v, std::integral_constant<int, 2>{}) : sum(v, std::integral_constant<int, 1>{});
    };
    if (N > 0) {
      if (const int32_t status = packed ? run(std::integral_constant<int, V>{}) : run(std::integral_constant<int, 1>{})) return status;
    }
    const Sums<T> sums{{at<T>(dgate)}, {gate_stride}, adds != 0};
    const Sums<float> all{{nullptr, at<float>(dbias)}};
    if (dgate && dbias) return launch_sum_partials_twice(where, sums, all, scratch, B, S, C, 2, stream);
    if (dgate) return launch_sum_partials(where, sums, scratch, B, S, C, 1, stream);
    return dbias ? launch_sum_partials(where, all, scratch, 1, B * S, C, 2, stream) : int32_t(K_OK);
  });
}
