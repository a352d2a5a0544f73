// The 8-bit codes of optim8.h, for both devices.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define CODE8_BOTH __host__ __device__ inline
#else
#define CODE8_BOTH inline
#endif

namespace code8 {
CODE8_BOTH uint32_t bits_of(float v) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(v);
#else
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
#endif
}
CODE8_BOTH float float_of(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
#endif
}

// 2^e for -126 <= e <= 127
CODE8_BOTH float power(int e) { return float_of(uint32_t(e + 127) << 23); }

// 32 hashed bits of element i at step t.
CODE8_BOTH uint32_t hash(uint64_t i, uint32_t t) {
  uint32_t x = uint32_t(i) * 0x9e3779b1u ^ uint32_t(i >> 32) * 0x85ebca77u ^ t * 0xc2b2ae3du;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// The value in [0, 1] of a code, with L = LOW.
template <int LOW>
CODE8_BOTH float decode(uint32_t code) {
  const int e = int(code >> 3), f = int(code & 7);
  return (e == 0 ? float(f) * power(-LOW) : float(8 + f) * power(e - 1 - LOW)) / 15.0f;
}

// The code of a value in [0, 1], at most `most`; `noise` are 20 bits that decide between two neighbours.
template <int LOW>
CODE8_BOTH uint32_t encode(float value, uint32_t most, uint32_t noise) {
  const float z = value * 15.0f * power(LOW);
  uint32_t code;
  if (z < 8.0f) {
    code = uint32_t(z + float(noise) * power(-20));
  } else {
    const uint32_t bits = bits_of(z) + noise;  // of the 23 bits behind the point three stay
    code = (bits >> 20) - ((127 + 2) << 3);    // 8 = 2^3 has e = 1
  }
  return code < most ? code : most;
}
}  // namespace code8
