// Group norm of channels-last tensors on the CPU.
#include "../include/group_norm.h"

#include <cmath>

#include "host.hpp"
#include "../include/samples.hpp"

namespace {
int32_t check(Samples& samples, const char* where, uint64_t offsets, int32_t N, int32_t B, int32_t C, int32_t G, int32_t dtype) {
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  if (G < 1 || C % G) return fail(K_BAD_ARGUMENT, where, "G = %d, it must divide C = %d", G, C);
  return expect_f32(where, dtype);
}
}  // namespace

int32_t k_group_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, uint64_t offsets, uint64_t,
                         int32_t N, int32_t B, int32_t C, int32_t G, float eps, int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_group_norm_fwd", offsets, N, B, C, G, dtype)) return status;
  const int64_t width = C / G;
#pragma omp parallel for
  for (int64_t i = 0; i < int64_t(B) * G; i++) {
    const int64_t start = samples.first(i / G), L = samples.first(i / G + 1) - start, first = start * C + i % G * width;
    if (L == 0) continue;
    const float *xi = at<float>(x) + first, *wi = w ? at<float>(w) + i % G * width : nullptr,
                *bi = b ? at<float>(b) + i % G * width : nullptr;
    double sum = 0, squares = 0;
    for (int64_t l = 0; l < L; l++) {
      for (int64_t c = 0; c < width; c++) sum += xi[l * C + c];
    }
    const double count = double(L) * width, m = sum / count;
    for (int64_t l = 0; l < L; l++) {
      for (int64_t c = 0; c < width; c++) squares += (xi[l * C + c] - m) * (xi[l * C + c] - m);
    }
    const double r = 1 / std::sqrt(squares / count + eps);
    at<float>(mean)[i] = float(m);
    at<float>(rstd)[i] = float(r);
    float* yi = at<float>(y) + first;
    for (int64_t l = 0; l < L; l++) {
      for (int64_t c = 0; c < width; c++) yi[l * C + c] = float((xi[l * C + c] - m) * r * (wi ? wi[c] : 1) + (bi ? bi[c] : 0));
    }
  }
  return K_OK;
}

int32_t k_group_norm_workspace(uint64_t* bytes, int32_t, int32_t, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_group_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd,
                         uint64_t offsets, uint64_t, int32_t N, int32_t B, int32_t C, int32_t G, int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_group_norm_bwd", offsets, N, B, C, G, dtype)) return status;
  const int64_t width = C / G;
#pragma omp parallel for
  for (int64_t i = 0; i < (dx ? int64_t(B) * G : 0); i++) {
    const int64_t start = samples.first(i / G), L = samples.first(i / G + 1) - start, first = start * C + i % G * width;
    const float *xi = at<float>(x) + first, *dyi = at<float>(dy) + first, *wi = w ? at<float>(w) + i % G * width : nullptr;
    const double m = at<float>(mean)[i], r = at<float>(rstd)[i], count = double(L) * width;
    double sum_g = 0, sum_gx = 0;
    for (int64_t l = 0; l < L; l++) {
      for (int64_t c = 0; c < width; c++) {
        const double g = dyi[l * C + c] * double(wi ? wi[c] : 1);
        sum_g += g;
        sum_gx += g * (xi[l * C + c] - m) * r;
      }
    }
    float* dxi = at<float>(dx) + first;
    for (int64_t l = 0; l < L; l++) {
      for (int64_t c = 0; c < width; c++) {
        const double g = dyi[l * C + c] * double(wi ? wi[c] : 1);
        dxi[l * C + c] = float(r * (g - sum_g / count - (xi[l * C + c] - m) * r * sum_gx / count));
      }
    }
  }
#pragma omp parallel for
  for (int64_t c = 0; c < (dw || db ? C : 0); c++) {
    double sum_w = 0, sum_b = 0;
    for (int64_t n = 0; n < N; n++) {
      const int64_t group = samples.of(n) * G + c / width;
      const double d = at<float>(dy)[n * C + c];
      sum_w += d * (at<float>(x)[n * C + c] - at<float>(mean)[group]) * at<float>(rstd)[group];
      sum_b += d;
    }
    if (dw) at<float>(dw)[c] = float(sum_w);
    if (db) at<float>(db)[c] = float(sum_b);
  }
  return K_OK;
}
