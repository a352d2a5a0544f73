// The host's side of the Hopper backward pass: whether it takes a problem, the workspace, and the launches: prepare_sm90 (delta, zeros for
// the counters), of variable length the list of the tiles of keys, then backward_sm90_kernel.
#pragma once
#include "attention_bwd_sm90_kernel.cuh"

namespace attention {
// Where the parts of the workspace begin, and how many sums of tiles of queries they hold.
struct BackwardSpace {
  int64_t list, turns, sums, bytes, sum_tiles, all_tiles;
};
template <int D>
BackwardSpace backward_space(const k_attention& p) {
  using Z = BackwardShape<D>;
  const auto up = [](int64_t bytes) { return ceil_div(bytes, 256) * 256; };
  const bool dense = !p.q_offsets;
  const Sequences keys{at<const int32_t>(p.k_offsets), nullptr, p.k_total, int(p.M)};
  BackwardSpace s;
  s.list = up((dense ? p.B * p.L : p.q_total) * p.H * 4);
  s.turns = s.list + (dense ? 0 : tile_bytes(tile_bound(keys, p.B, Z::KEYS)));
  // Of variable length a tile more for each sequence of several tiles of keys, of which there are at most k_total / (KEYS + 1).
  s.sum_tiles = dense ? ceil_div(p.L, Z::QUERIES) : p.q_total / Z::QUERIES + p.k_total / (Z::KEYS + 1) + 1;
  s.all_tiles = p.M > Z::KEYS ? s.sum_tiles * p.H * (dense ? p.B : 1) : 0;
  s.sums = s.turns + up(s.all_tiles * 4);
  s.bytes = s.sums + s.all_tiles * Z::SUMS * 16;
  return s;
}

template <class T, int D>
int32_t run_backward_sm90(const char* where, const k_attention& p, const Problem& problem, cudaStream_t stream) {
  using Z = BackwardShape<D>;
  if (p.B == 0 || p.H == 0) return K_OK;
  const BackwardSpace space = backward_space<D>(p);
  const int64_t rows = (problem.q.offsets ? problem.q.total : p.B * p.L) * p.H;
  float* delta = at<float>(p.workspace);
  const Operand<const T> q{at<const T>(p.q), {p.q_batch, p.q_token, p.q_head}}, k{at<const T>(p.k), {p.k_batch, p.k_token, p.k_head}},
      v{at<const T>(p.v), {p.v_batch, p.v_token, p.v_head}}, o{at<const T>(p.o), {p.o_batch, p.o_token, p.o_head}},
      d_o{at<const T>(p.d_o), {p.d_o_batch, p.d_o_token, p.d_o_head}};
  Backward<T> x{problem, {}, delta, at<float4>(p.workspace + space.sums),
                at<uint32_t>(p.workspace + space.turns), space.sum_tiles, {at<T>(p.dq), {p.dq_batch, p.dq_token, p.dq_head}},
                {at<T>(p.dk), {p.dk_batch, p.dk_token, p.dk_head}}, {at<T>(p.dv), {p.dv_batch, p.dv_token, p.dv_head}}};
  const int tokens = int(problem.q.offsets ? problem.q.total : p.L), chunks = int(ceil_div(tokens, PREPARE_ROWS));
  const int64_t blocks = tile_bound(problem.k, p.B, Z::KEYS) * p.H, before = chunks * p.H * (problem.q.offsets ? 1 : p.B);
  if (blocks > INT32_MAX || before > INT32_MAX) {
    return fail(K_UNSUPPORTED, where, "rows times H are %lld, that is 2^31 blocks or more", static_cast<long long>(rows));
  }

  const int64_t zeros = (space.sums - space.turns) / 16;
  float4* zero = at<float4>(p.workspace + space.turns);
  prepare_sm90<T, D><<<before > 0 ? unsigned(before) : 1, 256, 0, stream>>>(delta, zero, zeros, x.dq, d_o, o, problem, tokens,
                                                                            chunks > 0 ? chunks : 1);
  if (int32_t status = launched(where)) return status;
  if (blocks == 0 || (problem.k.offsets && problem.k.total == 0)) return K_OK;
  x.tiles = make_tiles(problem.k, problem.q, problem.B, Z::KEYS, p.workspace + space.list, stream);

  CUtensorMap q_map, k_map, v_map, do_map;
  const Sequences& queries = rows ? problem.q : problem.k;  // with no queries at all their maps are not used
  if (!row_map(q_map, rows ? q : k, queries, p.B, p.H, D, Z::WIDTH, Z::QUERIES) ||
      !row_map(do_map, rows ? d_o : k, queries, p.B, p.H, D, Z::WIDTH, Z::QUERIES) ||
      !row_map(k_map, k, problem.k, p.B, p.H, D, Z::WIDTH, Z::KEYS) || !row_map(v_map, v, problem.k, p.B, p.H, D, Z::WIDTH, Z::KEYS)) {
    return fail(K_UNSUPPORTED, where, "the driver refuses a tensor map of B, L, M, H, D %lld, %lld, %lld, %lld, %d",
                static_cast<long long>(p.B), static_cast<long long>(p.L), static_cast<long long>(p.M), static_cast<long long>(p.H), D);
  }
  const cudaError_t e = cudaFuncSetAttribute(backward_sm90_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, Z::BYTES);
  if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  backward_sm90_kernel<T, D><<<unsigned(blocks), BACKWARD_THREADS<T, D>, Z::BYTES, stream>>>(q_map, k_map, v_map, do_map, x);
  return launched(where);
}

template <int N>
struct HeadWidth {
  static constexpr int D = N;
};
inline bool has_head_width(int64_t D) { return D == 32 || D == 64 || D == 80 || D == 96 || D == 128; }
// Calls run(HeadWidth<D>{}) for the widths that the Hopper backward pass is built for.
template <class F>
auto with_head_width(int64_t D, F run) {
  if (D == 32) return run(HeadWidth<32>{});
  if (D == 64) return run(HeadWidth<64>{});
  if (D == 80) return run(HeadWidth<80>{});
  if (D == 96) return run(HeadWidth<96>{});
  return run(HeadWidth<128>{});
}

// Whether the Hopper backward pass takes this problem: its width of heads, no row maps, and strides that tensor maps hold.
inline bool backward_sm90_fits(const k_attention& p) {
  if (p.dtype == K_F32 || !has_head_width(p.D) || p.q_rows || p.k_rows) return false;
  const auto fits = [](int64_t stride, int64_t size) { return size <= 1 || (stride > 0 && stride < int64_t(1) << 39); };
  const int64_t batches = p.q_offsets ? 1 : p.B;
  const int64_t all[4][3] = {{p.q_batch, p.q_token, p.q_head}, {p.k_batch, p.k_token, p.k_head}, {p.v_batch, p.v_token, p.v_head},
                             {p.d_o_batch, p.d_o_token, p.d_o_head}};
  for (int i = 0; i < 4; i++) {
    const int64_t tokens = i % 3 ? (p.k_offsets ? 2 : p.M) : (p.q_offsets ? 2 : p.L);
    if (tokens == 0) continue;
    if (!fits(all[i][0], batches) || !fits(all[i][1], tokens) || !fits(all[i][2], p.H)) return false;
  }
  return true;
}

// Of problems of these sizes; 0 where the width of heads is none of those.
inline int64_t backward_sm90_workspace(const k_attention& p) {
  if (!has_head_width(p.D)) return 0;
  return with_head_width(p.D, [&](auto width) { return backward_space<decltype(width)::D>(p).bytes; });
}

// dq, dk and dv as k_attention_bwd has them, for a problem that fits.
template <class T>
int32_t backward_sm90(const char* where, const k_attention& p, const Problem& problem, cudaStream_t stream) {
  return with_head_width(p.D, [&](auto width) { return run_backward_sm90<T, decltype(width)::D>(where, p, problem, stream); });
}
}  // namespace attention
