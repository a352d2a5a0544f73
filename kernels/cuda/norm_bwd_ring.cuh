// The backward pass of layer norms of packed rows of 16 bits, 257 to 1024 elements: a block of 128 threads has a ring of pairs of rows, and
// takes every S-th of its sample.
#pragma once
#include "norm.cuh"
#include "ring.cuh"

namespace {
constexpr int COLUMNS = 8;  // of a thread in the backward pass: its packs lie side by side

// Sums that a block has for each column.
__host__ __device__ constexpr int backward_sums(bool gated) { return gated ? 4 : 3; }

constexpr int PAIR = 2, PAIR_PIECE = 128 * 16, PAIR_FULL = 128 * COLUMNS;
// Blocks that a multiprocessor holds, by their registers, and pairs of rows in the ring of each, which leave room for as many blocks.
constexpr int pair_resident(bool gated) { return gated ? 3 : 4; }
constexpr int pair_slots(bool gated) { return gated ? 4 : 3; }
constexpr int pair_arrays(bool gated, bool other) { return 2 + gated + other; }
constexpr int pair_bytes(bool gated, bool other) { return pair_slots(gated) * PAIR * pair_arrays(gated, other) * PAIR_PIECE; }
// `wide`: elements are of 32 bits.
constexpr bool pairs_suit(int C, bool wide) { return !wide && C > 256 && C <= 1024; }

// Lane l gets the sum over its warp of v[2 * (l / 16) + l / 8 % 2].
__device__ inline float sum_of_four(const float (&v)[4]) {
  const bool high = threadIdx.x & 16, middle = threadIdx.x & 8;
  const float a = (high ? v[2] : v[0]) + __shfl_xor_sync(0xffffffffu, high ? v[0] : v[2], 16);
  const float b = (high ? v[3] : v[1]) + __shfl_xor_sync(0xffffffffu, high ? v[1] : v[3], 16);
  float sum = (middle ? b : a) + __shfl_xor_sync(0xffffffffu, middle ? a : b, 8);
#pragma unroll
  for (int o = 4; o; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
  return sum;
}

// As norm_bwd; OTHER: there is dsum; BIAS: the last sums are wanted; FULL: C is PAIR_FULL.
template <class T, class W, bool GATED, bool OTHER, bool BIAS, bool FULL>
__global__ void __launch_bounds__(128, pair_resident(GATED)) norm_bwd_ring(Norm<T, W> at, int S) {
  constexpr int V = COLUMNS, R = PAIR, ARRAYS = pair_arrays(GATED, OTHER), SLOTS = pair_slots(GATED), K = backward_sums(GATED);
  static_assert(sizeof(T) == 2);
  using Packed = Pack<T, V>;
  extern __shared__ __align__(16) char shared[];
  alignas(16) __shared__ float buffers[2][4][2 * R];
  next_may_start();
  const int C = FULL ? PAIR_FULL : at.C, b = blockIdx.x / S, s = blockIdx.x % S, c = threadIdx.x * V;
  const int64_t start = at.samples.first(b);
  const int L = int(at.samples.first(b + 1) - start), pairs = (L + R - 1) / R;
  const int count = s < pairs ? (pairs - s + S - 1) / S : 0;  // pairs of this block, the k-th of which is pair s + k * S of the sample
  const bool mine = FULL || c < C;
  const float inverse = 1.f / C;
  const auto piece = [&](int k, int j, int array) {
    return shared + ((k % SLOTS * R + j) * ARRAYS + array) * PAIR_PIECE + threadIdx.x * 16;
  };
  const auto load = [&](int k) {
    if (k < count) {
#pragma unroll
      for (int j = 0; j < R; j++) {
        const int row = (s + k * S) * R + j;
        const bool live = mine && row < L;
        const int64_t i = live ? (start + row) * C + c : 0;
        ring_copy(piece(k, j, 0), at.x + i, live);
        ring_copy(piece(k, j, 1), at.dy + i, live);
        if constexpr (OTHER) ring_copy(piece(k, j, 2), at.dsum + i, live);
        if constexpr (GATED) ring_copy(piece(k, j, ARRAYS - 1), at.h + i, live);
      }
    }
    ring_commit();
  };
#pragma unroll
  for (int k = 0; k < SLOTS - 1; k++) load(k);
  float gain[V], gate[GATED ? V : 1], sums[K][V] = {};
#pragma unroll
  for (int i = 0; i < V; i++) {
    gain[i] = at.one + (at.w && mine ? to_f32(at.w[b * at.stride + c + i]) : 0);
    if constexpr (GATED) gate[i] = mine ? to_f32(at.gate[b * at.gate_stride + c + i]) : 0;
  }
  float means[R], rstds[R];
  const auto load_statistics = [&](int k) {
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int row = (s + k * S) * R + j;
      const bool live = k < count && row < L;
      means[j] = live ? at.mean[start + row] : 0;
      rstds[j] = live ? at.rstd[start + row] : 0;
    }
  };
  load_statistics(0);
  for (int k = 0; k < count; k++) {
    load(k + SLOTS - 1);
    ring_wait<SLOTS - 1>();
    float dots[2 * R] = {}, xhat[R][V], g[R][V], r[R];
#pragma unroll
    for (int j = 0; j < R; j++) {
      const Packed x = *reinterpret_cast<const Packed*>(piece(k, j, 0)), d = *reinterpret_cast<const Packed*>(piece(k, j, 1));
      r[j] = rstds[j];
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float dy = to_f32(d.v[i]);
        xhat[j][i] = (to_f32(x.v[i]) - means[j]) * r[j];
        g[j][i] = dy * gain[i];
        dots[2 * j] += g[j][i];
        dots[2 * j + 1] += g[j][i] * xhat[j][i];
        sums[0][i] += dy * xhat[j][i];
        sums[1][i] += dy;
      }
    }
    load_statistics(k + 1);
    const float dot = sum_of_four(dots);
    if (threadIdx.x % 8 == 0) buffers[k & 1][threadIdx.x / 32][threadIdx.x % 32 / 8] = dot;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * R; i++) dots[i] = 0;
#pragma unroll
    for (int w = 0; w < 4; w++) {
      const float4 part = *reinterpret_cast<const float4*>(buffers[k & 1][w]);
      dots[0] += part.x, dots[1] += part.y, dots[2] += part.z, dots[3] += part.w;
    }
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int row = (s + k * S) * R + j;
      if (!at.dx || !mine || row >= L) continue;
      const float mean_g = dots[2 * j] * inverse, mean_gx = dots[2 * j + 1] * inverse;
      const int64_t to = (start + row) * C + c;
      float out[V], other[V] = {};
      if constexpr (OTHER) load_lanes(other, reinterpret_cast<const T*>(piece(k, j, 2)));
#pragma unroll
      for (int i = 0; i < V; i++) {
        out[i] = r[j] * (g[j][i] - mean_g - xhat[j][i] * mean_gx) + other[i];
        if constexpr (BIAS) sums[K - 1][i] += out[i];
      }
      store_lanes(at.dx + to, out);
      if constexpr (GATED) {
        float h[V];
        load_lanes(h, reinterpret_cast<const T*>(piece(k, j, ARRAYS - 1)));
#pragma unroll
        for (int i = 0; i < V; i++) {
          sums[2][i] += out[i] * h[i];
          out[i] *= gate[i];
        }
        if (at.dh) store_lanes(at.dh + to, out);
      }
    }
  }
  if (!at.partial || !mine) return;
  float* const to = at.partial + int64_t(blockIdx.x) * K * C + c;
#pragma unroll
  for (int k = 0; k < (BIAS ? K : K - 1); k++) {
#pragma unroll
    for (int i = 0; i < V; i++) sums[k][i] *= GATED && k == K - 1 ? gate[GATED ? i : 0] : 1;
    store_lanes(to + k * C, sums[k]);
  }
}

template <class T, class W, bool GATED, bool OTHER>
int32_t launch_pairs(const char* where, const Norm<T, W>& norm, int S, uint64_t stream) {
  const auto run = [&](auto kernel) {
    constexpr int bytes = pair_bytes(GATED, OTHER);
    if (const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) {
      return fail(e, where, "%s", cudaGetErrorString(e));
    }
    kernel<<<unsigned(norm.samples.B * S), 128, bytes, stream_of(stream)>>>(norm, S);
    return launched(where);
  };
  const auto choose = [&](auto bias) {
    return norm.C == PAIR_FULL ? run(norm_bwd_ring<T, W, GATED, OTHER, bias, true>) : run(norm_bwd_ring<T, W, GATED, OTHER, bias, false>);
  };
  return norm.bias ? choose(std::true_type{}) : choose(std::false_type{});
}
}  // namespace
