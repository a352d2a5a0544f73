// Attention within many short sequences, such as shifted windows, forward. A block stays for as long as the launch and works on a list of items, an item being one head of a sequence.
// Some of its warps copy the rows of items, 16 rows at a time (a slot), into a ring in shared memory, as far ahead as there is place; the
// others take 16 queries of an item at a time, against all of its keys. Blocks have equal shares of all rows, which they find themselves:
// one launch, no list, no counter.
//
// Bound by memory: q, k, v and o once. 15,192 voxels in shifted windows of up to 123 rows, 12 heads of 64, packed, in bf16: 93 MB, 22 us at
// an H200's 4.3 TB/s; 4.4 GFLOP.
#pragma once
#include "attention_fwd.cuh"
#include "attention_window_ring.cuh"

namespace attention {
constexpr int WINDOW_FWD_SLOT = 3 * SLOT_TILE, WINDOW_KEYS = 4;  // slots of keys whose scores are held at a time
constexpr int WINDOW_FWD_BLOCKS = 2, WINDOW_FWD_WARPS = 6, WINDOW_FWD_LOADERS = 2;  // a multiprocessor; a block
constexpr int WINDOW_FWD_THREADS = (WINDOW_FWD_WARPS + WINDOW_FWD_LOADERS) * 32;
constexpr int WINDOW_BARRIERS = 2 * MAX_SLOTS * 8 + 128;  // bytes, with those up to a multiple of 128
constexpr int window_fwd_shared(int slots) { return slots * (WINDOW_FWD_SLOT + HEADER) + WINDOW_BARRIERS; }
constexpr int window_fwd_slots(int bytes) { return (bytes - WINDOW_BARRIERS) / (WINDOW_FWD_SLOT + HEADER); }

template <class T>
__global__ void __launch_bounds__(WINDOW_FWD_THREADS, WINDOW_FWD_BLOCKS)
    forward_window(Operand<T> o, Operand<const T> q, Operand<const T> k, Operand<const T> v, const __grid_constant__ Problem p, int slots) {
  constexpr int WORKERS = WINDOW_FWD_WARPS, LOADERS = WINDOW_FWD_LOADERS, KEYS = WINDOW_KEYS;
  extern __shared__ uint4 memory[];
  const uint32_t shared = shared_address(memory), ring_at = (shared + 127) / 128 * 128, headers = ring_at + slots * WINDOW_FWD_SLOT,
                 full = headers + slots * HEADER, empty = full + MAX_SLOTS * 8;
  const auto header_at = [&](int slot) { return reinterpret_cast<ItemHeader*>(reinterpret_cast<char*>(memory) + (headers - shared)) + slot; };
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0), D = p.D;
  if (threadIdx.x < slots) {
    ring_init(full + threadIdx.x * 8, 33);
    ring_init(empty + threadIdx.x * 8, WORKERS * 32);
  }
  Items item(p);
  __syncthreads();

  if (warp >= WORKERS) {
    // Loading warp i has every LOADERS-th slot, from slot i on.
    const int column = lane % 8 * 8;
    const uint32_t to = ring_at + lane / 8 * SLOT_ROW + column * 2;
    int e = warp - WORKERS;  // which of the item's slots
    RingPlace ring(slots, e);
    const auto find = [&] {
      for (; item.more(); item.next()) {
        const int queries = slots_of(item.queries()), keys = slots_of(item.keys()), count = queries ? max(queries, keys) : 0;
        if (count > MAX_SLOTS) __trap();  // L or M is no bound of the lengths
        const int all = count <= slots ? count : part_slots(queries, keys, WORKERS);
        if (e < all) return count <= slots ? Fill{e, Part::WHOLE, 0} : part_fill(e, Part::QUERIES, queries, keys, WORKERS);
        e -= all;
      }
      return Fill{};
    };
    Fill fill = find();
    int rows = item.more() ? slot_rows(p, item, fill.n) : 0;
    while (item.more()) {
      const int L = item.queries() - fill.n * SLOT_ROWS, M = item.keys() - fill.n * SLOT_ROWS, at = rows;
      const T* qs = head_rows(q, p.q, item.sequence, item.head, item.q0) + column;
      const T* ks = head_rows(k, p.k, item.sequence, item.head, item.k0) + column;
      const T* vs = head_rows(v, p.k, item.sequence, item.head, item.k0) + column;
      const uint32_t slot = to + ring.slot * WINDOW_FWD_SLOT, here = full + ring.slot * 8;
      ring_wait(empty + ring.slot * 8, ring.parity ^ 1);
      if (lane == 0) {
        if (fill.n == 0 || fill.part != Part::WHOLE) ItemHeader::put(header_at(ring.slot), item, item.queries(), fill);
        ring_arrive(here);
      }
      ring.advance(LOADERS);
      e += LOADERS;
      fill = find();
      if (item.more()) rows = slot_rows(p, item, fill.n);  // for the next turn, while this one's copies begin
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int r = j * 4 + lane / 8, at_q = __shfl_sync(~0u, at, r), at_k = __shfl_sync(~0u, at, r + SLOT_ROWS);
        const bool query = r < L && column < D, key = r < M && column < D;
        cp_async16(slot + j * 4 * SLOT_ROW, row_at(qs, q, at_q), query);
        cp_async16(slot + j * 4 * SLOT_ROW + SLOT_TILE, row_at(ks, k, at_k), key);
        cp_async16(slot + j * 4 * SLOT_ROW + 2 * SLOT_TILE, row_at(vs, v, at_k), key);
      }
      ring_arrive_copies(here);
    }
    if (e == 0) {  // the first slot behind all items
      ring_wait(empty + ring.slot * 8, ring.parity ^ 1);
      if (lane == 0) {
        header_at(ring.slot)->L = -1;
        ring_arrive(full + ring.slot * 8);
      }
      ring_arrive_copies(full + ring.slot * 8);
    }
    cp_async_wait();
    return;
  }

  RingPlace ring(slots);
  const uint32_t a_lane = lane_a<64>(), b_lane = lane_b<64>();
  const float c = p.scale * LOG2_E;
  int turn = 0;  // the warp that has the item's first queries
  const auto header = [&]() -> const ItemHeader& { return *header_at(ring.slot); };
  for (;;) {
    ring_wait(full + ring.slot * 8, ring.parity);
    const int L = header().L, M = header().M, queries = slots_of(L), keys = slots_of(M), first_own = header().first;
    if (L < 0) return;
    const bool whole = header().part == Part::WHOLE;
    int held = whole ? max(queries, keys) : min(queries - first_own, WORKERS);  // slots from the ring's place on
    int own = whole ? warp - turn : first_own + warp;
    if (own < 0) own += WORKERS;
    int index = row_index(p.q, header().q0, own * SLOT_ROWS, L);
    wait_slots(full, ring, held);
    while (own < queries || !whole) {
      const uint32_t q_at = ring_at + ring.slot_of(whole ? own : min(warp, held - 1)) * WINDOW_FWD_SLOT;
      float sum[1][8][4] = {}, top[1][2] = {{-INFINITY, -INFINITY}}, weight[1][2] = {};
      uint32_t q_a[4][4];
#pragma unroll
      for (int step = 0; step < 4; step++) ldmatrix(q_a[step], q_at + a_lane + step * 32);
#pragma unroll 1
      for (int first = 0; first < keys; first += KEYS) {
        const int left = keys - first, at = whole ? first : 0;
        if (!whole) {
          free_slots(empty, ring, held);
          ring.advance(held);
          held = min(left, KEYS);
          wait_slots(full, ring, held);
        }
        float s[1][KEYS * 2][4], high[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int n = 0; n < KEYS; n++) {
          if (n < left) {
            const uint32_t k_at = ring_at + ring.slot_of(at + n) * WINDOW_FWD_SLOT + SLOT_TILE + b_lane;
#pragma unroll
            for (int i = 0; i < 8; i++) s[0][2 * n + i / 4][i % 4] = 0;
#pragma unroll
            for (int step = 0; step < 4; step++) {
              uint32_t f[4];
              ldmatrix(f, k_at + step * 32);
              mma(T{}, s[0][2 * n], q_a[step], f[0], f[1]);
              mma(T{}, s[0][2 * n + 1], q_a[step], f[2], f[3]);
            }
            if (first + n == keys - 1) {
              const int inside = M - (keys - 1) * SLOT_ROWS - lane % 4 * 2;
#pragma unroll
              for (int i = 0; i < 8; i++) {
                if (i / 4 * 8 + i % 2 >= inside) s[0][2 * n + i / 4][i % 4] = -INFINITY;
              }
            }
#pragma unroll
            for (int i = 0; i < 8; i++) high[i % 4 / 2] = fmaxf(high[i % 4 / 2], s[0][2 * n + i / 4][i % 4]);
          }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
          high[half] = fmaxf(high[half], __shfl_xor_sync(~0u, high[half], 1));
          high[half] = fmaxf(top[0][half], fmaxf(high[half], __shfl_xor_sync(~0u, high[half], 2)) * c);
        }
        if (first) {
#pragma unroll
          for (int half = 0; half < 2; half++) {
            const float keep = exp2_fast(top[0][half] - high[half]);
            weight[0][half] *= keep;
#pragma unroll
            for (int n = 0; n < 8; n++) sum[0][n][half * 2] *= keep, sum[0][n][half * 2 + 1] *= keep;
          }
        }
        top[0][0] = high[0], top[0][1] = high[1];
#pragma unroll
        for (int n = 0; n < KEYS; n++) {
          if (n < left) {
            const uint32_t v_at = ring_at + ring.slot_of(at + n) * WINDOW_FWD_SLOT + 2 * SLOT_TILE + a_lane;
            uint32_t a[1][4];
            exponentials<T>(a, s, top, weight, c, n);
#pragma unroll
            for (int d = 0; d < 8; d += 2) {
              uint32_t f[4];
              ldmatrix_trans(f, v_at + d * 16);
              mma(T{}, sum[0][d], a[0], f[0], f[1]);
              mma(T{}, sum[0][d + 1], a[0], f[2], f[3]);
            }
          }
        }
      }
      const ItemHeader& mine = header();
      finish(sum, top, weight, p.lse + p.stat(mine.sequence, mine.head, mine.q0) + own * SLOT_ROWS, L - own * SLOT_ROWS);
      write_rows(head_rows(o, p.q, mine.sequence, mine.head, mine.q0), int(o.stride.token), index, sum[0], 1.0f, D);
      if (!whole) break;
      own += WORKERS;
      index = row_index(p.q, mine.q0, own * SLOT_ROWS, L);
    }
    free_slots(empty, ring, held);
    ring.advance(held);
    if (whole) turn = (turn + queries) % WORKERS;
  }
}
}  // namespace attention
