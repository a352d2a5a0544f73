// Attention by Eigen's products over blocks of queries and keys, which are copied out of their rows. Blocks have fixed sizes and each sum
// has one owner, so the result does not depend on the number of threads.
#include "../include/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "eigen.hpp"
#include "host.hpp"
#include "../include/attention_check.hpp"

namespace {
constexpr int64_t QUERIES = 64, KEYS = 256;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::ArrayXf;

// The queries or the keys of all sequences.
struct Sequences {
  const int32_t *offsets, *rows;  // each may be null
  int64_t longest;

  int64_t length(int64_t b) const { return offsets ? offsets[b + 1] - offsets[b] : longest; }
};

// A [.., H, D] array whose rows are those of `sequences`.
struct Operand {
  uint64_t address;
  int64_t batch, token, head, D;
  const Sequences& sequences;

  // Row i of sequence b.
  float* row(int64_t b, int64_t h, int64_t i) const {
    float* start = at<float>(address) + h * head;
    if (!sequences.offsets) return start + b * batch + i * token;
    const int64_t r = sequences.offsets[b] + i;
    return start + (sequences.rows ? sequences.rows[r] : r) * token;
  }
  // Rows [from, from + n), [n, D].
  void read(Matrix& block, int64_t b, int64_t h, int64_t from, int64_t n) const {
    block.resize(n, D);
    for (int64_t i = 0; i < n; i++) std::copy_n(row(b, h, from + i), D, block.row(i).data());
  }
  // Does nothing where the address is 0.
  void write(const Matrix& block, int64_t b, int64_t h, int64_t from) const {
    if (!address) return;
    for (int64_t i = 0; i < block.rows(); i++) std::copy_n(block.row(i).data(), D, row(b, h, from + i));
  }
};

// A k_attention with its operands by name.
struct Problem {
  const k_attention& p;
  const Sequences queries{at<const int32_t>(p.q_offsets), at<const int32_t>(p.q_rows), p.L};
  const Sequences keys{at<const int32_t>(p.k_offsets), at<const int32_t>(p.k_rows), p.M};
  const Operand q{p.q, p.q_batch, p.q_token, p.q_head, p.D, queries}, k{p.k, p.k_batch, p.k_token, p.k_head, p.D, keys};
  const Operand v{p.v, p.v_batch, p.v_token, p.v_head, p.D, keys}, o{p.o, p.o_batch, p.o_token, p.o_head, p.D, queries};
  const Operand d_o{p.d_o, p.d_o_batch, p.d_o_token, p.d_o_head, p.D, queries};
  const Operand dq{p.dq, p.dq_batch, p.dq_token, p.dq_head, p.D, queries};
  const Operand dk{p.dk, p.dk_batch, p.dk_token, p.dk_head, p.D, keys}, dv{p.dv, p.dv_batch, p.dv_token, p.dv_head, p.D, keys};
  const float scale = float(p.scale);

  // Where the statistics (lse, delta) of a sequence's queries begin.
  int64_t stat(int64_t b, int64_t h) const { return queries.offsets ? h * p.q_total + queries.offsets[b] : (b * p.H + h) * p.L; }
};

int32_t check(const char* where, const k_attention* p, bool backward) {
  if (int32_t status = attention::check_problem(where, p, backward)) return status;
  if (int32_t status = expect_f32(where, int32_t(p->dtype))) return status;
  if (!p->q_offsets) return K_OK;
  const auto look = [&](char x, uint64_t offsets, uint64_t rows, int64_t total, int64_t longest) {
    return attention::check_rows(where, x, at<const int32_t>(offsets), at<const int32_t>(rows), p->B, total, longest);
  };
  if (int32_t status = look('q', p->q_offsets, p->q_rows, p->q_total, p->L)) return status;
  return look('k', p->k_offsets, p->k_rows, p->k_total, p->M);
}

// The backward pass keeps delta, like lse, for every query and head.
uint64_t backward_workspace(const k_attention& p) { return uint64_t(p.q_offsets ? p.q_total : p.B * p.L) * p.H * sizeof(float); }

void forward_block(const Problem& problem, int64_t b, int64_t h, int64_t l0) {
  const float scale = problem.scale;
  const int64_t rows = std::min(QUERIES, problem.queries.length(b) - l0), M = problem.keys.length(b);
  Matrix queries, keys, values, p, sum = Matrix::Zero(rows, problem.p.D);
  Vector top = Vector::Constant(rows, -std::numeric_limits<float>::infinity()), weight = Vector::Zero(rows);
  problem.q.read(queries, b, h, l0, rows);
  for (int64_t m0 = 0; m0 < M; m0 += KEYS) {
    const int64_t n = std::min(KEYS, M - m0);
    problem.k.read(keys, b, h, m0, n);
    problem.v.read(values, b, h, m0, n);
    p.resize(rows, n);
    p.noalias() = queries * keys.transpose();
    for (int64_t r = 0; r < rows; r++) {
      auto row = p.row(r).array();
      const float before = top[r];
      top[r] = std::max(before, row.maxCoeff() * scale);
      row = (row * scale - top[r]).exp();
      const float keep = std::exp(before - top[r]);
      weight[r] = weight[r] * keep + row.sum();
      sum.row(r) *= keep;
    }
    sum.noalias() += p * values;
  }
  float* lse = at<float>(problem.p.lse) + problem.stat(b, h) + l0;
  for (int64_t r = 0; r < rows; r++) {
    sum.row(r) *= weight[r] == 0 ? 0 : 1 / weight[r];
    lse[r] = top[r] + std::log(weight[r]);
  }
  problem.o.write(sum, b, h, l0);
}

void backward_head(const Problem& problem, int64_t b, int64_t h) {
  const int64_t L = problem.queries.length(b), M = problem.keys.length(b), D = problem.p.D;
  const float* lse = at<const float>(problem.p.lse) + problem.stat(b, h);
  float* delta = at<float>(problem.p.workspace) + problem.stat(b, h);
  Matrix q, d_o, o, keys, values, p, ds, dk, dv, dq = Matrix::Zero(L, D);
  problem.q.read(q, b, h, 0, L);
  problem.d_o.read(d_o, b, h, 0, L);
  problem.o.read(o, b, h, 0, L);
  Eigen::Map<Vector>(delta, L) = d_o.cwiseProduct(o).rowwise().sum().array();
  for (int64_t m0 = 0; m0 < M; m0 += KEYS) {
    const int64_t n = std::min(KEYS, M - m0);
    problem.k.read(keys, b, h, m0, n);
    problem.v.read(values, b, h, m0, n);
    dk.setZero(n, D);
    dv.setZero(n, D);
    for (int64_t l0 = 0; l0 < L; l0 += QUERIES) {
      const int64_t rows = std::min(QUERIES, L - l0);
      p.resize(rows, n);
      ds.resize(rows, n);
      p.noalias() = q.middleRows(l0, rows) * keys.transpose();
      ds.noalias() = d_o.middleRows(l0, rows) * values.transpose();
      for (int64_t r = 0; r < rows; r++) {
        auto p_row = p.row(r).array(), ds_row = ds.row(r).array();
        p_row = (p_row * problem.scale - lse[l0 + r]).exp();
        ds_row = p_row * (ds_row - delta[l0 + r]) * problem.scale;
      }
      if (problem.dv.address) dv.noalias() += p.transpose() * d_o.middleRows(l0, rows);
      if (problem.dk.address) dk.noalias() += ds.transpose() * q.middleRows(l0, rows);
      if (problem.dq.address) dq.middleRows(l0, rows).noalias() += ds * keys;
    }
    problem.dk.write(dk, b, h, m0);
    problem.dv.write(dv, b, h, m0);
  }
  problem.dq.write(dq, b, h, 0);
}
}  // namespace

int32_t k_attention_workspace(uint64_t* bytes, const k_attention* problem) {
  if (int32_t status = attention::check_sizes("k_attention_workspace", problem)) return status;
  bytes[0] = 0;
  bytes[1] = backward_workspace(*problem);
  return K_OK;
}

int32_t k_attention_fwd(const k_attention* problem, uint64_t) {
  if (int32_t status = check("k_attention_fwd", problem, false)) return status;
  struct Tile {
    int64_t b, from;
  };
  const Problem named{*problem};
  std::vector<Tile> tiles;
  for (int64_t b = 0; b < problem->B; b++) {
    for (int64_t from = 0; from < named.queries.length(b); from += QUERIES) tiles.push_back({b, from});
  }
  const int64_t count = int64_t(tiles.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < count * problem->H; task++) {
    const Tile tile = tiles[task % count];
    forward_block(named, tile.b, task / count, tile.from);
  }
  return K_OK;
}

int32_t k_attention_bwd(const k_attention* problem, uint64_t) {
  const char* where = "k_attention_bwd";
  if (int32_t status = check(where, problem, true)) return status;
  if (int32_t status = attention::check_workspace(where, problem, backward_workspace(*problem))) return status;
  const Problem named{*problem};
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < problem->B * problem->H; task++) backward_head(named, task / problem->H, task % problem->H);
  return K_OK;
}
