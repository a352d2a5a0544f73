// The forward pass of layer norms of packed rows of 16 bits, 513 to 1024 elements: warps stay, each takes consecutive rows from a ring, and scale,
// shift and gate are in registers while the sample is the same. What becomes of a row's results, `Finish` says.
#pragma once
#include "norm.cuh"
#include "ring.cuh"

namespace {
constexpr int RING_PACKS = 4, RING_ROW = 32 * RING_PACKS * 16, RING_FULL = 32 * RING_PACKS * 8;

// Results written as they are, rounded once.
struct WideRow {
  static constexpr int slots(bool residual) { return residual ? 4 : 6; }
  static constexpr int resident(bool residual) { return residual ? 12 : 16; }  // warps of a multiprocessor, by shared memory and registers
  template <class T, class W>
  __device__ void operator()(const Norm<T, W>& at, float (&out)[RING_PACKS][8], int n, int lane, int C) const {
#pragma unroll
    for (int p = 0; p < RING_PACKS; p++) {
      const int c = (p * 32 + lane) * 8;
      if (c < C) store_lanes(at.y + int64_t(n) * C + c, out[p]);
    }
  }
};

template <class Finish>
constexpr int ring_bytes(bool residual) {
  return Finish::slots(residual) * (residual ? 2 : 1) * RING_ROW;
}

// A block is a warp. RESIDUAL: the row is x + h * gate, which is written too; FULL: C is RING_FULL. Computes to the bit what norm_fwd does.
template <class T, class W, class Finish, bool RESIDUAL, bool FULL>
__global__ void __launch_bounds__(32, Finish::resident(RESIDUAL)) norm_fwd_ring(Norm<T, W> at, Finish finish) {
  constexpr int V = 8, P = RING_PACKS, SLOTS = Finish::slots(RESIDUAL), SLOT = (RESIDUAL ? 2 : 1) * RING_ROW;
  static_assert(sizeof(T) == 2);
  using Packed = Pack<T, V>;
  extern __shared__ __align__(16) char shared[];
  const int lane = threadIdx.x, C = FULL ? RING_FULL : at.C;
  const int64_t N = at.samples.N;
  const int first = int(N * blockIdx.x / gridDim.x), end = int(N * (blockIdx.x + 1) / gridDim.x);
  char* const mine = shared + lane * 16;
  const auto load = [&](int n) {
    char* const to = mine + (n - first) % SLOTS * SLOT;
    if (n < end) {
#pragma unroll
      for (int p = 0; p < P; p++) {
        const int c = (p * 32 + lane) * V;
        const int64_t i = int64_t(n) * C + (c < C ? c : 0);
        ring_copy(to + p * 512, at.x + i, c < C);
        if constexpr (RESIDUAL) ring_copy(to + RING_ROW + p * 512, at.h + i, c < C);
      }
    }
    ring_commit();
  };
#pragma unroll
  for (int k = 0; k < SLOTS - 1; k++) load(first + k);
  float gain[P * V], shift[P * V];
  Packed gate[RESIDUAL ? P : 1];
  int change = first;  // the row from which on the sample is another one
  for (int n = first; n < end; n++) {
    load(n + SLOTS - 1);
    if (n == change) {
      const int64_t sample = at.samples.of(n);
      change = int(at.samples.first(sample + 1));
#pragma unroll
      for (int p = 0; p < P; p++) {
        const int c = (p * 32 + lane) * V;
        float g[V] = {}, s[V] = {};
        if (at.w && c < C) load_lanes(g, at.w + sample * at.stride + c);
        if (at.s && c < C) load_lanes(s, at.s + sample * at.stride + c);
#pragma unroll
        for (int i = 0; i < V; i++) gain[p * V + i] = at.one + g[i], shift[p * V + i] = s[i];
        if constexpr (RESIDUAL) {
          gate[p] = {};
          if (at.gate && c < C) gate[p] = *reinterpret_cast<const Packed*>(at.gate + sample * at.gate_stride + c);
        }
      }
    }
    ring_wait<SLOTS - 1>();
    const char* const from = mine + (n - first) % SLOTS * SLOT;
    float x[P][V], sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
      Packed pack = *reinterpret_cast<const Packed*>(from + p * 512);
      if constexpr (RESIDUAL) {
        const Packed h = *reinterpret_cast<const Packed*>(from + RING_ROW + p * 512);
        const int c = (p * 32 + lane) * V;
#pragma unroll
        for (int i = 0; i < V; i++) {
          pack.v[i] = from_f32<T>(to_f32(pack.v[i]) + to_f32(h.v[i]) * (at.gate ? to_f32(gate[p].v[i]) : 1));
        }
        if (c < C) *reinterpret_cast<Packed*>(at.sum + int64_t(n) * C + c) = pack;
      }
#pragma unroll
      for (int i = 0; i < V; i++) sum += x[p][i] = to_f32(pack.v[i]);
    }
    const float m = warp_sum(sum) / C;
#pragma unroll
    for (int p = 0; p < P; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) {
        x[p][i] -= m;
        if ((p * 32 + lane) * V < C) squares += x[p][i] * x[p][i];
      }
    }
    const float r = rsqrtf(warp_sum(squares) / C + at.eps);
    if (lane == 0) at.mean[n] = m, at.rstd[n] = r;
#pragma unroll
    for (int p = 0; p < P; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) x[p][i] = x[p][i] * r * gain[p * V + i] + shift[p * V + i];
    }
    finish(at, x, n, lane, C);
  }
}

// Whether it pays: there must be rows for every warp's ring.
template <class T, class Finish>
bool takes_ring(const Samples& samples, int C, bool packed, bool residual) {
  return sizeof(T) == 2 && packed && C > 512 && C <= 1024 && samples.N >= 132 * Finish::resident(residual) * 4;
}

template <class T, class W, bool RESIDUAL, class Finish>
int32_t launch_ring(const char* where, const Norm<T, W>& norm, Finish finish, uint64_t stream) {
  const auto kernel = norm.C == RING_FULL ? norm_fwd_ring<T, W, Finish, RESIDUAL, true> : norm_fwd_ring<T, W, Finish, RESIDUAL, false>;
  kernel<<<132 * Finish::resident(RESIDUAL), 32, ring_bytes<Finish>(RESIDUAL), stream_of(stream)>>>(norm, finish);
  return launched(where);
}
}  // namespace
