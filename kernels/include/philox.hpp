// Philox 4x32-10 and what turns its words into numbers, shared by random.cpp and random.cu. Each float operation is a single IEEE operation
// that no compiler may contract, reorder or approximate, so every device gives the same bits.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define K_DEVICE __device__ inline
#define K_ADD(a, b) __fadd_rn(a, b)
#define K_MUL(a, b) __fmul_rn(a, b)
#define K_DIV(a, b) __fdiv_rn(a, b)
#define K_FMA(a, b, c) __fmaf_rn(a, b, c)
#define K_SQRT(a) __fsqrt_rn(a)
#else
#define K_DEVICE inline
#define K_ADD(a, b) ((a) + (b))
#define K_MUL(a, b) ((a) * (b))
#define K_DIV(a, b) ((a) / (b))
#define K_FMA(a, b, c) fmaf(a, b, c)
#define K_SQRT(a) sqrtf(a)
#endif

struct PhiloxBlock {
  uint32_t w[4];
};

// The block of a 128-bit counter whose upper half is 0.
K_DEVICE PhiloxBlock philox(uint64_t counter, uint64_t key) {
  uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = 0, c3 = 0, k0 = uint32_t(key), k1 = uint32_t(key >> 32);
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// ln x for a normal x > 0: x = 2^e m with m in [sqrt(1/2), sqrt 2), ln m = 2 artanh((m - 1) / (m + 1)). Within 2 ulp.
K_DEVICE float exact_log(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const int32_t e = int32_t(bits - 0x3f3504f3u) >> 23;  // 0x3f3504f3 is sqrt(1/2)
  bits -= uint32_t(e) << 23;
  float m;
  memcpy(&m, &bits, 4);
  const float f = K_ADD(m, -1.0f), s = K_DIV(f, K_ADD(f, 2.0f)), z = K_MUL(s, s), k = float(e);
  float p = 0.18181818f;
  p = K_FMA(p, z, 0.22222222f);
  p = K_FMA(p, z, 0.28571429f);
  p = K_FMA(p, z, 0.4f);
  p = K_FMA(p, z, 0.66666667f);
  const float low = K_FMA(K_MUL(p, z), s, K_MUL(k, 1.42860677e-06f));  // ln 2 in two parts: the upper has 16 bits, so k times it is exact
  return K_FMA(k, 0.693145752f, K_ADD(K_ADD(s, s), low));
}

// sin and cos of 2 pi t / 2^24, t < 2^24: t in quarter turns is q + r, |r| <= 1/2, and both are Taylor series in r.
K_DEVICE void exact_sincos(uint32_t t, float& sine, float& cosine) {
  const uint32_t q = (t + (1u << 21)) >> 22;
  const float r = K_MUL(float(int32_t(t - (q << 22))), 2.38418579e-07f), z = K_MUL(r, r);
  float s = -3.5988432e-06f;
  s = K_FMA(s, z, 0.00016044118f);
  s = K_FMA(s, z, -0.0046817541f);
  s = K_FMA(s, z, 0.079692626f);
  s = K_FMA(s, z, -0.64596410f);
  s = K_FMA(s, z, 1.57079633f);
  s = K_MUL(s, r);
  float c = 4.7108748e-07f;
  c = K_FMA(c, z, -2.5202043e-05f);
  c = K_FMA(c, z, 0.00091926027f);
  c = K_FMA(c, z, -0.020863481f);
  c = K_FMA(c, z, 0.25366951f);
  c = K_FMA(c, z, -1.23370055f);
  c = K_FMA(c, z, 1.0f);
  const float a = q & 1 ? c : s, b = q & 1 ? s : c;
  sine = q & 2 ? -a : a;
  cosine = (q + 1) & 2 ? -b : b;
}

// Two standard normal values from two words.
K_DEVICE void box_muller(uint32_t w0, uint32_t w1, float& y0, float& y1) {
  const float u = K_FMA(float(w0), 2.32830644e-10f, 1.16415322e-10f), r = K_SQRT(K_MUL(-2.0f, exact_log(u)));
  float sine, cosine;
  exact_sincos(w1 >> 8, sine, cosine);
  y0 = K_MUL(r, cosine);
  y1 = K_MUL(r, sine);
}

// low + (high - low) u, below high.
K_DEVICE float uniform(uint32_t w, float low, float high) {
  const float y = K_FMA(K_MUL(float(w >> 8), 5.96046448e-08f), K_ADD(high, -low), low);
  return y < high ? y : low;
}
