// Sparse convolution: for a block of rows and one tap after the other, the rows of x that are there are copied side by side, multiplied
// with the tap's weights by Eigen and added to their rows of y. Blocks are fixed, so the sums do not depend on the number of threads.
#include "../include/spconv.h"

#include <omp.h>

#include <algorithm>

#include "eigen.hpp"
#include "host.hpp"

#include "../include/coordinates.hpp"

namespace {
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<Matrix>;
using ConstRows = Eigen::Map<const Matrix>;
using Strided = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
constexpr int64_t BLOCK = 256;

int32_t check(const char* where, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t dtypes) {
  if (int32_t status = expect_f32(where, dtypes)) return status;
  if (Cin < 1 || Cout < 1) return fail(K_BAD_ARGUMENT, where, "Cin = %d, Cout = %d, they must be >= 1", Cin, Cout);
  return sparse::check_table(where, rows, K);
}

int32_t block_workspace(const char* where, uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t dtype) {
  *bytes = sizeof(float) * uint64_t(omp_get_max_threads()) * BLOCK * (uint64_t(Cin) + Cout);
  return check(where, rows, K, Cin, Cout, dtype);
}

void gather(float* to, const float* from, const int32_t* rows, int64_t count, int64_t C) {
  for (int64_t i = 0; i < count; i++) std::copy_n(from + rows[i] * C, C, to + i * C);
}

// y [rows, N] = bias + sum over taps of x [table, C] times weights(tap) [C, N]
template <class Weights>
void multiply(float* y, const float* x, const float* bias, const int32_t* table, float* scratch, int64_t rows, int K, int64_t C, int64_t N,
              Weights weights) {
  const int64_t blocks = (rows + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * BLOCK, last = std::min(rows, first + BLOCK);
    float *const found = scratch + omp_get_thread_num() * BLOCK * (C + N), *const product = found + BLOCK * C;
    for (int64_t r = first; r < last; r++) {
      for (int64_t n = 0; n < N; n++) y[r * N + n] = bias ? bias[n] : 0;
    }
    for (int t = 0; t < K; t++) {
      int32_t to[BLOCK], from[BLOCK];
      int64_t count = 0;
      for (int64_t r = first; r < last; r++) {
        if (table[r * K + t] < 0) continue;
        to[count] = int32_t(r - first);
        from[count++] = table[r * K + t];
      }
      if (count == 0) continue;
      gather(found, x, from, count, C);
      Rows(product, count, N).noalias() = ConstRows(found, count, C) * weights(t);
      for (int64_t i = 0; i < count; i++) {
        float* const row = y + (first + to[i]) * N;
        for (int64_t n = 0; n < N; n++) row[n] += product[i * N + n];
      }
    }
  }
}
}  // namespace

int32_t k_spconv_fwd_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t, int32_t dtype) {
  return block_workspace("k_spconv_fwd_workspace", bytes, rows, K, Cin, Cout, dtype);
}

int32_t k_spconv_fwd(uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t table, uint64_t, uint64_t, uint64_t scratch, int32_t rows,
                     int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t dtype, int32_t weight_dtype, int32_t bias_dtype,
                     uint64_t) {
  if (int32_t status = check("k_spconv_fwd", rows, K, Cin, Cout, dtype | weight_dtype | bias_dtype)) return status;
  if (int32_t status = sparse::check_parts("k_spconv_fwd", rows, K, parts)) return status;
  multiply(
      at<float>(y), at<const float>(x), at<const float>(bias), at<const int32_t>(table), at<float>(scratch), rows, K, Cin, Cout,
      [&](int t) { return Strided(at<const float>(w) + int64_t(t) * Cin, Cout, Cin, Eigen::OuterStride<>(int64_t(K) * Cin)).transpose(); });
  return K_OK;
}

int32_t k_spconv_bwd_input_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t, int32_t dtype) {
  return block_workspace("k_spconv_bwd_input_workspace", bytes, rows, K, Cin, Cout, dtype);
}

int32_t k_spconv_bwd_input(uint64_t dx, uint64_t dy, uint64_t w, uint64_t table, uint64_t, uint64_t, uint64_t scratch, int32_t rows,
                           int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t mirror, int32_t dtype, int32_t weight_dtype,
                           uint64_t) {
  if (int32_t status = check("k_spconv_bwd_input", rows, K, Cin, Cout, dtype | weight_dtype)) return status;
  if (int32_t status = sparse::check_parts("k_spconv_bwd_input", rows, K, parts)) return status;
  multiply(at<float>(dx), at<const float>(dy), nullptr, at<const int32_t>(table), at<float>(scratch), rows, K, Cout, Cin, [&](int t) {
    const int64_t tap = mirror ? K - 1 - t : t;
    return Strided(at<const float>(w) + tap * Cin, Cout, Cin, Eigen::OuterStride<>(int64_t(K) * Cin));
  });
  return K_OK;
}

int32_t k_spconv_bwd_weight_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t dtype) {
  return block_workspace("k_spconv_bwd_weight_workspace", bytes, rows, K, Cin, Cout, dtype);
}

int32_t k_spconv_bwd_weight(uint64_t dw, uint64_t dy, uint64_t x, uint64_t pairs, uint64_t offsets, uint64_t scratch, int32_t rows,
                            int32_t K, int32_t Cin, int32_t Cout, int32_t dtype, uint64_t) {
  if (int32_t status = check("k_spconv_bwd_weight", rows, K, Cin, Cout, dtype)) return status;
  const int32_t *const first = at<const int32_t>(offsets), *const to = at<const int32_t>(pairs), *const from = to + int64_t(rows) * K;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t t = 0; t < K; t++) {
    float *const left = at<float>(scratch) + omp_get_thread_num() * BLOCK * (int64_t(Cin) + Cout), *const right = left + BLOCK * Cout;
    Eigen::Map<Matrix, 0, Eigen::OuterStride<>> sum(at<float>(dw) + t * Cin, Cout, Cin, Eigen::OuterStride<>(int64_t(K) * Cin));
    sum.setZero();
    for (int64_t j = first[t]; j < first[t + 1]; j += BLOCK) {
      const int64_t count = std::min<int64_t>(BLOCK, first[t + 1] - j);
      gather(left, at<const float>(dy), to + j, count, Cout);
      gather(right, at<const float>(x), from + j, count, Cin);
      sum.noalias() += ConstRows(left, count, Cout).transpose() * ConstRows(right, count, Cin);
    }
  }
  return K_OK;
}
