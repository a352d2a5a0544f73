// The multi-head RMS norm on the CPU.
#include "../include/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "host.hpp"

namespace {
constexpr double SMALLEST = 1e-12;

int32_t check(const char* where, int32_t N, int32_t G, int32_t H, int32_t D, int32_t groups, int32_t x_groups, int32_t dtype) {
  if (groups < G || x_groups < G) return fail(K_BAD_ARGUMENT, where, "there are %d and %d groups, it must be at least G = %d", groups, x_groups, G);
  if (N < 0 || H < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and H = %d, N must be >= 0 and H > 0", N, H);
  if (G < 1 || G > 3) return fail(K_BAD_ARGUMENT, where, "G = %d, it must be 1 to 3", G);
  if (D < 1 || D > 256) return fail(K_BAD_ARGUMENT, where, "D = %d, it must be 1 to 256", D);
  return expect_f32(where, dtype);
}

double length(const float* v, int64_t D) {
  double sum = 0;
  for (int64_t d = 0; d < D; d++) sum += double(v[d]) * v[d];
  return std::sqrt(sum);
}
}  // namespace

int32_t k_head_rms_norm_fwd(uint64_t y, uint64_t x, uint64_t gamma_0, uint64_t gamma_1, uint64_t gamma_2, int32_t N, int32_t G, int32_t H,
                            int32_t D, int32_t y_groups, int32_t x_groups, int32_t dtype, uint64_t) {
  if (const int32_t status = check("k_head_rms_norm_fwd", N, G, H, D, y_groups, x_groups, dtype)) return status;
  const uint64_t gammas[3] = {gamma_0, gamma_1, gamma_2};
#pragma omp parallel for
  for (int64_t i = 0; i < int64_t(N) * G * H; i++) {
    const int64_t n = i / H / G, slot = i % (int64_t(G) * H);
    const float *v = at<float>(x) + (n * x_groups * H + slot) * D, *gamma = at<float>(gammas[slot / H]);
    float* out = at<float>(y) + (n * y_groups * H + slot) * D;
    if (!gamma) {
      std::copy(v, v + D, out);
      continue;
    }
    const double size = std::max(length(v, D), SMALLEST);
    for (int64_t d = 0; d < D; d++) out[d] = float(v[d] / size * gamma[i % H * D + d] * std::sqrt(double(D)));
  }
  return K_OK;
}

int32_t k_head_rms_norm_bwd_workspace(uint64_t* bytes, int32_t, int32_t, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_head_rms_norm_bwd(uint64_t dx, uint64_t dgamma_0, uint64_t dgamma_1, uint64_t dgamma_2, uint64_t dy, uint64_t x, uint64_t gamma_0,
                            uint64_t gamma_1, uint64_t gamma_2, uint64_t, int32_t N, int32_t G, int32_t H, int32_t D, int32_t dy_groups,
                            int32_t x_groups, int32_t dtype, uint64_t) {
  if (const int32_t status = check("k_head_rms_norm_bwd", N, G, H, D, dy_groups, x_groups, dtype)) return status;
  const uint64_t gammas[3] = {gamma_0, gamma_1, gamma_2}, dgammas[3] = {dgamma_0, dgamma_1, dgamma_2};
  const double root = std::sqrt(double(D));
#pragma omp parallel for
  for (int64_t slot = 0; slot < int64_t(G) * H; slot++) {
    const float* gamma = at<float>(gammas[slot / H]);
    float* dgamma = at<float>(dgammas[slot / H]);
    double sum[256] = {};
    for (int64_t row = 0; row < N; row++) {
      const int64_t i = row * dy_groups * H + slot;
      const float *v = at<float>(x) + (row * x_groups * H + slot) * D, *dv = at<float>(dy) + i * D;
      float* out = dx ? at<float>(dx) + i * D : nullptr;
      if (!gamma) {
        if (out) std::copy(dv, dv + D, out);
        continue;
      }
      const float* scale = gamma + slot % H * D;
      const double size = length(v, D), n = std::max(size, SMALLEST);
      double dot = 0;
      for (int64_t d = 0; d < D; d++) {
        dot += v[d] / n * dv[d] * scale[d];
        sum[d] += v[d] / n * dv[d];
      }
      if (size <= SMALLEST) dot = 0;
      for (int64_t d = 0; out && d < D; d++) out[d] = float(root / n * (double(dv[d]) * scale[d] - v[d] / n * dot));
    }
    for (int64_t d = 0; dgamma && d < D; d++) dgamma[slot % H * D + d] = float(sum[d] * root);
  }
  return K_OK;
}
