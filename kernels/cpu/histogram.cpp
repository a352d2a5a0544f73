#include "../include/histogram.h"

#include <algorithm>
#include <vector>

#include "half.hpp"

int32_t k_histogram_fwd(uint64_t counts, uint64_t x, int64_t n, int32_t dtype, uint64_t) {
  const char* where = "k_histogram_fwd";
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n is %lld, it must be at least 0", (long long)n);
  return with_float_type(where, dtype, [&](auto type) {
    const auto* values = at<const decltype(type)>(x);
    const int64_t parts = std::min<int64_t>(64, n / 65536 + 1), part = (n + parts - 1) / parts;
    std::vector<int64_t> found(parts * K_HISTOGRAM_BINS);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < parts; k++) {
      int64_t* mine = found.data() + k * K_HISTOGRAM_BINS;
      for (int64_t i = k * part; i < std::min(n, (k + 1) * part); i++) {
        const float value = to_f32(values[i]);
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        mine[bits >> 21]++;
      }
    }
    int64_t* sums = at<int64_t>(counts);
    for (int64_t k = 0; k < parts; k++) {
      for (int64_t b = 0; b < K_HISTOGRAM_BINS; b++) sums[b] += found[k * K_HISTOGRAM_BINS + b];
    }
    return int32_t(K_OK);
  });
}
