// How Hopper's backward pass within windows (attention_window_bwd_sm90.cuh) has its work: attention of sequences of at most 96 rows to
// themselves. An item is one head of a sequence, whole in shared memory; warps load items, warpgroups compute on them.
//
// A block stays for as long as the launch and has an equal share of all rows (Items). Its items go through a ring in units of 32 rows; each
// operand of an item is a tile, swizzled as wgmma takes it, with zeros up to a multiple of 32 rows. Of the warps that load each has every
// fourth item, since what an item costs beside its copies is the time to find it. The warpgroups take turns, each with 64 rows of an item.
#pragma once
#include "attention_window_ring.cuh"
#include "hopper.cuh"

namespace attention {
constexpr int WINDOW_ROWS = 96;  // the most rows of a sequence
constexpr int UNIT_ROWS = 32, ENTRIES = 16, ITEM_LOADERS = 4, WINDOW_GROUPS = 3, WINDOW_THREADS = (WINDOW_GROUPS * 4 + ITEM_LOADERS) * 32;
constexpr int ITEM_COST = 32;  // for how many rows of queries and keys the time beside copies and products counts

// An item as the warpgroups find it, in shared memory.
struct ItemEntry {
  int L;  // < 0: there are no more items
  int sequence, head;
  int first;  // the sequence's first row
  int unit;   // where it begins in the ring
};
constexpr int ENTRY_BYTES = 32;

__host__ __device__ inline int units_of(int rows) { return (rows + UNIT_ROWS - 1) / UNIT_ROWS; }

// Shared memory of a kernel whose items have OPERANDS tiles and LISTS lists of a word a row: a ring of units, their lists, entries, barriers.
// A product of 64 rows may read 32 behind an item, so that much follows the ring.
template <int OPERANDS, int LISTS>
struct UnitRing {
  static constexpr int UNIT = OPERANDS * UNIT_ROWS * 128, LIST_UNIT = LISTS * UNIT_ROWS * 4;
  int count;

  __host__ __device__ int lists_at() const { return count * UNIT; }
  __host__ __device__ int entries_at() const { return lists_at() + count * LIST_UNIT; }
  __host__ __device__ int full_at() const { return entries_at() + ENTRIES * ENTRY_BYTES; }
  __host__ __device__ int empty_at() const { return full_at() + ENTRIES * 8; }
  __host__ __device__ int bytes() const {
    const int end = empty_at() + ENTRIES * 8, least = lists_at() + UNIT_ROWS * 128;
    return 1024 + (end > least ? end : least);  // begins at a multiple of 1024
  }
  // As many units as `most` bytes hold.
  static UnitRing fit(int most) {
    UnitRing ring{1};
    while (UnitRing{ring.count + 1}.bytes() <= most) ring.count++;
    return ring;
  }
};

template <class T, int N>
struct Inputs {
  Operand<const T> x[N];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Arrives once the copies that this thread began are complete.
__device__ inline void arrive_behind_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Item `number` in the order of loading: its entry, and the parity of the phase of that entry's barriers.
struct EntryTurn {
  int number = 0;
  __device__ int entry() const { return number % ENTRIES; }
  __device__ uint32_t parity() const { return number / ENTRIES % 2; }
};

// Where the loading warps put the next item: behind the one before, or at the start of the ring where it does not fit there. Items are given
// back in order. Each warp keeps account of all items, also of those that others load. While it has not yet seen that an item is given back,
// the barrier must not go on by two phases: consumers may be as far as the others' items behind the warp's own last one, so the entries of
// that many are left alone.
struct UnitSpace {
  int count, unit = 0, room;
  EntryTurn next, oldest;
  uint64_t taken = 0;  // units of each item that is not given back, 4 bits
  __device__ UnitSpace(int n) : count(n), room(n) {}

  // Waits until there is place for so many units, and returns where; `next` is the item's turn until it is counted up.
  __device__ int take(int units, uint32_t empty) {
    const bool fits = unit + units <= count;
    const int all = fits ? units : units + count - unit, at = fits ? unit : 0;
    while (room < all || next.number - oldest.number == ENTRIES - ITEM_LOADERS) {
      barrier_wait(empty + oldest.entry() * 8, oldest.parity());
      room += int(taken & 15);
      taken >>= 4;
      oldest.number++;
    }
    taken |= uint64_t(all) << 4 * (next.number - oldest.number);
    room -= all;
    unit = at + units;
    return at;
  }
};

// An item that a warp will load; each lane knows where one of each 32 rows lies.
struct Expected {
  int L, sequence, head, first;
  int others;  // units of the items between the warp's last one and this, 4 bits each
  int row[WINDOW_ROWS / 32];
};

// Where row 0 of a head lies, as Expected::row counts.
template <class T>
__device__ inline T* rows_from(const Operand<T>& x, const Problem& p, int sequence, int head) {
  return x.data + head * x.stride.head + (p.q.offsets ? 0 : sequence * x.stride.batch);
}

// What a loading warp does. The lists of an item: where its rows lie, then lse.
template <class T, int N, int LISTS>
__device__ inline void load_items(const Inputs<T, N>& in, const Problem& p, UnitRing<N, LISTS> ring, Items& items, char* base) {
  const uint32_t shared = shared_address(base), full = shared + ring.full_at(), empty = shared + ring.empty_at();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % ITEM_LOADERS, column = lane % 8 * 8;
  // A lane's 16 bytes of rows lane / 8 and lane / 8 + 4 of each 8.
  const uint32_t even = lane / 8 * 128 + (lane % 8 ^ lane / 8) * 16, odd = (4 + lane / 8) * 128 + (lane % 8 ^ (4 + lane / 8)) * 16;
  const int width = column < p.D ? WINDOW_ROWS : 0;
  UnitSpace space(ring.count);
  int passed = 0;  // items
  const auto expect = [&](Expected& x) {
    WindowItem item;
    x.others = 0, x.L = -1;
    for (;; items.e++, x.others = x.others << 4 | units_of(item.L)) {
      if (!items.find(item, [](int L, int) { return L > 0; })) return;
      if (passed++ % ITEM_LOADERS == warp) break;
    }
    items.e++;
    x.L = item.L, x.first = item.q0, x.sequence = item.sequence, x.head = item.head;
    if (x.L > WINDOW_ROWS) __trap();  // L is no bound of the lengths
#pragma unroll
    for (int u = 0; u < WINDOW_ROWS / 32; u++) {
      const int r = u * 32 + lane;
      x.row[u] = r < x.L ? (p.q.rows ? p.q.rows[x.first + r] : p.q.offsets ? x.first + r : r) : 0;
    }
  };
  const auto pass = [&](int others) {
    while (others) {  // the first one is in the highest bits
      const int shift = others > 255 ? 8 : others > 15 ? 4 : 0;
      space.take(others >> shift, empty);
      space.next.number++;
      others &= (1 << shift) - 1;
    }
  };
  const auto load = [&](const Expected& x) {
    const int units = units_of(x.L), unit = space.take(units, empty), entry = space.next.entry(), tile = units * UNIT_ROWS * 128;
    if (lane == 0) {
      *reinterpret_cast<ItemEntry*>(base + ring.entries_at() + entry * ENTRY_BYTES) = {x.L, x.sequence, x.head, x.first, unit};
    }
    int* list = reinterpret_cast<int*>(base + ring.lists_at() + unit * ring.LIST_UNIT) + lane;
    const float* lse = p.lse + p.stat(x.sequence, x.head, x.first) + lane;
    const T* from[N];
#pragma unroll
    for (int j = 0; j < N; j++) from[j] = rows_from(in.x[j], p, x.sequence, x.head) + column;
    const int inside = min(x.L, width) - lane / 8;
    uint32_t to = shared + unit * ring.UNIT;
#pragma unroll
    for (int u = 0; u < WINDOW_ROWS / 32; u++) {
      if (u < units) {
        list[u * 32] = x.row[u];
        cp_async4(shared_address(list + units * UNIT_ROWS + u * 32), lse + u * 32, u * 32 + lane < x.L);
#pragma unroll 1
        for (int i = 0; i < 8; i++) {
          const int row = __shfl_sync(~0u, x.row[u], i * 4 + lane / 8);
          const uint32_t line = to + i / 2 * 1024 + (i % 2 ? odd : even);
#pragma unroll
          for (int j = 0; j < N; j++) cp_async16(line + j * tile, row_at(from[j], in.x[j], row), u * 32 + i * 4 < inside);
        }
        to += UNIT_ROWS * 128;
      }
    }
    barrier_arrive(full + entry * 8);
    arrive_behind_copies(full + entry * 8);
    space.next.number++;
  };
  Expected x;
  for (expect(x); x.L >= 0; expect(x)) {
    pass(x.others);
    load(x);
  }
  pass(x.others);
  space.take(1, empty);
  if (space.next.number % ITEM_LOADERS == warp) {
    const int entry = space.next.entry();
    if (lane == 0) reinterpret_cast<ItemEntry*>(base + ring.entries_at() + entry * ENTRY_BYTES)->L = -1;
    barrier_arrive(full + entry * 8);
    arrive_behind_copies(full + entry * 8);
  }
  cp_async_wait();
}
constexpr int FULL_ARRIVALS = 64;  // each lane of a warp, and its copies

// An entry, known to the compiler as equal in all lanes.
__device__ inline ItemEntry item_at(const char* at) {
  const int lane = threadIdx.x % 32, word = reinterpret_cast<const int*>(at)[lane < 5 ? lane : 0];
  const auto of = [&](int i) { return __shfl_sync(~0u, word, i); };
  return {of(0), of(1), of(2), of(3), of(4)};
}
// A warp has read what it needs of an item.
__device__ inline void leave_item(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
}

// Whose turn it is: an item has a turn for each 64 rows, which the warpgroups have one after the other.
struct Turns {
  int left;  // until this warpgroup's
  // Which 64 rows of an item of L rows are this warpgroup's; none where they begin behind it.
  __device__ int take(int L) {
    const int half = left;
    left -= (L + 63) / 64;
    if (left < 0) left += WINDOW_GROUPS;
    return half;
  }
};
#endif
}  // namespace attention
