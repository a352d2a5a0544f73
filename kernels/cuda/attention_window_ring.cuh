// What the windows kernels (attention_window.cuh) have in common: barriers of a ring of rows in shared memory, the items of a block, rows.
#pragma once
#include "attention_tile.cuh"

namespace attention {
// A slot of the ring has 16 rows of each operand, padded like tiles.
constexpr int SLOT_ROWS = 16, MAX_SLOTS = 32, WINDOW_LEAST = 12;  // slots of a ring: at most, at least
constexpr int SLOT_ROW = PITCH<64> * 2, SLOT_TILE = SLOT_ROWS * SLOT_ROW;  // bytes
__host__ __device__ inline int slots_of(int rows) { return (rows + SLOT_ROWS - 1) / SLOT_ROWS; }

// ---- Barriers in shared memory, on any card since sm_80.
__device__ inline void ring_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void ring_arrive(uint32_t barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(barrier) : "memory");
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

// ---- The items of a block. Of all items, in order, a block has those that begin in its share of all rows, where each item may count for
// some rows more than it has; those without rows may be no one's. The order is head after head, each sequence after sequence: so the windows
// of a block are of all sizes, and the heads of a window are read at about the same time by several blocks.
struct Items {
  const Problem& p;
  const int more_rows;
  int sequence, head;
  int q0, q1, q2, k0, k1, k2;  // offsets of the sequence, of the next one, and its end
  int64_t at, end;             // where the item begins, where the share ends

  __device__ int64_t before(int w) const {
    return int64_t(w) * more_rows + (p.q.offsets ? int64_t(p.q.offsets[w]) + p.k.offsets[w] : int64_t(w) * (p.q.longest + p.k.longest));
  }
  // Rows of all sequences, as they count.
  __device__ int64_t a_head() const {
    return int64_t(p.B) * more_rows + (p.q.offsets ? p.q.total + p.k.total : int64_t(p.B) * (p.q.longest + p.k.longest));
  }
  __device__ int queries() const { return p.q.offsets ? q1 - q0 : p.q.longest; }
  __device__ int keys() const { return p.q.offsets ? k1 - k0 : p.k.longest; }
  __device__ bool more() const { return at < end; }

  __device__ void open(int w) {
    sequence = w;
    if (!p.q.offsets || w >= p.B) return;
    q0 = p.q.offsets[w], k0 = p.k.offsets[w];
    q1 = p.q.offsets[w + 1], k1 = p.k.offsets[w + 1];
    q2 = p.q.offsets[min(w + 2, p.B)], k2 = p.k.offsets[min(w + 2, p.B)];
  }
  // Has the part of a row map that the share is likely to need brought near, before offsets are known.
  __device__ static void expect_rows(const Sequences& s, float from, float share) {
    const int64_t r = int64_t(from * float(s.total)) - 128 + int64_t(threadIdx.x) * 32;
    if (s.rows && r >= 0 && r < s.total && threadIdx.x * 32 < share * float(s.total) + 256) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(s.rows + r));
    }
  }
  __device__ static void expect_offsets(const int32_t* x, int B) {
    if (x && int(threadIdx.x) * 32 < B) asm volatile("prefetch.global.L2 [%0];" ::"l"(x + threadIdx.x * 32));
  }
  // The whole block calls it: the first item of its share, by a search in as many parts as there are threads.
  __device__ Items(const Problem& problem, int rows_more = 0)
      : p(problem), more_rows(rows_more), head(0), q0(0), q1(0), q2(0), k0(0), k1(0), k2(0) {
    expect_offsets(p.q.offsets, p.B);
    expect_offsets(p.k.offsets, p.B);
    const int64_t all = a_head() * p.H, share = all / gridDim.x, over = all - share * gridDim.x;
    int64_t from = share * blockIdx.x + (blockIdx.x < over ? blockIdx.x : over);
    end = from + share + (blockIdx.x < over);
    if (all) {
      const int64_t rows = a_head();
      head = int(float(from) / float(rows));
      while (head * rows > from) head--;
      while ((head + 1) * rows <= from) head++;
      from -= head * rows;
      const float each = 1 / float(rows);
      expect_rows(p.q, float(from) * each, float(share) * each);
      expect_rows(p.k, float(from) * each, float(share) * each);
    }
    int low = 0, high = p.B;
    while (high - low > 1) {
      const int step = (high - low + int(blockDim.x) - 1) / int(blockDim.x), w = low + int(threadIdx.x) * step;
      low += (__syncthreads_count(w < high && before(w) <= from) - 1) * step;
      high = min(high, low + step);
    }
    open(low);
    at = before(low) + head * a_head();
    if (before(low) < from) next();
  }
  __device__ void next() {
    at += queries() + keys() + more_rows;
    if (sequence + 1 == p.B || (p.q.offsets && q1 == p.q.total && k1 == p.k.total)) {  // what follows has no rows
      head++;
      at = head * a_head();
      open(0);
      return;
    }
    sequence++;
    q0 = q1, k0 = k1, q1 = q2, k1 = k2;
    if (p.q.offsets) q2 = p.q.offsets[min(sequence + 2, p.B)], k2 = p.k.offsets[min(sequence + 2, p.B)];
  }
};

// What goes into a slot: rows 16 n to 16 n + 15 of queries and keys. An item that does not fit the ring comes in parts: each warp has a
// tile of 16 queries (or keys), which come first, and all keys (or queries) pass by.
enum class Part { WHOLE, QUERIES, KEYS };
struct Fill {
  int n;
  Part part;
  int first;  // of the tiles that warps have in a part
};
// The slots of a part in which `warps` warps have tiles of `mine`.
__device__ inline int part_slots(int mine, int others, int warps) { return mine + (mine + warps - 1) / warps * others; }
__device__ inline Fill part_fill(int e, Part part, int mine, int others, int warps) {
  const int group = e / (warps + others), first = group * warps, in = e - group * (warps + others), own = min(mine - first, warps);
  return {in < own ? first + in : in - own, part, first};
}

// An item as the warps that compute find it, in shared memory, with its first slot; in parts with every slot.
struct ItemHeader {
  int L, M;  // L < 0: there are no more items
  int q0, k0, sequence, head;
  Part part;
  int first;
  __device__ static void put(void* to, const Items& item, int L, Fill fill) {
    *reinterpret_cast<int4*>(to) = make_int4(L, item.keys(), item.q0, item.k0);
    *(reinterpret_cast<int4*>(to) + 1) = make_int4(item.sequence, item.head, int(fill.part), fill.first);
  }
};
constexpr int HEADER = 32;  // bytes

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
};
// A warp waits until the first n places are filled, or frees them. Every lane waits for each and arrives at each, as racecheck follows it.
__device__ inline void wait_slots(uint32_t full, const RingPlace& ring, int n) {
  for (bool there = false; !there;) {
    there = true;
#pragma unroll 4
    for (int i = 0; i < n; i++) there &= ring_test(full + ring.slot_of(i) * 8, ring.parity_of(i));
  }
}
__device__ inline void free_slots(uint32_t empty, const RingPlace& ring, int n) {
#pragma unroll 4
  for (int i = 0; i < n; i++) ring_arrive(empty + ring.slot_of(i) * 8);
}

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

// Where the rows of the n-th slot lie: of queries in lanes 0 to 15, of keys in lanes 16 to 31.
__device__ inline int slot_rows(const Problem& p, const Items& item, int n) {
  const int lane = threadIdx.x % 32, r = n * SLOT_ROWS + lane % SLOT_ROWS;
  const bool query = lane < SLOT_ROWS;
  const int32_t* map = query ? p.q.rows : p.k.rows;
  return map && r < (query ? item.queries() : item.keys()) ? map[(query ? item.q0 : item.k0) + r] : r;
}

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
// What write_rows takes for the 16 rows from `from` on.
__device__ inline int row_index(const Sequences& s, int first, int from, int length) {
  const int r = from + threadIdx.x % 32;
  return threadIdx.x % 32 < SLOT_ROWS && r < length ? (s.rows ? s.rows[first + r] : r) : -1;
}
}  // namespace attention
