// The gated residual on CUDA.
#include "../include/gate_add.h"

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
  *bytes = 2 * uint64_t(B) * Chunks(B, ceil_div(N, std::max(1, B))).S * C * sizeof(float);
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
    const auto sum = [&](auto v, auto k) {
      const GateBackward<T, v, k> terms{at<T>(dh), at<const T>(dy), at<const T>(h), at<const T>(gate), gate_stride};
      return launch_column_sums<k, v>(where, scratch, samples, C, stream, terms);
    };
    const auto run = [&](auto v) {
      return dbias ? sum(v, std::integral_constant<int, 2>{}) : sum(v, std::integral_constant<int, 1>{});
    };
    constexpr int V = 16 / sizeof(T);
    const bool packed = C % V == 0 && gate_stride % V == 0 && aligned16(dh, dy, h, gate);
    const int32_t status = packed ? run(std::integral_constant<int, V>{}) : run(std::integral_constant<int, 1>{});
    if (status) return status;
    const int64_t S = Chunks(B, samples.mean()).S, count = dbias ? 2 : 1;
    if (dgate) {
      const Sums<T> sums{{at<T>(dgate)}, {gate_stride}, adds != 0};
      if (const int32_t status = launch_sum_partials(where, sums, scratch, B, S, C, int(count), stream)) return status;
    }
    if (!dbias) return int32_t(K_OK);
    return launch_sum_partials(where, Sums<float>{{nullptr, at<float>(dbias)}}, scratch, 1, N == 0 ? 0 : B * S, C, 2, stream);
  });
}
