// The optimizer on the CPU, in f32 and in the order of operations of the CUDA library.
#include "../include/optim.h"

#include <algorithm>
#include <cmath>

#include "half.hpp"

namespace {
int32_t expect_n(const char* where, int64_t n) {
  return n >= 0 ? K_OK : fail(K_BAD_ARGUMENT, where, "n = %lld, it must be >= 0", static_cast<long long>(n));
}
}  // namespace

int32_t k_grad_norm_workspace(uint64_t* bytes, int64_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_grad_norm_fwd(uint64_t stats, uint64_t grad, uint64_t, int64_t n, double unscale, uint64_t) {
  if (const int32_t status = expect_n("k_grad_norm_fwd", n)) return status;
  double sum = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    const float g = at<const float>(grad)[i];
    sum += g * unscale * (g * unscale);
    finite &= std::isfinite(g);
  }
  at<float>(stats)[0] = float(std::sqrt(sum));
  at<float>(stats)[1] = finite ? 1 : 0;
  return K_OK;
}

int32_t k_adamw_fwd(uint64_t p, uint64_t m, uint64_t v, uint64_t ema, uint64_t copy, uint64_t grad, uint64_t stats, int64_t n,
                    int64_t n_copy, int64_t t, double lr, double beta1, double beta2, double eps, double weight_decay, double unscale,
                    double max_norm, double ema_rate, int32_t zero_grad, int32_t copy_dtype, uint64_t) {
  const char* where = "k_adamw_fwd";
  if (const int32_t status = expect_n(where, n)) return status;
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
  float *ps = at<float>(p), *ms = at<float>(m), *vs = at<float>(v), *emas = at<float>(ema), *grads = at<float>(grad);
#pragma omp parallel for
  for (int64_t i = 0; i < n; i++) {
    if (apply) {
      const float g = grads[i] * scale;
      ms[i] += new_m * (g - ms[i]);
      vs[i] = old_v * vs[i] + new_v * g * g;
      ps[i] = ps[i] * decay - rate * ms[i] / (std::sqrt(vs[i]) / root + epsilon);
      if (copy && i < n_copy) at<uint16_t>(copy)[i] = copy_dtype == K_F16 ? from_f32<Half>(ps[i]).bits : from_f32<Bf16>(ps[i]).bits;
    }
    if (ema) emas[i] = old_ema * emas[i] + new_ema * ps[i];
    if (zero_grad) grads[i] = 0;
  }
  return K_OK;
}

int32_t k_ema_fwd(uint64_t ema, uint64_t p, int64_t n, double rate, uint64_t) {
  if (const int32_t status = expect_n("k_ema_fwd", n)) return status;
#pragma omp parallel for
  for (int64_t i = 0; i < n; i++) at<float>(ema)[i] = float(rate) * at<float>(ema)[i] + float(1 - rate) * at<float>(p)[i];
  return K_OK;
}
