// Counts by the highest bits on CUDA: a table a block in shared memory, added to the result at the end. Whole numbers, so any order gives the same.
#include "../include/histogram.h"

#include <algorithm>

#include "vector.cuh"

namespace {
constexpr int THREADS = 512, LANES = 4, BLOCKS = 1056;

template <class T, bool VECTOR>
__global__ void __launch_bounds__(THREADS) count(unsigned long long* counts, const T* __restrict__ x, int64_t n) {
  __shared__ uint32_t table[K_HISTOGRAM_BINS];
  for (int b = threadIdx.x; b < K_HISTOGRAM_BINS; b += THREADS) table[b] = 0;
  __syncthreads();
  const int64_t thread = int64_t(blockIdx.x) * THREADS + threadIdx.x, threads = int64_t(gridDim.x) * THREADS;
  const int64_t whole = VECTOR ? n / LANES * LANES : 0;
  for (int64_t i = thread * LANES; i < whole; i += threads * LANES) {
    float v[LANES];
    load_lanes(v, x + i);
#pragma unroll
    for (int j = 0; j < LANES; j++) atomicAdd(&table[__float_as_uint(v[j]) >> 21], 1u);
  }
  for (int64_t i = whole + thread; i < n; i += threads) atomicAdd(&table[__float_as_uint(to_f32(x[i])) >> 21], 1u);
  __syncthreads();
  for (int b = threadIdx.x; b < K_HISTOGRAM_BINS; b += THREADS) {
    if (table[b]) atomicAdd(counts + b, static_cast<unsigned long long>(table[b]));
  }
}
}  // namespace

int32_t k_histogram_fwd(uint64_t counts, uint64_t x, int64_t n, int32_t dtype, uint64_t stream) {
  const char* where = "k_histogram_fwd";
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n is %lld, it must be at least 0", static_cast<long long>(n));
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    if (n == 0) return int32_t(K_OK);
    const unsigned blocks = unsigned(std::min<int64_t>(BLOCKS, (n + THREADS * LANES - 1) / (THREADS * LANES)));
    const auto kernel = aligned16(x) ? count<T, true> : count<T, false>;
    kernel<<<blocks, THREADS, 0, stream_of(stream)>>>(at<unsigned long long>(counts), at<const T>(x), n);
    return launched(where);
  });
}
