// The optimizer on CUDA: bound by memory, so every buffer is moved once, 16 bytes at a time.
#include "../include/optim.h"

#include <algorithm>
#include <cmath>

#include "vector.cuh"

namespace {
constexpr int THREADS = 256, LOADS = 4;
constexpr int BLOCKS = 1056;  // of the norm: 8 for each of 132 multiprocessors; fixed, so that every GPU gives the same bits

// partial[2 * block] = the sum of squares of the elements that come to a block, partial[2 * block + 1] = how many are not finite
template <int V>
__global__ void __launch_bounds__(THREADS) sum_squares(float2* partial, const float* __restrict__ grad, int64_t n, float unscale) {
  const int64_t thread = int64_t(blockIdx.x) * THREADS + threadIdx.x, threads = int64_t(gridDim.x) * THREADS, step = threads * V;
  const int64_t whole = n / V * V;
  float sums[V] = {}, bad = 0;
  const auto add = [&](float g, float& sum) {
    bad += isfinite(g) ? 0 : 1;
    sum += (g * unscale) * (g * unscale);
  };
  int64_t i = thread * V;
  for (; i + (LOADS - 1) * step < whole; i += LOADS * step) {
    float g[LOADS][V];
#pragma unroll
    for (int k = 0; k < LOADS; k++) load_lanes(g[k], grad + i + k * step);
#pragma unroll
    for (int k = 0; k < LOADS; k++) {
#pragma unroll
      for (int j = 0; j < V; j++) add(g[k][j], sums[j]);
    }
  }
  for (; i < whole; i += step) {
    float g[V];
    load_lanes(g, grad + i);
#pragma unroll
    for (int j = 0; j < V; j++) add(g[j], sums[j]);
  }
  for (i = whole + thread; i < n; i += threads) add(grad[i], sums[0]);
#pragma unroll
  for (int j = 1; j < V; j++) sums[0] += sums[j];
  const float squares = block_sum<THREADS>(sums[0]), not_finite = block_sum<THREADS>(bad);
  if (threadIdx.x == 0) partial[blockIdx.x] = {squares, not_finite};
}

__global__ void __launch_bounds__(THREADS) finish_norm(float* stats, const float2* partial, int blocks) {
  float squares = 0, bad = 0;
  for (int i = threadIdx.x; i < blocks; i += THREADS) {
    squares += partial[i].x;
    bad += partial[i].y;
  }
  squares = block_sum<THREADS>(squares);
  bad = block_sum<THREADS>(bad);
  if (threadIdx.x == 0) {
    stats[0] = sqrtf(squares);
    stats[1] = bad > 0 ? 0 : 1;
  }
}

struct Adamw {
  float *p, *m, *v, *ema, *grad;
  uint16_t* copy;
  const float* stats;
  int64_t n_copy;
  float unscale, max_norm, decay, rate, root, new_m, old_v, new_v, eps, old_ema, new_ema;
  bool zero_grad, bf16;

  // For the elements i to i + V, V being 4 or 1.
  template <int V>
  __device__ void run(int64_t i) const {
    float ps[V], gs[V], ms[V], vs[V], es[V];
    load_lanes(ps, p + i);
    load_lanes(gs, grad + i);
    load_lanes(ms, m + i);
    load_lanes(vs, v + i);
    if (ema) load_lanes(es, ema + i);
    if (stats[1] != 0) {
      const float clip = max_norm > 0 ? fminf(1, max_norm / (stats[0] + 1e-6f)) : 1, scale = unscale * clip;
#pragma unroll
      for (int j = 0; j < V; j++) {
        const float g = gs[j] * scale;
        ms[j] += new_m * (g - ms[j]);
        vs[j] = old_v * vs[j] + new_v * g * g;
        ps[j] = ps[j] * decay - rate * ms[j] / (sqrtf(vs[j]) / root + eps);
      }
      store_lanes(m + i, ms);
      store_lanes(v + i, vs);
      store_lanes(p + i, ps);
      if (copy) write_copy(i, ps);
    }
    if (ema) {
#pragma unroll
      for (int j = 0; j < V; j++) es[j] = old_ema * es[j] + new_ema * ps[j];
      store_lanes(ema + i, es);
    }
    if (zero_grad) {
      const float zeros[V] = {};
      store_lanes(grad + i, zeros);
    }
  }

  template <int V>
  __device__ void write_copy(int64_t i, const float (&ps)[V]) const {
    if (i + V <= n_copy) {
      if (bf16)
        store_lanes(reinterpret_cast<__nv_bfloat16*>(copy) + i, ps);
      else
        store_lanes(reinterpret_cast<__half*>(copy) + i, ps);
      return;
    }
    for (int j = 0; i + j < n_copy; j++) {
      if (bf16)
        reinterpret_cast<__nv_bfloat16*>(copy)[i + j] = from_f32<__nv_bfloat16>(ps[j]);
      else
        reinterpret_cast<__half*>(copy)[i + j] = from_f32<__half>(ps[j]);
    }
  }
};

struct Ema {
  float* ema;
  const float* p;
  float old_ema, new_ema;

  template <int V>
  __device__ void run(int64_t i) const {
    float es[V], ps[V];
    load_lanes(es, ema + i);
    load_lanes(ps, p + i);
#pragma unroll
    for (int j = 0; j < V; j++) es[j] = old_ema * es[j] + new_ema * ps[j];
    store_lanes(ema + i, es);
  }
};

int32_t expect_n(const char* where, int64_t n) {
  return n >= 0 ? K_OK : fail(K_BAD_ARGUMENT, where, "n = %lld, it must be >= 0", static_cast<long long>(n));
}
}  // namespace

int32_t k_grad_norm_workspace(uint64_t* bytes, int64_t) {
  *bytes = BLOCKS * sizeof(float2);
  return K_OK;
}

int32_t k_grad_norm_fwd(uint64_t stats, uint64_t grad, uint64_t scratch, int64_t n, double unscale, uint64_t stream) {
  const char* where = "k_grad_norm_fwd";
  if (const int32_t status = expect_n(where, n)) return status;
  const auto kernel = aligned16(grad) ? sum_squares<4> : sum_squares<1>;
  kernel<<<BLOCKS, THREADS, 0, stream_of(stream)>>>(at<float2>(scratch), at<const float>(grad), n, float(unscale));
  if (const int32_t status = launched(where)) return status;
  finish_norm<<<1, THREADS, 0, stream_of(stream)>>>(at<float>(stats), at<const float2>(scratch), BLOCKS);
  return launched(where);
}

int32_t k_adamw_fwd(uint64_t p, uint64_t m, uint64_t v, uint64_t ema, uint64_t copy, uint64_t grad, uint64_t stats, int64_t n,
                    int64_t n_copy, int64_t t, double lr, double beta1, double beta2, double eps, double weight_decay, double unscale,
                    double max_norm, double ema_rate, int32_t zero_grad, int32_t copy_dtype, uint64_t stream) {
  const char* where = "k_adamw_fwd";
  if (const int32_t status = expect_n(where, n)) return status;
  if (t < 1) return fail(K_BAD_ARGUMENT, where, "t = %lld, it must be >= 1", static_cast<long long>(t));
  if (copy && copy_dtype != K_F16 && copy_dtype != K_BF16) {
    return fail(K_UNSUPPORTED, where, "copy_dtype is %d, it must be f16 (1) or bf16 (2)", copy_dtype);
  }
  const Adamw step{at<float>(p),
                   at<float>(m),
                   at<float>(v),
                   at<float>(ema),
                   at<float>(grad),
                   at<uint16_t>(copy),
                   at<const float>(stats),
                   n_copy,
                   float(unscale),
                   float(max_norm),
                   float(1 - lr * weight_decay),
                   float(lr / (1 - std::pow(beta1, double(t)))),
                   float(std::sqrt(1 - std::pow(beta2, double(t)))),
                   float(1 - beta1),
                   float(beta2),
                   float(1 - beta2),
                   float(eps),
                   float(ema_rate),
                   float(1 - ema_rate),
                   zero_grad != 0,
                   copy_dtype == K_BF16};
  return each<4>(where, n, aligned16(p, m, v, ema, copy, grad), step, stream);
}

int32_t k_ema_fwd(uint64_t ema, uint64_t p, int64_t n, double rate, uint64_t stream) {
  const char* where = "k_ema_fwd";
  if (const int32_t status = expect_n(where, n)) return status;
  return each<4>(where, n, aligned16(ema, p), Ema{at<float>(ema), at<const float>(p), float(rate), float(1 - rate)}, stream);
}
