// Attention within many short sequences, such as shifted windows, forward: a block is one head of a sequence, so that its queries, keys
// and values are read once, all at the same time, and no tiles are listed. A warp has 16 queries at a time and goes over the keys, which
// stay in shared memory; those of sequences longer than WINDOW take turns there.
//
// Bound by memory: q, k, v and o once. 15,152 voxels in 200 shifted windows of up to 124 rows, 12 heads of 64, packed, in bf16: 93 MB,
// 22 us at an H200's 4.3 TB/s; 4.4 GFLOP. Measured: 50 us (44 %); four times as many voxels 165 us (53 %); without the products 35 us.
#pragma once
#include "attention_fwd.cuh"

namespace attention {
constexpr int WINDOW = 128;  // rows of an operand that are in shared memory at a time

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the last `PENDING` groups of copies that this thread began are complete.
template <int PENDING>
__device__ void cp_async_wait_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// The part of a thread, of COUNT, in copying rows [from, from + WINDOW) of a sequence: 16 bytes of every STEP-th row.
template <int COUNT, int DP>
struct Share {
  static constexpr int LANES = DP / 8, STEP = COUNT / LANES, N = WINDOW / STEP;
  int row, column, left, at[N];

  __device__ Share(const int32_t* map, int from, int length)
      : row(threadIdx.x / LANES), column(threadIdx.x % LANES * 8), left(length - from) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int r = row + i * STEP;
      at[i] = r >= left ? 0 : map ? map[from + r] : from + r;
    }
  }
  __device__ bool inside(int i) const { return row + i * STEP < left; }
  // Whether anyone's row i is of the sequence, or of the 16 that its last one is taken with.
  __device__ bool used(int i) const { return i * STEP < (left + 15) / 16 * 16; }
  __device__ int place(int i) const { return (row + i * STEP) * PITCH<DP> + column; }

  // Begins to copy its part of x into a tile. What is used and not of the sequence becomes 0, as do columns from D on.
  template <class T>
  __device__ void copy(uint32_t tile, const Rows<const T, true>& x, int D) const {
#pragma unroll
    for (int i = 0; i < N; i++) {
      if (used(i)) cp_async16(tile + place(i) * 2, x.data + at[i] * x.token + column, inside(i) && column < D);
    }
  }
};

template <int DP>
constexpr int WINDOW_FWD_SHARED = 3 * WINDOW * PITCH<DP> * 2;

template <class T, int DP>
__global__ void __launch_bounds__(THREADS, DP <= 64 ? 4 : 2)
    forward_window(Operand<T> o, Operand<const T> q, Operand<const T> k, Operand<const T> v, Problem p) {
  constexpr int ROW = PITCH<DP> * 2, ROUND = WARPS * 16, KEYS = 64;  // keys whose scores are held at a time
  using Part = Share<THREADS, DP>;
  extern __shared__ uint4 memory[];
  const int sequence = int(blockIdx.x / unsigned(p.H)), h = int(blockIdx.x % unsigned(p.H)), D = p.D;
  const Span qs = span_of(p.q, sequence), ks = span_of(p.k, sequence);
  const auto queries = rows_of<true>(q, p.q, sequence, h, qs.first);
  const auto keys = rows_of<true>(k, p.k, sequence, h, ks.first), values = rows_of<true>(v, p.k, sequence, h, ks.first);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tiles = (ks.length + WINDOW - 1) / WINDOW;
  const uint32_t q_tile = shared_address(memory), k_tile = q_tile + WINDOW * ROW, v_tile = k_tile + WINDOW * ROW;
  const uint32_t k_at = k_tile + lane_b<DP>(), v_at = v_tile + lane_a<DP>();
  const float c = p.scale * LOG2_E;

  for (int from = 0, round = 0; from < qs.length; from += ROUND, round ^= 1) {
    if (round == 0) {
      if (from) __syncthreads();  // queries and output before were read
      Part(queries.map, from, qs.length).copy(q_tile, queries, D);
    }
    const int first = from + warp * 16, own = (round * WARPS + warp) * 16;  // of the warp's queries: in the sequence, in the tile
    float sum[1][DP / 8][4] = {}, top[1][2] = {{-INFINITY, -INFINITY}}, weight[1][2] = {};
    uint32_t q_a[DP / 16][1][4];
    for (int turn = 0; turn < tiles; turn++) {
      const int tile = (round ? tiles - 1 - turn : turn) * WINDOW, left = ks.length - tile;
      const bool fresh = from == 0 || turn > 0;  // else the keys of the round before are still there
      if (fresh) {
        if (turn > 0) __syncthreads();  // keys and values before were read
        const Part part(keys.map, tile, ks.length);
        part.copy(k_tile, keys, D);
        cp_async_commit();
        part.copy(v_tile, values, D);
        cp_async_commit();
        cp_async_wait_but<1>();
      } else {
        cp_async_wait();
      }
      __syncthreads();  // queries and keys are here
      if (turn == 0) {
#pragma unroll
        for (int step = 0; step < DP / 16; step++) ldmatrix(q_a[step][0], q_tile + own * ROW + lane_a<DP>() + step * 32);
      }
      for (int key = 0; key < WINDOW && key < left; key += KEYS) {
        float s[1][KEYS / 8][4] = {};
#pragma unroll
        for (int half = 0; half < KEYS; half += 32) {
          if (first < qs.length && key + half < left) {
#pragma unroll
            for (int step = 0; step < DP / 16; step++) {
#pragma unroll
              for (int n = half / 8; n < half / 8 + 4; n += 2) {
                uint32_t f[4];
                ldmatrix(f, k_at + (key + n * 8) * ROW + step * 32);
                mma(T{}, s[0][n], q_a[step][0], f[0], f[1]);
                mma(T{}, s[0][n + 1], q_a[step][0], f[2], f[3]);
              }
            }
          }
        }
        if (left - key < KEYS) {
#pragma unroll
          for (int i = 0; i < KEYS / 2; i++) {
            if (key + i / 4 * 8 + lane % 4 * 2 + i % 2 >= left) s[0][i / 4][i % 4] = -INFINITY;
          }
        }
        if (fresh && key == 0) {
          cp_async_wait();
          __syncthreads();  // the values are here
        }
        if (first >= qs.length) continue;
        raise(s, top, weight, sum, c);
#pragma unroll
        for (int step = 0; step < KEYS / 16; step++) {
          if (key + step * 16 < left) {
            uint32_t a[1][4];
            exponentials<T>(a, s, top, weight, c, step);
            multiply_nn<T>(sum, a, v_at + (key + step * 16) * ROW);
          }
        }
      }
    }
    if (tiles == 0) {
      cp_async_wait();
      __syncthreads();  // the queries are no longer on their way to where the output is put together
    }
    if (first < qs.length) {
      finish(sum, top, weight, p.lse + p.stat(sequence, h, qs.first) + first, qs.length - first);
      T* staging = reinterpret_cast<T*>(memory) + own * PITCH<DP>;
      store_rows<DP, 1>(staging, sum, rows_of<true>(o, p.q, sequence, h, qs.first), first, qs.length, D);
    }
  }
}
}  // namespace attention
