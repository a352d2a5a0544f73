// Pooling and the distance of unit vectors on CUDA: both bound by memory. Pooling reads x once and writes a quarter of it (its gradient reads x
// and dy and writes as much as x); a distance reads both vectors once (a warp keeps its rows in the L1 cache for the second look).
#include "../include/perceptual.h"

#include "sums.cuh"

namespace {
constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr float EPS = 1e-10f;

// y or dx of one pack of V channels of a window.
template <class T, int V, bool BACKWARD>
__global__ void __launch_bounds__(THREADS) max_pool(T* __restrict__ out, const T* __restrict__ dy, const T* __restrict__ x, int64_t packs,
                                                    int H, int W, int C) {
  const int64_t i = blockIdx.x * int64_t(THREADS) + threadIdx.x;
  if (i >= packs) return;
  const int P = C / V, h2 = (H + 1) / 2, w2 = (W + 1) / 2;  // windows with what has no partner
  const int c = int(i % P) * V, col = int(i / P % w2), row = int(i / P / w2 % h2);
  const int64_t image = i / P / w2 / h2;
  const bool whole = 2 * col + 1 < W && 2 * row + 1 < H;
  const auto place = [&](int k) { return ((image * H + 2 * row + k / 2) * W + 2 * col + k % 2) * C + c; };
  const auto inside = [&](int k) { return 2 * row + k / 2 < H && 2 * col + k % 2 < W; };
  float best[V];
  int which[V] = {};
  if (whole) {
    load_lanes(best, x + place(0));
    for (int k = 1; k < 4; k++) {
      float v[V];
      load_lanes(v, x + place(k));
#pragma unroll
      for (int j = 0; j < V; j++) {
        if (v[j] > best[j] || v[j] != v[j]) best[j] = v[j], which[j] = k;
      }
    }
  }
  const int64_t pooled = ((image * (H / 2) + row) * (W / 2) + col) * C + c;
  if constexpr (BACKWARD) {
    float g[V] = {};
    if (whole) load_lanes(g, dy + pooled);
    for (int k = 0; k < 4; k++) {
      if (!inside(k)) continue;
      float d[V];
#pragma unroll
      for (int j = 0; j < V; j++) d[j] = whole && which[j] == k ? g[j] : 0;
      store_lanes(out + place(k), d);
    }
  } else if (whole) {
    store_lanes(out + pooled, best);
  }
}

// A warp a row.
template <class T, int V, bool BACKWARD>
__global__ void __launch_bounds__(THREADS) unit_distance(float* __restrict__ d, T* __restrict__ da, const float* __restrict__ dd,
                                                         const T* __restrict__ a, const T* __restrict__ b, const float* __restrict__ w,
                                                         int N, int C) {
  const int64_t n = blockIdx.x * int64_t(WARPS) + threadIdx.x / 32;
  if (n >= N) return;
  const T *u = a + n * C, *v = b + n * C;
  const int first = threadIdx.x % 32 * V;
  float uu = 0, vv = 0;
  for (int c = first; c < C; c += 32 * V) {
    float p[V], q[V];
    load_lanes(p, u + c);
    load_lanes(q, v + c);
#pragma unroll
    for (int j = 0; j < V; j++) uu += p[j] * p[j], vv += q[j] * q[j];
  }
  const float size = sqrtf(warp_sum(uu)), s = 1 / (size + EPS), t = 1 / (sqrtf(warp_sum(vv)) + EPS);
  float sum = 0;
  for (int c = first; c < C; c += 32 * V) {
    float p[V], q[V];
    load_lanes(p, u + c);
    load_lanes(q, v + c);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float e = __fmul_rn(p[j], s) - __fmul_rn(q[j], t);  // not fused: 0 where both are equal
      sum += w[c + j] * e * (BACKWARD ? p[j] * s : e);
    }
  }
  sum = warp_sum(sum);
  if constexpr (BACKWARD) {
    const float g = size > 0 ? 2 * dd[n] * s : 0, back = size > 0 ? sum / size : 0;
    for (int c = first; c < C; c += 32 * V) {
      float p[V], q[V];
      load_lanes(p, u + c);
      load_lanes(q, v + c);
#pragma unroll
      for (int j = 0; j < V; j++) p[j] = g * (w[c + j] * (__fmul_rn(p[j], s) - __fmul_rn(q[j], t)) - p[j] * back);
      store_lanes(da + n * C + c, p);
    }
  } else if (threadIdx.x % 32 == 0) {
    d[n] = sum;
  }
}

template <bool BACKWARD>
int32_t run_pool(const char* where, uint64_t out, uint64_t dy, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype,
                 uint64_t stream) {
  if (B < 0 || H < 0 || W < 0 || C < 0) {
    return fail(K_BAD_ARGUMENT, where, "B = %d, H = %d, W = %d, C = %d, they must be >= 0", B, H, W, C);
  }
  if (int64_t(B) * H * W * C == 0) return K_OK;
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = 16 / sizeof(T);
    const bool packed = C % V == 0 && aligned16(out, dy, x);
    const int64_t packs = int64_t(B) * ((H + 1) / 2) * ((W + 1) / 2) * (packed ? C / V : C);
    if (ceil_div(packs, THREADS) > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "x has too many values");
    const auto kernel = packed ? max_pool<T, V, BACKWARD> : max_pool<T, 1, BACKWARD>;
    kernel<<<unsigned(ceil_div(packs, THREADS)), THREADS, 0, stream_of(stream)>>>(at<T>(out), at<const T>(dy), at<const T>(x), packs, H, W,
                                                                                  C);
    return launched(where);
  });
}

template <bool BACKWARD>
int32_t run_distance(const char* where, uint64_t d, uint64_t da, uint64_t dd, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C,
                     int32_t dtype, uint64_t stream) {
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", N, C);
  if (N == 0) return K_OK;
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = 16 / sizeof(T);
    const bool packed = C % V == 0 && aligned16(da, a, b);
    const auto kernel = packed ? unit_distance<T, V, BACKWARD> : unit_distance<T, 1, BACKWARD>;
    kernel<<<unsigned(ceil_div(N, WARPS)), THREADS, 0, stream_of(stream)>>>(at<float>(d), at<T>(da), at<const float>(dd), at<const T>(a),
                                                                            at<const T>(b), at<const float>(w), N, C);
    return launched(where);
  });
}
}  // namespace

int32_t k_max_pool2d_fwd(uint64_t y, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype, uint64_t stream) {
  return run_pool<false>("k_max_pool2d_fwd", y, 0, x, B, H, W, C, dtype, stream);
}

int32_t k_max_pool2d_bwd(uint64_t dx, uint64_t dy, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype, uint64_t stream) {
  return run_pool<true>("k_max_pool2d_bwd", dx, dy, x, B, H, W, C, dtype, stream);
}

int32_t k_unit_distance_fwd(uint64_t d, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C, int32_t dtype, uint64_t stream) {
  return run_distance<false>("k_unit_distance_fwd", d, 0, 0, a, b, w, N, C, dtype, stream);
}

int32_t k_unit_distance_bwd(uint64_t da, uint64_t dd, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C, int32_t dtype,
                            uint64_t stream) {
  return run_distance<true>("k_unit_distance_bwd", 0, da, dd, a, b, w, N, C, dtype, stream);
}
