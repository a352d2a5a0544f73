// The 16-bit floats on the host, converted to nearest, ties to even.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "host.hpp"

struct Half {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

inline float to_f32(float v) { return v; }
inline float to_f32(Half v) { return _cvtsh_ss(v.bits); }
inline float to_f32(Bf16 v) {
  const uint32_t bits = uint32_t(v.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

template <class T>
T from_f32(float v);
template <>
inline float from_f32<float>(float v) {
  return v;
}
template <>
inline Half from_f32<Half>(float v) {
  return {uint16_t(_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
}
template <>
inline Bf16 from_f32<Bf16>(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  return {uint16_t(nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// Calls run(T{}) with the element type of a floating dtype and returns its status.
template <class F>
int32_t with_float_type(const char* where, int32_t dtype, F run) {
  if (dtype == K_F32) return run(float{});
  if (dtype == K_F16) return run(Half{});
  if (dtype == K_BF16) return run(Bf16{});
  return fail(K_UNSUPPORTED, where, "dtype is %d, it must be f32 (0), f16 (1) or bf16 (2)", dtype);
}
