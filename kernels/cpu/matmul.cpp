// The dense product by Eigen, one tile of y a task. Tiles have a fixed size, so the sums do not depend on the number of threads.
#include "../include/matmul.h"

#include <algorithm>

#include "eigen.hpp"
#include "host.hpp"

namespace {
constexpr int64_t TILE_M = 128, TILE_N = 256;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Block = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
using ConstBlock = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
}  // namespace

int32_t k_matmul_fwd(uint64_t y, uint64_t a, uint64_t b, uint64_t bias, uint64_t c, int32_t batch, int32_t M, int32_t N, int32_t K, int32_t trans_a,
                     int32_t trans_b, int64_t stride_a, int64_t stride_b, int32_t dtype, uint64_t) {
  if (int32_t status = expect_f32("k_matmul_fwd", dtype)) return status;
  if (batch < 0 || M < 0 || N < 0 || K < 0) return fail(K_BAD_ARGUMENT, "k_matmul_fwd", "batch, M, N, K are %d, %d, %d, %d, they must be >= 0", batch, M, N, K);
  const int64_t rows = (M + TILE_M - 1) / TILE_M, columns = (N + TILE_N - 1) / TILE_N;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < batch * rows * columns; task++) {
    const int64_t z = task / (rows * columns), m0 = task / columns % rows * TILE_M, n0 = task % columns * TILE_N;
    const int64_t m = std::min<int64_t>(TILE_M, M - m0), n = std::min<int64_t>(TILE_N, N - n0);
    const float* az = at<const float>(a) + z * stride_a;
    const float* bz = at<const float>(b) + z * stride_b;
    const int64_t first = (z * M + m0) * N + n0;
    Block to(at<float>(y) + first, m, n, Eigen::OuterStride<>(N));
    Matrix tile(m, n);
    const auto b_tile = [&](auto&& op_a) {
      if (trans_b) {
        tile.noalias() = op_a * ConstBlock(bz + n0 * K, n, K, Eigen::OuterStride<>(K)).transpose();
      } else {
        tile.noalias() = op_a * ConstBlock(bz + n0, K, n, Eigen::OuterStride<>(N));
      }
    };
    if (K == 0) {
      tile.setZero();
    } else if (trans_a) {
      b_tile(ConstBlock(az + m0, K, m, Eigen::OuterStride<>(M)).transpose());
    } else {
      b_tile(ConstBlock(az + m0 * K, m, K, Eigen::OuterStride<>(K)));
    }
    if (bias) tile.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(at<const float>(bias) + n0, n);
    if (c) tile += ConstBlock(at<const float>(c) + first, m, n, Eigen::OuterStride<>(N));
    to = tile;
  }
  return K_OK;
}
