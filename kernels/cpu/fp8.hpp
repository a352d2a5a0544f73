// 8-bit floats of the format E4M3 in plain arithmetic.
#pragma once
#include <algorithm>
#include <cmath>

#include "../include/fp8_scale.hpp"

namespace {
// The bits of v in E4M3, rounded to nearest even, at most +-448.
inline uint8_t to_e4m3(float v) {
  const uint32_t bits = fp8_bits(v), size = bits & 0x7fffffffu;
  const uint8_t sign = bits >> 24 & 0x80;
  if (size >= 0x43e00000u) return sign | (size > 0x7f800000u ? 0x7f : 0x7e);
  if (size >= 0x3c800000u) return sign | uint8_t((size + 0x7ffffu + (size >> 20 & 1)) / (1u << 20) - (120u << 3));  // from 2^-6 on: 3 of 23 bits
  return sign | uint8_t(std::nearbyint(fp8_float(size) * 512));                                                     // below, values are 2^-9 apart
}

struct E4M3 {
  float value[256];
  E4M3() {
    for (int bits = 0; bits < 256; bits++) {
      const int exponent = bits >> 3 & 15, mantissa = bits & 7;
      const float size = exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9);
      value[bits] = exponent == 15 && mantissa == 7 ? NAN : bits & 0x80 ? -size : size;
    }
  }
};

inline float from_e4m3(uint8_t bits) {
  static const E4M3 known;
  return known.value[bits];
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
