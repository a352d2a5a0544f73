// Scales of 8-bit floats, to the bit the same on every device.
#pragma once
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define K_FP8 __host__ __device__ inline
#else
#define K_FP8 inline
#endif

K_FP8 uint32_t fp8_bits(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}

K_FP8 float fp8_float(uint32_t bits) {
  float v;
  memcpy(&v, &bits, 4);
  return v;
}

constexpr int FP8_NAN = 1 << 20;  // the exponent that stands for a scale that is NaN

// 2^e, also where that is subnormal, 0 or infinity in f32; NaN for exponents from FP8_NAN / 2 on.
K_FP8 float fp8_power(int e) {
  if (e >= FP8_NAN / 2) return fp8_float(0x7fc00000);
  if (e > 127) return fp8_float(0x7f800000);
  if (e >= -126) return fp8_float(uint32_t(e + 127) << 23);
  return e < -149 ? 0.0f : fp8_float(1u << (e + 149));
}

// The exponent of a scale that is a power of two from 2^-126 on.
K_FP8 int fp8_exponent(float scale) {
  const int e = int(fp8_bits(scale) >> 23 & 255);
  return e == 255 ? FP8_NAN : e - 127;
}

// The exponent of the scale of a row whose largest size is `largest` (>= 0, or NaN): 448 = 1.75 * 2^8.
K_FP8 int fp8_row_exponent(float largest) {
  const uint32_t bits = fp8_bits(largest);
  if (bits >= 0x7f800000u) return FP8_NAN;
  if (bits == 0) return 0;
  const int e = int((bits + 0x1fffffu) >> 23) - 127 - 8;
  return e < -120 ? -120 : e;
}
