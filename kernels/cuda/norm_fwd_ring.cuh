// The forward pass of layer norms of packed rows of 16 bits, up to 1024 elements, where there is no residual: warps stay, each takes consecutive rows
// from a ring, and scale and shift are in registers while the sample is the same.
#pragma once
#include "norm.cuh"
#include "ring.cuh"

namespace {
constexpr int RING_WARPS = 4, RING_SLOTS = 6, RING_PACKS = 4, RING_ROW = 32 * RING_PACKS * 16;
constexpr int RING_BLOCKS = 528;  // what 132 multiprocessors hold

template <class T, class W>
__global__ void __launch_bounds__(32 * RING_WARPS, 3) norm_fwd_ring(Norm<T, W> at) {
  constexpr int V = 8, P = RING_PACKS;
  static_assert(sizeof(T) == 2);
  extern __shared__ __align__(16) char shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = at.C;
  const int64_t warps = int64_t(gridDim.x) * RING_WARPS, w = int64_t(blockIdx.x) * RING_WARPS + warp, N = at.samples.N;
  const int first = int(N * w / warps), end = int(N * (w + 1) / warps);
  char* const mine = shared + warp * RING_SLOTS * RING_ROW + lane * 16;
  const auto load = [&](int n) {
    char* const to = mine + (n - first) % RING_SLOTS * RING_ROW;
    if (n < end) {
#pragma unroll
      for (int p = 0; p < P; p++) {
        const int c = (p * 32 + lane) * V;
        ring_copy(to + p * 512, at.x + int64_t(n) * C + (c < C ? c : 0), c < C);
      }
    }
    ring_commit();
  };
#pragma unroll
  for (int k = 0; k < RING_SLOTS - 1; k++) load(first + k);
  float gain[P * V], shift[P * V];
  int64_t current = -1;
  for (int n = first; n < end; n++) {
    load(n + RING_SLOTS - 1);
    ring_wait<RING_SLOTS - 1>();
    if (const int64_t sample = at.samples.of(n); sample != current) {
      current = sample;
#pragma unroll
      for (int p = 0; p < P; p++) {
        const int c = (p * 32 + lane) * V;
        float g[V] = {}, s[V] = {};
        if (at.w && c < C) load_lanes(g, at.w + sample * at.stride + c);
        if (at.s && c < C) load_lanes(s, at.s + sample * at.stride + c);
#pragma unroll
        for (int i = 0; i < V; i++) gain[p * V + i] = at.one + g[i], shift[p * V + i] = s[i];
      }
    }
    const char* const from = mine + (n - first) % RING_SLOTS * RING_ROW;
    float x[P * V], sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from + p * 512);
#pragma unroll
      for (int i = 0; i < V; i++) sum += x[p * V + i] = to_f32(pack.v[i]);
    }
    const float m = warp_sum(sum) / C;
#pragma unroll
    for (int p = 0; p < P; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) {
        x[p * V + i] -= m;
        if ((p * 32 + lane) * V < C) squares += x[p * V + i] * x[p * V + i];
      }
    }
    const float r = rsqrtf(warp_sum(squares) / C + at.eps);
    if (lane == 0) at.mean[n] = m, at.rstd[n] = r;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int c = (p * 32 + lane) * V;
      float out[V];
#pragma unroll
      for (int i = 0; i < V; i++) out[i] = x[p * V + i] * r * gain[p * V + i] + shift[p * V + i];
      if (c < C) store_lanes(at.y + int64_t(n) * C + c, out);
    }
  }
}

// Whether it pays: there must be rows for every warp's ring.
template <class T>
bool takes_ring(const Samples& samples, int C, bool packed) {
  return sizeof(T) == 2 && packed && C > 512 && C <= 1024 && samples.N >= RING_BLOCKS * RING_WARPS * 4;
}
}  // namespace
