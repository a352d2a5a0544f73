// AdamW with 8-bit moments on the CPU: the definition.
#include "../include/optim8.h"

#include <algorithm>
#include <cmath>

#include "../include/code8.hpp"
#include "half.hpp"

int32_t k_adamw8_fwd(uint64_t p, uint64_t m, uint64_t v, uint64_t m_scale, uint64_t v_scale, uint64_t ema, uint64_t copy, uint64_t grad,
                     uint64_t stats, int64_t n, int64_t n_copy, int64_t t, double lr, double beta1, double beta2, double eps,
                     double weight_decay, double unscale, double max_norm, double ema_rate, int32_t zero_grad, int32_t copy_dtype,
                     uint64_t) {
  const char* where = "k_adamw8_fwd";
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n = %lld, it must be >= 0", static_cast<long long>(n));
  if (t < 1) return fail(K_BAD_ARGUMENT, where, "t = %lld, it must be >= 1", static_cast<long long>(t));
  if (copy && copy_dtype != K_F16 && copy_dtype != K_BF16) {
    return fail(K_UNSUPPORTED, where, "copy_dtype is %d, it must be f16 (1) or bf16 (2)", copy_dtype);
  }
  const float norm = at<float>(stats)[0], clip = max_norm > 0 ? std::min(1.0f, float(max_norm) / (norm + 1e-6f)) : 1;
  const float decay = float(1 - lr * weight_decay), rate = float(lr / (1 - std::pow(beta1, double(t))));
  const float root = float(std::sqrt(1 - std::pow(beta2, double(t)))), scale = float(unscale) * clip;
  const float new_m = float(1 - beta1), old_v = float(beta2), new_v = float(1 - beta2), epsilon = float(eps);
  const float old_ema = float(ema_rate), new_ema = float(1 - ema_rate);
  const bool apply = at<float>(stats)[1] != 0;
  float *ps = at<float>(p), *emas = at<float>(ema), *grads = at<float>(grad), *m_scales = at<float>(m_scale), *v_scales = at<float>(v_scale);
  uint8_t *ms = at<uint8_t>(m), *vs = at<uint8_t>(v);
  const int64_t blocks = (n + K_ADAMW8_BLOCK - 1) / K_ADAMW8_BLOCK;
#pragma omp parallel for
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t first = b * K_ADAMW8_BLOCK, end = std::min(n, first + K_ADAMW8_BLOCK);
    float new_ms[K_ADAMW8_BLOCK], new_vs[K_ADAMW8_BLOCK], most_m = 0, most_v = 0;
    for (int64_t i = first; apply && i < end; i++) {
      const float g = grads[i] * scale, sign = ms[i] & 0x80 ? -1.0f : 1.0f;
      float mi = sign * code8::decode<14>(ms[i] & 0x7f) * m_scales[b], vi = code8::decode<30>(vs[i]) * v_scales[b];
      mi += new_m * (g - mi);
      vi = old_v * vi + new_v * g * g;
      ps[i] = ps[i] * decay - rate * mi / (std::sqrt(vi) / root + epsilon);
      if (copy && i < n_copy) at<uint16_t>(copy)[i] = copy_dtype == K_F16 ? from_f32<Half>(ps[i]).bits : from_f32<Bf16>(ps[i]).bits;
      most_m = std::max(most_m, std::fabs(new_ms[i - first] = mi));
      most_v = std::max(most_v, new_vs[i - first] = vi);
    }
    for (int64_t i = first; i < end; i++) {
      if (apply) {
        const float mi = new_ms[i - first], vi = new_vs[i - first];
        const uint32_t noise = code8::hash(uint64_t(i), uint32_t(t)), other = noise * 0x9e3779b1u;
        const uint32_t m_code = most_m > 0 ? code8::encode<14>(std::fabs(mi) / most_m, 0x7f, noise >> 12) : 0;
        ms[i] = uint8_t(m_code | (std::signbit(mi) ? 0x80 : 0));
        vs[i] = uint8_t(vi > 0 ? std::max(1u, code8::encode<30>(vi / most_v, 0xff, other >> 12)) : 0);
      }
      if (ema) emas[i] = old_ema * emas[i] + new_ema * ps[i];
      if (zero_grad) grads[i] = 0;
    }
    if (apply) {
      m_scales[b] = most_m;
      v_scales[b] = most_v;
    }
  }
  return K_OK;
}
