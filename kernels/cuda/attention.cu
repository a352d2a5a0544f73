// Attention on CUDA: which kernels a problem takes. f32 has plain ones; in 16 bits short sequences have blocks of their own
// (attention_window.cuh, the shortest forward attention_window_whole.cuh), everything else goes in tiles of rows: by wgmma on Hopper, else by
// m16n8k16 products, which any card since sm_80 has.
#include "../include/attention.h"

#include <algorithm>

#include "attention_bwd.cuh"
#include "attention_bwd_sm90.cuh"
#include "attention_f32.cuh"
#include "attention_fwd.cuh"
#include "attention_fwd_sm90.cuh"
#include "attention_window.cuh"
#include "attention_window_bwd.cuh"
#include "attention_window_bwd_sm90.cuh"
#include "attention_window_whole.cuh"
#include "../include/attention_check.hpp"

namespace attention {
enum class Way { F32, WINDOWS, TILES, HOPPER };

struct Card {
  int capability, shared, processors, cache;  // 10 major + minor; bytes of shared memory that a block can have; multiprocessors; bytes of L2
};
Card this_card() {
  static const std::vector<Card> cards = [] {
    int count = 0;
    std::vector<Card> all;
    if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
    for (int i = 0; i < count; i++) {
      int major = 0, minor = 0, shared = 0, processors = 0, cache = 0;
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i);
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i);
      cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, i);
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, i);
      cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, i);
      all.push_back({major * 10 + minor, shared, processors, cache});
    }
    return all;
  }();
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || size_t(device) >= cards.size()) return {};
  return cards[device];
}

// Places of the ring of a windows kernel.
int ring_slots(bool backward) {
  const int bytes = this_card().shared;
  return std::min(backward ? window_bwd_slots(bytes) : window_fwd_slots(bytes) / 8 * 8, MAX_SLOTS);
}

// Whether sequences are so short that it pays to have a whole one, of a head, in shared memory. The longest may come in parts, but one of
// very many rows would keep its block busy alone; and most should leave place for the next ones.
bool windows_fit(const k_attention& p, bool backward) {
  if (p.D > 64 || ring_slots(backward) < WINDOW_LEAST || p.L > MAX_SLOTS * SLOT_ROWS || p.M > MAX_SLOTS * SLOT_ROWS) return false;
  const int64_t strides[] = {p.q_token, p.k_token, p.v_token, p.o_token, p.d_o_token, p.dq_token, p.dk_token, p.dv_token};
  for (int i = 0; i < (backward ? 8 : 4); i++) {
    if (strides[i] < -WINDOW_STRIDE || strides[i] > WINDOW_STRIDE) return false;
  }
  const int64_t mean = backward ? 128 : 192;
  if (!p.q_offsets) return p.L <= 128 && p.M <= 128;
  return p.q_total <= p.B * mean && p.k_total <= p.B * mean;
}

// Whether the forward pass within windows has whole sequences in shared memory: few rows, which lie less than 2^31 times 16 bytes apart.
bool whole_forward_fits(const k_attention& p) {
  const auto near = [&](int64_t token, int64_t head, int64_t rows) {
    return double(rows) * std::abs(double(token)) + double(p.H) * std::abs(double(head)) < 8.0 * INT32_MAX;
  };
  const int64_t q_rows = p.q_offsets ? p.q_total : p.L, k_rows = p.q_offsets ? p.k_total : p.M;
  return p.L <= WHOLE_ROWS && p.M <= WHOLE_ROWS && near(p.q_token, p.q_head, q_rows) && near(p.o_token, p.o_head, q_rows) &&
         near(p.k_token, p.k_head, k_rows) && near(p.v_token, p.v_head, k_rows);
}

// Whether Hopper's backward pass within windows takes them: sequences of few rows that attend to themselves.
bool whole_fit(const k_attention& p) {
  const bool same = p.q_offsets == p.k_offsets && p.q_rows == p.k_rows && p.q_total == p.k_total && p.L == p.M;
  return this_card().capability == 90 && !(p.flags & K_ATTENTION_SM80) && same && p.L <= WINDOW_ROWS &&
         p.B * p.H <= INT32_MAX;
}

Way way_of(const k_attention& p, bool backward) {
  if (p.dtype == K_F32) return Way::F32;
  if (windows_fit(p, backward)) return Way::WINDOWS;
  if (this_card().capability != 90 || p.flags & K_ATTENTION_SM80) return Way::TILES;
  return (backward ? backward_sm90_fits(p) : forward_sm90_fits(p)) ? Way::HOPPER : Way::TILES;
}

Problem problem_of(const k_attention& p) {
  const Sequences q{at<const int32_t>(p.q_offsets), at<const int32_t>(p.q_rows), p.q_total, int(p.L)};
  const Sequences k{at<const int32_t>(p.k_offsets), at<const int32_t>(p.k_rows), p.k_total, int(p.M)};
  return {int(p.B), int(p.H), int(p.D), float(p.scale), q, k, at<float>(p.lse)};
}
int64_t row_count(const Sequences& s, int64_t B) { return s.offsets ? s.total : B * s.longest; }

// Rows of a tile that a block owns.
int owned_rows(const k_attention& p, bool backward) {
  if (p.dtype == K_F32) return p.D <= 64 ? F32_TILE<64> : F32_TILE<128>;
  return !backward ? FWD_QUERIES : p.D <= 64 ? BWD_ROWS<64> : BWD_ROWS<128>;
}

// The parts of the workspace for tiles, each at a multiple of 256 bytes of it: delta, the tiles of the queries, those of the keys.
struct Space {
  int64_t query_tiles, key_tiles, bytes;
};
Space space_of(const k_attention& p, bool backward) {
  const Problem problem = problem_of(p);
  const auto list = [&](const Sequences& s) { return s.offsets ? tile_bytes(tile_bound(s, p.B, owned_rows(p, backward))) : 0; };
  Space space{};
  if (backward) space.query_tiles = ceil_div(row_count(problem.q, p.B) * p.H * 4, 256) * 256;
  space.key_tiles = space.query_tiles + list(problem.q);
  space.bytes = space.key_tiles + (backward ? list(problem.k) : 0);
  return space;
}
// The most that any way takes which the sizes allow: strides, which decide too, need not be known yet.
uint64_t workspace_of(const k_attention& p, bool backward) {
  const int64_t bytes = space_of(p, backward).bytes;
  if (p.dtype == K_F32 || p.q_rows || p.k_rows || this_card().capability != 90 || p.flags & K_ATTENTION_SM80) return uint64_t(bytes);
  return uint64_t(std::max(bytes, backward ? backward_sm90_workspace(p) : forward_sm90_workspace(p)));
}

// With K_ATTENTION_CHECK: offsets and row maps, as they are once the stream has come this far.
int32_t look(const char* where, const k_attention& p, cudaStream_t stream) {
  if (!(p.flags & K_ATTENTION_CHECK) || !p.q_offsets) return K_OK;
  cudaError_t e = cudaStreamSynchronize(stream);
  const auto read = [&](uint64_t from, int64_t count) {
    std::vector<int32_t> list(from ? count : 0);
    if (from && e == cudaSuccess) e = cudaMemcpy(list.data(), at<void>(from), count * 4, cudaMemcpyDeviceToHost);
    return list;
  };
  const auto check = [&](char x, uint64_t offsets, uint64_t rows, int64_t total, int64_t longest) {
    const std::vector<int32_t> starts = read(offsets, p.B + 1), map = read(rows, total);
    if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
    return check_rows(where, x, starts.data(), rows ? map.data() : nullptr, p.B, total, longest);
  };
  if (int32_t status = check('q', p.q_offsets, p.q_rows, p.q_total, p.L)) return status;
  return check('k', p.k_offsets, p.k_rows, p.k_total, p.M);
}

// Runs kernel(args...) in `blocks` of `threads` with `shared` bytes.
template <class Kernel, class... A>
int32_t launch(const char* where, Kernel kernel, int64_t blocks, int threads, int shared, cudaStream_t stream, A... args) {
  if (blocks == 0) return K_OK;
  if (blocks > INT32_MAX) return fail(K_UNSUPPORTED, where, "B, H, L, M make %lld blocks, that must be less than 2^31", Long(blocks));
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  kernel<<<unsigned(blocks), threads, shared, stream>>>(args...);
  return launched(where);
}

template <class T>
struct Operands {
  Operand<const T> q, k, v, out, d_o;
  Operand<T> o, dq, dk, dv;
};
template <class T>
Operands<T> operands_of(const k_attention& p) {
  const Strides o{p.o_batch, p.o_token, p.o_head};
  return {{at<const T>(p.q), {p.q_batch, p.q_token, p.q_head}},
          {at<const T>(p.k), {p.k_batch, p.k_token, p.k_head}},
          {at<const T>(p.v), {p.v_batch, p.v_token, p.v_head}},
          {at<const T>(p.o), o},
          {at<const T>(p.d_o), {p.d_o_batch, p.d_o_token, p.d_o_head}},
          {at<T>(p.o), o},
          {at<T>(p.dq), {p.dq_batch, p.dq_token, p.dq_head}},
          {at<T>(p.dk), {p.dk_batch, p.dk_token, p.dk_head}},
          {at<T>(p.dv), {p.dv_batch, p.dv_token, p.dv_head}}};
}

// The forward pass within sequences of at most WHOLE_ROWS rows: blocks head by head, sequence after sequence. `keep`: o fits in L2, and should stay
// there for what reads it next.
template <class T>
int32_t run_whole(const char* where, const Operands<T>& x, const Problem& problem, bool wgmma, bool keep, cudaStream_t stream) {
  const auto kernel = wgmma ? forward_whole<T, true> : forward_whole<T, false>;
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  const int64_t deep = ceil_div(problem.B, 65535);
  const dim3 grid(unsigned(problem.H), unsigned(ceil_div(problem.B, deep)), unsigned(deep));
  const Lines o(x.o, problem.q), q(x.q, problem.q), k(x.k, problem.k), v(x.v, problem.k);
  kernel<<<grid, WHOLE_WARPS * 32, 0, stream>>>(o, q, k, v, problem, keep);
  return launched(where);
}

template <int N, bool M>
struct Width {
  static constexpr int DP = N;
  static constexpr bool MAPPED = M;
};
// Calls run(Width<DP, MAPPED>{}) for the least DP that holds D, with row maps of those that are built for them.
template <class F>
int32_t with_width(const k_attention& p, F run) {
  if (p.q_rows || p.k_rows) return p.D <= 64 ? run(Width<64, true>{}) : run(Width<128, true>{});
  if (p.D <= 32) return run(Width<32, false>{});
  if (p.D <= 64) return run(Width<64, false>{});
  if (p.D <= 96) return run(Width<96, false>{});
  return run(Width<128, false>{});
}

template <class T>
int32_t run_forward(const char* where, const k_attention& p, cudaStream_t stream) {
  const Problem problem = problem_of(p);
  const Operands<T> x = operands_of<T>(p);
  const int rows = owned_rows(p, false);
  const int64_t blocks = grid_of(problem.q, p.B, p.H, rows);
  const auto tiles = [&] { return make_tiles(problem.q, problem.k, problem.B, rows, p.workspace, stream); };
  if constexpr (sizeof(T) == 4) {
    const auto run = [&](auto kernel, int shared) {
      return launch(where, kernel, blocks, F32_THREADS, shared, stream, x.o, x.q, x.k, x.v, problem, tiles());
    };
    if (p.D <= 32) return run(forward_f32<32>, f32_shared<32>(2));
    return p.D <= 64 ? run(forward_f32<64>, f32_shared<64>(2)) : run(forward_f32<128>, f32_shared<128>(2));
  } else {
    const Way way = way_of(p, false);
    if (way == Way::WINDOWS && whole_forward_fits(p)) {
      const bool wgmma = this_card().capability == 90 && !(p.flags & K_ATTENTION_SM80);
      const bool keep = row_count(problem.q, p.B) * p.H * p.D * 2 <= this_card().cache / 2;
      return run_whole<T>(where, x, problem, wgmma, keep, stream);
    }
    if (way == Way::WINDOWS) {
      const int slots = ring_slots(false), blocks = this_card().processors;
      const Shares shares(problem, blocks, 1, WINDOW_FWD_COST);
      const auto run = [&](auto kernel, int workers) {
        return launch(where, kernel, blocks, window_fwd_threads(workers), window_fwd_shared(slots), stream, x.o, x.q, x.k, x.v, problem, shares,
                      slots);
      };
      const bool any_card = slots < MAX_SLOTS || p.flags & K_ATTENTION_SM80;
      return any_card ? run(forward_window<T, 8, 2>, 8) : run(forward_window<T, 16, 3>, 16);
    }
    if (way == Way::HOPPER) return forward_sm90<T>(where, p, problem, stream);
    return with_width(p, [&](auto w) {
      using W = decltype(w);
      return launch(where, forward<T, W::DP, W::MAPPED>, blocks, THREADS, FWD_SHARED<W::DP>, stream, x.o, x.q, x.k, x.v, problem, tiles());
    });
  }
}

template <class T, int LANES>
int32_t run_delta(const char* where, const k_attention& p, const Operands<T>& x, cudaStream_t stream) {
  constexpr int VECTOR = sizeof(T) == 4 ? 1 : 8;
  const Problem problem = problem_of(p);
  const int64_t blocks = ceil_div(row_count(problem.q, p.B) * p.H, 256 / LANES);
  return launch(where, sum_delta<T, VECTOR, LANES>, blocks, 256, 0, stream, at<float>(p.workspace), x.d_o, x.out, problem);
}

template <class T>
int32_t run_backward(const char* where, const k_attention& p, cudaStream_t stream) {
  const Problem problem = problem_of(p);
  const Operands<T> x = operands_of<T>(p);
  const int rows = owned_rows(p, true);
  const Space space = space_of(p, true);
  const float* delta = at<const float>(p.workspace);
  const auto run = [&](auto grad_q, auto grad_kv, int threads, int shared) {
    int32_t status = K_OK;
    const int64_t query_blocks = p.dq ? grid_of(problem.q, p.B, p.H, rows) : 0;
    const int64_t key_blocks = p.dk || p.dv ? grid_of(problem.k, p.B, p.H, rows) : 0;
    if (query_blocks) {
      const Tiles tiles = make_tiles(problem.q, problem.k, problem.B, rows, p.workspace + space.query_tiles, stream);
      status = launch(where, grad_q, query_blocks, threads, shared, stream, x.dq, x.d_o, delta, x.q, x.k, x.v, problem, tiles);
    }
    if (status || key_blocks == 0) return status;
    const Tiles tiles = make_tiles(problem.k, problem.q, problem.B, rows, p.workspace + space.key_tiles, stream);
    return launch(where, grad_kv, key_blocks, threads, shared, stream, x.dk, x.dv, x.d_o, delta, x.q, x.k, x.v, problem, tiles);
  };
  if constexpr (sizeof(T) == 4) {
    if (int32_t status = run_delta<T, 32>(where, p, x, stream)) return status;
    if (p.D <= 32) return run(backward_q_f32<32>, backward_kv_f32<32>, F32_THREADS, f32_shared<32>(4));
    if (p.D <= 64) return run(backward_q_f32<64>, backward_kv_f32<64>, F32_THREADS, f32_shared<64>(4));
    return run(backward_q_f32<128>, backward_kv_f32<128>, F32_THREADS, f32_shared<128>(4));
  } else {
    const Way way = way_of(p, true);
    if (way == Way::WINDOWS && whole_fit(p)) {
      const auto kernel = backward_window_sm90<T>;
      const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
      if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
      return launch(where, kernel, p.B * p.H, WHOLE_BWD_THREADS, WHOLE_BWD_SHARED, stream, x.dq, x.dk, x.dv, x.d_o, x.q, x.k, x.v, problem);
    }
    if (way == Way::WINDOWS) {
      const int slots = ring_slots(true), blocks = this_card().processors;
      return launch(where, backward_window<T>, blocks, WINDOW_BWD_THREADS, window_bwd_shared(slots), stream, x.dq, x.dk, x.dv, x.d_o, x.out, x.q,
                    x.k, x.v, problem, Shares(problem, blocks, 1, 0), slots);
    }
    if (way == Way::HOPPER) return backward_sm90<T>(where, p, problem, stream);
    return with_width(p, [&](auto w) {
      using W = decltype(w);
      constexpr int LANES = W::DP == 96 ? 16 : W::DP / 8;
      if (int32_t status = run_delta<T, LANES>(where, p, x, stream)) return status;
      return run(backward_q<T, W::DP, W::MAPPED>, backward_kv<T, W::DP, W::MAPPED>, THREADS, BWD_SHARED<W::DP>);
    });
  }
}
}  // namespace attention

using namespace attention;

int32_t k_attention_workspace(uint64_t* bytes, const k_attention* problem) {
  if (int32_t status = check_sizes("k_attention_workspace", problem)) return status;
  for (int i = 0; i < 2; i++) bytes[i] = workspace_of(*problem, i == 1);
  return K_OK;
}

int32_t k_attention_fwd(const k_attention* problem, uint64_t stream) {
  const char* where = "k_attention_fwd";
  if (int32_t status = check_problem(where, problem, false)) return status;
  const k_attention& p = *problem;
  if (int32_t status = check_workspace(where, &p, workspace_of(p, false))) return status;
  if (int32_t status = look(where, p, stream_of(stream))) return status;
  if (p.H == 0 || row_count(problem_of(p).q, p.B) == 0) return K_OK;
  return with_float_type(where, int32_t(p.dtype), [&](auto type) { return run_forward<decltype(type)>(where, p, stream_of(stream)); });
}

int32_t k_attention_bwd(const k_attention* problem, uint64_t stream) {
  const char* where = "k_attention_bwd";
  if (int32_t status = check_problem(where, problem, true)) return status;
  const k_attention& p = *problem;
  if (int32_t status = check_workspace(where, &p, workspace_of(p, true))) return status;
  if (int32_t status = look(where, p, stream_of(stream))) return status;
  const Problem sizes = problem_of(p);
  if (p.H == 0 || !(p.dq || p.dk || p.dv) || row_count(sizes.q, p.B) + row_count(sizes.k, p.B) == 0) return K_OK;
  return with_float_type(where, int32_t(p.dtype), [&](auto type) { return run_backward<decltype(type)>(where, p, stream_of(stream)); });
}
