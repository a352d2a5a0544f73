// One thread a Philox block, 4 elements. About 140 integer and float instructions a block: near HBM speed in f32 (10^9 in ~2 ms).
#include "../include/random.h"
#include "../include/philox.hpp"
#include "vector.cuh"

namespace {
struct Normal {
  __device__ void make(PhiloxBlock block, float (&v)[4]) const {
    box_muller(block.w[0], block.w[1], v[0], v[1]);
    box_muller(block.w[2], block.w[3], v[2], v[3]);
  }
};

struct Uniform {
  float low, high;
  __device__ void make(PhiloxBlock block, float (&v)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = uniform(block.w[i], low, high);
  }
};

template <class T, class F>
__global__ void __launch_bounds__(256) draw_kernel(T* y, int64_t n, uint64_t seed, uint64_t offset, bool vector, F f) {
  const int64_t block = int64_t(blockIdx.x) * 256 + threadIdx.x, i = block * 4;
  if (i >= n) return;
  float v[4];
  f.make(philox(offset + uint64_t(block), seed), v);
  if (vector && i + 4 <= n) {
    store_lanes(y + i, v);
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (i + j < n) y[i + j] = from_f32<T>(v[j]);
    }
  }
}

template <class F>
int32_t draw(const char* where, uint64_t y, int64_t n, uint64_t seed, uint64_t offset, int32_t dtype, F f, uint64_t stream) {
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n is %lld, it must be at least 0", (long long)n);
  if (n == 0) return K_OK;
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    draw_kernel<<<unsigned(ceil_div(n, 4 * 256)), 256, 0, stream_of(stream)>>>(at<T>(y), n, seed, offset, aligned16(y), f);
    return launched(where);
  });
}
}  // namespace

int32_t k_random_normal_fwd(uint64_t y, int64_t n, uint64_t seed, uint64_t offset, int32_t dtype, uint64_t stream) {
  return draw("k_random_normal_fwd", y, n, seed, offset, dtype, Normal{}, stream);
}

int32_t k_random_uniform_fwd(uint64_t y, int64_t n, uint64_t seed, uint64_t offset, float low, float high, int32_t dtype, uint64_t stream) {
  if (!(low < high) || !isfinite(high - low)) {
    return fail(K_BAD_ARGUMENT, "k_random_uniform_fwd", "low and high are %g and %g, low must be below high, both finite", low, high);
  }
  return draw("k_random_uniform_fwd", y, n, seed, offset, dtype, Uniform{low, high}, stream);
}
