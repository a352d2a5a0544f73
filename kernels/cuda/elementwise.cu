// All memory bound, 16 bytes an access. Reads and writes of n elements of s bytes: binary fwd 3 n s, bwd 5 n s, unary fwd 2 n s, bwd 3 n s;
// e.g. gelu of [32768, 4096] bf16 moves 537 MB, 0.18 ms at 3 TB/s. A broadcast operand stays in L2 where it is small.
#include "../include/elementwise.h"
#include "../include/elementwise_ops.hpp"
#include "vector.cuh"

namespace {
template <class T>
constexpr int LANES = 16 / sizeof(T);

// A part of the walk below 2^31 elements and strides.
struct Extents {
  uint32_t n[4], a[4], b[4];
  int first;  // the axes before it have extent 1
};

// y at i in [n0, n1, n2, n3] is made from a and b at the offsets of this index.
__device__ inline void offsets(const Extents& e, uint32_t i, uint32_t& at_a, uint32_t& at_b) {
  at_a = at_b = 0;
#pragma unroll
  for (int d = 3; d >= 0; d--) {
    if (d < e.first) continue;
    const uint32_t q = d > e.first ? i / e.n[d] : 0, r = i - q * e.n[d];
    at_a += r * e.a[d];
    at_b += r * e.b[d];
    i = q;
  }
}

// V lanes of an operand whose last stride is 1, or V times the same element where it is 0.
template <int V, class T>
__device__ inline void load_operand(float (&out)[V], const T* p, bool same) {
  if (same) {
    const float v = to_f32(*p);
#pragma unroll
    for (int j = 0; j < V; j++) out[j] = v;
  } else {
    load_lanes(out, p);
  }
}

template <class T, class Op>
struct BinaryFwd {
  T* y;
  const T *a, *b;
  Extents e;
  template <int V>
  __device__ void run(int64_t i) const {
    uint32_t at_a, at_b;
    offsets(e, uint32_t(i), at_a, at_b);
    float u[V], v[V];
    load_operand(u, a + at_a, e.a[3] == 0);
    load_operand(v, b + at_b, e.b[3] == 0);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = Op::fwd(u[j], v[j]);
    store_lanes(y + i, u);
  }
};

template <class T, class Op>
struct BinaryBwd {
  T *da, *db;
  const T *dy, *a, *b;
  Extents e;
  template <int V>
  __device__ void run(int64_t i) const {
    uint32_t at_a, at_b;
    offsets(e, uint32_t(i), at_a, at_b);
    float u[V], v[V], g[V];
    load_operand(u, a + at_a, e.a[3] == 0);
    load_operand(v, b + at_b, e.b[3] == 0);
    load_lanes(g, dy + i);
#pragma unroll
    for (int j = 0; j < V; j++) {
      float p, q;
      Op::bwd(u[j], v[j], g[j], p, q);
      u[j] = p;
      v[j] = q;
    }
    if (da) store_lanes(da + i, u);
    if (db) store_lanes(db + i, v);
  }
};

template <class T, class Op>
struct UnaryFwd {
  T* y;
  const T* x;
  template <int V>
  __device__ void run(int64_t i) const {
    float u[V];
    load_lanes(u, x + i);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = Op::fwd(u[j]);
    store_lanes(y + i, u);
  }
};

template <class T, class Op>
struct UnaryBwd {
  T* dx;
  const T *dy, *x;
  template <int V>
  __device__ void run(int64_t i) const {
    float u[V], g[V];
    load_lanes(u, x + i);
    load_lanes(g, dy + i);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = Op::bwd(u[j], g[j]);
    store_lanes(dx + i, u);
  }
};

template <class T>
struct Affine {
  T* y;
  const T* x;
  float scale, shift;
  template <int V>
  __device__ void run(int64_t i) const {
    float u[V];
    load_lanes(u, x + i);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = __fadd_rn(__fmul_rn(u[j], scale), shift);  // as on the CPU: no contraction
    store_lanes(y + i, u);
  }
};

struct Walk {
  int64_t n[4], a[4], b[4];
  int64_t size() const { return n[0] * n[1] * n[2] * n[3]; }
  int64_t reach(const int64_t (&s)[4]) const { return (n[0] - 1) * s[0] + (n[1] - 1) * s[1] + (n[2] - 1) * s[2] + (n[3] - 1) * s[3]; }
};

// Whether V lanes can be taken at once from an operand: along a row of n elements its stride is 0 or 1, and rows start on whole packs.
bool packs(int64_t n, const int64_t (&s)[4], int V) {
  if (n % V || s[3] > 1) return false;
  return s[3] == 0 || (s[0] % V == 0 && s[1] % V == 0 && s[2] % V == 0);
}

// Calls run(Extents, offset of y, of a, of b) for the walk, cut along its first axis until 32 bits are enough.
template <class F>
int32_t with_extents(const Walk& w, F run, int64_t at_y = 0, int64_t at_a = 0, int64_t at_b = 0) {
  const int64_t limit = int64_t(1) << 31, n = w.size();
  if (n == 0) return K_OK;
  int first = 0;
  while (first < 3 && w.n[first] == 1) first++;
  if (n >= limit || w.reach(w.a) >= limit || w.reach(w.b) >= limit) {
    Walk head = w, tail = w;
    const int64_t half = first == 3 && w.n[3] >= 16 ? ceil_div(w.n[3], 16) * 8 : ceil_div(w.n[first], 2);  // whole packs on the last axis
    head.n[first] = half;
    tail.n[first] -= half;
    if (int32_t status = with_extents(head, run, at_y, at_a, at_b)) return status;
    return with_extents(tail, run, at_y + n / w.n[first] * half, at_a + half * w.a[first], at_b + half * w.b[first]);
  }
  Extents e{};
  e.first = first;
  for (int d = 0; d < 4; d++) e.n[d] = uint32_t(w.n[d]), e.a[d] = uint32_t(w.a[d]), e.b[d] = uint32_t(w.b[d]);
  return run(e, at_y, at_a, at_b);
}

int32_t check_walk(const char* where, const Walk& w) {
  for (int d = 0; d < 4; d++) {
    if (w.n[d] < 0) return fail(K_BAD_ARGUMENT, where, "extent n%d is %lld, it must be at least 0", d, (long long)w.n[d]);
  }
  return K_OK;
}

int32_t unknown_op(const char* where, int32_t op, int32_t last) {
  return fail(K_BAD_ARGUMENT, where, "op is %d, it must be 0 to %d", op, last);
}

// The unary and affine kernels: one contiguous range.
int32_t check_size(const char* where, int64_t n) {
  return n < 0 ? fail(K_BAD_ARGUMENT, where, "n is %lld, it must be at least 0", (long long)n) : K_OK;
}
}  // namespace

int32_t k_binary_fwd(uint64_t y, uint64_t a, uint64_t b, int64_t n0, int64_t n1, int64_t n2, int64_t n3, int64_t a0, int64_t a1, int64_t a2,
                     int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3, int32_t op, int32_t dtype, uint64_t stream) {
  const Walk walk{{n0, n1, n2, n3}, {a0, a1, a2, a3}, {b0, b1, b2, b3}};
  if (int32_t status = check_walk("k_binary_fwd", walk)) return status;
  return with_float_type("k_binary_fwd", dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = LANES<T>;
    const bool vector = packs(n3, walk.a, V) && packs(n3, walk.b, V) && aligned16(y, a3 ? a : 0, b3 ? b : 0);
    int32_t status = K_OK;
    const bool known = with_binary_op(op, [&](auto f) {
      status = with_extents(walk, [&](const Extents& e, int64_t at_y, int64_t at_a, int64_t at_b) {
        const BinaryFwd<T, decltype(f)> work{at<T>(y) + at_y, at<const T>(a) + at_a, at<const T>(b) + at_b, e};
        return each<V>("k_binary_fwd", int64_t(e.n[0]) * e.n[1] * e.n[2] * e.n[3], vector, work, stream);
      });
    });
    return known ? status : unknown_op("k_binary_fwd", op, K_BCE_OP);
  });
}

int32_t k_binary_bwd(uint64_t da, uint64_t db, uint64_t dy, uint64_t a, uint64_t b, int64_t n0, int64_t n1, int64_t n2, int64_t n3,
                     int64_t a0, int64_t a1, int64_t a2, int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3, int32_t op,
                     int32_t dtype, uint64_t stream) {
  const Walk walk{{n0, n1, n2, n3}, {a0, a1, a2, a3}, {b0, b1, b2, b3}};
  if (int32_t status = check_walk("k_binary_bwd", walk)) return status;
  return with_float_type("k_binary_bwd", dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = LANES<T>;
    const bool vector = packs(n3, walk.a, V) && packs(n3, walk.b, V) && aligned16(da, db, dy, a3 ? a : 0, b3 ? b : 0);
    int32_t status = K_OK;
    const bool known = with_binary_op(op, [&](auto f) {
      status = with_extents(walk, [&](const Extents& e, int64_t at_y, int64_t at_a, int64_t at_b) {
        T *to_a = da ? at<T>(da) + at_y : nullptr, *to_b = db ? at<T>(db) + at_y : nullptr;
        const BinaryBwd<T, decltype(f)> work{to_a, to_b, at<const T>(dy) + at_y, at<const T>(a) + at_a, at<const T>(b) + at_b, e};
        return each<V>("k_binary_bwd", int64_t(e.n[0]) * e.n[1] * e.n[2] * e.n[3], vector, work, stream);
      });
    });
    return known ? status : unknown_op("k_binary_bwd", op, K_BCE_OP);
  });
}

int32_t k_unary_fwd(uint64_t y, uint64_t x, int64_t n, int32_t op, int32_t dtype, uint64_t stream) {
  if (int32_t status = check_size("k_unary_fwd", n)) return status;
  return with_float_type("k_unary_fwd", dtype, [&](auto type) {
    using T = decltype(type);
    int32_t status = K_OK;
    const bool known = with_unary_op(op, [&](auto f) {
      status = each<LANES<T>>("k_unary_fwd", n, aligned16(y, x), UnaryFwd<T, decltype(f)>{at<T>(y), at<const T>(x)}, stream);
    });
    return known ? status : unknown_op("k_unary_fwd", op, K_SOFTPLUS_OP);
  });
}

int32_t k_unary_bwd(uint64_t dx, uint64_t dy, uint64_t x, int64_t n, int32_t op, int32_t dtype, uint64_t stream) {
  if (int32_t status = check_size("k_unary_bwd", n)) return status;
  return with_float_type("k_unary_bwd", dtype, [&](auto type) {
    using T = decltype(type);
    int32_t status = K_OK;
    const bool known = with_unary_op(op, [&](auto f) {
      const UnaryBwd<T, decltype(f)> work{at<T>(dx), at<const T>(dy), at<const T>(x)};
      status = each<LANES<T>>("k_unary_bwd", n, aligned16(dx, dy, x), work, stream);
    });
    return known ? status : unknown_op("k_unary_bwd", op, K_SOFTPLUS_OP);
  });
}

int32_t k_affine_fwd(uint64_t y, uint64_t x, int64_t n, float scale, float shift, int32_t dtype, uint64_t stream) {
  if (int32_t status = check_size("k_affine_fwd", n)) return status;
  return with_float_type("k_affine_fwd", dtype, [&](auto type) {
    using T = decltype(type);
    return each<LANES<T>>("k_affine_fwd", n, aligned16(y, x), Affine<T>{at<T>(y), at<const T>(x), scale, shift}, stream);
  });
}
