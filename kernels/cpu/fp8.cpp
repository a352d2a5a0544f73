// 8-bit floats with a scale for each row, on the CPU.
#include "../include/fp8.h"

#include "host.hpp"
#include "fp8.hpp"
#include "../include/elementwise_ops.hpp"

int32_t k_fp8_quantize_workspace(uint64_t* bytes, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t sums, uint64_t x, uint64_t columns, uint64_t, int32_t N, int32_t C, int32_t act,
                           int32_t dtype, uint64_t) {
  const char* where = "k_fp8_quantize_fwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (const int32_t status = expect_f32(where, dtype)) return status;
  if (sums && act != K_FP8_NONE) return fail(K_BAD_ARGUMENT, where, "sums are wanted with an activation, act must be 0");
  const float* column = at<float>(columns);
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float* row = at<float>(x) + n * C;
    quantize_row(at<uint8_t>(y) + n * C, at<float>(scale) + n, C,
                 [&](int64_t c) { return (act == K_FP8_GELU ? Gelu::fwd(row[c]) : row[c]) * (column ? column[c] : 1); });
  }
#pragma omp parallel for
  for (int64_t c = 0; c < (sums ? C : 0); c++) {
    double sum = 0;
    for (int64_t n = 0; n < N; n++) sum += at<float>(x)[n * C + c];
    at<float>(sums)[c] = float(sum);
  }
  return K_OK;
}

int32_t k_fp8_dequantize_fwd(uint64_t y, uint64_t x, uint64_t scale, int32_t N, int32_t C, int32_t dtype, uint64_t) {
  const char* where = "k_fp8_dequantize_fwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (const int32_t status = expect_f32(where, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float by = scale ? at<float>(scale)[n] : 1;
    for (int64_t c = 0; c < C; c++) at<float>(y)[n * C + c] = from_e4m3(at<uint8_t>(x)[n * C + c]) * by;
  }
  return K_OK;
}
