// Pooling and the distance of unit vectors on the CPU.
#include "../include/perceptual.h"

#include <algorithm>
#include <cmath>

#include "host.hpp"

namespace {
constexpr double EPS = 1e-10;

int32_t check_image(const char* where, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype) {
  if (B < 0 || H < 0 || W < 0 || C < 0) {
    return fail(K_BAD_ARGUMENT, where, "B = %d, H = %d, W = %d, C = %d, they must be >= 0", B, H, W, C);
  }
  return expect_f32(where, dtype);
}

int32_t check_rows(const char* where, int32_t N, int32_t C, int32_t dtype) {
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", N, C);
  return expect_f32(where, dtype);
}

// The offsets of the four values of window `cell` of [B, H / 2, W / 2], and the place of the first largest in channel c.
struct Pool {
  int64_t H, W, C;
  int64_t cells(int64_t B) const { return B * (H / 2) * (W / 2); }
  int64_t at(int64_t cell, int k) const {
    const int64_t j = cell % (W / 2), i = cell / (W / 2) % (H / 2), b = cell / (W / 2) / (H / 2);
    return ((b * H + 2 * i + k / 2) * W + 2 * j + k % 2) * C;
  }
  int largest(const float* x, int64_t cell, int64_t c) const {
    int best = 0;
    for (int k = 1; k < 4; k++) {
      const float v = x[at(cell, k) + c];
      if (v > x[at(cell, best) + c] || std::isnan(v)) best = k;
    }
    return best;
  }
};

double length(const float* v, int64_t C) {
  double sum = 0;
  for (int64_t c = 0; c < C; c++) sum += double(v[c]) * v[c];
  return std::sqrt(sum);
}
}  // namespace

int32_t k_max_pool2d_fwd(uint64_t y, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype, uint64_t) {
  if (const int32_t status = check_image("k_max_pool2d_fwd", B, H, W, C, dtype)) return status;
  const Pool pool{H, W, C};
#pragma omp parallel for
  for (int64_t cell = 0; cell < pool.cells(B); cell++) {
    for (int64_t c = 0; c < C; c++) {
      const float* from = at<const float>(x);
      at<float>(y)[cell * C + c] = from[pool.at(cell, pool.largest(from, cell, c)) + c];
    }
  }
  return K_OK;
}

int32_t k_max_pool2d_bwd(uint64_t dx, uint64_t dy, uint64_t x, int32_t B, int32_t H, int32_t W, int32_t C, int32_t dtype, uint64_t) {
  if (const int32_t status = check_image("k_max_pool2d_bwd", B, H, W, C, dtype)) return status;
  const Pool pool{H, W, C};
  std::fill_n(at<float>(dx), int64_t(B) * H * W * C, 0.f);
#pragma omp parallel for
  for (int64_t cell = 0; cell < pool.cells(B); cell++) {
    for (int64_t c = 0; c < C; c++) {
      at<float>(dx)[pool.at(cell, pool.largest(at<const float>(x), cell, c)) + c] = at<const float>(dy)[cell * C + c];
    }
  }
  return K_OK;
}

int32_t k_unit_distance_fwd(uint64_t d, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C, int32_t dtype, uint64_t) {
  if (const int32_t status = check_rows("k_unit_distance_fwd", N, C, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float *u = at<const float>(a) + n * C, *v = at<const float>(b) + n * C, *weight = at<const float>(w);
    const double p = 1 / (length(u, C) + EPS), q = 1 / (length(v, C) + EPS);
    double sum = 0;
    for (int64_t c = 0; c < C; c++) sum += weight[c] * (u[c] * p - v[c] * q) * (u[c] * p - v[c] * q);
    at<float>(d)[n] = float(sum);
  }
  return K_OK;
}

int32_t k_unit_distance_bwd(uint64_t da, uint64_t dd, uint64_t a, uint64_t b, uint64_t w, int32_t N, int32_t C, int32_t dtype, uint64_t) {
  if (const int32_t status = check_rows("k_unit_distance_bwd", N, C, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float *u = at<const float>(a) + n * C, *v = at<const float>(b) + n * C, *weight = at<const float>(w);
    const double size = length(u, C), p = 1 / (size + EPS), q = 1 / (length(v, C) + EPS), g = 2 * at<const float>(dd)[n];
    double dot = 0;  // of the unit vector with the gradient after it
    for (int64_t c = 0; c < C; c++) dot += weight[c] * (u[c] * p - v[c] * q) * u[c] * p;
    for (int64_t c = 0; c < C; c++) {
      at<float>(da)[n * C + c] = size > 0 ? float(g * p * (weight[c] * (u[c] * p - v[c] * q) - u[c] / size * dot)) : 0.f;
    }
  }
  return K_OK;
}
