// The rows of a batch and the samples that they belong to, the same way on every device. The including file has fail().
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define K_SAMPLES __host__ __device__ inline
#else
#define K_SAMPLES inline
#endif

// Sample b has the rows from first(b) to first(b + 1): from offsets[b] to offsets[b + 1], or `each` rows where offsets is null.
struct Samples {
  const int32_t* offsets;
  int32_t N, B;
  uint32_t each;

  K_SAMPLES int64_t first(int64_t b) const { return offsets ? offsets[b] : b * each; }
  K_SAMPLES int64_t of(uint32_t row) const {
    if (!offsets) return row / each;
    int32_t low = 0, high = B;
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      if (offsets[middle] <= int64_t(row)) low = middle;
      else high = middle;
    }
    return low;
  }
  // The mean number of rows of a sample, rounded up: what launches are sized by.
  K_SAMPLES int64_t mean() const { return B ? (int64_t(N) + B - 1) / B : 0; }
};

// Fills `s`; a status other than K_OK says what is wrong.
inline int32_t samples_of(Samples& s, const char* where, uint64_t offsets, int32_t N, int32_t B, int32_t C) {
  if (N < 0 || B < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "N = %d, B = %d, C = %d, C must be > 0 and the others >= 0", N, B, C);
  if (B == 0 ? N > 0 : !offsets && N % B) return fail(K_BAD_ARGUMENT, where, "N = %d with B = %d, it must be a multiple of B", N, B);
  s = {at<const int32_t>(offsets), N, B, B ? uint32_t(N / B) : 0};
  return K_OK;
}
