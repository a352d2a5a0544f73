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
// by(n) multiplies row n.
template <class F>
int32_t transpose(const char* where, uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, F by) {
  if (N < 0 || C < 1 || P < N || P % 16) {
    return fail(K_BAD_ARGUMENT, where, "N = %d, C = %d and P = %d, C must be > 0 and P a multiple of 16 and at least N, which is >= 0", N, C, P);
  }
#pragma omp parallel for
  for (int64_t c = 0; c < C; c++) {
    uint8_t* to = at<uint8_t>(y) + c * P;
    for (int64_t n = 0; n < N; n++) to[n] = by(at<uint8_t>(x)[n * C + c], n);
    std::fill(to + N, to + P, uint8_t(0));
  }
  return K_OK;
}
}  // namespace

int32_t k_fp8_transpose_fwd(uint64_t y, uint64_t x, int32_t N, int32_t C, int32_t P, uint64_t) {
  return transpose("k_fp8_transpose_fwd", y, x, N, C, P, [](uint8_t bits, int64_t) { return bits; });
}

int32_t k_fp8_transpose_scaled_fwd(uint64_t y, uint64_t scale, uint64_t x, uint64_t a, uint64_t b, uint64_t columns, uint64_t, int32_t N, int32_t C,
                                   int32_t P, int32_t M, uint64_t) {
  const char* where = "k_fp8_transpose_scaled_fwd";
  if (N < 1 || M < 0) return fail(K_BAD_ARGUMENT, where, "N = %d and M = %d, N must be > 0 and M >= 0", N, M);
  const auto exponent = [&](int64_t n) { return fp8_exponent(at<float>(a)[n]) + fp8_exponent(at<float>(b)[n]); };
  int most = exponent(0);
  for (int64_t n = 1; n < N; n++) most = std::max(most, exponent(n));
  const bool bad = most >= FP8_NAN / 2;
  for (int64_t m = 0; m < M; m++) {
    const int e = fp8_exponent(at<float>(columns)[m]);
    at<float>(scale)[m] = fp8_power(bad || e == FP8_NAN ? FP8_NAN : most - e);
  }
  return transpose(where, y, x, N, C, P,
                   [&](uint8_t bits, int64_t n) { return to_e4m3(from_e4m3(bits) * fp8_power(bad ? FP8_NAN : exponent(n) - most)); });
}
