// Attention by Eigen's products over blocks of queries and keys. Blocks have fixed sizes and each sum has one owner, so the result does not
// depend on the number of threads.
#include "../include/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "eigen.hpp"
#include "host.hpp"

namespace {
constexpr int64_t QUERIES = 64, KEYS = 256;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::ArrayXf;
using Block = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;

struct Operand {
  uint64_t address;
  int64_t batch, token, head;
  int64_t D;

  // Tokens [from, from + n) of one head, [n, D].
  Block rows(int64_t b, int64_t h, int64_t from, int64_t n) const {
    return Block(at<float>(address) + b * batch + h * head + from * token, n, D, Eigen::OuterStride<>(token));
  }
};

int32_t check(const char* where, int32_t B, int32_t L, int32_t M, int32_t H, int32_t D, float scale, int32_t dtype) {
  if (int32_t status = expect_f32(where, dtype)) return status;
  if (B < 0 || L < 0 || M < 0 || H < 0) {
    return fail(K_BAD_ARGUMENT, where, "B, L, M, H are %d, %d, %d, %d, they must be >= 0", B, L, M, H);
  }
  if (D < 1 || D > 128) return fail(K_UNSUPPORTED, where, "D is %d, it must be 1 to 128", D);
  if (!(scale > 0) || std::isinf(scale)) return fail(K_BAD_ARGUMENT, where, "scale is %g, it must be finite and > 0", double(scale));
  return K_OK;
}
}  // namespace

int32_t k_attention_fwd(uint64_t o, uint64_t lse, uint64_t q, uint64_t k, uint64_t v, int32_t B, int32_t L, int32_t M, int32_t H, int32_t D,
                        int64_t o_batch, int64_t o_token, int64_t o_head, int64_t q_batch, int64_t q_token, int64_t q_head, int64_t k_batch,
                        int64_t k_token, int64_t k_head, int64_t v_batch, int64_t v_token, int64_t v_head, float scale, int32_t dtype,
                        uint64_t) {
  if (int32_t status = check("k_attention_fwd", B, L, M, H, D, scale, dtype)) return status;
  const Operand O{o, o_batch, o_token, o_head, D}, Q{q, q_batch, q_token, q_head, D}, K{k, k_batch, k_token, k_head, D},
      V{v, v_batch, v_token, v_head, D};
  const int64_t blocks = (L + QUERIES - 1) / QUERIES;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < int64_t(B) * H * blocks; task++) {
    const int64_t bh = task / blocks, b = bh / H, h = bh % H, l0 = task % blocks * QUERIES, rows = std::min<int64_t>(QUERIES, L - l0);
    const Block queries = Q.rows(b, h, l0, rows);
    Matrix sum = Matrix::Zero(rows, D), p;
    Vector top = Vector::Constant(rows, -std::numeric_limits<float>::infinity()), weight = Vector::Zero(rows);
    for (int64_t m0 = 0; m0 < M; m0 += KEYS) {
      const int64_t keys = std::min<int64_t>(KEYS, M - m0);
      p.resize(rows, keys);
      p.noalias() = queries * K.rows(b, h, m0, keys).transpose();
      for (int64_t r = 0; r < rows; r++) {
        auto row = p.row(r).array();
        const float before = top[r];
        top[r] = std::max(before, row.maxCoeff() * scale);
        row = (row * scale - top[r]).exp();
        const float keep = std::exp(before - top[r]);
        weight[r] = weight[r] * keep + row.sum();
        sum.row(r) *= keep;
      }
      sum.noalias() += p * V.rows(b, h, m0, keys);
    }
    for (int64_t r = 0; r < rows; r++) {
      O.rows(b, h, l0 + r, 1) = sum.row(r) * (weight[r] == 0 ? 0 : 1 / weight[r]);
      at<float>(lse)[bh * L + l0 + r] = top[r] + std::log(weight[r]);
    }
  }
  return K_OK;
}

int32_t k_attention_bwd(uint64_t dq, uint64_t dk, uint64_t dv, uint64_t d_o, uint64_t o, uint64_t lse, uint64_t q, uint64_t k, uint64_t v,
                        uint64_t delta, int32_t B, int32_t L, int32_t M, int32_t H, int32_t D, int64_t dq_batch, int64_t dq_token,
                        int64_t dq_head, int64_t dk_batch, int64_t dk_token, int64_t dk_head, int64_t dv_batch, int64_t dv_token,
                        int64_t dv_head, int64_t d_o_batch, int64_t d_o_token, int64_t d_o_head, int64_t o_batch, int64_t o_token,
                        int64_t o_head, int64_t q_batch, int64_t q_token, int64_t q_head, int64_t k_batch, int64_t k_token, int64_t k_head,
                        int64_t v_batch, int64_t v_token, int64_t v_head, float scale, int32_t dtype, uint64_t) {
  if (int32_t status = check("k_attention_bwd", B, L, M, H, D, scale, dtype)) return status;
  const Operand DQ{dq, dq_batch, dq_token, dq_head, D}, DK{dk, dk_batch, dk_token, dk_head, D}, DV{dv, dv_batch, dv_token, dv_head, D},
      DO{d_o, d_o_batch, d_o_token, d_o_head, D}, O{o, o_batch, o_token, o_head, D}, Q{q, q_batch, q_token, q_head, D},
      K{k, k_batch, k_token, k_head, D}, V{v, v_batch, v_token, v_head, D};
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t bh = 0; bh < int64_t(B) * H; bh++) {
    const int64_t b = bh / H, h = bh % H;
    const float* log_sum = at<const float>(lse) + bh * L;
    float* shift = at<float>(delta) + bh * L;
    for (int64_t l = 0; l < L; l++) shift[l] = DO.rows(b, h, l, 1).cwiseProduct(O.rows(b, h, l, 1)).sum();
    if (dq) DQ.rows(b, h, 0, L).setZero();
    Matrix p, ds, grad_k, grad_v;
    for (int64_t m0 = 0; m0 < M; m0 += KEYS) {
      const int64_t n = std::min<int64_t>(KEYS, M - m0);
      const Block keys = K.rows(b, h, m0, n), values = V.rows(b, h, m0, n);
      grad_k.setZero(n, D);
      grad_v.setZero(n, D);
      for (int64_t l0 = 0; l0 < L; l0 += QUERIES) {
        const int64_t rows = std::min<int64_t>(QUERIES, L - l0);
        const Block queries = Q.rows(b, h, l0, rows), d_out = DO.rows(b, h, l0, rows);
        p.resize(rows, n);
        ds.resize(rows, n);
        p.noalias() = queries * keys.transpose();
        ds.noalias() = d_out * values.transpose();
        for (int64_t r = 0; r < rows; r++) {
          auto p_row = p.row(r).array(), ds_row = ds.row(r).array();
          p_row = (p_row * scale - log_sum[l0 + r]).exp();
          ds_row = p_row * (ds_row - shift[l0 + r]) * scale;
        }
        if (dv) grad_v.noalias() += p.transpose() * d_out;
        if (dk) grad_k.noalias() += ds.transpose() * queries;
        if (dq) DQ.rows(b, h, l0, rows).noalias() += ds * keys;
      }
      if (dk) DK.rows(b, h, m0, n) = grad_k;
      if (dv) DV.rows(b, h, m0, n) = grad_v;
    }
  }
  return K_OK;
}
