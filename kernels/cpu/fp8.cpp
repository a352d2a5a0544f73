// 8-bit floats with a scale for each row, on the CPU: E4M3 in plain arithmetic.
#include "../include/fp8.h"

#include <algorithm>
#include <cmath>

#include "host.hpp"
#include "../include/elementwise_ops.hpp"

namespace {
constexpr float LARGEST = 448;

// The bits of v in E4M3, rounded to nearest even, at most +-448.
uint8_t to_e4m3(float v) {
  if (std::isnan(v)) return 0x7f;
  const uint8_t sign = std::signbit(v) ? 0x80 : 0;
  const float size = std::min(std::fabs(v), LARGEST);
  if (size == 0) return sign;
  const int exponent = std::max(-6, std::ilogb(size));              // below 2^-6 values are subnormal, 2^-9 apart
  const int units = int(std::nearbyint(std::ldexp(size, 3 - exponent)));  // 8 to 16, or 0 to 8 in the lowest range
  const int bits = units < 8 ? units : units == 16 ? (exponent + 8) << 3 : (exponent + 7) << 3 | (units - 8);
  return sign | uint8_t(bits);
}

float from_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const float size = exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9);
  return bits & 0x80 ? -size : size;
}

int32_t check(const char* where, int32_t N, int32_t C, int32_t dtype) {
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", N, C);
  return expect_f32(where, dtype);
}
}  // namespace

int32_t k_fp8_quantize_fwd(uint64_t y, uint64_t scale, uint64_t x, uint64_t columns, int32_t N, int32_t C, int32_t act, int32_t dtype,
                           uint64_t) {
  if (const int32_t status = check("k_fp8_quantize_fwd", N, C, dtype)) return status;
  const float* column = at<float>(columns);
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float* row = at<float>(x) + n * C;
    const auto value = [&](int64_t c) { return (act == K_FP8_GELU ? Gelu::fwd(row[c]) : row[c]) * (column ? column[c] : 1); };
    float largest = 0;
    for (int64_t c = 0; c < C; c++) {
      const float size = std::fabs(value(c));
      if (size > largest || std::isnan(size)) largest = size;
      if (std::isnan(largest)) break;
    }
    const float inverse = largest == 0 ? 1 : LARGEST / largest;
    at<float>(scale)[n] = largest == 0 ? 1 : largest / LARGEST;
    for (int64_t c = 0; c < C; c++) at<uint8_t>(y)[n * C + c] = to_e4m3(value(c) * inverse);
  }
  return K_OK;
}

int32_t k_fp8_dequantize_fwd(uint64_t y, uint64_t x, uint64_t scale, int32_t N, int32_t C, int32_t dtype, uint64_t) {
  if (const int32_t status = check("k_fp8_dequantize_fwd", N, C, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float by = scale ? at<float>(scale)[n] : 1;
    for (int64_t c = 0; c < C; c++) at<float>(y)[n * C + c] = from_e4m3(at<uint8_t>(x)[n * C + c]) * by;
  }
  return K_OK;
}
