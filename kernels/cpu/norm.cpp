// Layer norm, plain and modulated, on the CPU.
#include "../include/norm.h"

#include <algorithm>
#include <cmath>

#include "host.hpp"
#include "../include/samples.hpp"

namespace {
constexpr int COLUMNS = 16;  // summed together: one cache line

// y[n] = xhat * (one + w[b]) + s[b] for the rows n of sample b; w and s may be absent.
void forward(float* y, float* mean, float* rstd, const float* x, const float* w, const float* s, double one, const Samples& samples,
             int64_t C, float eps) {
#pragma omp parallel for
  for (int64_t n = 0; n < samples.N; n++) {
    const int64_t b = samples.of(n);
    const float *row = x + n * C, *wn = w ? w + b * C : nullptr, *sn = s ? s + b * C : nullptr;
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < C; c++) sum += row[c];
    const double m = sum / C;
    for (int64_t c = 0; c < C; c++) squares += (row[c] - m) * (row[c] - m);
    const double r = 1 / std::sqrt(squares / C + eps);
    mean[n] = float(m);
    rstd[n] = float(r);
    for (int64_t c = 0; c < C; c++) y[n * C + c] = float((row[c] - m) * r * (one + (wn ? wn[c] : 0)) + (sn ? sn[c] : 0));
  }
}

void backward(float* dx, float* dw, float* ds, const float* dy, const float* x, const float* w, double one, const float* mean,
              const float* rstd, const Samples& samples, int64_t C) {
#pragma omp parallel for
  for (int64_t n = 0; n < (dx ? samples.N : 0); n++) {
    const float *row = x + n * C, *dyn = dy + n * C, *wn = w ? w + samples.of(n) * C : nullptr;
    const double m = mean[n], r = rstd[n];
    double sum_g = 0, sum_gx = 0;
    for (int64_t c = 0; c < C; c++) {
      const double g = dyn[c] * (one + (wn ? wn[c] : 0));
      sum_g += g;
      sum_gx += g * (row[c] - m) * r;
    }
    for (int64_t c = 0; c < C; c++) {
      const double g = dyn[c] * (one + (wn ? wn[c] : 0));
      dx[n * C + c] = float(r * (g - sum_g / C - (row[c] - m) * r * sum_gx / C));
    }
  }
  const int64_t blocks = dw || ds ? (C + COLUMNS - 1) / COLUMNS : 0;
#pragma omp parallel for
  for (int64_t i = 0; i < samples.B * blocks; i++) {
    const int64_t b = i / blocks, first = i % blocks * COLUMNS, count = std::min<int64_t>(COLUMNS, C - first);
    double sum_w[COLUMNS] = {}, sum_s[COLUMNS] = {};
    for (int64_t n = samples.first(b); n < samples.first(b + 1); n++) {
      const float *row = x + n * C + first, *dyn = dy + n * C + first;
      const double m = mean[n], r = rstd[n];
      for (int64_t c = 0; c < count; c++) {
        sum_w[c] += dyn[c] * (row[c] - m) * r;
        sum_s[c] += dyn[c];
      }
    }
    for (int64_t c = 0; c < count; c++) {
      if (dw) dw[b * C + first + c] = float(sum_w[c]);
      if (ds) ds[b * C + first + c] = float(sum_s[c]);
    }
  }
}

int32_t check(Samples& samples, const char* where, uint64_t offsets, int32_t N, int32_t B, int32_t C, int32_t dtype) {
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  return expect_f32(where, dtype);
}
}  // namespace

int32_t k_layer_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, int32_t N, int32_t C, float eps,
                         int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_layer_norm_fwd", 0, N, 1, C, dtype)) return status;
  forward(at<float>(y), at<float>(mean), at<float>(rstd), at<float>(x), at<float>(w), at<float>(b), w ? 0 : 1, samples, C, eps);
  return K_OK;
}

int32_t k_layer_norm_bwd_workspace(uint64_t* bytes, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_layer_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd, uint64_t,
                         int32_t N, int32_t C, int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_layer_norm_bwd", 0, N, 1, C, dtype)) return status;
  backward(at<float>(dx), at<float>(dw), at<float>(db), at<float>(dy), at<float>(x), at<float>(w), w ? 0 : 1, at<float>(mean),
           at<float>(rstd), samples, C);
  return K_OK;
}

int32_t k_layer_norm_modulate_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t shift, uint64_t scale, uint64_t offsets,
                                  int32_t N, int32_t B, int32_t C, float eps, int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_layer_norm_modulate_fwd", offsets, N, B, C, dtype)) return status;
  forward(at<float>(y), at<float>(mean), at<float>(rstd), at<float>(x), at<float>(scale), at<float>(shift), 1, samples, C, eps);
  return K_OK;
}

int32_t k_layer_norm_modulate_bwd_workspace(uint64_t* bytes, int32_t, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_layer_norm_modulate_bwd(uint64_t dx, uint64_t dshift, uint64_t dscale, uint64_t dy, uint64_t x, uint64_t scale, uint64_t mean,
                                  uint64_t rstd, uint64_t offsets, uint64_t, int32_t N, int32_t B, int32_t C, int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_layer_norm_modulate_bwd", offsets, N, B, C, dtype)) return status;
  backward(at<float>(dx), at<float>(dscale), at<float>(dshift), at<float>(dy), at<float>(x), at<float>(scale), 1, at<float>(mean),
           at<float>(rstd), samples, C);
  return K_OK;
}
