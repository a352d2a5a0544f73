// The 16-bit forward pass (Dao 2023, FlashAttention-2): a block has 128 queries, a warp 32 of them, and goes over the keys in tiles of 64 with
// running maxima and sums. While scores are computed the values arrive; while values are summed the next keys arrive.
#pragma once
#include "attention_tile.cuh"

namespace attention {
constexpr int FWD_QUERIES = 128, FWD_KEYS = 64;

template <int DP>
constexpr int FWD_SHARED = (FWD_QUERIES + 2 * FWD_KEYS) * PITCH<DP> * 2;

// Turns a tile of scores q k^T into exp2(c (s - max)), c = scale log2(e), and brings max, weight and sum up to date. The weight of a row is
// spread over the 4 lanes that share it.
template <int NT, int DT>
__device__ void soften(float (&s)[2][NT][4], float (&top)[2][2], float (&weight)[2][2], float (&sum)[2][DT][4], float c) {
#pragma unroll
  for (int m = 0; m < 2; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float high = top[m][half];
#pragma unroll
      for (int n = 0; n < NT; n++) high = fmaxf(high, fmaxf(s[m][n][half * 2], s[m][n][half * 2 + 1]));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
      const float keep = exp2_fast((top[m][half] - high) * c), shift = high * c;
      float total = 0;
#pragma unroll
      for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; i++) {
          s[m][n][i] = exp2_fast(fmaf(s[m][n][i], c, -shift));
          total += s[m][n][i];
        }
      }
      top[m][half] = high;
      weight[m][half] = fmaf(weight[m][half], keep, total);
#pragma unroll
      for (int n = 0; n < DT; n++) {
        sum[m][n][half * 2] *= keep;
        sum[m][n][half * 2 + 1] *= keep;
      }
    }
  }
}

template <class T, int DP>
__global__ void __launch_bounds__(THREADS, DP <= 64 ? 3 : 2)
    forward(Operand<T> o, float* lse, Operand<const T> q, Operand<const T> k, Operand<const T> v, Sizes size, float scale) {
  constexpr int QUERIES = FWD_QUERIES, KEYS = FWD_KEYS, ROW = PITCH<DP> * 2;
  extern __shared__ uint4 shared[];
  const Place own = place<QUERIES>(size.L);
  const Rows<const T> keys = k.of(own.head, size.H), values = v.of(own.head, size.H);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 32;  // of the warp's rows
  const uint32_t q_tile = shared_address(shared), k_tile = q_tile + QUERIES * ROW, v_tile = k_tile + KEYS * ROW;
  const uint32_t q_at = q_tile + first * ROW + lane_a<DP>(), k_at = k_tile + lane_b<DP>(), v_at = v_tile + lane_a<DP>();
  const float c = scale * LOG2_E;

  float sum[2][DP / 8][4] = {}, top[2][2], weight[2][2] = {};
#pragma unroll
  for (int i = 0; i < 4; i++) top[i / 2][i % 2] = -INFINITY;
  load_tile<QUERIES, DP>(q_tile, q.of(own.head, size.H), own.from, size.L, size.D);
  load_tile<KEYS, DP>(k_tile, keys, 0, size.M, size.D);
  for (int key = 0; key < size.M; key += KEYS) {
    cp_async_wait();
    __syncthreads();  // these keys are here, and the values before them were read
    load_tile<KEYS, DP>(v_tile, values, key, size.M, size.D);
    float s[2][KEYS / 8][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; m++) ldmatrix(a[m], q_at + m * 16 * ROW + step * 32);
      multiply_nt<T, DP>(s, a, k_at + step * 32);
    }
    if (size.M - key < KEYS) {
#pragma unroll
      for (int i = 0; i < 2 * KEYS / 8 * 4; i++) {
        const int n = i / 4 % (KEYS / 8);
        if (key + n * 8 + lane % 4 * 2 + i % 2 >= size.M) s[i / (KEYS / 2)][n][i % 4] = -INFINITY;
      }
    }
    cp_async_wait();
    __syncthreads();  // these values are here, and these keys were read
    if (size.M - key > KEYS) load_tile<KEYS, DP>(k_tile, keys, key + KEYS, size.M, size.D);
    soften(s, top, weight, sum, c);
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
      uint32_t a[2][4];
      to_a<T>(a, s, step);
      multiply_nn<T>(sum, a, v_at + step * 16 * ROW);
    }
  }
  cp_async_wait();
  __syncthreads();  // with M = 0 the queries may still be on their way to where the output is put together

#pragma unroll
  for (int m = 0; m < 2; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = weight[m][half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float factor = total == 0 ? 0 : 1 / total;
#pragma unroll
      for (int n = 0; n < DP / 8; n++) {
        sum[m][n][half * 2] *= factor;
        sum[m][n][half * 2 + 1] *= factor;
      }
      const int row = own.from + first + m * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0 && row < size.L) lse[int64_t(own.head) * size.L + row] = fmaf(top[m][half], scale, logf(total));
    }
  }
  store_rows<DP, 2>(reinterpret_cast<T*>(shared) + first * PITCH<DP>, sum, o.of(own.head, size.H), own.from + first, size.L, size.D);
}
}  // namespace attention
