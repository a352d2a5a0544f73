// The backward pass of the GELU between two linear layers, on the CPU.
#include "../include/gelu.h"

#include <algorithm>

#include "host.hpp"
#include "../include/elementwise_ops.hpp"

int32_t k_gelu_layer_bwd_workspace(uint64_t* bytes, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_gelu_layer_bwd(uint64_t dz, uint64_t g, uint64_t db, uint64_t dg, uint64_t z, uint64_t, int32_t N, int32_t C, int32_t dtype,
                         uint64_t) {
  if (N < 0 || C < 1) return fail(K_BAD_ARGUMENT, "k_gelu_layer_bwd", "N = %d and C = %d, N must be >= 0 and C > 0", N, C);
  if (const int32_t status = expect_f32("k_gelu_layer_bwd", dtype)) return status;
  constexpr int64_t COLUMNS = 16;  // summed together: one cache line
  const int64_t blocks = (C + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * COLUMNS, end = std::min<int64_t>(first + COLUMNS, C);
    double sums[COLUMNS] = {};
    for (int64_t n = 0; n < N; n++) {
      for (int64_t c = first; c < end; c++) {
        const int64_t i = n * C + c;
        const float v = at<float>(z)[i], d = Gelu::bwd(v, at<float>(dg)[i]);
        if (g) at<float>(g)[i] = Gelu::fwd(v);
        at<float>(dz)[i] = d;
        sums[c - first] += d;
      }
    }
    for (int64_t c = first; db && c < end; c++) at<float>(db)[c] = float(sums[c - first]);
  }
  return K_OK;
}
