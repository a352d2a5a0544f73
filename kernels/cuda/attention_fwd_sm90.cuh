// The host's side of the Hopper forward pass: whether it takes a problem, the workspace, and the launches: of variable length the list of
// the tiles of queries, a zero for the counter of those taken, then forward_sm90_kernel.
#pragma once
#include "attention_fwd_sm90_kernel.cuh"

namespace attention {
inline bool forward_sm90_width(int64_t D) { return D == 32 || D == 64 || D == 80 || D == 96 || D == 128; }
// Calls run(shape) with what was fastest for heads of width D, one of those.
template <class F>
auto with_forward_shape(int64_t D, F run) {
  if (D == 32) return run(ForwardShape<32, 3, 128, 8, false>{});
  if (D == 64) return run(ForwardShape<64, 3, 128, 6, true>{});
  if (D == 80) return run(ForwardShape<80, 3, 96, 4, true>{});
  if (D == 96) return run(ForwardShape<96, 3, 80, 6, false>{});
  return run(ForwardShape<128, 3, 80, 5, true>{});
}

template <class T, class S>
int32_t run_forward_sm90(const char* where, const k_attention& p, const Problem& problem, cudaStream_t stream) {
  const int64_t items = tile_bound(problem.q, problem.B, S::QUERIES) * problem.H;
  if (items == 0 || (problem.q.offsets && problem.q.total == 0)) return K_OK;
  ForwardMaps maps;
  const Operand<const T> q{at<const T>(p.q), {p.q_batch, p.q_token, p.q_head}}, k{at<const T>(p.k), {p.k_batch, p.k_token, p.k_head}},
      v{at<const T>(p.v), {p.v_batch, p.v_token, p.v_head}};
  const Operand<T> o{at<T>(p.o), {p.o_batch, p.o_token, p.o_head}};
  if (!row_map(maps.q, q, problem.q, p.B, p.H, S::D, S::WIDTH, S::QUERIES) ||
      !row_map(maps.k, k, problem.k, p.B, p.H, S::D, S::WIDTH, S::KEYS) ||
      !row_map(maps.v, v, problem.k, p.B, p.H, S::D, S::WIDTH, S::KEYS)) {
    return fail(K_UNSUPPORTED, where, "the driver refuses a tensor map of B, L, M, H, D %lld, %lld, %lld, %lld, %d",
                static_cast<long long>(p.B), static_cast<long long>(p.L), static_cast<long long>(p.M), static_cast<long long>(p.H), S::D);
  }
  int device = 0, processors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks = items < processors ? items : processors;
  const unsigned heads = unsigned(p.B * p.H), full = problem.q.longest / S::QUERIES;
  const Tiles tiles = make_tiles(problem.q, problem.k, problem.B, S::QUERIES, p.workspace, stream);
  int* next = at<int>(p.workspace + (problem.q.offsets ? tile_bytes(tile_bound(problem.q, problem.B, S::QUERIES)) : 0));
  if (const cudaError_t e = cudaMemsetAsync(next, 0, 4, stream)) return fail(e, where, "%s", cudaGetErrorString(e));
  const Schedule schedule{tiles, next, unsigned(blocks), full, heads * full, unsigned(items)};
  const auto kernel = forward_sm90_kernel<T, S>;
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
  if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  kernel<<<unsigned(blocks), S::THREADS, S::SHARED, stream>>>(maps, o, problem, schedule);
  return launched(where);
}

// Whether the Hopper forward pass takes this problem: its width of heads, no row maps, keys at all, strides that tensor maps hold, and
// tiles that can be counted.
inline bool forward_sm90_fits(const k_attention& p) {
  if (p.dtype == K_F32 || !forward_sm90_width(p.D) || p.q_rows || p.k_rows || !(p.k_offsets ? p.k_total : p.M)) return false;
  const auto fits = [](int64_t stride, int64_t size) { return size <= 1 || (stride > 0 && stride < int64_t(1) << 39); };
  const int64_t all[4][3] = {{p.q_batch, p.q_token, p.q_head}, {p.o_batch, p.o_token, p.o_head}, {p.k_batch, p.k_token, p.k_head},
                             {p.v_batch, p.v_token, p.v_head}};
  for (int i = 0; i < 4; i++) {
    const int64_t ragged = i < 2 ? p.q_offsets : p.k_offsets, tokens = ragged ? (i < 2 ? p.q_total : p.k_total) : (i < 2 ? p.L : p.M);
    if (tokens >= INT32_MAX / 2) return false;
    if (!fits(all[i][0], ragged ? 1 : p.B) || !fits(all[i][1], ragged ? 2 : tokens) || !fits(all[i][2], p.H)) return false;
  }
  const Sequences q{at<const int32_t>(p.q_offsets), nullptr, p.q_total, int(p.L)};
  return tile_bound(q, p.B, 64) * p.H < INT32_MAX / 2;
}

// Of problems of these sizes; 0 where the width of heads is none of those.
inline int64_t forward_sm90_workspace(const k_attention& p) {
  if (!forward_sm90_width(p.D)) return 0;
  const Sequences q{at<const int32_t>(p.q_offsets), nullptr, p.q_total, int(p.L)};
  return with_forward_shape(p.D, [&](auto shape) {
    return (p.q_offsets ? tile_bytes(tile_bound(q, p.B, decltype(shape)::QUERIES)) : int64_t(0)) + 256;
  });
}

// o and lse as k_attention_fwd has them, for a problem that fits.
template <class T>
int32_t forward_sm90(const char* where, const k_attention& p, const Problem& problem, cudaStream_t stream) {
  return with_forward_shape(p.D, [&](auto shape) { return run_forward_sm90<T, decltype(shape)>(where, p, problem, stream); });
}
}  // namespace attention
