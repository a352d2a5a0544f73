// Attention within many short sequences, such as shifted windows, forward. A block a multiprocessor stays for as long as the launch and works on
// a list of items, an item being one head of a sequence. Some of its warps copy the rows of items, 16 rows at a time (a slot), into a ring in
// shared memory, as far ahead as there is place. The others take every so many slots each, and of a slot the queries, against all of the item's
// keys. Blocks have equal shares of all rows, which they find themselves: one launch, no list, no counter.
//
// Bound by memory: q, k, v and o once. 15,192 voxels in shifted windows of 2 to 95 rows, 12 heads of 64, packed, in bf16: 93 MB, 22 us at an
// H200's 4.3 TB/s; 3.5 GFLOP, 4.9 in tiles. Measured: 43 us, of which 3 are a launch's (46 beside a cache that is yet to be written; loading and
// writing alone 42, computing alone 38). Sequences of at most 96 rows go to attention_window_whole.cuh.
#pragma once
#include "attention_fwd.cuh"
#include "attention_window_ring.cuh"

namespace attention {
constexpr int WINDOW_FWD_SLOT = 3 * SLOT_TILE, WINDOW_FWD_LOADERS = 4;
constexpr int WINDOW_FWD_EACH = WINDOW_FWD_SLOT + 2 * int(sizeof(SlotEntry));
constexpr int window_fwd_threads(int workers) { return (workers + WINDOW_FWD_LOADERS) * 32; }
constexpr int window_fwd_shared(int slots) { return slots * WINDOW_FWD_EACH + WINDOW_BARRIERS; }
constexpr int window_fwd_slots(int bytes) { return (bytes - WINDOW_BARRIERS) / WINDOW_FWD_EACH; }
constexpr int WINDOW_FWD_COST = 16;  // for how many rows of queries and keys the time beside copies and products counts
constexpr float WINDOW_RAISE = 8;  // a row's offset is raised where a score is this far above it, as a power of two

// Which slots an item is made of: whole, or for each group of queries, those and then all keys.
template <int WORKERS>
struct ForwardPlan {
  static constexpr int GROUP = WORKERS / 2;
  int slots;
  __device__ int count(int queries, int keys) const {
    const int all = queries ? max(queries, keys) : 0;
    if (all > MAX_SLOTS) __trap();  // L or M is no bound of the lengths
    return all <= slots ? all : part_slots(queries, keys, GROUP);
  }
  __device__ Fill fill(int e, int queries, int keys) const {
    if (max(queries, keys) <= slots) return {e, Part::WHOLE, 0, e < queries};
    return part_fill(e, Part::QUERIES, queries, keys, GROUP);
  }
  // How many warps will free the slot: those that read it, and the one whose turn it is, unless that has queries of the same part and leaves
  // out the keys' turns.
  __device__ static int users(const SlotEntry& x) {
    const int queries = slots_of(x.L), own = min(queries - x.first, GROUP);
    if (x.part == int(Part::WHOLE)) return queries + !x.own;
    return x.own ? 1 : own + ((own + x.n) % WORKERS >= own);
  }
};

// `slots` is a multiple of WORKERS, so that a warp has the same ones in each round of the ring; AHEAD as for SlotFeed: 16 and 3 for a ring of
// MAX_SLOTS, else 8 and 2.
template <class T, int WORKERS, int AHEAD>
__global__ void __launch_bounds__(window_fwd_threads(WORKERS), 1)
    forward_window(Operand<T> o, Operand<const T> q, Operand<const T> k, Operand<const T> v, const __grid_constant__ Problem p,
                   const __grid_constant__ Shares shares, int slots) {
  constexpr int LOADERS = WINDOW_FWD_LOADERS;
  using Plan = ForwardPlan<WORKERS>;
  extern __shared__ uint4 memory[];
  const uint32_t shared = shared_address(memory), ring_at = (shared + 127) / 128 * 128, entries_at = ring_at + slots * WINDOW_FWD_SLOT,
                 full = entries_at + 2 * slots * int(sizeof(SlotEntry)), empty = full + MAX_SLOTS * 8;
  SlotEntry* entries = reinterpret_cast<SlotEntry*>(reinterpret_cast<char*>(memory) + (entries_at - shared));
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0), D = p.D;
  if (threadIdx.x < slots) {
    ring_init(full + threadIdx.x * 8, 33);              // the entry, and each lane's copies
    ring_init(empty + threadIdx.x * 8, 2 * MAX_SLOTS);  // those who will free it, and for the rest who loads it
  }
  Items items(p, shares);
  __syncthreads();

  if (warp >= WORKERS) {
    const int column = lane % 8 * 8;
    const uint32_t to = ring_at + lane / 8 * SLOT_ROW + column * 2;
    RingPlace ring(slots, warp - WORKERS);
    SlotFeed<LOADERS, AHEAD, Plan> feed(items, Plan{slots}, entries, slots, warp - WORKERS);
    LoadedSlots loaded(full, slots, LOADERS);
    SlotEntry x;
    int row, number = warp - WORKERS;
    for (; feed.next(x, row); number += LOADERS) {
      feed.write();
      const int L = x.L - x.n * SLOT_ROWS, M = x.M - x.n * SLOT_ROWS;
      const T* qs = head_rows(q, p.q, x.sequence, x.head, x.q0) + column;
      const T* ks = head_rows(k, p.k, x.sequence, x.head, x.k0) + column;
      const T* vs = head_rows(v, p.k, x.sequence, x.head, x.k0) + column;
      const uint32_t slot = to + ring.slot * WINDOW_FWD_SLOT, here = full + ring.slot * 8, barrier = empty + ring.slot * 8;
      ring_wait(barrier, ring.parity ^ 1);
      loaded.wait(number);
      if (lane == 0) {
        ring_arrive_times(barrier, 2 * MAX_SLOTS - Plan::users(x));
        ring_arrive(here);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int r = j * 4 + lane / 8, at_q = __shfl_sync(~0u, row, r), at_k = __shfl_sync(~0u, row, r + SLOT_ROWS);
        const bool query = r < L && column < D, key = r < M && column < D;
        cp_async16(slot + j * 4 * SLOT_ROW, row_at(qs, q, at_q), query);
        cp_async16(slot + j * 4 * SLOT_ROW + SLOT_TILE, row_at(ks, k, at_k), key);
        cp_async16(slot + j * 4 * SLOT_ROW + 2 * SLOT_TILE, row_at(vs, v, at_k), key);
      }
      ring_arrive_copies(here);
      commit_copies();
      ring.advance(LOADERS);
    }
    // Each warp that computes finds an end.
    for (; items.e < WORKERS; items.e += LOADERS, number += LOADERS) {
      ring_wait(empty + ring.slot * 8, ring.parity ^ 1);
      loaded.wait(number);
      feed.write_end();
      if (lane == 0) ring_arrive(full + ring.slot * 8);
      ring_arrive_copies(full + ring.slot * 8);
      ring.advance(LOADERS);
    }
    cp_async_wait();
    return;
  }

  const uint32_t a_lane = lane_a<64>(), b_lane = lane_b<64>() + SLOT_TILE, v_lane = a_lane + 2 * SLOT_TILE;
  const float c = p.scale * LOG2_E;
#pragma unroll 1
  for (RingPlace ring(slots, warp);; ring.advance(WORKERS)) {
    ring_wait(full + ring.slot * 8, ring.parity);
    const SlotEntry& item = entries[entry_of(ring, 0)];
    const int L = item.L, M = item.M, queries = slots_of(L), keys = slots_of(M);
    if (L < 0) return;
    if (!item.own) {
      free_slot(empty + ring.slot * 8);
      continue;
    }
    const int n = item.n;
    const bool whole = item.part == int(Part::WHOLE);
    const int mine = n - item.first, own = min(queries - item.first, Plan::GROUP);  // in a part
    RingPlace others = ring;  // the item's first slot, or the part's first one of keys
    if (whole) {
      others.go_back(n);
      wait_slots(full, others, max(queries, keys));
    } else {
      others.advance(own - mine);
    }
    float sum[1][8][4] = {}, top[1][2] = {{-INFINITY, -INFINITY}}, weight[1][2] = {};
    uint32_t q_a[4][4];
#pragma unroll
    for (int step = 0; step < 4; step++) ldmatrix(q_a[step], ring_at + ring.slot * WINDOW_FWD_SLOT + a_lane + step * 32);
    const int from = n * SLOT_ROWS, index = row_index(item, p.q, 0, from, L), q0 = item.q0, sequence = item.sequence, head = item.head;
    if (!whole) free_slot(empty + ring.slot * 8);
    RingPlace place = others;
#pragma unroll 1
    for (int j = 0; j < keys; j++) {
      if (!whole) ring_wait(full + place.slot * 8, place.parity);
      const uint32_t at = ring_at + place.slot * WINDOW_FWD_SLOT;
      float s[1][2][4] = {}, odd[2][4] = {};
#pragma unroll
      for (int step = 0; step < 4; step += 2) {
        uint32_t f[4], g[4];
        ldmatrix(f, at + b_lane + step * 32);
        ldmatrix(g, at + b_lane + step * 32 + 32);
        mma(T{}, s[0][0], q_a[step], f[0], f[1]);
        mma(T{}, s[0][1], q_a[step], f[2], f[3]);
        mma(T{}, odd[0], q_a[step + 1], g[0], g[1]);
        mma(T{}, odd[1], q_a[step + 1], g[2], g[3]);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) s[0][i / 4][i % 4] += odd[i / 4][i % 4];
      if (j == keys - 1) {
        const int inside = M - j * SLOT_ROWS - lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 8; i++) {
          if (i / 4 * 8 + i % 2 >= inside) s[0][i / 4][i % 4] = -INFINITY;
        }
      }
      float high[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        high[half] = fmaxf(fmaxf(s[0][0][half * 2], s[0][0][half * 2 + 1]), fmaxf(s[0][1][half * 2], s[0][1][half * 2 + 1])) * c;
      }
      if (__any_sync(~0u, high[0] > top[0][0] + WINDOW_RAISE || high[1] > top[0][1] + WINDOW_RAISE)) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          high[half] = fmaxf(high[half], __shfl_xor_sync(~0u, high[half], 1));
          high[half] = fmaxf(top[0][half], fmaxf(high[half], __shfl_xor_sync(~0u, high[half], 2)));
          const float keep = j ? exp2_fast(top[0][half] - high[half]) : 1;
          weight[0][half] *= keep;
#pragma unroll
          for (int n = 0; n < 8; n++) sum[0][n][half * 2] *= keep, sum[0][n][half * 2 + 1] *= keep;
          top[0][half] = high[half];
        }
      }
      uint32_t a[1][4];
      exponentials<T>(a, s, top, weight, c, 0);
#pragma unroll
      for (int d = 0; d < 8; d += 2) {
        uint32_t f[4];
        ldmatrix_trans(f, at + v_lane + d * 16);
        mma(T{}, sum[0][d], a[0], f[0], f[1]);
        mma(T{}, sum[0][d + 1], a[0], f[2], f[3]);
      }
      if (!whole) free_slot(empty + place.slot * 8);
      place.advance(1);
    }
    finish(sum, top, weight, p.lse + p.stat(sequence, head, q0) + from, L - from);
    __syncwarp();
    // Lane 0, which reads the entry for the warp, frees its slot.
    if (whole && lane < max(queries, keys)) {
      ring_arrive(empty + others.slot_of((lane + n) % max(queries, keys)) * 8);
    } else if (!whole) {
      for (int turn = mine + WORKERS; turn < own + keys; turn += WORKERS) ring.advance(WORKERS);
    }
    write_rows(head_rows(o, p.q, sequence, head, q0), int(o.stride.token), index, sum[0], 1.0f, D);
  }
}
}  // namespace attention
