// The 16-bit forward pass (Dao 2023, FlashAttention-2): a block has 128 queries, a warp 32 of them, and goes over the keys in tiles of 64
// with running maxima and sums. While scores are computed the values arrive; while values are summed the next keys arrive.
//
// Batch 8, 16 heads of 64, 4096 x 4096, bf16: 550 GFLOP take 0.70 ms at 790 TFLOP/s (large products by wgmma on an H200), 2.1 10^9
// exponentials 0.58 ms at 16 a clock and multiprocessor. Measured: 1.65 ms, 333 TFLOP/s (42 %); heads of 128: 353 (45 %).
#pragma once
#include "attention_tile.cuh"

namespace attention {
constexpr int FWD_QUERIES = 128, FWD_KEYS = 64;

template <int DP>
constexpr int FWD_SHARED = (FWD_QUERIES + 2 * FWD_KEYS) * PITCH<DP> * 2;

// Raises `top`, the running maxima of c q k^T, to those of a tile s of q k^T, and scales what was summed under the old ones.
template <int MT, int NT, int DT>
__device__ void raise(const float (&s)[MT][NT][4], float (&top)[MT][2], float (&weight)[MT][2], float (&sum)[MT][DT][4], float c) {
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float high = s[m][0][half * 2];
#pragma unroll
      for (int i = 1; i < NT * 2; i++) high = fmaxf(high, s[m][i / 2][half * 2 + i % 2]);
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
      high = fmaxf(top[m][half], fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2)) * c);
      const float keep = exp2_fast(top[m][half] - high);
      top[m][half] = high;
      weight[m][half] *= keep;
#pragma unroll
      for (int n = 0; n < DT; n++) {
        sum[m][n][half * 2] *= keep;
        sum[m][n][half * 2 + 1] *= keep;
      }
    }
  }
}

// Columns [16 step, 16 step + 16) of exp2(c s - top), rounded, as A tiles; what they add up to goes to `weight`, of which each of the 4
// lanes that share a row has a part.
template <class T, int MT, int NT>
__device__ void exponentials(uint32_t (&a)[MT][4], const float (&s)[MT][NT][4], const float (&top)[MT][2], float (&weight)[MT][2], float c,
                             int step) {
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float* pair = s[m][2 * step + i / 2] + i % 2 * 2;
      const float low = exp2_fast(fmaf(pair[0], c, -top[m][i % 2])), high = exp2_fast(fmaf(pair[1], c, -top[m][i % 2]));
      weight[m][i % 2] += low + high;
      a[m][i] = pack(T{}, low, high);
    }
  }
}

// Divides by the weights, and writes lse of the rows of a warp: lse points to the first of them, and there are `left`.
template <int MT, int DT>
__device__ void finish(float (&sum)[MT][DT][4], const float (&top)[MT][2], const float (&weight)[MT][2], float* lse, int left) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = weight[m][half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float factor = total == 0 ? 0 : 1 / total;
#pragma unroll
      for (int n = 0; n < DT; n++) {
        sum[m][n][half * 2] *= factor;
        sum[m][n][half * 2 + 1] *= factor;
      }
      const int row = m * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0 && row < left) lse[row] = (top[m][half] + log2f(total)) * LN_2;
    }
  }
}

template <class T, int DP, bool MAPPED>
__global__ void __launch_bounds__(THREADS, DP <= 64 ? 3 : 2)
    forward(Operand<T> o, Operand<const T> q, Operand<const T> k, Operand<const T> v, Problem p, Tiles tiles) {
  constexpr int QUERIES = FWD_QUERIES, KEYS = FWD_KEYS, ROW = PITCH<DP> * 2;
  extern __shared__ uint4 memory[];
  Place own;
  if (!find_place(own, tiles, p.H, QUERIES)) return;
  const Span qs = span_of(p.q, own.sequence), ks = span_of(p.k, own.sequence);
  const int L = qs.length, M = ks.length, D = p.D;
  const auto keys = rows_of<MAPPED>(k, p.k, own.sequence, own.head, ks.first);
  const auto values = rows_of<MAPPED>(v, p.k, own.sequence, own.head, ks.first);
  const int lane = threadIdx.x % 32, first = int(threadIdx.x) & -32;  // of the warp's rows
  const uint32_t q_tile = shared_address(memory), k_tile = q_tile + QUERIES * ROW, v_tile = k_tile + KEYS * ROW;
  const uint32_t q_at = q_tile + first * ROW + lane_a<DP>(), k_at = k_tile + lane_b<DP>(), v_at = v_tile + lane_a<DP>();
  const float c = p.scale * LOG2_E;

  float sum[2][DP / 8][4] = {}, top[2][2], weight[2][2] = {};
#pragma unroll
  for (int i = 0; i < 4; i++) top[i / 2][i % 2] = -INFINITY;
  load_tile<QUERIES, DP>(q_tile, rows_of<MAPPED>(q, p.q, own.sequence, own.head, qs.first), own.from, L, D);
  load_tile<KEYS, DP>(k_tile, keys, 0, M, D);
  for (int key = 0; key < M; key += KEYS) {
    cp_async_wait();
    __syncthreads();  // these keys are here, and the values before them were read
    load_tile<KEYS, DP>(v_tile, values, key, M, D);
    float s[2][KEYS / 8][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; m++) ldmatrix(a[m], q_at + m * 16 * ROW + step * 32);
      multiply_nt<T, DP>(s, a, k_at + step * 32);
    }
    if (M - key < KEYS) {
      const int left = M - key - lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 2 * KEYS / 8 * 4; i++) {
        const int n = i / 4 % (KEYS / 8);
        if (n * 8 + i % 2 >= left) s[i / (KEYS / 2)][n][i % 4] = -INFINITY;
      }
    }
    raise(s, top, weight, sum, c);
    cp_async_wait();
    __syncthreads();  // these values are here, and these keys were read
    if (M - key > KEYS) load_tile<KEYS, DP>(k_tile, keys, key + KEYS, M, D);
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
      uint32_t a[2][4];
      exponentials<T>(a, s, top, weight, c, step);
      multiply_nn<T>(sum, a, v_at + step * 16 * ROW);
    }
  }
  cp_async_wait();
  __syncthreads();  // with M = 0 the queries may still be on their way to where the output is put together

  const int from = own.from + first;
  finish(sum, top, weight, p.lse + p.stat(own.sequence, own.head, qs.first) + from, L - from);
  const auto out = rows_of<MAPPED>(o, p.q, own.sequence, own.head, qs.first);
  store_rows<DP, 2>(reinterpret_cast<T*>(memory) + first * PITCH<DP>, sum, out, from, L, D);
}
}  // namespace attention
