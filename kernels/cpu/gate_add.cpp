// The gated residual on the CPU.
#include "../include/gate_add.h"

#include "host.hpp"

namespace {
int32_t check(const char* where, int32_t B, int32_t L, int32_t C, int32_t dtype) {
  if (B < 0 || L < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "B = %d, L = %d, C = %d, C must be > 0 and the others >= 0", B, L, C);
  return expect_f32(where, dtype);
}
}  // namespace

int32_t k_gate_add_fwd(uint64_t y, uint64_t x, uint64_t h, uint64_t gate, int32_t B, int32_t L, int32_t C, int32_t dtype, uint64_t) {
  if (const int32_t status = check("k_gate_add_fwd", B, L, C, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < int64_t(B) * L; n++) {
    const float *xn = at<float>(x) + n * C, *hn = at<float>(h) + n * C, *g = at<float>(gate) + n / L * C;
    for (int64_t c = 0; c < C; c++) at<float>(y)[n * C + c] = xn[c] + hn[c] * g[c];
  }
  return K_OK;
}

int32_t k_gate_add_bwd_workspace(uint64_t* bytes, int32_t, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_gate_add_bwd(uint64_t dh, uint64_t dgate, uint64_t dy, uint64_t h, uint64_t gate, uint64_t, int32_t B, int32_t L, int32_t C,
                       int32_t dtype, uint64_t) {
  if (const int32_t status = check("k_gate_add_bwd", B, L, C, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < (dh ? int64_t(B) * L : 0); n++) {
    const float *dyn = at<float>(dy) + n * C, *g = at<float>(gate) + n / L * C;
    for (int64_t c = 0; c < C; c++) at<float>(dh)[n * C + c] = dyn[c] * g[c];
  }
#pragma omp parallel for
  for (int64_t i = 0; i < (dgate ? int64_t(B) * C : 0); i++) {
    const int64_t b = i / C, c = i % C;
    double sum = 0;
    for (int64_t n = b * L; n < (b + 1) * L; n++) sum += double(at<float>(dy)[n * C + c]) * at<float>(h)[n * C + c];
    at<float>(dgate)[i] = float(sum);
  }
  return K_OK;
}
