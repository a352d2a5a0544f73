// AdamW with 8-bit moments on CUDA: a warp a block of 128 values, four a lane, so that the largest magnitudes are found by shuffles. Bound by memory.
#include "../include/optim8.h"

#include <cmath>

#include "../include/code8.hpp"
#include "vector.cuh"

namespace {
constexpr int THREADS = 256, LANES = 4;
static_assert(K_ADAMW8_BLOCK == 32 * LANES, "a warp a block");

struct Adamw8 {
  float *p, *m_scale, *v_scale, *ema, *grad;
  uint8_t *m, *v;
  uint16_t* copy;
  const float* stats;
  int64_t n, n_copy;
  uint32_t t;
  float unscale, max_norm, decay, rate, root, new_m, old_v, new_v, eps, old_ema, new_ema;
  bool zero_grad, bf16, vector;
};

__device__ float warp_max(float v) {
#pragma unroll
  for (int k = 16; k; k /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, k));
  return v;
}

template <class T>
__device__ void load4(float (&out)[LANES], const T* from, int64_t i, const Adamw8& a) {
  if (a.vector && i + LANES <= a.n) return load_lanes(out, from + i);
#pragma unroll
  for (int j = 0; j < LANES; j++) out[j] = i + j < a.n ? to_f32(from[i + j]) : 0;
}

template <class T>
__device__ void store4(T* to, const float (&v)[LANES], int64_t i, const Adamw8& a, int64_t end) {
  if (a.vector && i + LANES <= end) return store_lanes(to + i, v);
#pragma unroll
  for (int j = 0; j < LANES; j++) {
    if (i + j < end) to[i + j] = from_f32<T>(v[j]);
  }
}

__device__ uint32_t load_codes(const uint8_t* from, int64_t i, const Adamw8& a) {
  if (a.vector && i + LANES <= a.n) return *reinterpret_cast<const uint32_t*>(from + i);
  uint32_t codes = 0;
  for (int j = 0; j < LANES && i + j < a.n; j++) codes |= uint32_t(from[i + j]) << (8 * j);
  return codes;
}

__device__ void store_codes(uint8_t* to, uint32_t codes, int64_t i, const Adamw8& a) {
  if (a.vector && i + LANES <= a.n) {
    *reinterpret_cast<uint32_t*>(to + i) = codes;
    return;
  }
  for (int j = 0; j < LANES && i + j < a.n; j++) to[i + j] = uint8_t(codes >> (8 * j));
}

__global__ void __launch_bounds__(THREADS) adamw8(const Adamw8 a) {
  const int64_t block = (int64_t(blockIdx.x) * THREADS + threadIdx.x) / 32, i = block * K_ADAMW8_BLOCK + threadIdx.x % 32 * LANES;
  if (block * K_ADAMW8_BLOCK >= a.n) return;
  float ps[LANES], gs[LANES], es[LANES];
  load4(ps, a.p, i, a);
  load4(gs, a.grad, i, a);
  if (a.ema) load4(es, a.ema, i, a);
  if (a.stats[1] != 0) {
    const float clip = a.max_norm > 0 ? fminf(1, a.max_norm / (a.stats[0] + 1e-6f)) : 1, scale = a.unscale * clip;
    const uint32_t m_codes = load_codes(a.m, i, a), v_codes = load_codes(a.v, i, a);
    const float m_scale = a.m_scale[block], v_scale = a.v_scale[block];
    float ms[LANES], vs[LANES], most_m = 0, most_v = 0;
#pragma unroll
    for (int j = 0; j < LANES; j++) {
      const uint32_t m_code = m_codes >> (8 * j) & 0xff, v_code = v_codes >> (8 * j) & 0xff;
      const float g = gs[j] * scale, magnitude = code8::decode<14>(m_code & 0x7f) * m_scale;
      ms[j] = m_code & 0x80 ? -magnitude : magnitude;
      vs[j] = code8::decode<30>(v_code) * v_scale;
      ms[j] += a.new_m * (g - ms[j]);
      vs[j] = a.old_v * vs[j] + a.new_v * g * g;
      ps[j] = ps[j] * a.decay - a.rate * ms[j] / (sqrtf(vs[j]) / a.root + a.eps);
      if (i + j < a.n) {
        most_m = fmaxf(most_m, fabsf(ms[j]));
        most_v = fmaxf(most_v, vs[j]);
      }
    }
    most_m = warp_max(most_m);
    most_v = warp_max(most_v);
    uint32_t new_m = 0, new_v = 0;
#pragma unroll
    for (int j = 0; j < LANES; j++) {
      const uint32_t noise = code8::hash(uint64_t(i + j), a.t), other = noise * 0x9e3779b1u;
      const uint32_t m_code = most_m > 0 ? code8::encode<14>(fabsf(ms[j]) / most_m, 0x7f, noise >> 12) : 0;
      new_m |= (m_code | (signbit(ms[j]) ? 0x80u : 0u)) << (8 * j);
      new_v |= (vs[j] > 0 ? max(1u, code8::encode<30>(vs[j] / most_v, 0xff, other >> 12)) : 0u) << (8 * j);
    }
    store_codes(a.m, new_m, i, a);
    store_codes(a.v, new_v, i, a);
    if (threadIdx.x % 32 == 0) {
      a.m_scale[block] = most_m;
      a.v_scale[block] = most_v;
    }
    store4(a.p, ps, i, a, a.n);
    if (a.copy && a.bf16) store4(reinterpret_cast<__nv_bfloat16*>(a.copy), ps, i, a, a.n_copy);
    if (a.copy && !a.bf16) store4(reinterpret_cast<__half*>(a.copy), ps, i, a, a.n_copy);
  }
  if (a.ema) {
#pragma unroll
    for (int j = 0; j < LANES; j++) es[j] = a.old_ema * es[j] + a.new_ema * ps[j];
    store4(a.ema, es, i, a, a.n);
  }
  if (a.zero_grad) {
    const float zeros[LANES] = {};
    store4(a.grad, zeros, i, a, a.n);
  }
}
}  // namespace

int32_t k_adamw8_fwd(uint64_t p, uint64_t m, uint64_t v, uint64_t m_scale, uint64_t v_scale, uint64_t ema, uint64_t copy, uint64_t grad,
                     uint64_t stats, int64_t n, int64_t n_copy, int64_t t, double lr, double beta1, double beta2, double eps,
                     double weight_decay, double unscale, double max_norm, double ema_rate, int32_t zero_grad, int32_t copy_dtype,
                     uint64_t stream) {
  const char* where = "k_adamw8_fwd";
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n = %lld, it must be >= 0", static_cast<long long>(n));
  if (t < 1) return fail(K_BAD_ARGUMENT, where, "t = %lld, it must be >= 1", static_cast<long long>(t));
  if (copy && copy_dtype != K_F16 && copy_dtype != K_BF16) {
    return fail(K_UNSUPPORTED, where, "copy_dtype is %d, it must be f16 (1) or bf16 (2)", copy_dtype);
  }
  if (n == 0) return K_OK;
  const Adamw8 step{at<float>(p),
                    at<float>(m_scale),
                    at<float>(v_scale),
                    at<float>(ema),
                    at<float>(grad),
                    at<uint8_t>(m),
                    at<uint8_t>(v),
                    at<uint16_t>(copy),
                    at<const float>(stats),
                    n,
                    n_copy,
                    uint32_t(t),
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
                    copy_dtype == K_BF16,
                    aligned16(p, m, v, ema, copy, grad)};
  const int64_t blocks = ceil_div(n, THREADS * LANES);
  adamw8<<<unsigned(blocks), THREADS, 0, stream_of(stream)>>>(step);
  return launched(where);
}
