// Attention in exact f32 on the ordinary cores, for checks and small models: as the 16-bit kernels, with 256 threads as 16 x 16, each with
// every 16th row and column of a tile. DP is D rounded up to 32, 64 or 128, the rest zeros.
#pragma once
#include "attention_tile.cuh"

namespace attention {
constexpr int F32_SIDE = 16, F32_THREADS = F32_SIDE * F32_SIDE;

// Rows of a tile, of queries and of keys alike.
template <int DP>
constexpr int F32_TILE = DP <= 64 ? 64 : 32;
template <int DP>
constexpr int F32_PITCH = DP + 4;
template <int DP>
constexpr int F32_SCORES = F32_TILE<DP> * (F32_TILE<DP> + 4);
// `tiles` of rows and one of scores.
template <int DP>
constexpr int f32_shared(int tiles) {
  return (tiles * F32_TILE<DP> * F32_PITCH<DP> + F32_SCORES<DP>) * 4;
}

template <int DP>
__device__ void load_f32(float* tile, const Rows<const float, true>& x, int from, int length, int D) {
  for (int i = threadIdx.x; i < F32_TILE<DP> * DP; i += F32_THREADS) {
    const int r = i / DP, d = i % DP;
    tile[r * F32_PITCH<DP> + d] = from + r < length && d < D ? x.row(from + r)[d] : 0;
  }
}

__device__ inline float lane_of(const float4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// c[i][j] += sum_k a[ty + 16 i][k] b[tx + 16 j][k], k < K; a and b have rows of PITCH.
template <int K, int PITCH, int R, int C>
__device__ void multiply_f32_nt(float (&c)[R][C], const float* a, const float* b) {
  const int tx = threadIdx.x % F32_SIDE, ty = threadIdx.x / F32_SIDE;
#pragma unroll 4
  for (int k = 0; k < K; k += 4) {
    float4 x[R], y[C];
#pragma unroll
    for (int i = 0; i < R; i++) x[i] = *reinterpret_cast<const float4*>(a + (ty + F32_SIDE * i) * PITCH + k);
#pragma unroll
    for (int j = 0; j < C; j++) y[j] = *reinterpret_cast<const float4*>(b + (tx + F32_SIDE * j) * PITCH + k);
#pragma unroll
    for (int i = 0; i < R; i++) {
#pragma unroll
      for (int j = 0; j < C; j++) {
        c[i][j] = fmaf(x[i].x, y[j].x, fmaf(x[i].y, y[j].y, fmaf(x[i].z, y[j].z, fmaf(x[i].w, y[j].w, c[i][j]))));
      }
    }
  }
}

// c[i][j] += sum_k a[ty + 16 i][k] b[k][tx + 16 j], k < K; a has rows of K + 4, b of PITCH.
template <int K, int PITCH, int R, int C>
__device__ void multiply_f32_nn(float (&c)[R][C], const float* a, const float* b) {
  const int tx = threadIdx.x % F32_SIDE, ty = threadIdx.x / F32_SIDE;
#pragma unroll 2
  for (int k = 0; k < K; k += 4) {
    float4 x[R];
#pragma unroll
    for (int i = 0; i < R; i++) x[i] = *reinterpret_cast<const float4*>(a + (ty + F32_SIDE * i) * (K + 4) + k);
#pragma unroll
    for (int e = 0; e < 4; e++) {
#pragma unroll
      for (int j = 0; j < C; j++) {
        const float y = b[(k + e) * PITCH + tx + F32_SIDE * j];
#pragma unroll
        for (int i = 0; i < R; i++) c[i][j] = fmaf(lane_of(x[i], e), y, c[i][j]);
      }
    }
  }
}

// scores[ty + 16 i][tx + 16 j] = c[i][j]
template <int R>
__device__ void put_scores(float* scores, const float (&c)[R][R]) {
  const int tx = threadIdx.x % F32_SIDE, ty = threadIdx.x / F32_SIDE;
#pragma unroll
  for (int i = 0; i < R; i++) {
#pragma unroll
    for (int j = 0; j < R; j++) scores[(ty + F32_SIDE * i) * (F32_SIDE * R + 4) + tx + F32_SIDE * j] = c[i][j];
  }
}

// x[from + ty + 16 i][tx + 16 j] = c[i][j] factor
template <int R, int C>
__device__ void store_f32(const Rows<float, true>& x, const float (&c)[R][C], float factor, int from, int length, int D) {
  const int tx = threadIdx.x % F32_SIDE, ty = threadIdx.x / F32_SIDE;
#pragma unroll
  for (int i = 0; i < R; i++) {
#pragma unroll
    for (int j = 0; j < C; j++) {
      const int r = from + ty + F32_SIDE * i, d = tx + F32_SIDE * j;
      if (r < length && d < D) x.row(r)[d] = c[i][j] * factor;
    }
  }
}

template <int DP>
__global__ void __launch_bounds__(F32_THREADS)
    forward_f32(Operand<float> o, Operand<const float> q, Operand<const float> k, Operand<const float> v, Problem p, Tiles tiles) {
  constexpr int TILE = F32_TILE<DP>, P = F32_PITCH<DP>, R = TILE / F32_SIDE, C = DP / F32_SIDE;
  extern __shared__ uint4 memory[];
  float *q_tile = reinterpret_cast<float*>(memory), *kv_tile = q_tile + TILE * P, *scores = kv_tile + TILE * P;
  Place own;
  if (!find_place(own, tiles, p.H, TILE)) return;
  const Span qs = span_of(p.q, own.sequence), ks = span_of(p.k, own.sequence);
  const int L = qs.length, M = ks.length, D = p.D;
  const int64_t stat = p.stat(own.sequence, own.head, qs.first);
  const int tx = threadIdx.x % F32_SIDE, ty = threadIdx.x / F32_SIDE;

  float sum[R][C] = {}, top[R], weight[R] = {};
#pragma unroll
  for (int i = 0; i < R; i++) top[i] = -INFINITY;
  load_f32<DP>(q_tile, rows_of<true>(q, p.q, own.sequence, own.head, qs.first), own.from, L, D);
  for (int key = 0; key < M; key += TILE) {
    __syncthreads();
    load_f32<DP>(kv_tile, rows_of<true>(k, p.k, own.sequence, own.head, ks.first), key, M, D);
    __syncthreads();
    float s[R][R] = {};
    multiply_f32_nt<DP, P>(s, q_tile, kv_tile);
#pragma unroll
    for (int i = 0; i < R; i++) {
      float high = top[i];
#pragma unroll
      for (int j = 0; j < R; j++) {
        s[i][j] = key + tx + F32_SIDE * j < M ? s[i][j] * p.scale : -INFINITY;
        high = fmaxf(high, s[i][j]);
      }
#pragma unroll
      for (int x = 1; x < F32_SIDE; x *= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, x));
      const float keep = expf(top[i] - high);
      float total = 0;
#pragma unroll
      for (int j = 0; j < R; j++) total += s[i][j] = expf(s[i][j] - high);
      top[i] = high;
      weight[i] = weight[i] * keep + total;
#pragma unroll
      for (int j = 0; j < C; j++) sum[i][j] *= keep;
    }
    put_scores(scores, s);
    __syncthreads();
    load_f32<DP>(kv_tile, rows_of<true>(v, p.k, own.sequence, own.head, ks.first), key, M, D);
    __syncthreads();
    multiply_f32_nn<TILE, P>(sum, scores, kv_tile);
  }
#pragma unroll
  for (int i = 0; i < R; i++) {
    float total = weight[i];
#pragma unroll
    for (int x = 1; x < F32_SIDE; x *= 2) total += __shfl_xor_sync(0xffffffffu, total, x);
#pragma unroll
    for (int j = 0; j < C; j++) sum[i][j] *= total == 0 ? 0 : 1 / total;
    const int row = own.from + ty + F32_SIDE * i;
    if (tx == 0 && row < L) p.lse[stat + row] = top[i] + logf(total);
  }
  store_f32(rows_of<true>(o, p.q, own.sequence, own.head, qs.first), sum, 1, own.from, L, D);
}

// dk and dv (where not null) of a tile of keys; scores are held transposed, keys x queries.
template <int DP>
__global__ void __launch_bounds__(F32_THREADS, 1)
    backward_kv_f32(Operand<float> dk, Operand<float> dv, Operand<const float> d_o, const float* delta, Operand<const float> q,
                    Operand<const float> k, Operand<const float> v, Problem p, Tiles tiles) {
  constexpr int TILE = F32_TILE<DP>, P = F32_PITCH<DP>, R = TILE / F32_SIDE, C = DP / F32_SIDE;
  extern __shared__ uint4 memory[];
  float *k_tile = reinterpret_cast<float*>(memory), *v_tile = k_tile + TILE * P, *q_tile = v_tile + TILE * P, *do_tile = q_tile + TILE * P;
  float* scores = do_tile + TILE * P;
  Place own;
  if (!find_place(own, tiles, p.H, TILE)) return;
  const Span qs = span_of(p.q, own.sequence), ks = span_of(p.k, own.sequence);
  const int L = qs.length, M = ks.length, D = p.D;
  const int64_t stat = p.stat(own.sequence, own.head, qs.first);
  const int tx = threadIdx.x % F32_SIDE;

  float sum_k[R][C] = {}, sum_v[R][C] = {};
  load_f32<DP>(k_tile, rows_of<true>(k, p.k, own.sequence, own.head, ks.first), own.from, M, D);
  load_f32<DP>(v_tile, rows_of<true>(v, p.k, own.sequence, own.head, ks.first), own.from, M, D);
  for (int query = 0; query < L; query += TILE) {
    __syncthreads();
    load_f32<DP>(q_tile, rows_of<true>(q, p.q, own.sequence, own.head, qs.first), query, L, D);
    load_f32<DP>(do_tile, rows_of<true>(d_o, p.q, own.sequence, own.head, qs.first), query, L, D);
    __syncthreads();
    float w[R][R] = {}, ds[R][R] = {};
    multiply_f32_nt<DP, P>(w, k_tile, q_tile);
    multiply_f32_nt<DP, P>(ds, v_tile, do_tile);
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int l = query + tx + F32_SIDE * j;
      const float log_sum = l < L ? p.lse[stat + l] : INFINITY;
      const float shift = l < L ? delta[stat + l] : 0;
#pragma unroll
      for (int i = 0; i < R; i++) {
        w[i][j] = expf(w[i][j] * p.scale - log_sum);
        ds[i][j] = w[i][j] * (ds[i][j] - shift);
      }
    }
    put_scores(scores, w);
    __syncthreads();
    multiply_f32_nn<TILE, P>(sum_v, scores, do_tile);
    __syncthreads();
    put_scores(scores, ds);
    __syncthreads();
    multiply_f32_nn<TILE, P>(sum_k, scores, q_tile);
  }
  if (dk.data) store_f32(rows_of<true>(dk, p.k, own.sequence, own.head, ks.first), sum_k, p.scale, own.from, M, D);
  if (dv.data) store_f32(rows_of<true>(dv, p.k, own.sequence, own.head, ks.first), sum_v, 1, own.from, M, D);
}

// dq of a tile of queries.
template <int DP>
__global__ void __launch_bounds__(F32_THREADS)
    backward_q_f32(Operand<float> dq, Operand<const float> d_o, const float* delta, Operand<const float> q, Operand<const float> k,
                   Operand<const float> v, Problem p, Tiles tiles) {
  constexpr int TILE = F32_TILE<DP>, P = F32_PITCH<DP>, R = TILE / F32_SIDE, C = DP / F32_SIDE;
  extern __shared__ uint4 memory[];
  float *q_tile = reinterpret_cast<float*>(memory), *do_tile = q_tile + TILE * P, *k_tile = do_tile + TILE * P, *v_tile = k_tile + TILE * P;
  float* scores = v_tile + TILE * P;
  Place own;
  if (!find_place(own, tiles, p.H, TILE)) return;
  const Span qs = span_of(p.q, own.sequence), ks = span_of(p.k, own.sequence);
  const int L = qs.length, M = ks.length, D = p.D;
  const int64_t stat = p.stat(own.sequence, own.head, qs.first);
  const int tx = threadIdx.x % F32_SIDE, ty = threadIdx.x / F32_SIDE;

  float sum[R][C] = {}, log_sum[R], shift[R];
#pragma unroll
  for (int i = 0; i < R; i++) {
    const int l = own.from + ty + F32_SIDE * i;
    log_sum[i] = l < L ? p.lse[stat + l] : INFINITY;
    shift[i] = l < L ? delta[stat + l] : 0;
  }
  load_f32<DP>(q_tile, rows_of<true>(q, p.q, own.sequence, own.head, qs.first), own.from, L, D);
  load_f32<DP>(do_tile, rows_of<true>(d_o, p.q, own.sequence, own.head, qs.first), own.from, L, D);
  for (int key = 0; key < M; key += TILE) {
    __syncthreads();
    load_f32<DP>(k_tile, rows_of<true>(k, p.k, own.sequence, own.head, ks.first), key, M, D);
    load_f32<DP>(v_tile, rows_of<true>(v, p.k, own.sequence, own.head, ks.first), key, M, D);
    __syncthreads();
    float w[R][R] = {}, ds[R][R] = {};
    multiply_f32_nt<DP, P>(w, q_tile, k_tile);
    multiply_f32_nt<DP, P>(ds, do_tile, v_tile);
#pragma unroll
    for (int i = 0; i < R; i++) {
#pragma unroll
      for (int j = 0; j < R; j++) {
        const float e = expf(w[i][j] * p.scale - log_sum[i]);
        ds[i][j] = key + tx + F32_SIDE * j < M ? e * (ds[i][j] - shift[i]) : 0;
      }
    }
    put_scores(scores, ds);
    __syncthreads();
    multiply_f32_nn<TILE, P>(sum, scores, k_tile);
  }
  store_f32(rows_of<true>(dq, p.q, own.sequence, own.head, qs.first), sum, p.scale, own.from, L, D);
}
}  // namespace attention
