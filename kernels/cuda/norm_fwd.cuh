// The forward pass of layer norms on CUDA. A row is read once and stays in registers: a warp (or a part of one) a row of up to 1024 elements, a
// block a longer one.
#pragma once
#include "norm_fwd_ring.cuh"

namespace {
// How a row lies over a group of threads: P packs of V elements a thread, pack p of thread t at (p * lanes + t) * V. A group is `lanes`
// threads of a warp (a power of two), or the whole block where THREADS > 128.
template <int V_, int P_, int THREADS_ = 128>
struct Layout {
  static constexpr int V = V_, P = P_, THREADS = THREADS_;
  static constexpr bool WHOLE = THREADS > 128;
  int lanes = THREADS;
  int groups() const { return THREADS / lanes; }
};

// Calls run(Layout) with the layout for rows of C elements of T; `packed` where all rows may be moved in accesses of 16 bytes.
template <class T, class F>
int32_t with_layout(const char* where, int C, bool packed, F run) {
  constexpr int V = 16 / sizeof(T);
  if (C > 8192) return fail(K_UNSUPPORTED, where, "C = %d, it must be at most 8192", C);
  if (!packed || C % V) {
    if (C <= 256) return run(Layout<1, 8>{32});
    if (C <= 2048) return run(Layout<1, 8, 256>{});
    return run(Layout<1, 16, 512>{});
  }
  if (C <= 256) return run(Layout<V, 8 / V>{power_of_two(ceil_div(C, 8))});
  if (C <= 1024) return run(Layout<V, 32 / V>{32});
  if (C <= 2048) return run(Layout<V, 8 / V, 256>{});
  return run(Layout<V, 32 / V, 256>{});
}

// One row in registers; what lies past its end is 0.
template <class T, class At>
struct Row {
  Pack<T, At::V> pack[At::P];

  __device__ void load(const T* from, int C, int lane, int lanes) {
#pragma unroll
    for (int p = 0; p < At::P; p++) {
      const int c = (p * lanes + lane) * At::V;
      if (c < C)
        pack[p] = *reinterpret_cast<const Pack<T, At::V>*>(from + c);
      else
        pack[p] = {};
    }
  }
};

template <class At>
__device__ inline float group_sum(float v, int lanes) {
  if constexpr (At::WHOLE)
    return block_sum<At::THREADS>(v);
  else
    return lanes_sum(v, lanes);
}

// Blocks that a multiprocessor holds, by their registers; the grid is as large, and each takes rows in turns.
template <class At>
constexpr int resident_forward(bool residual) {
  return At::WHOLE ? 2 : residual ? 4 : 6;
}

// RESIDUAL: the row is x + h * gate, which is written too. In 16 bits the next row is loaded before the present one is worked on.
template <class T, class W, class At, bool RESIDUAL>
__global__ void __launch_bounds__(At::THREADS, sizeof(T) == 2 && At::V > 1 ? resident_forward<At>(RESIDUAL) : 1)
    norm_fwd(Norm<T, W> at, T* __restrict__ y, T* __restrict__ sums, const T* __restrict__ x, const T* __restrict__ h,
             const T* __restrict__ gates, const W* __restrict__ w, const W* __restrict__ s, int lanes) {
  constexpr int V = At::V;
  constexpr bool AHEAD = sizeof(T) == 2 && V > 1;
  const int lane = threadIdx.x & (lanes - 1), C = at.C, N = at.samples.N;
  const unsigned groups = At::THREADS / lanes, group = threadIdx.x / lanes, step = gridDim.x * groups;
  Row<T, At> next, next_h;
  const auto load = [&](unsigned n) {
    next.load(x + int64_t(n) * C, n < N ? C : 0, lane, lanes);
    if constexpr (RESIDUAL) next_h.load(h + int64_t(n) * C, n < N ? C : 0, lane, lanes);
  };
  if constexpr (AHEAD) load(blockIdx.x * groups + group);
  for (unsigned base = blockIdx.x * groups; base < N; base += step) {
    const unsigned n = base + group;
    const bool live = n < N;
    const int64_t sample = live ? at.samples.of(n) : 0;
    if constexpr (!AHEAD) load(n);
    Row<T, At> row = next, other = next_h;
    if constexpr (AHEAD) load(n + step);
    if constexpr (RESIDUAL) {
#pragma unroll
      for (int p = 0; p < At::P; p++) {
        const int c = (p * lanes + lane) * V;
        if (!live || c >= C) continue;
        float gate[V];
#pragma unroll
        for (int i = 0; i < V; i++) gate[i] = 1;
        if (gates) load_lanes(gate, gates + sample * at.gate_stride + c);
#pragma unroll
        for (int i = 0; i < V; i++) row.pack[p].v[i] = from_f32<T>(to_f32(row.pack[p].v[i]) + to_f32(other.pack[p].v[i]) * gate[i]);
        *reinterpret_cast<Pack<T, V>*>(sums + int64_t(n) * C + c) = row.pack[p];
      }
    }
    float sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < At::P; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) sum += to_f32(row.pack[p].v[i]);
    }
    const float m = group_sum<At>(sum, lanes) / C;
#pragma unroll
    for (int p = 0; p < At::P; p++) {
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float d = to_f32(row.pack[p].v[i]) - m;
        if ((p * lanes + lane) * V < C) squares += d * d;
      }
    }
    const float r = rsqrtf(group_sum<At>(squares, lanes) / C + at.eps);
    if (live && lane == 0) at.mean[n] = m, at.rstd[n] = r;
    const int64_t affine = sample * at.stride;
#pragma unroll
    for (int p = 0; p < At::P; p++) {
      const int c = (p * lanes + lane) * V;
      if (!live || c >= C) continue;
      float gain[V] = {}, shift[V] = {}, out[V];
      if (w) load_lanes(gain, w + affine + c);
      if (s) load_lanes(shift, s + affine + c);
#pragma unroll
      for (int i = 0; i < V; i++) out[i] = (to_f32(row.pack[p].v[i]) - m) * r * (at.one + gain[i]) + shift[i];
      store_lanes(y + int64_t(n) * C + c, out);
    }
  }
}

template <class T, class W>
int32_t forward(const char* where, const Norm<T, W>& norm, bool packed, uint64_t stream) {
  if (norm.samples.N == 0) return K_OK;
  if constexpr (sizeof(T) == 2) {
    if (takes_ring<T, WideRow>(norm.samples, norm.C, packed, norm.h != nullptr)) {
      return norm.h ? launch_ring<T, W, true>(where, norm, WideRow{}, stream) : launch_ring<T, W, false>(where, norm, WideRow{}, stream);
    }
  }
  return with_layout<T>(where, norm.C, packed, [&](auto layout) {
    using At = decltype(layout);
    const auto kernel = norm.h ? norm_fwd<T, W, At, true> : norm_fwd<T, W, At, false>;
    const int64_t blocks = std::min<int64_t>(ceil_div(norm.samples.N, layout.groups()), 132 * resident_forward<At>(norm.h != nullptr));
    kernel<<<unsigned(blocks), At::THREADS, 0, stream_of(stream)>>>(norm, norm.y, norm.sum, norm.x, norm.h, norm.gate, norm.w, norm.s,
                                                                    layout.lanes);
    return launched(where);
  });
}
}  // namespace
