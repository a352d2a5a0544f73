#include "../include/reduce.h"

#include <algorithm>
#include <vector>

#include "host.hpp"

namespace {
int32_t check(const char* where, int64_t O, int64_t R, int64_t I, int32_t y_dtype, int32_t x_dtype) {
  if (O < 0 || R < 0 || I < 0) {
    return fail(K_BAD_ARGUMENT, where, "[O, R, I] is [%lld, %lld, %lld], it must be at least 0", (long long)O, (long long)R, (long long)I);
  }
  const int32_t status = expect_f32(where, x_dtype);
  return status ? status : expect_f32(where, y_dtype);
}

// Rows are summed in blocks of a fixed length, so that the order does not depend on the number of threads.
constexpr int64_t BLOCK = 1 << 15;

double sum_of(const float* x, int64_t n) {
  double sum[8] = {};
  for (int64_t i = 0; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; j++) sum[j] += x[i + j];
  }
  for (int64_t i = n / 8 * 8; i < n; i++) sum[0] += x[i];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

void sum_rows(float* y, const float* x, int64_t O, int64_t R, float scale) {
  const int64_t blocks = (R + BLOCK - 1) / BLOCK;
  if (blocks < 2) {
#pragma omp parallel for schedule(static) if (O * R > BLOCK)
    for (int64_t o = 0; o < O; o++) y[o] = float(scale * sum_of(x + o * R, R));
    return;
  }
  std::vector<double> partial(blocks);
  for (int64_t o = 0; o < O; o++) {
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < blocks; k++) partial[k] = sum_of(x + o * R + k * BLOCK, std::min(BLOCK, R - k * BLOCK));
    double sum = 0;
    for (double p : partial) sum += p;
    y[o] = float(scale * sum);
  }
}

void sum_columns(float* y, const float* x, int64_t O, int64_t R, int64_t I, float scale) {
  constexpr int64_t WIDTH = 64;
  const int64_t tiles = (I + WIDTH - 1) / WIDTH;
#pragma omp parallel for schedule(static) if (O * tiles > 1 && O * R * I > BLOCK)
  for (int64_t k = 0; k < O * tiles; k++) {
    const int64_t o = k / tiles, first = k % tiles * WIDTH, width = std::min(WIDTH, I - first);
    double sum[WIDTH] = {};
    for (int64_t r = 0; r < R; r++) {
      const float* xr = x + (o * R + r) * I + first;
#pragma omp simd
      for (int64_t i = 0; i < width; i++) sum[i] += xr[i];
    }
    for (int64_t i = 0; i < width; i++) y[o * I + first + i] = float(scale * sum[i]);
  }
}
}  // namespace

int32_t k_sum_fwd(uint64_t y, uint64_t x, uint64_t, int64_t O, int64_t R, int64_t I, float scale, int32_t y_dtype, int32_t x_dtype,
                  uint64_t) {
  if (int32_t status = check("k_sum_fwd", O, R, I, y_dtype, x_dtype)) return status;
  if (I == 1) sum_rows(at<float>(y), at<const float>(x), O, R, scale);
  else sum_columns(at<float>(y), at<const float>(x), O, R, I, scale);
  return K_OK;
}

int32_t k_sum_workspace(uint64_t* bytes, int64_t, int64_t, int64_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_sum_bwd(uint64_t dx, uint64_t dy, int64_t O, int64_t R, int64_t I, float scale, int32_t y_dtype, int32_t x_dtype, uint64_t) {
  if (int32_t status = check("k_sum_bwd", O, R, I, y_dtype, x_dtype)) return status;
  float* dxp = at<float>(dx);
  const float* dyp = at<const float>(dy);
  if (I == 1) {
#pragma omp parallel for schedule(static) if (O * R > BLOCK)
    for (int64_t o = 0; o < O; o++) {
      const float v = scale * dyp[o];
      for (int64_t r = 0; r < R; r++) dxp[o * R + r] = v;
    }
  } else {
#pragma omp parallel for schedule(static) if (O * R * I > BLOCK)
    for (int64_t k = 0; k < O * R; k++) {
      for (int64_t i = 0; i < I; i++) dxp[k * I + i] = scale * dyp[k / R * I + i];
    }
  }
  return K_OK;
}
