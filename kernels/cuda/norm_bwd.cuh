// The backward pass of layer norms on CUDA: 8 columns a thread, which keeps their sums over the rows of its block in registers.
#pragma once
#include "norm_bwd_ring.cuh"

namespace {
constexpr int RESIDENT = 4;  // blocks of 128 threads that a multiprocessor holds, by their registers

// Sums each value over the X threads of a group: X <= 32, a power of two, or the whole block where WIDE. Calls take turns with two buffers.
template <int COUNT, bool WIDE>
__device__ inline void group_sums(float (&values)[COUNT], float (*buffer)[COUNT], int X) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    if constexpr (WIDE)
      values[i] = warp_sum(values[i]);
    else
      values[i] = lanes_sum(values[i], X);
  }
  if constexpr (WIDE) {
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) buffer[threadIdx.x / 32][i] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; i++) values[i] = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) values[i] += buffer[warp][i];
    }
  }
}

// Block b * S + s takes the rows of sample b that come to it when S blocks take turns, R rows a group of X threads at a time. It writes dx,
// dh and, where there is partial, partial[b, s, :, :] = sum(dy * xhat), sum(dy), GATED: sum(dx * h), sum(dh), or sum(dx) without a gate.
template <class T, class W, int V, int R, int THREADS, bool WIDE, bool GATED>
__global__ void __launch_bounds__(THREADS, THREADS > 128 ? 1 : RESIDENT) norm_bwd(Norm<T, W> at, int X, int S) {
  constexpr int P = COLUMNS / V, K = backward_sums(GATED);
  next_may_start();
  using Packs = Pack<T, V>[P];
  alignas(16) __shared__ float shared[WIDE ? 2 * 32 * 2 * R : 128 * K * COLUMNS];
  const Samples& samples = at.samples;
  const int lane = WIDE ? threadIdx.x : threadIdx.x & (X - 1), group = WIDE ? 0 : threadIdx.x / X, groups = WIDE ? 1 : 128 / X, C = at.C;
  const int b = blockIdx.x / S, c = lane * COLUMNS;
  const int64_t start = samples.first(b), step = int64_t(S) * groups * R;
  const int L = int(samples.first(b + 1) - start);
  float gain[COLUMNS], gate[GATED ? COLUMNS : 1], sums[K][COLUMNS] = {};
#pragma unroll
  for (int i = 0; i < COLUMNS; i++) {
    gain[i] = at.one + (at.w && c + i < C ? to_f32(at.w[b * at.stride + c + i]) : 0);
    if constexpr (GATED) gate[i] = c + i < C ? to_f32(at.gate[b * at.gate_stride + c + i]) : 0;
  }
  const auto load = [&](Packs& to, const T* from, int64_t n, bool live) {
#pragma unroll
    for (int p = 0; p < P; p++) {
      if (live && c + p * V < C)
        to[p] = *reinterpret_cast<const Pack<T, V>*>(from + n * C + c + p * V);
      else
        to[p] = {};
    }
  };
  bool second = false;
  for (int64_t base = int64_t(blockIdx.x % S) * groups * R + group; base - group < L; base += step, second = !second) {
    Packs xs[R], dys[R], others[R], hs[GATED ? R : 1];
    float m[R], r[R], dots[2 * R] = {};
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int64_t l = base + j * groups, n = start + l;
      const bool live = l < L;
      m[j] = live ? at.mean[n] : 0;
      r[j] = live ? at.rstd[n] : 0;
      load(xs[j], at.x, n, live);
      load(dys[j], at.dy, n, live);
      load(others[j], at.dsum, n, live && at.dsum);
      if constexpr (GATED) load(hs[j], at.h, n, live);
    }
#pragma unroll
    for (int j = 0; j < R; j++) {
#pragma unroll
      for (int i = 0; i < COLUMNS; i++) {
        const float d = to_f32(dys[j][i / V].v[i % V]), xhat = (to_f32(xs[j][i / V].v[i % V]) - m[j]) * r[j];
        dots[2 * j] += d * gain[i];
        dots[2 * j + 1] += d * gain[i] * xhat;
        sums[0][i] += d * xhat;
        sums[1][i] += d;
      }
    }
    group_sums<2 * R, WIDE>(dots, reinterpret_cast<float(*)[2 * R]>(shared) + (second ? 32 : 0), X);
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int64_t l = base + j * groups, n = start + l;
      if (!at.dx || l >= L) continue;
      const float mean_g = dots[2 * j] / C, mean_gx = dots[2 * j + 1] / C;
#pragma unroll
      for (int p = 0; p < P; p++) {
        float out[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
          const float xhat = (to_f32(xs[j][p].v[i]) - m[j]) * r[j];
          out[i] = r[j] * (to_f32(dys[j][p].v[i]) * gain[p * V + i] - mean_g - xhat * mean_gx) + to_f32(others[j][p].v[i]);
        }
        if (c + p * V < C) store_lanes(at.dx + n * C + c + p * V, out);
#pragma unroll
        for (int i = 0; i < V; i++) sums[K - 1][p * V + i] += out[i];
        if constexpr (GATED) {
#pragma unroll
          for (int i = 0; i < V; i++) {
            sums[2][p * V + i] += out[i] * to_f32(hs[j][p].v[i]);
            out[i] *= gate[p * V + i];
          }
          if (at.dh && c + p * V < C) store_lanes(at.dh + n * C + c + p * V, out);
        }
      }
    }
  }
  if (!at.partial) return;
  if constexpr (GATED) {
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) sums[K - 1][i] *= gate[i];
  }
  float* const to = at.partial + int64_t(blockIdx.x) * K * C;
  if constexpr (!WIDE)
    store_column_sums(to, sums, shared, C, 0, X, groups, lane, group);
  else {
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
#pragma unroll
      for (int k = 0; k < K; k++) {
        if (c + i < C) to[k * C + c + i] = sums[k][i];
      }
    }
  }
}

// Threads a row in the backward pass: a power of two, or whole warps.
int row_threads(int C) {
  const int64_t threads = ceil_div(C, COLUMNS);
  return threads <= 32 ? power_of_two(threads) : int(ceil_div(threads, 32) * 32);
}

// Blocks a sample in the backward pass: what fits 132 multiprocessors at a time, or, where samples differ in length, four times as many, so
// that those of short ones make room: 9 % slower if all are equal, 2.3 times as fast if one has half of the rows. Fixed, so that every GPU
// gives the same bits.
int64_t backward_blocks(int64_t B, int64_t L, int C, bool ragged, bool gated, bool wide) {
  const int X = row_threads(C), resident = pairs_suit(C, wide) ? pair_resident(gated) : RESIDENT;
  const int wanted = 132 * (X <= 32 ? resident : std::max(1, 128 * resident / X)) * (ragged ? 4 : 1);
  return std::max<int64_t>(1, std::min(wanted / std::max<int64_t>(1, B), ceil_div(L, 4)));
}

template <class T, class W>
int32_t backward(const char* where, const Norm<T, W>& norm, bool gated, bool packed, int S, uint64_t stream) {
  constexpr int V = 16 / sizeof(T);
  const int X = row_threads(norm.C);
  const auto run = [&](auto kernel) {
    kernel<<<unsigned(norm.samples.B * S), X <= 32 ? 128 : X, 0, stream_of(stream)>>>(norm, X, S);
    return launched(where);
  };
  const auto choose = [&](auto v, auto gated) {
    if (X <= 32) return run(norm_bwd<T, W, v, 2, 128, false, gated>);
    if constexpr (sizeof(T) == 2 && v > 1) {
      if (pairs_suit(norm.C, false)) {
        return norm.dsum ? launch_pairs<T, W, gated, true>(where, norm, S, stream) : launch_pairs<T, W, gated, false>(where, norm, S, stream);
      }
    }
    if (X <= 128) return run(norm_bwd<T, W, v, 2, 128, true, gated>);
    return X <= 512 ? run(norm_bwd<T, W, v, 2, 512, true, gated>) : run(norm_bwd<T, W, v, 1, 1024, true, gated>);
  };
  const auto with_gate = [&](auto v) { return gated ? choose(v, std::true_type{}) : choose(v, std::false_type{}); };
  return packed ? with_gate(std::integral_constant<int, V>{}) : with_gate(std::integral_constant<int, 1>{});
}
}  // namespace
