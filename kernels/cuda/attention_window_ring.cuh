// What the windows kernels (attention_window.cuh) have in common: barriers of a ring of rows in shared memory, slots, rows.
#pragma once
#include "attention_window_items.cuh"

namespace attention {
// The rows of a slot are padded like those of tiles.
constexpr int SLOT_ROW = PITCH<64> * 2, SLOT_TILE = SLOT_ROWS * SLOT_ROW;  // bytes
constexpr int WINDOW_BARRIERS = 2 * MAX_SLOTS * 8 + 128;                   // bytes, with those up to a multiple of 128

// ---- Barriers in shared memory, on any card since sm_80.
__device__ inline void ring_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void ring_arrive(uint32_t barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(barrier) : "memory");
}
// Arrives `count` times, where others are yet to arrive in this phase.
__device__ inline void ring_arrive_times(uint32_t barrier, int count) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.noComplete.shared.b64 state, [%0], %1;\n}" ::"r"(barrier), "r"(count) : "memory");
}
// Arrives once the copies that this thread began are complete.
__device__ inline void ring_arrive_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}
// Whether the phase of that parity is complete; the phase before the first counts as complete and has parity 1.
__device__ inline bool ring_test(uint32_t barrier, uint32_t parity) {
  uint32_t done;
#if __CUDA_ARCH__ >= 900
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
#else
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
#endif
  return done;
}
__device__ inline void ring_wait(uint32_t barrier, uint32_t parity) {
  while (!ring_test(barrier, parity)) {
  }
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the last `pending` groups of this thread's copies are complete.
template <int pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Places in the ring, and the parity of the phase that fills them.
struct RingPlace {
  int slot, slots;
  uint32_t parity = 0;
  __device__ RingPlace(int n, int at = 0) : slot(at), slots(n) {}
  __device__ int slot_of(int i) const { return slot + i < slots ? slot + i : slot + i - slots; }
  __device__ uint32_t parity_of(int i) const { return slot + i < slots ? parity : parity ^ 1; }
  __device__ void advance(int n) {
    slot += n;
    if (slot >= slots) slot -= slots, parity ^= 1;
  }
  __device__ void go_back(int n) {
    slot -= n;
    if (slot < 0) slot += slots, parity ^= 1;
  }
};
// A warp waits until the first n places are filled.
__device__ inline void wait_slots(uint32_t full, const RingPlace& ring, int n) {
  for (bool there = false; !there;) {
    there = true;
#pragma unroll 4
    for (int i = 0; i < n; i++) there &= ring_test(full + ring.slot_of(i) * 8, ring.parity_of(i));
  }
}
// One lane frees a place for the warp, or every lane the first n places.
__device__ inline void free_slot(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) ring_arrive(barrier);
}
__device__ inline void free_slots(uint32_t empty, const RingPlace& ring, int n) {
#pragma unroll 4
  for (int i = 0; i < n; i++) ring_arrive(empty + ring.slot_of(i) * 8);
}

// For warps that compute on some slots only. A phase is known by its parity, so who waits for one must know that the one before is complete. A
// loading warp loads no slot before all are loaded that are nearly half a round behind, which it follows one after the other: a warp that has
// seen a slot loaded then knows it of the places up to half a round on.
struct LoadedSlots {
  uint32_t full;
  RingPlace place;
  int seen = 0, behind;
  __device__ LoadedSlots(uint32_t barriers, int slots, int loaders) : full(barriers), place(slots), behind(slots / 2 - loaders) {}
  __device__ bool allow(int number) const {
    bool all = true;
    for (int i = seen; i <= number - behind; i++) all &= ring_test(full + place.slot_of(i - seen) * 8, place.parity_of(i - seen));
    return all;
  }
  __device__ void wait(int number) {
    for (; seen <= number - behind; seen++, place.advance(1)) ring_wait(full + place.slot * 8, place.parity);
  }
};

// What is known of a slot, in shared memory, for those who load it and those who compute.
struct alignas(16) SlotEntry {
  int L, M;  // L < 0: there are no more items
  int q0, k0, sequence, head;
  int16_t n;
  int8_t part, own;
  int first;
  int rows[2 * SLOT_ROWS];  // where those of queries and of keys lie
};
// Entries are written some slots ahead, so there are twice as many as slots; a place of the ring and its phase's parity say which it is.
__device__ inline int entry_of(const RingPlace& ring, int i) { return ring.slot_of(i) + (ring.parity_of(i) ? ring.slots : 0); }

// The slots of a loading warp, every LOADERS-th. Their entries are written AHEAD slots before they are loaded, since where rows lie takes a
// read of the map. When an entry is written anew its slot was given back, if AHEAD LOADERS is at most half of the ring. The warp commits its copies AHEAD
// times before the first slot, and then once a slot.
template <int LOADERS, int AHEAD, class Plan>
struct SlotFeed {
  Items& items;
  const Plan plan;
  SlotEntry* entries;
  RingPlace written, place;
  int pending = 0;
  bool more = true;

  __device__ SlotFeed(Items& of, Plan by, SlotEntry* at, int slots, int loader)
      : items(of), plan(by), entries(at), written(2 * slots, loader), place(2 * slots, loader) {
    items.e = loader;
#pragma unroll 1
    for (int i = 0; i < AHEAD; i++) write(), commit_copies();
  }
  __device__ void write() {
    WindowItem x;
    if (!more) return;
    more = items.find(x, [&](int L, int M) { return plan.count(slots_of(L), slots_of(M)); });
    if (!more) return;
    items.e += LOADERS;
    const Problem& p = items.p;
    const int lane = threadIdx.x % 32;
    const bool query = lane < SLOT_ROWS;
    const Fill fill = plan.fill(x.n, slots_of(x.L), slots_of(x.M));
    SlotEntry& to = entries[written.slot];
    if (lane == 0) {
      to.L = x.L, to.M = x.M, to.q0 = x.q0, to.k0 = x.k0, to.sequence = x.sequence, to.head = x.head;
      to.n = int16_t(fill.n), to.part = int8_t(fill.part), to.own = fill.own, to.first = fill.first;
    }
    const int r = fill.n * SLOT_ROWS + lane % SLOT_ROWS;
    const int32_t* map = query ? p.q.rows : p.k.rows;
    if (map) {
      cp_async4(shared_address(to.rows + lane), map + (query ? x.q0 : x.k0) + r, r < (query ? x.L : x.M));
    } else {
      to.rows[lane] = r;
    }
    written.advance(LOADERS);
    pending++;
  }
  // The next slot's entry; false where there is none.
  __device__ bool next(SlotEntry& x, int& row) {
    if (!pending) return false;
    wait_copies<AHEAD - 1>();
    __syncwarp();
    const SlotEntry& from = entries[place.slot];
    x.L = from.L, x.M = from.M, x.q0 = from.q0, x.k0 = from.k0, x.sequence = from.sequence, x.head = from.head;
    x.n = from.n, x.part = from.part, x.own = from.own, x.first = from.first;
    row = from.rows[threadIdx.x % 32];
    pending--;
    place.advance(LOADERS);
    return true;
  }
  // Behind all slots: whether the warp has the first place that no slot takes.
  __device__ bool has_end() const { return items.e == 0; }
  __device__ void write_end() {
    if (threadIdx.x % 32 == 0) entries[place.slot].L = -1;
    place.advance(LOADERS);
  }
};

// A head's rows of a sequence, without the map.
template <class T>
__device__ T* head_rows(const Operand<T>& x, const Sequences& s, int sequence, int head, int first) {
  T* at = x.data + head * x.stride.head;
  if (!s.offsets) return at + sequence * x.stride.batch;
  return s.rows ? at : at + first * x.stride.token;
}
// Row `index` from there on; strides of rows are at most WINDOW_STRIDE.
template <class T>
__device__ T* row_at(T* rows, const Operand<T>& x, int index) {
  return rows + int64_t(index) * int(x.stride.token);
}
constexpr int64_t WINDOW_STRIDE = int64_t(1) << 30;

// Word t of lane k to word k of lane t, among four neighbouring lanes.
__device__ inline uint4 exchange4(const uint32_t (&w)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
  const uint32_t x = __shfl_xor_sync(~0u, odd ? w[0] : w[1], 1), y = __shfl_xor_sync(~0u, odd ? w[2] : w[3], 1);
  const uint32_t a = odd ? x : w[0], b = odd ? w[1] : x, c = odd ? y : w[2], d = odd ? w[3] : y;
  const uint32_t u = __shfl_xor_sync(~0u, high ? a : c, 2), v = __shfl_xor_sync(~0u, high ? b : d, 2);
  return high ? make_uint4(u, v, c, d) : make_uint4(a, b, u, v);
}

// Writes a warp's 16 rows of 64 sums, scaled and rounded, to rows of `to` that `index` of lane r (-1: none) says.
template <class T>
__device__ inline void write_rows(T* to, int token, int index, const float (&c)[8][4], float scale, int D) {
  const int lane = threadIdx.x % 32, column = lane % 4 * 8;
  const int rows[2] = {__shfl_sync(~0u, index, lane / 4), __shfl_sync(~0u, index, lane / 4 + 8)};
#pragma unroll
  for (int half = 0; half < 2; half++) {
    T* line = to + int64_t(rows[half]) * token + column;
#pragma unroll
    for (int n = 0; n < 8; n += 4) {
      uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) w[i] = pack(T{}, c[n + i][half * 2] * scale, c[n + i][half * 2 + 1] * scale);
      const uint4 out = exchange4(w);
      if (rows[half] >= 0 && column + n * 8 < D) *reinterpret_cast<uint4*>(line + n * 8) = out;
    }
  }
}
// What write_rows takes for a slot's rows of queries (0) or keys (1), the first of which is row `from` of `length`.
__device__ inline int row_index(const SlotEntry& slot, const Sequences& s, int which, int from, int length) {
  const int lane = threadIdx.x % 32;
  if (lane >= SLOT_ROWS || from + lane >= length) return -1;
  return s.rows ? slot.rows[which * SLOT_ROWS + lane] : from + lane;
}
}  // namespace attention
