// The backward pass of attention_window.cuh: a block of 8 warps has one head of a sequence, reads all of it at the same time and computes
// delta and, from one set of probabilities, every gradient. First a warp owns 16 keys (dk, dv; scores are held transposed, keys x queries)
// and leaves the gradients of the scores in shared memory, then it owns 16 queries (dq). Sequences longer than WINDOW go over the pairs of
// their tiles twice, first for dk and dv, then for dq.
//
// On the windows of attention_window.cuh: q, k, v, o, d_o and three gradients once are 186 MB, 43 us at 4.3 TB/s; 10.9 GFLOP. Measured on
// an H200: 139 us (31 %); four times as many voxels 518 us (33 %); with a fifth of the products 87 us.
#pragma once
#include "attention_window.cuh"

namespace attention {
constexpr int WINDOW_BWD_WARPS = WINDOW / 16, WINDOW_BWD_THREADS = WINDOW_BWD_WARPS * 32;
constexpr int DS_PITCH = WINDOW + 8;
template <int DP>
constexpr int WINDOW_BWD_SHARED = 4 * WINDOW * PITCH<DP> * 2 + WINDOW * DS_PITCH * 2 + 2 * WINDOW * 4;

// Writes zeros to all rows of a sequence.
template <int DP, class T>
__device__ void clear_rows(const Rows<T, true>& x, int length, int D) {
  for (int i = threadIdx.x; i < length * (DP / 8); i += WINDOW_BWD_THREADS) {
    if (x.data && i % (DP / 8) * 8 < D) *reinterpret_cast<uint4*>(x.row(i / (DP / 8)) + i % (DP / 8) * 8) = {};
  }
}

template <class T, int DP>
__global__ void __launch_bounds__(WINDOW_BWD_THREADS, DP <= 64 ? 2 : 1)
    backward_window(Operand<T> dq, Operand<T> dk, Operand<T> dv, Operand<const T> d_o, Operand<const T> o, Operand<const T> q,
                    Operand<const T> k, Operand<const T> v, Problem p) {
  constexpr int ROW = PITCH<DP> * 2;
  using Part = Share<WINDOW_BWD_THREADS, DP>;
  extern __shared__ uint4 memory[];
  const int sequence = int(blockIdx.x / unsigned(p.H)), h = int(blockIdx.x % unsigned(p.H)), D = p.D;
  const Span qs = span_of(p.q, sequence), ks = span_of(p.k, sequence);
  const auto query_rows = [&](const auto& x) { return rows_of<true>(x, p.q, sequence, h, qs.first); };
  const auto key_rows = [&](const auto& x) { return rows_of<true>(x, p.k, sequence, h, ks.first); };
  const int query_tiles = (qs.length + WINDOW - 1) / WINDOW, key_tiles = (ks.length + WINDOW - 1) / WINDOW, pairs = query_tiles * key_tiles;
  if (pairs == 0) {
    if (dq.data) clear_rows<DP>(query_rows(dq), qs.length, D);
    if (dk.data) clear_rows<DP>(key_rows(dk), ks.length, D);
    if (dv.data) clear_rows<DP>(key_rows(dv), ks.length, D);
    return;
  }
  T* const tiles = reinterpret_cast<T*>(memory);
  const uint32_t q_tile = shared_address(memory), do_tile = q_tile + WINDOW * ROW, k_tile = do_tile + WINDOW * ROW,
                 v_tile = k_tile + WINDOW * ROW, ds_tile = v_tile + WINDOW * ROW;
  T* const ds_at = tiles + 4 * WINDOW * PITCH<DP>;
  float *const lse = reinterpret_cast<float*>(ds_at + WINDOW * DS_PITCH), *const delta = lse + WINDOW;
  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;  // own: the warp's first row in a tile, of keys or queries
  const float c = p.scale * LOG2_E;
  const bool once = pairs == 1, want_kv = dk.data || dv.data, want_q = dq.data;

  float sum[2][1][DP / 8][4];
  int query_tile = -1, key_tile = -1;  // in shared memory
  const int end = once ? 1 : want_q ? 2 * pairs : pairs;
  for (int turn = once || want_kv ? 0 : pairs; turn < end; turn++) {
    const bool for_kv = once ? want_kv : turn < pairs, for_q = once ? want_q : turn >= pairs;
    const int i = for_kv ? turn % query_tiles : turn % pairs / key_tiles, j = for_kv ? turn / query_tiles : turn % pairs % key_tiles;
    const int L = min(qs.length - i * WINDOW, WINDOW), M = min(ks.length - j * WINDOW, WINDOW);
    __syncthreads();  // tiles before were read
    if (i != query_tile) {
      query_tile = i;
      const auto d_outs = query_rows(d_o), outs = query_rows(o);
      const Part part(d_outs.map, i * WINDOW, qs.length);
      part.copy(do_tile, d_outs, D);
      part.copy(q_tile, query_rows(q), D);
      uint4 out[Part::N] = {};
#pragma unroll
      for (int n = 0; n < Part::N; n++) {
        const bool inside = part.inside(n) && part.column < D;
        if (inside) out[n] = *reinterpret_cast<const uint4*>(outs.data + part.at[n] * outs.token + part.column);
      }
      if (j != key_tile) {
        const Part keys(key_rows(k).map, j * WINDOW, ks.length);
        keys.copy(k_tile, key_rows(k), D);
        keys.copy(v_tile, key_rows(v), D);
      }
      if (threadIdx.x < WINDOW) {
        const int l = threadIdx.x;
        lse[l] = l < L ? p.lse[p.stat(sequence, h, qs.first) + i * WINDOW + l] * LOG2_E : INFINITY;
      }
      cp_async_wait();
#pragma unroll
      for (int n = 0; n < Part::N; n++) {
        if (!part.used(n)) continue;
        const uint4 d_out = *reinterpret_cast<const uint4*>(tiles + WINDOW * PITCH<DP> + part.place(n));
        const T *x = reinterpret_cast<const T*>(&out[n]), *y = reinterpret_cast<const T*>(&d_out);
        float total = 0;
#pragma unroll
        for (int e = 0; e < 8; e++) total = fmaf(to_f32(x[e]), to_f32(y[e]), total);
#pragma unroll
        for (int x = Part::LANES / 2; x; x /= 2) total += __shfl_xor_sync(0xffffffffu, total, x);
        if (part.column == 0) delta[part.row + n * Part::STEP] = total;
      }
    } else if (j != key_tile) {
      const Part keys(key_rows(k).map, j * WINDOW, ks.length);
      keys.copy(k_tile, key_rows(k), D);
      keys.copy(v_tile, key_rows(v), D);
      cp_async_wait();
    }
    key_tile = j;
    __syncthreads();  // everything is here

    if (own < M) {
      uint32_t k_a[DP / 16][1][4], v_a[1][4];
#pragma unroll
      for (int step = 0; step < DP / 16; step++) {
        ldmatrix(k_a[step][0], k_tile + own * ROW + lane_a<DP>() + step * 32);
      }
      if (for_kv && i == 0) {
#pragma unroll
        for (int n = 0; n < DP; n++) sum[n / (DP / 2)][0][n / 4 % (DP / 8)][n % 4] = 0;
      }
      for (int query = 0; query < L; query += 16) {
        const uint32_t q_at = q_tile + query * ROW, do_at = do_tile + query * ROW;
        float w[1][2][4] = {}, ds[1][2][4] = {};
#pragma unroll
        for (int step = 0; step < DP / 16; step++) {
          ldmatrix(v_a[0], v_tile + own * ROW + lane_a<DP>() + step * 32);  // again each time: all at once do not fit the registers
          multiply_nt<T, DP>(w, k_a[step], q_at + lane_b<DP>() + step * 32);
          multiply_nt<T, DP>(ds, v_a, do_at + lane_b<DP>() + step * 32);
        }
#pragma unroll
        for (int n = 0; n < 2; n++) {
          const float2 log_sum = *reinterpret_cast<const float2*>(lse + query + n * 8 + lane % 4 * 2);
          const float2 shift = *reinterpret_cast<const float2*>(delta + query + n * 8 + lane % 4 * 2);
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const float x = exp2_fast(fmaf(w[0][n][e], c, e % 2 ? -log_sum.y : -log_sum.x));
            w[0][n][e] = own + lane / 4 + e / 2 * 8 < M ? x : 0;
            ds[0][n][e] = w[0][n][e] * (ds[0][n][e] - (e % 2 ? shift.y : shift.x));
          }
        }
        uint32_t a[1][4];
        if (for_kv) {
          to_a<T>(a, w, 0);
          multiply_nn<T>(sum[1], a, do_at + lane_a<DP>());
        }
        to_a<T>(a, ds, 0);
        if (for_kv) multiply_nn<T>(sum[0], a, q_at + lane_a<DP>());
        if (for_q) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            T* to = ds_at + (own + e % 2 * 8 + lane / 4) * DS_PITCH + query + e / 2 * 8 + lane % 4 * 2;
            *reinterpret_cast<uint32_t*>(to) = a[0][e];
          }
        }
      }
      if (for_kv && i == query_tiles - 1) {
        T* staging = tiles + (3 * WINDOW + own) * PITCH<DP>;  // its values, which no one else reads
#pragma unroll
        for (int n = 0; n < DP / 2; n++) sum[0][0][n / 4][n % 4] *= p.scale;
        if (dk.data) store_rows<DP, 1>(staging, sum[0], key_rows(dk), j * WINDOW + own, ks.length, D);
        if (dv.data) store_rows<DP, 1>(staging, sum[1], key_rows(dv), j * WINDOW + own, ks.length, D);
      }
    }
    if (for_kv && i == query_tiles - 1) key_tile = -1;
    if (!for_q) continue;
    __syncthreads();  // the gradients of the scores are here
    if (own < L) {
      if (j == 0) {
#pragma unroll
        for (int n = 0; n < DP / 2; n++) sum[0][0][n / 4][n % 4] = 0;
      }
      const uint32_t ds_lane = ds_tile + ((lane % 8 + lane / 16 * 8) * DS_PITCH + lane / 8 % 2 * 8 + own) * 2;
      for (int key = 0; key < M; key += 16) {
        uint32_t a[1][4];
        ldmatrix_trans(a[0], ds_lane + key * DS_PITCH * 2);
        multiply_nn<T>(sum[0], a, k_tile + key * ROW + lane_a<DP>());
      }
      if (j == key_tiles - 1) {
#pragma unroll
        for (int n = 0; n < DP / 2; n++) sum[0][0][n / 4][n % 4] *= p.scale;
        store_rows<DP, 1>(tiles + own * PITCH<DP>, sum[0], query_rows(dq), i * WINDOW + own, qs.length, D);
      }
    }
    if (j == key_tiles - 1) query_tile = -1;  // the queries were written over
  }
}
}  // namespace attention
