// Which items a block of the windows kernels has, and which slots they are made of.
#pragma once
#include "attention_tile.cuh"

namespace attention {
// A slot has 16 rows of each operand.
constexpr int SLOT_ROWS = 16, MAX_SLOTS = 32, WINDOW_LEAST = 15;  // slots of a ring: at most, at least
__host__ __device__ inline int slots_of(int rows) { return (rows + SLOT_ROWS - 1) / SLOT_ROWS; }

// A head of a sequence; `n`: the part of it that was asked for.
struct WindowItem {
  int L, M;
  int q0, k0, sequence, head;
  int n;
};

// Equal shares of all rows for blocks, of which `blocks` are on each multiprocessor; places are counted in half rows. `more_rows`: for how
// many rows more than it has an item counts.
struct Shares {
  int64_t a_head, each;
  int over, processors, blocks, more_rows;  // so many have one place more

  Shares(const Problem& p, int of_processors, int of_blocks, int more) : processors(of_processors), blocks(of_blocks), more_rows(more) {
    a_head = 2 * (int64_t(p.B) * more + (p.q.offsets ? p.q.total + p.k.total : int64_t(p.B) * (p.q.longest + p.k.longest)));
    each = a_head * p.H / (processors * blocks);
    over = int(a_head * p.H - each * processors * blocks);
  }
};

// The items of a block. Of all items, in order, a block has those whose middle lies in its share of all rows; those without rows may
// be no one's. The order is head after head, each sequence after sequence: so the windows
// of a block are of all sizes, and the heads of a window are read at about the same time by several blocks. Blocks of one multiprocessor have
// shares side by side, which together are more even than others.
//
// A warp looks at 32 sequences at a time, one a lane. It counts parts of items (slots, or whole items) from 0 on in that order, and asks for
// some of them, each behind the last.
struct Items {
  const Problem& p;
  const Shares& shares;
  int64_t end;      // of the share
  int head, first;  // of the 32 sequences
  int e = 0;        // the next part to ask for, counted from the first one of the 32

  // The middle of a sequence.
  __device__ int64_t middle(int w) const {
    const int64_t more = (2 * int64_t(w) + 1) * shares.more_rows;
    if (!p.q.offsets) return more + (2 * int64_t(w) + 1) * (p.q.longest + p.k.longest);
    return more + int64_t(p.q.offsets[w]) + p.q.offsets[w + 1] + p.k.offsets[w] + p.k.offsets[w + 1];
  }
  // Has the part of a row map that the share is likely to need brought near, before offsets are known.
  __device__ static void expect_rows(const Sequences& s, float from, float share) {
    const int64_t r = int64_t(from * float(s.total)) - 128 + int64_t(threadIdx.x) * 32;
    if (s.rows && r >= 0 && r < s.total && threadIdx.x * 32 < share * float(s.total) + 256) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(s.rows + r));
    }
  }
  // The whole block calls it: the first sequence of its share, by a search in four times as many parts as there are threads.
  __device__ Items(const Problem& problem, const Shares& of) : p(problem), shares(of), head(0) {
    int block = blockIdx.x, number = 0;  // of the multiprocessor's
    for (; block >= shares.processors; number++) block -= shares.processors;
    block = block * shares.blocks + number;
    int64_t from = shares.each * block + min(block, shares.over);
    end = from + shares.each + (block < shares.over);
    if (shares.a_head) {
      const float each = 1 / float(shares.a_head);
      head = int(float(from) * each);
      while (head * shares.a_head > from) head--;
      while ((head + 1) * shares.a_head <= from) head++;
      from -= head * shares.a_head;
      expect_rows(p.q, float(from) * each, float(shares.each) * each);
      if (p.k.rows != p.q.rows) expect_rows(p.k, float(from) * each, float(shares.each) * each);
    }
    int low = 0, high = p.B;
    while (high - low > 1) {
      constexpr int EACH = 4;
      const int parts = EACH * int(blockDim.x), step = (high - low + parts - 1) / parts;
      bool below[EACH];
#pragma unroll
      for (int j = 0; j < EACH; j++) {
        const int64_t w = low + (int64_t(j) * blockDim.x + threadIdx.x) * step;
        below[j] = w < high && middle(int(w)) < from;
      }
      int count = 0;
#pragma unroll
      for (int j = 0; j < EACH; j++) count += __syncthreads_count(below[j]);
      low += max(count - 1, 0) * step;
      high = min(high, low + step);
    }
    first = low + (p.B > 0 && middle(low) < from);
  }

  // The part e. False where there are no more: e is then counted from the first one that is not there. `parts(L, M)`: how many an item has.
  template <class Parts>
  __device__ bool find(WindowItem& x, Parts parts) {
    if (upto < 0) open(parts);
    for (; e >= total; open(parts)) {
      e -= total;
      first += 32;
      if (last) head++, first = 0;
      total = 0;
      if (head >= p.H || head * shares.a_head >= end) return false;
    }
    const int i = __ffs(__ballot_sync(~0u, upto > e)) - 1, before = __shfl_sync(~0u, upto, (i - 1) & 31);
    x.n = e - (i ? before : 0);
    x.L = __shfl_sync(~0u, L, i), x.M = __shfl_sync(~0u, M, i), x.q0 = __shfl_sync(~0u, q0, i), x.k0 = __shfl_sync(~0u, k0, i);
    x.sequence = first + i, x.head = head;
    return true;
  }

 private:
  int q0, L, k0, M, upto = -1;  // the lane's sequence, and the parts of all up to its end
  int total = 0;
  bool last;  // what follows the 32 has no rows in this head

  template <class Parts>
  __device__ void open(Parts parts) {
    const int lane = threadIdx.x % 32, w = first + lane;
    const bool there = w < p.B;
    q0 = 0, L = p.q.longest, k0 = 0, M = p.k.longest;
    int64_t at = head * shares.a_head + (2 * int64_t(w) + 1) * shares.more_rows;
    bool ends = w + 1 >= p.B;
    if (p.q.offsets) {
      int q1 = 0, k1 = 0;
      if (there) q0 = p.q.offsets[w], q1 = p.q.offsets[w + 1], k0 = p.k.offsets[w], k1 = p.k.offsets[w + 1];
      L = q1 - q0, M = k1 - k0, at += int64_t(q0) + q1 + k0 + k1;
      ends |= q1 == p.q.total && k1 == p.k.total;
    } else {
      at += (2 * int64_t(w) + 1) * (L + M);
    }
    last = __any_sync(~0u, ends || at >= end);
    upto = there && at < end ? parts(L, M) : 0;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int left = __shfl_up_sync(~0u, upto, o);
      if (lane >= o) upto += left;
    }
    total = __shfl_sync(~0u, upto, 31);
  }
};

// What goes into a slot: rows 16 n to 16 n + 15 of queries and keys. An item that does not fit the ring comes in parts: each warp has a
// tile of 16 queries (or keys), which come first, and all keys (or queries) pass by.
enum class Part { WHOLE, QUERIES, KEYS };
struct Fill {
  int n;
  Part part;
  int first;  // of the tiles that warps have in a part
  bool own;   // one of those
};
// The slots of a part in which `warps` warps have tiles of `mine`.
__device__ inline int part_slots(int mine, int others, int warps) { return mine + (mine + warps - 1) / warps * others; }
__device__ inline Fill part_fill(int e, Part part, int mine, int others, int warps) {
  const int group = e / (warps + others), first = group * warps, in = e - group * (warps + others), own = min(mine - first, warps);
  return {in < own ? first + in : in - own, part, first, in < own};
}

}  // namespace attention
