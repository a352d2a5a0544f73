// Selects and square roots become vector code only where float exceptions and errno need not be kept; values are the same.
#pragma GCC optimize("no-trapping-math", "no-math-errno")
#include "../include/elementwise.h"

#include "../include/elementwise_ops.hpp"
#include "host.hpp"

namespace {
struct Extents {
  int64_t n[4], a[4], b[4];
  int64_t size() const { return n[0] * n[1] * n[2] * n[3]; }
};

int32_t check(const char* where, const Extents& e, int32_t dtype) {
  for (int d = 0; d < 4; d++) {
    if (e.n[d] < 0) return fail(K_BAD_ARGUMENT, where, "extent n%d is %lld, it must be at least 0", d, (long long)e.n[d]);
  }
  return expect_f32(where, dtype);
}

// Calls row(offset of y, of a, of b, a3, b3, n3) for every row of the last axis; where both stride 0 or 1 they are passed as constants.
template <class F>
void rows(const Extents& e, F row) {
  const int64_t count = e.n[0] * e.n[1] * e.n[2], n = e.n[3];
  const auto each = [&](auto stride_a, auto stride_b) {
#pragma omp parallel for schedule(static) if (count > 1 && e.size() > 1 << 15)
    for (int64_t r = 0; r < count; r++) {
      const int64_t i2 = r % e.n[2], i1 = r / e.n[2] % e.n[1], i0 = r / e.n[2] / e.n[1];
      row(r * n, i0 * e.a[0] + i1 * e.a[1] + i2 * e.a[2], i0 * e.b[0] + i1 * e.b[1] + i2 * e.b[2], stride_a, stride_b, n);
    }
  };
  using Zero = std::integral_constant<int64_t, 0>;
  using One = std::integral_constant<int64_t, 1>;
  if (e.a[3] == 1 && e.b[3] == 1) each(One{}, One{});
  else if (e.a[3] == 1 && e.b[3] == 0) each(One{}, Zero{});
  else if (e.a[3] == 0 && e.b[3] == 1) each(Zero{}, One{});
  else each(e.a[3], e.b[3]);
}

template <class Op>
void unary_fwd(float* y, const float* x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 14)
  for (int64_t i = 0; i < n; i++) y[i] = Op::fwd(x[i]);
}

template <class Op>
void unary_bwd(float* dx, const float* dy, const float* x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 14)
  for (int64_t i = 0; i < n; i++) dx[i] = Op::bwd(x[i], dy[i]);
}
}  // namespace

int32_t k_binary_fwd(uint64_t y, uint64_t a, uint64_t b, int64_t n0, int64_t n1, int64_t n2, int64_t n3, int64_t a0, int64_t a1, int64_t a2,
                     int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3, int32_t op, int32_t dtype, uint64_t) {
  const Extents e{{n0, n1, n2, n3}, {a0, a1, a2, a3}, {b0, b1, b2, b3}};
  if (int32_t status = check("k_binary_fwd", e, dtype)) return status;
  const bool known = with_binary_op(op, [&](auto f) {
    using Op = decltype(f);
    rows(e, [=](int64_t at_y, int64_t at_a, int64_t at_b, auto sa, auto sb, int64_t n) {
      float* yr = at<float>(y) + at_y;
      const float *ar = at<const float>(a) + at_a, *br = at<const float>(b) + at_b;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
      for (int64_t i = 0; i < n; i++) yr[i] = Op::fwd(ar[i * sa], br[i * sb]);
    });
  });
  return known ? int32_t(K_OK) : fail(K_BAD_ARGUMENT, "k_binary_fwd", "op is %d, it must be 0 to %d", op, K_BCE_OP);
}

int32_t k_binary_bwd(uint64_t da, uint64_t db, uint64_t dy, uint64_t a, uint64_t b, int64_t n0, int64_t n1, int64_t n2, int64_t n3,
                     int64_t a0, int64_t a1, int64_t a2, int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3, int32_t op,
                     int32_t dtype, uint64_t) {
  const Extents e{{n0, n1, n2, n3}, {a0, a1, a2, a3}, {b0, b1, b2, b3}};
  if (int32_t status = check("k_binary_bwd", e, dtype)) return status;
  const bool known = with_binary_op(op, [&](auto f) {
    using Op = decltype(f);
    rows(e, [=](int64_t at_y, int64_t at_a, int64_t at_b, auto sa, auto sb, int64_t n) {
      const float *gr = at<const float>(dy) + at_y, *ar = at<const float>(a) + at_a, *br = at<const float>(b) + at_b;
      float *dar = at<float>(da) + at_y, *dbr = at<float>(db) + at_y;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
      for (int64_t i = 0; i < n; i++) {
        float u, v;
        Op::bwd(ar[i * sa], br[i * sb], gr[i], u, v);
        if (da) dar[i] = u;
        if (db) dbr[i] = v;
      }
    });
  });
  return known ? int32_t(K_OK) : fail(K_BAD_ARGUMENT, "k_binary_bwd", "op is %d, it must be 0 to %d", op, K_BCE_OP);
}

int32_t k_unary_fwd(uint64_t y, uint64_t x, int64_t n, int32_t op, int32_t dtype, uint64_t) {
  if (n < 0) return fail(K_BAD_ARGUMENT, "k_unary_fwd", "n is %lld, it must be at least 0", (long long)n);
  if (int32_t status = expect_f32("k_unary_fwd", dtype)) return status;
  const bool known = with_unary_op(op, [=](auto f) { unary_fwd<decltype(f)>(at<float>(y), at<const float>(x), n); });
  return known ? int32_t(K_OK) : fail(K_BAD_ARGUMENT, "k_unary_fwd", "op is %d, it must be 0 to %d", op, K_SOFTPLUS_OP);
}

int32_t k_unary_bwd(uint64_t dx, uint64_t dy, uint64_t x, int64_t n, int32_t op, int32_t dtype, uint64_t) {
  if (n < 0) return fail(K_BAD_ARGUMENT, "k_unary_bwd", "n is %lld, it must be at least 0", (long long)n);
  if (int32_t status = expect_f32("k_unary_bwd", dtype)) return status;
  const bool known = with_unary_op(op, [=](auto f) { unary_bwd<decltype(f)>(at<float>(dx), at<const float>(dy), at<const float>(x), n); });
  return known ? int32_t(K_OK) : fail(K_BAD_ARGUMENT, "k_unary_bwd", "op is %d, it must be 0 to %d", op, K_SOFTPLUS_OP);
}

int32_t k_affine_fwd(uint64_t y, uint64_t x, int64_t n, float scale, float shift, int32_t dtype, uint64_t) {
  if (n < 0) return fail(K_BAD_ARGUMENT, "k_affine_fwd", "n is %lld, it must be at least 0", (long long)n);
  if (int32_t status = expect_f32("k_affine_fwd", dtype)) return status;
  float* yp = at<float>(y);
  const float* xp = at<const float>(x);
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; i++) yp[i] = xp[i] * scale + shift;
  return K_OK;
}
