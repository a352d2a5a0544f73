// The 16-bit forward pass (Dao 2023, FlashAttention-2): a block has 128 queries, a warp 32 of them, and goes over the keys in tiles of 64
// with running maxima and sums. While scores are computed the values arrive; while values are summed the next keys arrive.
#pragma once
#include "attention_tile.cuh"

namespace attention {
constexpr int FWD_QUERIES = 128, FWD_KEYS = 64;

template <int DP>
constexpr int FWD_SHARED = (FWD_QUERIES + 2 * FWD_KEYS) * PITCH<DP> * 2;

// Raises `top`, the running maxima of c q k^T, to those of a tile s of q k^T, and scales what was summed under the old ones.
template <int NT, int DT>
__device__ void raise(const float (&s)[2][NT][4], float (&top)[2][2], float (&weight)[2][2], float (&sum)[2][DT][4], float c) {
#pragma unroll
  for (int m = 0; m < 2; m++) {
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

template <class T, int DP>
__global__ void __launch_bounds__(THREADS, DP <= 64 ? 3 : 2)
    forward(Operand<T> o, float* lse, Operand<const T> q, Operand<const T> k, Operand<const T> v, Sizes size, float scale) {
  constexpr int QUERIES = FWD_QUERIES, KEYS = FWD_KEYS, ROW = PITCH<DP> * 2;
  extern __shared__ uint4 shared[];
  const Place own = place<QUERIES>(size.L);
  const Rows<const T> keys = k.of(own.head, size.H), values = v.of(own.head, size.H);
  const int lane = threadIdx.x % 32, first = int(threadIdx.x) & -32;  // of the warp's rows
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
      const int left = size.M - key - lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 2 * KEYS / 8 * 4; i++) {
        const int n = i / 4 % (KEYS / 8);
        if (n * 8 + i % 2 >= left) s[i / (KEYS / 2)][n][i % 4] = -INFINITY;
      }
    }
    raise(s, top, weight, sum, c);
    cp_async_wait();
    __syncthreads();  // these values are here, and these keys were read
    if (size.M - key > KEYS) load_tile<KEYS, DP>(k_tile, keys, key + KEYS, size.M, size.D);
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float* pair = s[m][2 * step + i / 2] + i % 2 * 2;
          const float low = exp2_fast(fmaf(pair[0], c, -top[m][i % 2])), high = exp2_fast(fmaf(pair[1], c, -top[m][i % 2]));
          weight[m][i % 2] += low + high;  // each of the 4 lanes that share a row has a part of it
          a[m][i] = pack(T{}, low, high);
        }
      }
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
      if (lane % 4 == 0 && row < size.L) lse[int64_t(own.head) * size.L + row] = (top[m][half] + log2f(total)) * LN_2;
    }
  }
  store_rows<DP, 2>(reinterpret_cast<T*>(shared) + first * PITCH<DP>, sum, o.of(own.head, size.H), own.from + first, size.L, size.D);
}
}  // namespace attention
