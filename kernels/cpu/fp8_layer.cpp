// What linear layers in 8-bit floats need beside their products, on the CPU.
#include "../include/fp8.h"
#include "../include/norm.h"

#include <vector>

#include "host.hpp"
#include "fp8.hpp"
#include "../include/elementwise_ops.hpp"

int32_t k_fp8_norm_fwd(uint64_t values, uint64_t scale, const k_norm* problem, uint64_t stream) {
  if (!problem) return fail(K_BAD_ARGUMENT, "k_fp8_norm_fwd", "problem is 0, it must be the address of a k_norm");
  k_norm p = *problem;
  std::vector<float> y;
  if (!p.y && p.N > 0 && p.C > 0) {
    y.resize(size_t(p.N) * size_t(p.C));
    p.y = reinterpret_cast<uint64_t>(y.data());
  }
  if (const int32_t status = k_norm_fwd(&p, stream)) return status;
  return k_fp8_quantize_fwd(values, scale, 0, p.y, 0, 0, int32_t(p.N), int32_t(p.C), K_FP8_NONE, K_F32, stream);
}

int32_t k_fp8_gelu_bwd_workspace(uint64_t* bytes, int32_t, int32_t) {
  *bytes = 0;
  return K_OK;
}

int32_t k_fp8_gelu_bwd(uint64_t dz, uint64_t dz_scale, uint64_t g, uint64_t g_scale, uint64_t db, uint64_t dg, uint64_t z, uint64_t columns,
                       uint64_t, int32_t N, int32_t C, int32_t dtype, uint64_t) {
  const char* where = "k_fp8_gelu_bwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (const int32_t status = expect_f32(where, dtype)) return status;
  const float *above = at<float>(dg), *from = at<float>(z), *column = at<float>(columns);
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const int64_t i = n * C;
    quantize_row(at<uint8_t>(dz) + i, at<float>(dz_scale) + n, C,
                 [&](int64_t c) { return Gelu::bwd(from[i + c], above[i + c]) * (column ? column[c] : 1); });
    quantize_row(at<uint8_t>(g) + i, at<float>(g_scale) + n, C, [&](int64_t c) { return Gelu::fwd(from[i + c]); });
  }
#pragma omp parallel for
  for (int64_t c = 0; c < (db ? C : 0); c++) {
    double sum = 0;
    for (int64_t i = c; i < int64_t(N) * C; i += C) sum += Gelu::bwd(from[i], above[i]);
    at<float>(db)[c] = float(sum);
  }
  return K_OK;
}

namespace {
// by(bits, n, c) is what an element becomes.
template <class F>
int32_t transpose(const char* where, uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, F by) {
  if (N < 0 || C < 1 || P < N || P % 16) {
    return fail(K_BAD_ARGUMENT, where, "N = %d, C = %d and P = %d, C must be > 0 and P a multiple of 16 and at least N, which is >= 0", N, C, P);
  }
#pragma omp parallel for
  for (int64_t c = 0; c < C; c++) {
    uint8_t* to = at<uint8_t>(y) + c * P;
    for (int64_t n = 0; n < N; n++) to[n] = by(at<uint8_t>(x)[n * C + c], n, c);
    std::fill(to + N, to + P, uint8_t(0));
  }
  return K_OK;
}
}  // namespace

int32_t k_fp8_transpose_fwd(uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, uint64_t) {
  return transpose("k_fp8_transpose_fwd", y, x, N, C, P, [](uint8_t bits, int64_t, int64_t) { return bits; });
}

int32_t k_fp8_operands_fwd(uint64_t xt, uint64_t dyt, uint64_t wt, uint64_t scale, uint64_t, uint64_t x, uint64_t x_scale, uint64_t dy,
                           uint64_t dy_scale, uint64_t columns, uint64_t w, int32_t M, int32_t N, int32_t K, int32_t P, uint64_t) {
  const char* where = "k_fp8_operands_fwd";
  if (M < 1) return fail(K_BAD_ARGUMENT, where, "M = %d, it must be > 0", M);
  const float *a = at<float>(x_scale), *b = at<float>(dy_scale), *column = at<float>(columns);
  int most = -FP8_NAN, least = FP8_NAN;
  for (int64_t m = 0; m < M; m++) most = std::max(most, fp8_exponent(a[m]) + fp8_exponent(b[m]));
  for (int64_t n = 0; n < N; n++) least = std::min(least, fp8_exponent(column[n]));
  const bool bad = most >= FP8_NAN / 2;
  *at<float>(scale) = fp8_power(bad || least >= FP8_NAN / 2 ? FP8_NAN : most - least);
  if (const int32_t status = transpose(where, xt, x, M, K, P, [&](uint8_t bits, int64_t m, int64_t) {
        return to_e4m3(from_e4m3(bits) * fp8_power(bad ? FP8_NAN : fp8_exponent(a[m]) + fp8_exponent(b[m]) - most));
      })) {
    return status;
  }
  if (const int32_t status = transpose(where, dyt, dy, M, N, P, [&](uint8_t bits, int64_t, int64_t n) {
        return to_e4m3(from_e4m3(bits) * fp8_power(least - fp8_exponent(column[n])));
      })) {
    return status;
  }
  return w ? transpose(where, wt, w, N, K, N, [](uint8_t bits, int64_t, int64_t) { return bits; }) : int32_t(K_OK);
}
