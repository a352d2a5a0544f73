// Layer norms on the CPU: plain, modulated, of a residual sum.
#include "../include/norm.h"

#include <algorithm>
#include <cmath>

#include "host.hpp"
#include "../include/norm_check.hpp"

namespace {
constexpr int COLUMNS = 16;  // summed together: one cache line

int32_t check(Samples& samples, const char* where, const k_norm* p) {
  if (const int32_t status = check_norm(samples, where, p)) return status;
  return expect_f32(where, int32_t(p->dtype));
}

// What multiplies xhat in column c of sample b.
struct Gain {
  const float *w, *scale;
  int64_t stride;
  explicit Gain(const k_norm& p) : w(at<float>(p.w)), scale(at<float>(p.scale)), stride(p.stride) {}
  double operator()(int64_t b, int64_t c) const { return w ? w[c] : scale ? 1.0 + scale[b * stride + c] : 1.0; }
};

void store(float* to, double v, bool adds) { *to = adds ? *to + float(v) : float(v); }
}  // namespace

int32_t k_norm_fwd(const k_norm* problem, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_norm_fwd", problem)) return status;
  const k_norm& p = *problem;
  const int64_t C = p.C;
  const float *x = at<float>(p.x), *h = at<float>(p.h), *gate = at<float>(p.gate), *bias = at<float>(p.b), *shift = at<float>(p.shift);
  const Gain gain(p);
#pragma omp parallel for
  for (int64_t n = 0; n < samples.N; n++) {
    const int64_t s = samples.of(n);
    const float* row = x + n * C;
    if (h) {
      float* sum = at<float>(p.sum) + n * C;
      for (int64_t c = 0; c < C; c++) sum[c] = row[c] + h[n * C + c] * (gate ? gate[s * p.gate_stride + c] : 1);
      row = sum;
    }
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < C; c++) sum += row[c];
    const double m = sum / C;
    for (int64_t c = 0; c < C; c++) squares += (row[c] - m) * (row[c] - m);
    const double r = 1 / std::sqrt(squares / C + p.eps);
    at<float>(p.mean)[n] = float(m);
    at<float>(p.rstd)[n] = float(r);
    for (int64_t c = 0; c < C; c++) {
      const double offset = bias ? bias[c] : shift ? shift[s * p.stride + c] : 0;
      at<float>(p.y)[n * C + c] = float((row[c] - m) * r * gain(s, c) + offset);
    }
  }
  return K_OK;
}

int32_t k_norm_bwd_workspace(uint64_t* bytes, const k_norm*) {
  *bytes = 0;
  return K_OK;
}

int32_t k_norm_bwd(const k_norm* problem, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_norm_bwd", problem)) return status;
  if (const int32_t status = check_norm_gradients("k_norm_bwd", problem)) return status;
  const k_norm& p = *problem;
  const int64_t C = p.C;
  const float *x = at<float>(p.h ? p.sum : p.x), *h = at<float>(p.h), *gate = at<float>(p.gate), *dy = at<float>(p.dy),
              *dsum = at<float>(p.dsum), *mean = at<float>(p.mean), *rstd = at<float>(p.rstd);
  float *dx = at<float>(p.dx), *dh = at<float>(p.dh);
  const Gain gain(p);
#pragma omp parallel for
  for (int64_t n = 0; n < (dx ? samples.N : 0); n++) {
    const int64_t s = samples.of(n);
    const float *row = x + n * C, *dyn = dy + n * C;
    const double m = mean[n], r = rstd[n];
    double sum_g = 0, sum_gx = 0;
    for (int64_t c = 0; c < C; c++) {
      const double g = dyn[c] * gain(s, c);
      sum_g += g;
      sum_gx += g * (row[c] - m) * r;
    }
    for (int64_t c = 0; c < C; c++) {
      const double g = dyn[c] * gain(s, c), d = r * (g - sum_g / C - (row[c] - m) * r * sum_gx / C) + (dsum ? dsum[n * C + c] : 0);
      dx[n * C + c] = float(d);
      if (dh) dh[n * C + c] = float(d * gate[s * p.gate_stride + c]);
    }
  }
  const bool whole = p.dw || p.db;  // sums over all rows, beside those of samples
  const int64_t groups = whole || p.dbias || p.dgate || p.dscale || p.dshift ? (C + COLUMNS - 1) / COLUMNS : 0;
#pragma omp parallel for
  for (int64_t i = 0; i < groups; i++) {
    const int64_t first = i * COLUMNS, count = std::min<int64_t>(COLUMNS, C - first);
    double all_w[COLUMNS] = {}, all_b[COLUMNS] = {}, all_h[COLUMNS] = {};
    for (int64_t s = 0; s < samples.B; s++) {
      double sum_w[COLUMNS] = {}, sum_b[COLUMNS] = {}, sum_g[COLUMNS] = {};
      for (int64_t n = samples.first(s); n < samples.first(s + 1); n++) {
        const float *row = x + n * C + first, *dyn = dy + n * C + first;
        const double m = mean[n], r = rstd[n];
        for (int64_t c = 0; c < count; c++) {
          sum_w[c] += dyn[c] * (row[c] - m) * r;
          sum_b[c] += dyn[c];
        }
        for (int64_t c = 0; p.dgate && c < count; c++) sum_g[c] += double(dx[n * C + first + c]) * h[n * C + first + c];
        for (int64_t c = 0; p.dbias && c < count; c++) all_h[c] += (gate ? dh : dx)[n * C + first + c];
      }
      for (int64_t c = 0; c < count; c++) {
        all_w[c] += sum_w[c];
        all_b[c] += sum_b[c];
        if (p.dgate) store(at<float>(p.dgate) + s * p.gate_stride + first + c, sum_g[c], p.adds);
        if (p.dscale) store(at<float>(p.dscale) + s * p.stride + first + c, sum_w[c], p.adds);
        if (p.dshift) store(at<float>(p.dshift) + s * p.stride + first + c, sum_b[c], p.adds);
      }
    }
    for (int64_t c = 0; c < count; c++) {
      if (p.dw) at<float>(p.dw)[first + c] = float(all_w[c]);
      if (p.db) at<float>(p.db)[first + c] = float(all_b[c]);
      if (p.dbias) at<float>(p.dbias)[first + c] = float(all_h[c]);
    }
  }
  return K_OK;
}
