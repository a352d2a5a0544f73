#include "../include/random.h"

#include <cmath>

#include "../include/philox.hpp"
#include "half.hpp"

namespace {
// y[i] for all i: make(block, values) turns the words of a block into 4 values.
template <class F>
int32_t draw(const char* where, uint64_t y, int64_t n, uint64_t seed, uint64_t offset, int32_t dtype, F make) {
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n is %lld, it must be at least 0", (long long)n);
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    T* yp = at<T>(y);
#pragma omp parallel for schedule(static) if (n > 1 << 14)
    for (int64_t block = 0; block < (n + 3) / 4; block++) {
      float v[4];
      make(philox(offset + uint64_t(block), seed), v);
      for (int64_t i = block * 4; i < n && i < block * 4 + 4; i++) yp[i] = from_f32<T>(v[i % 4]);
    }
    return int32_t(K_OK);
  });
}
}  // namespace

int32_t k_random_normal_fwd(uint64_t y, int64_t n, uint64_t seed, uint64_t offset, int32_t dtype, uint64_t) {
  return draw("k_random_normal_fwd", y, n, seed, offset, dtype, [](PhiloxBlock block, float* v) {
    box_muller(block.w[0], block.w[1], v[0], v[1]);
    box_muller(block.w[2], block.w[3], v[2], v[3]);
  });
}

int32_t k_random_uniform_fwd(uint64_t y, int64_t n, uint64_t seed, uint64_t offset, float low, float high, int32_t dtype, uint64_t) {
  if (!(low < high) || !std::isfinite(high - low)) {
    return fail(K_BAD_ARGUMENT, "k_random_uniform_fwd", "low and high are %g and %g, low must be below high, both finite", low, high);
  }
  return draw("k_random_uniform_fwd", y, n, seed, offset, dtype, [=](PhiloxBlock block, float* v) {
    for (int i = 0; i < 4; i++) v[i] = uniform(block.w[i], low, high);
  });
}
