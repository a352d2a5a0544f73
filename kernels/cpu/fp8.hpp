// 8-bit floats of the format E4M3 in plain arithmetic.
#pragma once
#include <algorithm>
#include <cmath>

#include "../include/fp8_scale.hpp"

namespace {
// The bits of v in E4M3, rounded to nearest even, at most +-448.
inline uint8_t to_e4m3(float v) {
  if (std::isnan(v)) return 0x7f;
  const uint8_t sign = std::signbit(v) ? 0x80 : 0;
  const float size = std::min(std::fabs(v), 448.0f);
  if (size == 0) return sign;
  const int exponent = std::max(-6, std::ilogb(size));              // below 2^-6 values are subnormal, 2^-9 apart
  const int units = int(std::nearbyint(std::ldexp(size, 3 - exponent)));  // 8 to 16, or 0 to 8 in the lowest range
  const int bits = units < 8 ? units : units == 16 ? (exponent + 8) << 3 : (exponent + 7) << 3 | (units - 8);
  return sign | uint8_t(bits);
}

inline float from_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const float size = exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9);
  return bits & 0x80 ? -size : size;
}

// Writes the C values value(c) of a row in 8 bits, and their scale.
template <class F>
void quantize_row(uint8_t* y, float* scale, int64_t C, F value) {
  float largest = 0;
  for (int64_t c = 0; c < C; c++) {
    const float size = std::fabs(value(c));
    if (size > largest || std::isnan(size)) largest = size;
    if (std::isnan(largest)) break;
  }
  const int exponent = fp8_row_exponent(largest);
  const float inverse = fp8_power(exponent == FP8_NAN ? exponent : -exponent);
  *scale = fp8_power(exponent);
  for (int64_t c = 0; c < C; c++) y[c] = to_e4m3(value(c) * inverse);
}

inline int32_t check_fp8(const char* where, int32_t N, int32_t C) {
  return N < 0 || C < 1 ? fail(K_BAD_ARGUMENT, where, "N = %d and C = %d, N must be >= 0 and C > 0", N, C) : K_OK;
}
}  // namespace
