// The 16-bit backward pass in two kernels, so that each gradient has one owner and nothing is added atomically: one goes over the queries
// for a block of keys (dk, dv), one over the keys for a block of queries (dq). Both compute the probabilities again from lse. A third one,
// for every dtype, sums delta before them.
//
// Batch 8, 16 heads of 64, 4096 x 4096, bf16: 1375 GFLOP take 1.74 ms at 790 TFLOP/s; the two kernels do 7 products in the place of 5.
// Measured on an H200: 5.2 ms, 266 TFLOP/s (34 %); heads of 128: 219 (28 %).
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

// delta = sum_D(d_o * o): LANES lanes a row of a head, each with V elements at a time, heads side by side.
template <class T, int V, int LANES>
__global__ void __launch_bounds__(256) sum_delta(float* delta, Operand<const T> d_o, Operand<const T> o, Problem p) {
  const int64_t unit = blockIdx.x * int64_t(256 / LANES) + threadIdx.x / LANES, row = unit / p.H;
  const int h = int(unit % p.H);
  const bool inside = row < (p.q.offsets ? p.q.total : int64_t(p.B) * p.q.longest);
  float sum = 0;
  int64_t stat = 0;
  if (inside) {
    const int sequence = p.q.offsets ? 0 : int(row / p.q.longest), r = int(row - int64_t(sequence) * p.q.longest);
    stat = p.stat(sequence, h, 0) + r;
    const T *x = rows_of<true>(d_o, p.q, sequence, h, 0).row(r), *y = rows_of<true>(o, p.q, sequence, h, 0).row(r);
    for (int d = threadIdx.x % LANES * V; d < p.D; d += LANES * V) {
      const Pack<T, V> u = *reinterpret_cast<const Pack<T, V>*>(x + d), w = *reinterpret_cast<const Pack<T, V>*>(y + d);
#pragma unroll
      for (int i = 0; i < V; i++) sum = fmaf(to_f32(u.v[i]), to_f32(w.v[i]), sum);
    }
  }
#pragma unroll
  for (int x = LANES / 2; x; x /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, x);
  if (inside && threadIdx.x % LANES == 0) delta[stat] = sum;
}

// dk and dv (where not null) of a block of keys. Scores are held transposed, keys x queries, so that they are A tiles of both products.
template <class T, int DP, bool MAPPED>
__global__ void __launch_bounds__(THREADS, 2)
    backward_kv(Operand<T> dk, Operand<T> dv, Operand<const T> d_o, const float* delta, Operand<const T> q, Operand<const T> k,
                Operand<const T> v, Problem p, Tiles tiles) {
  constexpr int MT = BWD_MT<DP>, KEYS = BWD_ROWS<DP>, QUERIES = BWD_TILE, NT = QUERIES / 8, ROW = PITCH<DP> * 2;
  constexpr uint32_t STAGE = 2 * QUERIES * ROW;
  extern __shared__ uint4 memory[];
  Place own;
  if (!find_place(own, tiles, p.H, KEYS)) return;
  const Span qs = span_of(p.q, own.sequence), ks = span_of(p.k, own.sequence);
  const int L = qs.length, M = ks.length, D = p.D;
  const int64_t stat = p.stat(own.sequence, own.head, qs.first);
  const auto queries = rows_of<MAPPED>(q, p.q, own.sequence, own.head, qs.first);
  const auto d_outs = rows_of<MAPPED>(d_o, p.q, own.sequence, own.head, qs.first);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * MT * 16;
  const uint32_t k_tile = shared_address(memory), v_tile = k_tile + KEYS * ROW, stages = v_tile + KEYS * ROW, stats = stages + 2 * STAGE;
  const uint32_t k_at = k_tile + first * ROW + lane_a<DP>(), v_at = v_tile + first * ROW + lane_a<DP>();
  const float c = p.scale * LOG2_E;

  // Queries and output gradients [QUERIES, DP] each, then lse and delta. Past L all are 0, and so is what they add.
  const auto load_stage = [&](int stage, int query) {
    load_tile<QUERIES, DP>(stages + stage * STAGE, queries, query, L, D);
    load_tile<QUERIES, DP>(stages + stage * STAGE + QUERIES * ROW, d_outs, query, L, D);
    if (threadIdx.x < 2 * QUERIES) {
      const int l = query + threadIdx.x % QUERIES;
      const float* from_stats = threadIdx.x < QUERIES ? p.lse : delta;
      cp_async4(stats + (stage * 2 * QUERIES + threadIdx.x) * 4, from_stats + stat + l, l < L);
    }
  };

  float sum_k[MT][DP / 8][4] = {}, sum_v[MT][DP / 8][4] = {};
  load_tile<KEYS, DP>(k_tile, rows_of<MAPPED>(k, p.k, own.sequence, own.head, ks.first), own.from, M, D);
  load_tile<KEYS, DP>(v_tile, rows_of<MAPPED>(v, p.k, own.sequence, own.head, ks.first), own.from, M, D);
  load_stage(0, 0);
  for (int query = 0; query < L; query += QUERIES) {
    const int stage = query / QUERIES % 2;
    cp_async_wait();
    __syncthreads();  // this stage is here, and the other one was read
    if (L - query > QUERIES) load_stage(stage ^ 1, query + QUERIES);
    const uint32_t q_tile = stages + stage * STAGE, do_tile = q_tile + QUERIES * ROW;
    const float2* lse_at = reinterpret_cast<const float2*>(reinterpret_cast<const char*>(memory) + (stats - k_tile)) + stage * QUERIES;
    const float2* delta_at = lse_at + QUERIES / 2;

    float w[MT][NT][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) {
      uint32_t a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) ldmatrix(a[m], k_at + m * 16 * ROW + step * 32);
      multiply_nt<T, DP>(w, a, q_tile + lane_b<DP>() + step * 32);
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
      const float2 log_sum = lse_at[n * 4 + lane % 4];
#pragma unroll
      for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) w[m][n][i] = exp2_fast(fmaf(w[m][n][i], c, -LOG2_E * (i % 2 ? log_sum.y : log_sum.x)));
      }
    }
#pragma unroll
    for (int step = 0; step < QUERIES / 16; step++) {
      uint32_t a[MT][4];
      to_a<T>(a, w, step);
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
        for (int i = 0; i < 4; i++) ds[m][n][i] = w[m][n][i] * (ds[m][n][i] - (i % 2 ? shift.y : shift.x));
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
  for (int i = 0; i < MT * DP / 2; i++) sum_k[i / (DP / 2)][i / 4 % (DP / 8)][i % 4] *= p.scale;
  T* staging = reinterpret_cast<T*>(memory) + first * PITCH<DP>;
  if (dk.data) store_rows<DP, MT>(staging, sum_k, rows_of<MAPPED>(dk, p.k, own.sequence, own.head, ks.first), own.from + first, M, D);
  if (dv.data) store_rows<DP, MT>(staging, sum_v, rows_of<MAPPED>(dv, p.k, own.sequence, own.head, ks.first), own.from + first, M, D);
}

// dq of a block of queries, whose A tiles (queries and output gradients) stay in registers.
template <class T, int DP, bool MAPPED>
__global__ void __launch_bounds__(THREADS, 2)
    backward_q(Operand<T> dq, Operand<const T> d_o, const float* delta, Operand<const T> q, Operand<const T> k, Operand<const T> v,
               Problem p, Tiles tiles) {
  constexpr int MT = BWD_MT<DP>, QUERIES = BWD_ROWS<DP>, KEYS = BWD_TILE, NT = KEYS / 8, ROW = PITCH<DP> * 2;
  constexpr uint32_t STAGE = 2 * KEYS * ROW;
  extern __shared__ uint4 memory[];
  Place own;
  if (!find_place(own, tiles, p.H, QUERIES)) return;
  const Span qs = span_of(p.q, own.sequence), ks = span_of(p.k, own.sequence);
  const int L = qs.length, M = ks.length, D = p.D;
  const int64_t stat = p.stat(own.sequence, own.head, qs.first);
  const auto keys = rows_of<MAPPED>(k, p.k, own.sequence, own.head, ks.first);
  const auto values = rows_of<MAPPED>(v, p.k, own.sequence, own.head, ks.first);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * MT * 16;
  const uint32_t q_tile = shared_address(memory), do_tile = q_tile + QUERIES * ROW, stages = do_tile + QUERIES * ROW;
  const float c = p.scale * LOG2_E;
  const auto load_stage = [&](int stage, int key) {
    load_tile<KEYS, DP>(stages + stage * STAGE, keys, key, M, D);
    load_tile<KEYS, DP>(stages + stage * STAGE + KEYS * ROW, values, key, M, D);
  };

  load_tile<QUERIES, DP>(q_tile, rows_of<MAPPED>(q, p.q, own.sequence, own.head, qs.first), own.from, L, D);
  load_tile<QUERIES, DP>(do_tile, rows_of<MAPPED>(d_o, p.q, own.sequence, own.head, qs.first), own.from, L, D);
  load_stage(0, 0);
  float sum[MT][DP / 8][4] = {}, log_sum[MT][2], shift[MT][2];
#pragma unroll
  for (int i = 0; i < MT * 2; i++) {
    const int l = own.from + first + i * 8 + lane / 4;
    log_sum[i / 2][i % 2] = l < L ? p.lse[stat + l] * LOG2_E : INFINITY;
    shift[i / 2][i % 2] = l < L ? delta[stat + l] : 0;
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
  for (int key = 0; key < M; key += KEYS) {
    const int stage = key / KEYS % 2;
    cp_async_wait();
    __syncthreads();  // this stage is here, and the other one was read
    if (M - key > KEYS) load_stage(stage ^ 1, key + KEYS);
    const uint32_t k_tile = stages + stage * STAGE, v_tile = k_tile + KEYS * ROW;

    float w[MT][NT][4] = {}, ds[MT][NT][4] = {};
#pragma unroll
    for (int step = 0; step < DP / 16; step++) multiply_nt<T, DP>(w, q_a[step], k_tile + lane_b<DP>() + step * 32);
#pragma unroll
    for (int step = 0; step < DP / 16; step++) multiply_nt<T, DP>(ds, do_a[step], v_tile + lane_b<DP>() + step * 32);
    const int left = M - key;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float e = exp2_fast(fmaf(w[m][n][i], c, -log_sum[m][i / 2]));
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
  for (int i = 0; i < MT * DP / 2; i++) sum[i / (DP / 2)][i / 4 % (DP / 8)][i % 4] *= p.scale;
  const auto out = rows_of<MAPPED>(dq, p.q, own.sequence, own.head, qs.first);
  store_rows<DP, MT>(reinterpret_cast<T*>(memory) + first * PITCH<DP>, sum, out, own.from + first, L, D);
}
}  // namespace attention
