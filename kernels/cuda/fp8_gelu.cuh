// The backward pass of the GELU between two linear layers in 8-bit floats, on CUDA. Bound by memory, if little is done beside it.
#pragma once
#include "fp8.cuh"
#include "ring.cuh"

namespace {
// Threads of a row, 16 columns each, and blocks that a multiprocessor holds; each takes rows in turns.
constexpr int gelu_threads(int C) { return C <= 2048 ? 128 : C <= 4096 ? 256 : 512; }
constexpr int gelu_resident(int threads) { return 512 / threads; }

int64_t gelu_blocks(int64_t N, int C) { return std::min<int64_t>(N, 132 * gelu_resident(gelu_threads(C))); }

// What a row's elements are multiplied by, from the bits of its largest size: RowScale's inverse, but for rows of zeros, where it does not matter.
__device__ inline float row_inverse(uint32_t largest) {
  const int e = 262 - int((largest + 0x1fffffu) >> 23);
  return __uint_as_float(largest >= 0x7f800000u ? 0x7fc00000u : uint32_t(e < 247 ? e : 247) << 23);
}

template <class T, int THREADS>
struct GeluRows {
  static constexpr int V = FP8_V, RUNS = 2, PACK = 16 / sizeof(T), PACKS = V / PACK, DEPTH = sizeof(T) == 2 ? 4 : 1;
  static constexpr int COLUMNS = THREADS * RUNS * V, ROW = 2 * RUNS * PACKS * THREADS * 16, BYTES = DEPTH * ROW + COLUMNS * int(sizeof(float));
};

// A block a row; the sums of its columns over the block's rows go to partial[block, :].
template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS, gelu_resident(THREADS))
    gelu_bwd(uint8_t* __restrict__ dz, float* __restrict__ dz_scale, uint8_t* __restrict__ g, float* __restrict__ g_scale,
             float* __restrict__ partial, const T* __restrict__ dg, const T* __restrict__ z, const float* __restrict__ columns, int N, int C) {
  using Rows = GeluRows<T, THREADS>;
  constexpr int V = Rows::V, RUNS = Rows::RUNS, PACK = Rows::PACK, PACKS = Rows::PACKS, DEPTH = Rows::DEPTH;
  // Pieces of 16 bytes that each thread writes and reads for itself: of rows on their way, then of `columns`.
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ __align__(8) uint32_t sizes[3][2];  // the largest of dz and g, as bits, in three rows that take turns
  uint8_t* const mine = shared + threadIdx.x * 16;
  float4* const by_of = reinterpret_cast<float4*>(mine + DEPTH * Rows::ROW);
  const auto piece = [&](int slot, int array, int p, int i) { return mine + slot * Rows::ROW + ((array * RUNS + p) * PACKS + i) * THREADS * 16; };
  const auto column = [](int p) { return (p * THREADS + int(threadIdx.x)) * V; };
  const int64_t start = int64_t(blockIdx.x) * C, step = int64_t(gridDim.x) * C;
  const T *next_dg = dg + start, *next_z = z + start;
  int next = blockIdx.x;
  const auto ask = [&](int slot) {
    if (next < N) {
#pragma unroll
      for (int p = 0; p < RUNS; p++) {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
          const bool live = column(p) < C;
          const int c = live ? column(p) + i * PACK : 0;
          ring_copy(piece(slot, 0, p, i), next_dg + c, live);
          ring_copy(piece(slot, 1, p, i), next_z + c, live);
        }
      }
    }
    ring_commit();
    next_dg += step, next_z += step, next += gridDim.x;
  };
#pragma unroll
  for (int i = 0; i < DEPTH; i++) ask(i);
#pragma unroll
  for (int i = 0; i < RUNS * V / 4; i++) {
    const int c = column(i * 4 / V) + i * 4 % V;
    by_of[i * THREADS] = columns && c < C ? *reinterpret_cast<const float4*>(columns + c) : make_float4(1, 1, 1, 1);
  }
  if (threadIdx.x < 6) sizes[threadIdx.x / 2][threadIdx.x % 2] = 0;
  __syncthreads();
  float sums[RUNS][V] = {};
  int slot = 0, turn = 0;
  uint8_t *to_dz = dz + start, *to_g = g + start;
  for (int n = blockIdx.x; n < N; n += gridDim.x) {
    const int turn_after = turn == 2 ? 0 : turn + 1;
    if (threadIdx.x < 2) sizes[turn_after][threadIdx.x] = 0;
    ring_wait<DEPTH - 1>();
    float d[RUNS][V], y[RUNS][V], largest_d = 0, largest_y = 0;
#pragma unroll
    for (int p = 0; p < RUNS; p++) {
#pragma unroll
      for (int i = 0; i < PACKS; i++) {
        const auto dgs = *reinterpret_cast<const Pack<T, PACK>*>(piece(slot, 0, p, i)), zs = *reinterpret_cast<const Pack<T, PACK>*>(piece(slot, 1, p, i));
#pragma unroll
        for (int j = 0; j < PACK; j++) {
          float &of_d = d[p][i * PACK + j], &of_y = y[p][i * PACK + j];
          const FastGelu gelu(to_f32(zs.v[j]));
          of_d = gelu.derivative() * to_f32(dgs.v[j]);
          of_y = gelu.value();
          sums[p][i * PACK + j] += of_d;
        }
      }
#pragma unroll
      for (int i = 0; i < V; i += 4) {
        const float4 by = by_of[(p * V + i) / 4 * THREADS];
        d[p][i] *= by.x, d[p][i + 1] *= by.y, d[p][i + 2] *= by.z, d[p][i + 3] *= by.w;
      }
#pragma unroll
      for (int i = 0; i < V; i++) largest_d = larger_size(largest_d, d[p][i]), largest_y = larger_size(largest_y, y[p][i]);
    }
    ask(slot);
    slot = slot + 1 == DEPTH ? 0 : slot + 1;
    const uint32_t most_d = __reduce_max_sync(0xffffffffu, __float_as_uint(largest_d)), most_y = __reduce_max_sync(0xffffffffu, __float_as_uint(largest_y));
    if (threadIdx.x % 32 < 2) atomicMax(&sizes[turn][threadIdx.x % 32], threadIdx.x % 32 ? most_y : most_d);
    __syncthreads();
    const uint2 most = *reinterpret_cast<const uint2*>(sizes[turn]);
    if (threadIdx.x == 0) dz_scale[n] = RowScale(__uint_as_float(most.x)).scale;
    if (threadIdx.x == 32) g_scale[n] = RowScale(__uint_as_float(most.y)).scale;
    const float inverse_d = row_inverse(most.x), inverse_y = row_inverse(most.y);
#pragma unroll
    for (int p = 0; p < RUNS; p++) {
      if (column(p) >= C) continue;
      store_fp8(to_dz + column(p), d[p], inverse_d);
      store_fp8(to_g + column(p), y[p], inverse_y);
    }
    to_dz += step, to_g += step, turn = turn_after;
  }
#pragma unroll
  for (int p = 0; p < RUNS; p++) {
    if (partial && column(p) < C) store_lanes(partial + start + column(p), sums[p]);
  }
}
}  // namespace
