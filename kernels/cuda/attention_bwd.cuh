// The 16-bit backward pass in two kernels, so that each gradient has one owner and nothing is added atomically: one goes over the queries
// for a block of keys (dk, dv), one over the keys for a block of queries (dq). Both compute the probabilities again from lse. A third one,
// for every dtype, sums delta before them.
#pragma once
#include "attention_tile.cuh"

namespace attention {
constexpr int BWD_TILE = 32;  // tokens of the tiles that a block goes over, two of them in shared memory at a time

// 16-row tiles a warp: 2 where the accumulators of two fit the registers.
template <int DP>
constexpr int BWD_MT = DP <= 64 ? 2 : 1;
// Tokens that a block owns.
template <int DP>
constexpr int BWD_ROWS = WARPS * BWD_MT<DP> * 16;
template <int DP>
constexpr int BWD_SHARED = (2 * BWD_ROWS<DP> + 4 * BWD_TILE) * PITCH<DP> * 2 + 4 * BWD_TILE * 4;

// delta = sum_D(d_o * o): LANES lanes a token of a head, each with V elements at a time. Rows lie as in [B, L, H].
template <class T, int V, int LANES>
__global__ void __launch_bounds__(256) sum_delta(float* delta, Operand<const T> d_o, Operand<const T> o, Sizes size) {
  const int64_t row = blockIdx.x * int64_t(256 / LANES) + threadIdx.x / LANES, token = row / size.H;
  const int64_t h = row % size.H, l = token % size.L, b = token / size.L;
  const int64_t head = b * size.H + h;
  float sum = 0;
  if (b < size.B) {
    const T* x = d_o.of(head, size.H).data + l * d_o.stride.token;
    const T* y = o.of(head, size.H).data + l * o.stride.token;
    for (int d = threadIdx.x % LANES * V; d < size.D; d += LANES * V) {
      const Pack<T, V> u = *reinterpret_cast<const Pack<T, V>*>(x + d), w = *reinterpret_cast<const Pack<T, V>*>(y + d);
#pragma unroll
      for (int i = 0; i < V; i++) sum = fmaf(to_f32(u.v[i]), to_f32(w.v[i]), sum);
    }
  }
#pragma unroll
  for (int x = LANES / 2; x; x /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, x);
  if (b < size.B && threadIdx.x % LANES == 0) delta[head * size.L + l] = sum;
}

// dk and dv (where not null) of a block of keys. Scores are held transposed, keys x queries, so that they are A tiles of both products.
template <class T, int DP>
__global__ void __launch_bounds__(THREADS, 2)
    backward_kv(Operand<T> dk, Operand<T> dv, Operand<const T> d_o, const float* lse, const float* delta, Operand<const T> q,
                Operand<const T> k, Operand<const T> v, Sizes size, float scale) {
  constexpr int MT = BWD_MT<DP>, KEYS = BWD_ROWS<DP>, QUERIES = BWD_TILE, NT = QUERIES / 8, ROW = PITCH<DP> * 2;
  constexpr uint32_t STAGE = 2 * QUERIES * ROW;
  extern __shared__ uint4 shared[];
  const Place own = place<KEYS>(size.M);
  const Rows<const T> queries = q.of(own.head, size.H), d_outs = d_o.of(own.head, size.H);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * MT * 16;
  const uint32_t k_tile = shared_address(shared), v_tile = k_tile + KEYS * ROW, stages = v_tile + KEYS * ROW, stats = stages + 2 * STAGE;
  const uint32_t k_at = k_tile + first * ROW + lane_a<DP>(), v_at = v_tile + first * ROW + lane_a<DP>();
  const float c = scale * LOG2_E;

  // Queries and output gradients [QUERIES, DP] each, then lse and delta. Past L all are 0, and so is what they add.
  const auto load_stage = [&](int stage, int query) {
    load_tile<QUERIES, DP>(stages + stage * STAGE, queries, query, size.L, size.D);
    load_tile<QUERIES, DP>(stages + stage * STAGE + QUERIES * ROW, d_outs, query, size.L, size.D);
    if (threadIdx.x < 2 * QUERIES) {
      const int l = query + threadIdx.x % QUERIES;
      const float* from_stats = threadIdx.x < QUERIES ? lse : delta;
      cp_async4(stats + (stage * 2 * QUERIES + threadIdx.x) * 4, from_stats + int64_t(own.head) * size.L + l, l < size.L);
    }
  };

  float sum_k[MT][DP / 8][4] = {}, sum_v[MT][DP / 8][4] = {};
  load_tile<KEYS, DP>(k_tile, k.of(own.head, size.H), own.from, size.M, size.D);
  load_tile<KEYS, DP>(v_tile, v.of(own.head, size.H), own.from, size.M, size.D);
  load_stage(0, 0);
  for (int query = 0; query < size.L; query += QUERIES) {
    const int stage = query / QUERIES % 2;
    cp_async_wait();
    __syncthreads();  // this stage is here, and the other one was read
    if (size.L - query > QUERIES) load_stage(stage ^ 1, query + QUERIES);
    const uint32_t q_tile = stages + stage * STAGE, do_tile = q_tile + QUERIES * ROW;
    const float2* lse_at = reinterpret_cast<const float2*>(reinterpret_cast<const char*>(shared) + (stats - k_tile)) + stage * QUERIES;
    const float2* delta_at = lse_at + QUERIES / 2;

    float p[MT][NT][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) {
      uint32_t a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) ldmatrix(a[m], k_at + m * 16 * ROW + step * 32);
      multiply_nt<T, DP>(p, a, q_tile + lane_b<DP>() + step * 32);
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
      const float2 log_sum = lse_at[n * 4 + lane % 4];
#pragma unroll
      for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) p[m][n][i] = exp2_fast(fmaf(p[m][n][i], c, -LOG2_E * (i % 2 ? log_sum.y : log_sum.x)));
      }
    }
#pragma unroll
    for (int step = 0; step < QUERIES / 16; step++) {
      uint32_t a[MT][4];
      to_a<T>(a, p, step);
      multiply_nn<T>(sum_v, a, do_tile + lane_a<DP>() + step * 16 * ROW);
    }
    float ds[MT][NT][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) {
      uint32_t a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) ldmatrix(a[m], v_at + m * 16 * ROW + step * 32);
      multiply_nt<T, DP>(ds, a, do_tile + lane_b<DP>() + step * 32);
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
      const float2 shift = delta_at[n * 4 + lane % 4];
#pragma unroll
      for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - (i % 2 ? shift.y : shift.x));
      }
    }
#pragma unroll
    for (int step = 0; step < QUERIES / 16; step++) {
      uint32_t a[MT][4];
      to_a<T>(a, ds, step);
      multiply_nn<T>(sum_k, a, q_tile + lane_a<DP>() + step * 16 * ROW);
    }
  }
  cp_async_wait();
  __syncthreads();  // with L = 0 the keys may still be on their way to where the gradients are put together

#pragma unroll
  for (int i = 0; i < MT * DP / 2; i++) sum_k[i / (DP / 2)][i / 4 % (DP / 8)][i % 4] *= scale;
  T* staging = reinterpret_cast<T*>(shared) + first * PITCH<DP>;
  if (dk.data) store_rows<DP, MT>(staging, sum_k, dk.of(own.head, size.H), own.from + first, size.M, size.D);
  if (dv.data) store_rows<DP, MT>(staging, sum_v, dv.of(own.head, size.H), own.from + first, size.M, size.D);
}

// dq of a block of queries, whose A tiles (queries and output gradients) stay in registers.
template <class T, int DP>
__global__ void __launch_bounds__(THREADS, 2)
    backward_q(Operand<T> dq, Operand<const T> d_o, const float* lse, const float* delta, Operand<const T> q, Operand<const T> k,
               Operand<const T> v, Sizes size, float scale) {
  constexpr int MT = BWD_MT<DP>, QUERIES = BWD_ROWS<DP>, KEYS = BWD_TILE, NT = KEYS / 8, ROW = PITCH<DP> * 2;
  constexpr uint32_t STAGE = 2 * KEYS * ROW;
  extern __shared__ uint4 shared[];
  const Place own = place<QUERIES>(size.L);
  const Rows<const T> keys = k.of(own.head, size.H), values = v.of(own.head, size.H);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * MT * 16;
  const uint32_t q_tile = shared_address(shared), do_tile = q_tile + QUERIES * ROW, stages = do_tile + QUERIES * ROW;
  const float c = scale * LOG2_E;
  const auto load_stage = [&](int stage, int key) {
    load_tile<KEYS, DP>(stages + stage * STAGE, keys, key, size.M, size.D);
    load_tile<KEYS, DP>(stages + stage * STAGE + KEYS * ROW, values, key, size.M, size.D);
  };

  load_tile<QUERIES, DP>(q_tile, q.of(own.head, size.H), own.from, size.L, size.D);
  load_tile<QUERIES, DP>(do_tile, d_o.of(own.head, size.H), own.from, size.L, size.D);
  load_stage(0, 0);
  float sum[MT][DP / 8][4] = {}, log_sum[MT][2], shift[MT][2];
#pragma unroll
  for (int i = 0; i < MT * 2; i++) {
    const int l = own.from + first + i * 8 + lane / 4;
    log_sum[i / 2][i % 2] = l < size.L ? lse[int64_t(own.head) * size.L + l] * LOG2_E : INFINITY;
    shift[i / 2][i % 2] = l < size.L ? delta[int64_t(own.head) * size.L + l] : 0;
  }
  cp_async_wait();
  __syncthreads();
  uint32_t q_a[DP / 16][MT][4], do_a[DP / 16][MT][4];
#pragma unroll
  for (int step = 0; step < DP / 16; step++) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
      ldmatrix(q_a[step][m], q_tile + (first + m * 16) * ROW + lane_a<DP>() + step * 32);
      ldmatrix(do_a[step][m], do_tile + (first + m * 16) * ROW + lane_a<DP>() + step * 32);
    }
  }
  for (int key = 0; key < size.M; key += KEYS) {
    const int stage = key / KEYS % 2;
    cp_async_wait();
    __syncthreads();  // this stage is here, and the other one was read
    if (size.M - key > KEYS) load_stage(stage ^ 1, key + KEYS);
    const uint32_t k_tile = stages + stage * STAGE, v_tile = k_tile + KEYS * ROW;

    float p[MT][NT][4] = {}, ds[MT][NT][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) multiply_nt<T, DP>(p, q_a[step], k_tile + lane_b<DP>() + step * 32);
#pragma unroll
    for (int step = 0; step < DP / 16; step++) multiply_nt<T, DP>(ds, do_a[step], v_tile + lane_b<DP>() + step * 32);
    const int left = size.M - key;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float e = exp2_fast(fmaf(p[m][n][i], c, -log_sum[m][i / 2]));
          ds[m][n][i] = n * 8 + lane % 4 * 2 + i % 2 < left ? e * (ds[m][n][i] - shift[m][i / 2]) : 0;
        }
      }
    }
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
      uint32_t a[MT][4];
      to_a<T>(a, ds, step);
      multiply_nn<T>(sum, a, k_tile + lane_a<DP>() + step * 16 * ROW);
    }
  }
#pragma unroll
  for (int i = 0; i < MT * DP / 2; i++) sum[i / (DP / 2)][i / 4 % (DP / 8)][i % 4] *= scale;
  store_rows<DP, MT>(reinterpret_cast<T*>(shared) + first * PITCH<DP>, sum, dq.of(own.head, size.H), own.from + first, size.L, size.D);
}
}  // namespace attention
