// The formulas of the elementwise ops, shared by elementwise.cpp and elementwise.cu: fwd is the value, bwd the gradient for cotangent g.
#pragma once
#include <math.h>
#include <stdint.h>

#include "elementwise.h"

#ifdef __CUDACC__
#define K_FORMULA static __device__ inline
__device__ inline float exp_f32(float x) { return expf(x); }
__device__ inline float reciprocal(float x) { return __fdividef(1.0f, x); }  // x is 1 + e^..., inf gives 0
// x / 2 pi less its whole turns, in half turns: exact enough below 10^8, and free of sinf's table of 2 / pi in local memory.
__device__ inline float half_turns(float x) {
  const double turns = x * 0.15915494309189535;
  return float(2 * (turns - rint(turns)));
}
__device__ inline float sin_f32(float x) { return sinpif(half_turns(x)); }
__device__ inline float cos_f32(float x) { return cospif(half_turns(x)); }
#else
#include <string.h>
#define K_FORMULA static inline
// e^x within 2 ulp, by selects alone so that loops vectorize: x = n ln 2 + r, |r| <= ln 2 / 2, 2^n in two factors.
inline float exp_f32(float x) {
  float t = x < -104.0f ? -104.0f : x;
  t = t > 89.0f ? 89.0f : t;
  const float shifted = t * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;  // 1.5 * 2^23 rounds to a whole number
  const float r = (t - n * 0.693145752f) - n * 1.42860677e-06f;
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const int32_t whole = int32_t(n), half = whole >> 1;
  const int32_t low = (half + 127) << 23, high = (whole - half + 127) << 23;
  float a, b;
  memcpy(&a, &low, 4);
  memcpy(&b, &high, 4);
  return p * a * b;
}
inline float reciprocal(float x) { return 1.0f / x; }
inline float sin_f32(float x) { return sinf(x); }
inline float cos_f32(float x) { return cosf(x); }
#endif

K_FORMULA float sigmoid(float x) { return reciprocal(1.0f + exp_f32(-x)); }
K_FORMULA float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(exp_f32(-fabsf(x))); }
K_FORMULA float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }

struct Add {
  K_FORMULA float fwd(float a, float b) { return a + b; }
  K_FORMULA void bwd(float, float, float g, float& da, float& db) { da = g, db = g; }
};
struct Sub {
  K_FORMULA float fwd(float a, float b) { return a - b; }
  K_FORMULA void bwd(float, float, float g, float& da, float& db) { da = g, db = -g; }
};
struct Mul {
  K_FORMULA float fwd(float a, float b) { return a * b; }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = g * b, db = g * a; }
};
struct Div {
  K_FORMULA float fwd(float a, float b) { return a / b; }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = g / b, db = -da * (a / b); }
};
struct Min {
  K_FORMULA float fwd(float a, float b) { return a < b || a != a ? a : b; }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = a < b ? g : a == b ? 0.5f * g : 0.0f, db = g - da; }
};
struct Max {
  K_FORMULA float fwd(float a, float b) { return a > b || a != a ? a : b; }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = a > b ? g : a == b ? 0.5f * g : 0.0f, db = g - da; }
};
struct AbsDiff {
  K_FORMULA float fwd(float a, float b) { return fabsf(a - b); }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = g * sign(a - b), db = -da; }
};
struct SqDiff {
  K_FORMULA float fwd(float a, float b) { return (a - b) * (a - b); }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = g * 2.0f * (a - b), db = -da; }
};
struct Bce {
  K_FORMULA float fwd(float a, float b) { return fmaxf(a, 0.0f) - a * b + log1pf(exp_f32(-fabsf(a))); }
  K_FORMULA void bwd(float a, float b, float g, float& da, float& db) { da = g * (sigmoid(a) - b), db = -g * a; }
};

struct Abs {
  K_FORMULA float fwd(float x) { return fabsf(x); }
  K_FORMULA float bwd(float x, float g) { return g * sign(x); }
};
struct Square {
  K_FORMULA float fwd(float x) { return x * x; }
  K_FORMULA float bwd(float x, float g) { return g * 2.0f * x; }
};
struct Sqrt {
  K_FORMULA float fwd(float x) { return sqrtf(x); }
  K_FORMULA float bwd(float x, float g) { return g * 0.5f / sqrtf(x); }
};
struct Exp {
  K_FORMULA float fwd(float x) { return exp_f32(x); }
  K_FORMULA float bwd(float x, float g) { return g * exp_f32(x); }
};
struct Log {
  K_FORMULA float fwd(float x) { return logf(x); }
  K_FORMULA float bwd(float x, float g) { return g / x; }
};
struct Sin {
  K_FORMULA float fwd(float x) { return sin_f32(x); }
  K_FORMULA float bwd(float x, float g) { return g * cos_f32(x); }
};
struct Cos {
  K_FORMULA float fwd(float x) { return cos_f32(x); }
  K_FORMULA float bwd(float x, float g) { return -g * sin_f32(x); }
};
struct Relu {
  K_FORMULA float fwd(float x) { return x > 0 || x != x ? x : 0.0f; }
  K_FORMULA float bwd(float x, float g) { return x > 0 ? g : 0.0f; }
};
struct Sigmoid {
  K_FORMULA float fwd(float x) { return sigmoid(x); }
  K_FORMULA float bwd(float x, float g) {
    const float s = sigmoid(x);
    return g * s * (1.0f - s);
  }
};
struct Tanh {
  K_FORMULA float fwd(float x) { return tanhf(x); }
  K_FORMULA float bwd(float x, float g) {
    const float t = tanhf(x);
    return g * (1.0f - t * t);
  }
};
struct Silu {
  K_FORMULA float fwd(float x) { return x * sigmoid(x); }
  K_FORMULA float bwd(float x, float g) {
    const float s = sigmoid(x);
    return g * s * (1.0f + x * (1.0f - s));
  }
};
struct Gelu {  // (1 + tanh u) / 2 = sigmoid(2 u)
  K_FORMULA float twice_u(float x) { return 1.59576912f * (x + 0.044715f * x * x * x); }
  K_FORMULA float fwd(float x) { return x * sigmoid(twice_u(x)); }
  K_FORMULA float bwd(float x, float g) {
    const float s = sigmoid(twice_u(x));
    return g * (s + x * s * (1.0f - s) * 1.59576912f * (1.0f + 0.134145f * x * x));
  }
};
struct GeluErf {
  K_FORMULA float fwd(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
  K_FORMULA float bwd(float x, float g) { return g * (0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * exp_f32(-0.5f * x * x)); }
};
struct Softplus {
  K_FORMULA float fwd(float x) { return softplus(x); }
  K_FORMULA float bwd(float x, float g) { return g * sigmoid(x); }
};

// run(Op{}) for the op of this code; false where there is none.
template <class F>
bool with_binary_op(int32_t op, F run) {
  switch (op) {
    case K_ADD_OP: return run(Add{}), true;
    case K_SUB_OP: return run(Sub{}), true;
    case K_MUL_OP: return run(Mul{}), true;
    case K_DIV_OP: return run(Div{}), true;
    case K_MIN_OP: return run(Min{}), true;
    case K_MAX_OP: return run(Max{}), true;
    case K_ABS_DIFF_OP: return run(AbsDiff{}), true;
    case K_SQ_DIFF_OP: return run(SqDiff{}), true;
    case K_BCE_OP: return run(Bce{}), true;
  }
  return false;
}

template <class F>
bool with_unary_op(int32_t op, F run) {
  switch (op) {
    case K_ABS_OP: return run(Abs{}), true;
    case K_SQUARE_OP: return run(Square{}), true;
    case K_SQRT_OP: return run(Sqrt{}), true;
    case K_EXP_OP: return run(Exp{}), true;
    case K_LOG_OP: return run(Log{}), true;
    case K_SIN_OP: return run(Sin{}), true;
    case K_COS_OP: return run(Cos{}), true;
    case K_RELU_OP: return run(Relu{}), true;
    case K_SIGMOID_OP: return run(Sigmoid{}), true;
    case K_TANH_OP: return run(Tanh{}), true;
    case K_SILU_OP: return run(Silu{}), true;
    case K_GELU_OP: return run(Gelu{}), true;
    case K_GELU_ERF_OP: return run(GeluErf{}), true;
    case K_SOFTPLUS_OP: return run(Softplus{}), true;
  }
  return false;
}
