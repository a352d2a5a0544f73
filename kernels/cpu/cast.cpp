#include "../include/cast.h"

#include <limits>

#include "half.hpp"

namespace {
template <class T>
constexpr bool is_integer = std::is_integral_v<T>;

template <class Y, class X>
Y convert(X x) {
  if constexpr (is_integer<X> && is_integer<Y>) {
    return Y(x);
  } else if constexpr (is_integer<X>) {
    return from_f32<Y>(float(x));
  } else if constexpr (!is_integer<Y>) {
    return from_f32<Y>(to_f32(x));
  } else {
    const float f = to_f32(x);
    const double least = double(std::numeric_limits<Y>::min()), most = double(std::numeric_limits<Y>::max());
    return f != f ? Y(0) : f >= most ? std::numeric_limits<Y>::max() : f <= least ? std::numeric_limits<Y>::min() : Y(f);
  }
}

template <class F>
int32_t with_type(const char* where, int32_t dtype, F run) {
  if (dtype == K_I32) return run(int32_t{});
  if (dtype == K_I64) return run(int64_t{});
  if (dtype == K_U8) return run(uint8_t{});
  return with_float_type(where, dtype, run);
}
}  // namespace

int32_t k_cast_fwd(uint64_t y, uint64_t x, int64_t n, int32_t y_dtype, int32_t x_dtype, uint64_t) {
  if (n < 0) return fail(K_BAD_ARGUMENT, "k_cast_fwd", "n is %lld, it must be at least 0", (long long)n);
  return with_type("k_cast_fwd", y_dtype, [&](auto to) {
    return with_type("k_cast_fwd", x_dtype, [&](auto from) {
      using Y = decltype(to);
      using X = decltype(from);
      Y* yp = at<Y>(y);
      const X* xp = at<const X>(x);
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
      for (int64_t i = 0; i < n; i++) yp[i] = convert<Y>(xp[i]);
      return int32_t(K_OK);
    });
  });
}

int32_t k_accumulate_fwd(uint64_t y, uint64_t a, uint64_t b, int64_t n, int32_t dtype_a, int32_t dtype_b, uint64_t) {
  if (n < 0) return fail(K_BAD_ARGUMENT, "k_accumulate_fwd", "n is %lld, it must be at least 0", (long long)n);
  return with_float_type("k_accumulate_fwd", dtype_a, [&](auto type_a) {
    return with_float_type("k_accumulate_fwd", dtype_b, [&](auto type_b) {
      using A = decltype(type_a);
      using B = decltype(type_b);
      A* yp = at<A>(y);
      const A* ap = at<const A>(a);
      const B* bp = at<const B>(b);
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
      for (int64_t i = 0; i < n; i++) yp[i] = from_f32<A>(to_f32(ap[i]) + to_f32(bp[i]));
      return int32_t(K_OK);
    });
  });
}

int32_t k_fill_fwd(uint64_t y, int64_t n, float value, int32_t dtype, uint64_t) {
  if (n < 0) return fail(K_BAD_ARGUMENT, "k_fill_fwd", "n is %lld, it must be at least 0", (long long)n);
  return with_type("k_fill_fwd", dtype, [&](auto type) {
    using T = decltype(type);
    const T v = convert<T>(value);
    T* yp = at<T>(y);
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++) yp[i] = v;
    return int32_t(K_OK);
  });
}
