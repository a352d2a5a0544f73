// The backward pass of attention_window.cuh, in one launch: blocks, their shares, the ring and the loading warps are as there. The warps that
// load also sum delta, from d_o and from o, which only they read. The others take 16 keys of an item at a time, against all of its queries
// (dk, dv; scores are held transposed, keys x queries), or 16 queries against all of its keys (dq): each computes the scores that it needs,
// so that no two warps wait for each other; 7 products in the place of 5, the tensor cores have the time.
//
// On the windows of attention_window.cuh: q, k, v, o, d_o and three gradients once are 186 MB, 43 us at 4.3 TB/s; 15 GFLOP with the scores
// twice.
#pragma once
#include "attention_window.cuh"

namespace attention {
constexpr int WINDOW_BWD_SLOT = 4 * SLOT_TILE, WINDOW_STATS = 2 * SLOT_ROWS * 4;  // q, k, v, d_o; -log2(e) lse and delta
constexpr int OUT_SLOTS = 2;                                                       // of o, a loading warp: their sums are under way
constexpr int WINDOW_BWD_WARPS = 8, WINDOW_BWD_LOADERS = 4,
               WINDOW_BWD_THREADS = (WINDOW_BWD_WARPS + WINDOW_BWD_LOADERS) * 32;
constexpr int WINDOW_BWD_AHEAD = 2;
static_assert((WINDOW_BWD_AHEAD + 1) * WINDOW_BWD_LOADERS <= WINDOW_LEAST);
constexpr int WINDOW_BWD_EACH = WINDOW_BWD_SLOT + WINDOW_STATS + 2 * int(sizeof(SlotEntry));
constexpr int window_bwd_shared(int slots) {
  return slots * WINDOW_BWD_EACH + WINDOW_BWD_LOADERS * OUT_SLOTS * SLOT_TILE + WINDOW_BARRIERS;
}
constexpr int window_bwd_slots(int bytes) { return (bytes - window_bwd_shared(0)) / WINDOW_BWD_EACH; }

// Which slots an item is made of: whole, or for each group of keys, those and then all queries, and the other way round.
struct BackwardPlan {
  int slots;
  __device__ int count(int queries, int keys) const {
    const int all = max(queries, keys), warps = WINDOW_BWD_WARPS;
    if (all > MAX_SLOTS) __trap();  // L or M is no bound of the lengths
    return all <= slots ? all : part_slots(keys, queries, warps) + part_slots(queries, keys, warps);
  }
  __device__ Fill fill(int e, int queries, int keys) const {
    if (max(queries, keys) <= slots) return {e, Part::WHOLE, 0, true};
    const int of_keys = part_slots(keys, queries, WINDOW_BWD_WARPS);
    if (e < of_keys) return part_fill(e, Part::KEYS, keys, queries, WINDOW_BWD_WARPS);
    return part_fill(e - of_keys, Part::QUERIES, queries, keys, WINDOW_BWD_WARPS);
  }
};

template <class T>
__global__ void __launch_bounds__(WINDOW_BWD_THREADS, 1)
    backward_window(Operand<T> dq, Operand<T> dk, Operand<T> dv, Operand<const T> d_o, Operand<const T> o, Operand<const T> q,
                    Operand<const T> k, Operand<const T> v, const __grid_constant__ Problem p,
                    const __grid_constant__ Shares shares, int slots) {
  extern __shared__ uint4 memory[];
  constexpr int WORKERS = WINDOW_BWD_WARPS, LOADERS = WINDOW_BWD_LOADERS;
  constexpr int SLOT = WINDOW_BWD_SLOT, K_AT = SLOT_TILE, V_AT = 2 * SLOT_TILE, DO_AT = 3 * SLOT_TILE;
  const uint32_t shared = shared_address(memory), ring_at = (shared + 127) / 128 * 128, out_at = ring_at + slots * SLOT,
                 stats_at = out_at + LOADERS * OUT_SLOTS * SLOT_TILE, entries_at = stats_at + slots * WINDOW_STATS,
                 full = entries_at + 2 * slots * int(sizeof(SlotEntry)), empty = full + MAX_SLOTS * 8;
  const auto pointer = [&](uint32_t address) { return reinterpret_cast<char*>(memory) + (address - shared); };
  SlotEntry* entries = reinterpret_cast<SlotEntry*>(pointer(entries_at));
  // Of slot `slot`: -log2(e) lse, then delta, of 16 queries.
  const auto stats_of = [&](int slot) { return reinterpret_cast<float*>(pointer(stats_at)) + slot * (WINDOW_STATS / 4); };
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0), D = p.D;
  if (threadIdx.x < slots) {
    ring_init(full + threadIdx.x * 8, 64);  // each lane's copies, and its part of delta
    ring_init(empty + threadIdx.x * 8, WORKERS * 32);
  }
  Items items(p, shares);
  __syncthreads();
  const uint32_t a_lane = lane_a<64>(), b_lane = lane_b<64>();

  if (warp >= WORKERS) {
    const int column = lane % 8 * 8, loader = warp - WORKERS;
    const uint32_t to = lane / 8 * SLOT_ROW + column * 2, outs_at = out_at + loader * OUT_SLOTS * SLOT_TILE;
    int issued = 0, summed = 0;
    RingPlace ring(slots, loader), late(slots, loader);  // late: the first slot whose delta is not summed yet
    // delta is the diagonal of d_o o^T.
    const auto sum_delta = [&] {
      __syncwarp();
      const uint32_t x = ring_at + late.slot * SLOT + DO_AT + a_lane, y = outs_at + summed % OUT_SLOTS * SLOT_TILE + b_lane;
      float c[2][4] = {};
#pragma unroll
      for (int step = 0; step < 4; step++) {
        uint32_t a[4], b[4];
        ldmatrix(a, x + step * 32);
        ldmatrix(b, y + step * 32);
        mma(T{}, c[0], a, b[0], b[1]);
        mma(T{}, c[1], a, b[2], b[3]);
      }
      float* to = stats_of(late.slot);
      const int row = lane / 4;
      if (lane < SLOT_ROWS) to[lane] *= -LOG2_E;
      if (lane % 4 == row / 2) {
        to[SLOT_ROWS + row] = row % 2 ? c[0][1] : c[0][0];
        to[SLOT_ROWS + row + 8] = row % 2 ? c[1][3] : c[1][2];
      }
      ring_arrive(full + late.slot * 8);
      late.advance(LOADERS);
      summed++;
    };
    SlotFeed<LOADERS, WINDOW_BWD_AHEAD, BackwardPlan> feed(items, BackwardPlan{slots}, entries, slots, loader);
    SlotEntry x;
    int at;
    while (feed.next(x, at)) {
      feed.write();
      const int L = x.L - x.n * SLOT_ROWS, M = x.M - x.n * SLOT_ROWS;
      const T* qs = head_rows(q, p.q, x.sequence, x.head, x.q0) + column;
      const T* ks = head_rows(k, p.k, x.sequence, x.head, x.k0) + column;
      const T* vs = head_rows(v, p.k, x.sequence, x.head, x.k0) + column;
      const T* d_outs = head_rows(d_o, p.q, x.sequence, x.head, x.q0) + column;
      const T* outs = head_rows(o, p.q, x.sequence, x.head, x.q0) + column;
      const float* lse = p.lse + p.stat(x.sequence, x.head, x.q0) + x.n * SLOT_ROWS;
      const uint32_t slot = ring_at + ring.slot * SLOT + to, out = outs_at + issued % OUT_SLOTS * SLOT_TILE + to;
      const uint32_t stats = stats_at + ring.slot * WINDOW_STATS, barrier = empty + ring.slot * 8;
      if (!__all_sync(~0u, ring_test(barrier, ring.parity ^ 1))) {  // what is here must not wait for what will be
        cp_async_wait();
        while (summed < issued) sum_delta();
        ring_wait(barrier, ring.parity ^ 1);
      }
      const int here = ring.slot;
      ring.advance(LOADERS);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int r = j * 4 + lane / 8, at_q = __shfl_sync(~0u, at, r), at_k = __shfl_sync(~0u, at, r + SLOT_ROWS);
        const bool query = r < L && column < D, key = r < M && column < D;
        const uint32_t line = slot + j * 4 * SLOT_ROW;
        cp_async16(line, row_at(qs, q, at_q), query);
        cp_async16(line + K_AT, row_at(ks, k, at_k), key);
        cp_async16(line + V_AT, row_at(vs, v, at_k), key);
        cp_async16(line + DO_AT, row_at(d_outs, d_o, at_q), query);
        cp_async16(out + j * 4 * SLOT_ROW, row_at(outs, o, at_q), query);
      }
      if (lane < SLOT_ROWS) cp_async4(stats + lane * 4, lse + lane, lane < L);
      ring_arrive_copies(full + here * 8);
      commit_copies();
      if (++issued - summed == OUT_SLOTS) {
        wait_copies<OUT_SLOTS - 1>();
        sum_delta();
      }
    }
    cp_async_wait();
    while (summed < issued) sum_delta();
    if (feed.has_end()) {
      ring_wait(empty + ring.slot * 8, ring.parity ^ 1);
      feed.write_end();
      ring_arrive(full + ring.slot * 8);
      ring_arrive_copies(full + ring.slot * 8);
    }
    return;
  }

  RingPlace ring(slots);
  const float c = p.scale * LOG2_E;
  int turn = 0;  // the warp that has the item's first keys
  for (;;) {
    ring_wait(full + ring.slot * 8, ring.parity);
    const SlotEntry& item = entries[entry_of(ring, 0)];
    const int L = item.L, M = item.M, queries = slots_of(L), keys = slots_of(M);
    if (L < 0) return;
    const int q0 = item.q0, k0 = item.k0, sequence = item.sequence, head = item.head, first_own = item.first;
    const Part part = Part(item.part);
    const bool whole = part == Part::WHOLE;
    // Tiles: of keys, then of queries; in a part those that warps have of either.
    const int tiles = whole ? keys + queries : part == Part::KEYS ? keys : queries;
    int held = whole ? max(queries, keys) : min(tiles - first_own, WORKERS);  // slots from the ring's place on
    int own = whole ? warp - turn : first_own + warp;
    if (own < 0) own += WORKERS;
    wait_slots(full, ring, held);
    const auto own_place = [&](int tile) { return whole ? tile : min(warp, held - 1); };
    // The i-th slot of what all tiles are taken with.
    const auto other_slot = [&](int i) {
      if (whole) return ring.slot_of(i);
      free_slots(empty, ring, held);
      ring.advance(held);
      held = 1;
      wait_slots(full, ring, 1);
      return ring.slot;
    };
    for (; own < tiles || !whole; own += WORKERS) {
      if (whole ? own < keys : part == Part::KEYS) {
        const int place = own_place(own), index = row_index(entries[entry_of(ring, place)], p.k, 1, own * SLOT_ROWS, M);
        const uint32_t at = ring_at + ring.slot_of(place) * SLOT;
        float sum_k[8][4] = {}, sum_v[8][4] = {};
        uint32_t k_a[4][4], v_a[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++) {
          ldmatrix(k_a[step], at + K_AT + a_lane + step * 32);
          ldmatrix(v_a[step], at + V_AT + a_lane + step * 32);
        }
#pragma unroll 1
        for (int i = 0; i < queries; i++) {
          const int slot = other_slot(i);
          const uint32_t q_at = ring_at + slot * SLOT, do_at = q_at + DO_AT;
          const float* stats = stats_of(slot) + lane % 4 * 2;
          float w[2][4] = {}, ds[2][4] = {};
#pragma unroll
          for (int step = 0; step < 4; step++) {
            uint32_t f[4], g[4];
            ldmatrix(f, q_at + b_lane + step * 32);
            ldmatrix(g, do_at + b_lane + step * 32);
            mma(T{}, w[0], k_a[step], f[0], f[1]);
            mma(T{}, w[1], k_a[step], f[2], f[3]);
            mma(T{}, ds[0], v_a[step], g[0], g[1]);
            mma(T{}, ds[1], v_a[step], g[2], g[3]);
          }
          uint32_t a_p[4], a_ds[4];
#pragma unroll
          for (int n = 0; n < 2; n++) {
            const float2 l = *reinterpret_cast<const float2*>(stats + n * 8);
            const float2 shift = *reinterpret_cast<const float2*>(stats + SLOT_ROWS + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) {
              w[n][e] = exp2_fast(fmaf(w[n][e], c, e % 2 ? l.y : l.x));
              ds[n][e] = w[n][e] * (ds[n][e] - (e % 2 ? shift.y : shift.x));
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
              a_p[n * 2 + half] = pack(T{}, w[n][half * 2], w[n][half * 2 + 1]);
              a_ds[n * 2 + half] = pack(T{}, ds[n][half * 2], ds[n][half * 2 + 1]);
            }
          }
#pragma unroll
          for (int d = 0; d < 8; d += 2) {
            uint32_t f[4], g[4];
            ldmatrix_trans(f, do_at + a_lane + d * 16);
            ldmatrix_trans(g, q_at + a_lane + d * 16);
            mma(T{}, sum_v[d], a_p, f[0], f[1]);
            mma(T{}, sum_v[d + 1], a_p, f[2], f[3]);
            mma(T{}, sum_k[d], a_ds, g[0], g[1]);
            mma(T{}, sum_k[d + 1], a_ds, g[2], g[3]);
          }
        }
        if (dk.data) write_rows(head_rows(dk, p.k, sequence, head, k0), int(dk.stride.token), index, sum_k, p.scale, D);
        if (dv.data) write_rows(head_rows(dv, p.k, sequence, head, k0), int(dv.stride.token), index, sum_v, 1.0f, D);
      } else {
        const int mine = whole ? own - keys : own, place = own_place(mine), slot = ring.slot_of(place);
        const int index = row_index(entries[entry_of(ring, place)], p.q, 0, mine * SLOT_ROWS, L);
        const uint32_t at = ring_at + slot * SLOT;
        float sum[8][4] = {};
        uint32_t q_a[4][4], do_a[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++) {
          ldmatrix(q_a[step], at + a_lane + step * 32);
          ldmatrix(do_a[step], at + DO_AT + a_lane + step * 32);
        }
        const float* stats = stats_of(slot) + lane / 4;
        const float l[2] = {stats[0], stats[8]}, shift[2] = {stats[SLOT_ROWS], stats[SLOT_ROWS + 8]};
#pragma unroll 1
        for (int j = 0; j < keys; j++) {
          const uint32_t k_at = ring_at + other_slot(j) * SLOT + K_AT, v_at = k_at + SLOT_TILE;
          float w[2][4] = {}, ds[2][4] = {};
#pragma unroll
          for (int step = 0; step < 4; step++) {
            uint32_t f[4], g[4];
            ldmatrix(f, k_at + b_lane + step * 32);
            ldmatrix(g, v_at + b_lane + step * 32);
            mma(T{}, w[0], q_a[step], f[0], f[1]);
            mma(T{}, w[1], q_a[step], f[2], f[3]);
            mma(T{}, ds[0], do_a[step], g[0], g[1]);
            mma(T{}, ds[1], do_a[step], g[2], g[3]);
          }
          const int left = M - j * SLOT_ROWS - lane % 4 * 2;
          uint32_t a[4];
#pragma unroll
          for (int i = 0; i < 8; i++) {
            const int n = i / 4, e = i % 4;
            const float x = exp2_fast(fmaf(w[n][e], c, l[e / 2]));
            ds[n][e] = n * 8 + e % 2 < left ? x * (ds[n][e] - shift[e / 2]) : 0;
          }
#pragma unroll
          for (int i = 0; i < 4; i++) a[i] = pack(T{}, ds[i / 2][i % 2 * 2], ds[i / 2][i % 2 * 2 + 1]);
#pragma unroll
          for (int d = 0; d < 8; d += 2) {
            uint32_t f[4];
            ldmatrix_trans(f, k_at + a_lane + d * 16);
            mma(T{}, sum[d], a, f[0], f[1]);
            mma(T{}, sum[d + 1], a, f[2], f[3]);
          }
        }
        if (dq.data) write_rows(head_rows(dq, p.q, sequence, head, q0), int(dq.stride.token), index, sum, p.scale, D);
      }
      if (!whole) break;
    }
    free_slots(empty, ring, held);
    ring.advance(held);
    if (whole) turn = (turn + keys + queries) % WORKERS;
  }
}
}  // namespace attention
