// The gated residual on the CPU.
#include "../include/gate_add.h"

#include "host.hpp"
#include "../include/samples.hpp"

namespace {
int32_t check(Samples& samples, const char* where, uint64_t offsets, int32_t N, int32_t B, int32_t C, int32_t dtype) {
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  return expect_f32(where, dtype);
}
}  // namespace

int32_t k_gate_add_fwd(uint64_t y, uint64_t x, uint64_t h, uint64_t gate, uint64_t offsets, int32_t N, int32_t B, int32_t C, int64_t gate_stride,
                       int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_gate_add_fwd", offsets, N, B, C, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const float *xn = at<float>(x) + n * C, *hn = at<float>(h) + n * C, *g = at<float>(gate) + samples.of(n) * gate_stride;
    for (int64_t c = 0; c < C; c++) at<float>(y)[n * C + c] = xn[c] + hn[c] * g[c];
  }
  return K_OK;
}

int32_t k_gate_add_bwd_workspace(uint64_t* bytes, int32_t, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_gate_add_bwd(uint64_t dh, uint64_t dgate, uint64_t dbias, uint64_t dy, uint64_t h, uint64_t gate, uint64_t offsets, uint64_t, int32_t N,
                       int32_t B, int32_t C, int64_t gate_stride, int32_t adds, int32_t dtype, uint64_t) {
  Samples samples;
  if (const int32_t status = check(samples, "k_gate_add_bwd", offsets, N, B, C, dtype)) return status;
  if (N > 0 && dbias && !dh) return fail(K_BAD_ARGUMENT, "k_gate_add_bwd", "dbias is wanted, dh must be given");
#pragma omp parallel for
  for (int64_t n = 0; n < (dh ? N : 0); n++) {
    const float *dyn = at<float>(dy) + n * C, *g = at<float>(gate) + samples.of(n) * gate_stride;
    for (int64_t c = 0; c < C; c++) at<float>(dh)[n * C + c] = dyn[c] * g[c];
  }
#pragma omp parallel for
  for (int64_t i = 0; i < (dgate ? int64_t(B) * C : 0); i++) {
    const int64_t b = i / C, c = i % C;
    double sum = 0;
    for (int64_t n = samples.first(b); n < samples.first(b + 1); n++) sum += double(at<float>(dy)[n * C + c]) * at<float>(h)[n * C + c];
    float& out = at<float>(dgate)[b * gate_stride + c];
    out = adds ? out + float(sum) : float(sum);
  }
#pragma omp parallel for
  for (int64_t c = 0; c < (dbias ? C : 0); c++) {
    double sum = 0;
    for (int64_t n = 0; n < N; n++) sum += at<float>(dh)[n * C + c];
    at<float>(dbias)[c] = float(sum);
  }
  return K_OK;
}
