// Finding rows by their coordinates on CUDA. A grid is cut into runs of 32 cells along z. One bit a run says whether it has a voxel; runs
// that do are numbered in order, and each has a word of 32 bits for its cells; cells are numbered in order again, and `rows` has the row of
// each. Both numbers are sums of bits, so the order is that of (batch, x, y, z), and a lookup is three dependent reads, no hash and no
// search. Bits are set by atomic ORs, of rows at one place the first stays by atomic min: two runs agree.
#pragma once
#include "scan.cuh"

#include "../include/coordinates.hpp"

namespace sparse {
struct Word {
  uint32_t bits, rank;  // rank: the bits of all words before
};
struct Words {  // for scan::run
  Word* words;
  int32_t* total;
  __device__ int get(int64_t i) const { return __popc(words[i].bits); }
  __device__ void set(int64_t i, int sum) const { words[i].rank = uint32_t(sum); }
};

struct Index {
  Word *runs, *cells;  // runs: null where every run has a word, in their order
  uint32_t* rows;
  int B, side, depth;  // depth: runs along z

  __device__ int64_t run_of(const Place& p) const { return ((int64_t(p.batch) * side + p.x) * side + p.y) * depth + p.z / 32; }
  // The word of the run of 32 cells that p is in, null where it has no voxel. p must be inside.
  __device__ Word* find_run(const Place& p) const {
    const int64_t run = run_of(p);
    if (!runs) return cells + run;
    const Word w = runs[run >> 5];
    const uint32_t bit = 1u << (run & 31);
    return w.bits & bit ? cells + w.rank + __popc(w.bits & (bit - 1)) : nullptr;
  }
  static __device__ int64_t rank(const Word& w, int z) { return w.rank + __popc(w.bits & ((1u << (z & 31)) - 1)); }
};

// The places that a coordinate stands for: itself, or those of a strided convolution's result that reach it.
struct Reach {
  int B, side, kernel, stride, padding, most;  // most: side of the places
  template <class F>
  __device__ void visit(const Place& p, F found) const {
    if (!p.inside(B, side)) return;
    for (int i = 0; i < kernel; i++) {
      const int x = reads(p.x, i, stride, padding, true);
      for (int j = 0; j < kernel; j++) {
        const int y = reads(p.y, j, stride, padding, true);
        for (int k = 0; k < kernel; k++) {
          const Place q{p.batch, x, y, reads(p.z, k, stride, padding, true)};
          if (q.inside(B, most)) found(q);
        }
      }
    }
  }
};

// Where an index of up to `cells` places in B grids lies in scratch.
struct IndexLayout {
  int64_t runs, cells, words, scan_bytes;
  IndexLayout(int64_t cells, int64_t B, int64_t side) : cells(ceil_div(cells, 4) * 4) {
    runs = B * side * side * ceil_div(side, 32);
    words = ceil_div(ceil_div(runs, 32), 2) * 2;
    scan_bytes = int64_t(scan::bytes(words > this->cells ? words : this->cells));
  }
  uint64_t bytes() const { return uint64_t(8 * (words + cells) + 4 * cells + scan_bytes); }
  Index at_address(uint64_t scratch, int B, int side) const {
    Word* const first = at<Word>(scratch);
    return {first, first + words, reinterpret_cast<uint32_t*>(first + words + cells), B, side, (side + 31) / 32};
  }
  int32_t* scan_scratch(uint64_t scratch) const { return at<int32_t>(scratch + 8 * (words + cells) + 4 * cells); }
};

static __global__ void clear_index(int4* words, int64_t zeros, int64_t ones, int32_t* faults) {
  after_previous();
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < zeros)
    words[i] = {0, 0, 0, 0};
  else if (i < zeros + ones)
    words[i] = {-1, -1, -1, -1};
  if (i < 3 && faults) faults[i] = 0;
}

static __global__ void mark_runs(Index index, Reach reach, const Place* from, int32_t* faults, int32_t N) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N) return;
  const Place p = from[n];
  if (faults && !p.inside(reach.B, reach.side)) atomicAdd(faults, 1);
  if (faults && n && p.batch < from[n - 1].batch) atomicAdd(faults + 2, 1);
  reach.visit(p, [&](const Place& q) {
    const int64_t run = index.run_of(q);
    atomicOr(&index.runs[run >> 5].bits, 1u << (run & 31));
  });
}

static __global__ void mark_cells(Index index, Reach reach, const Place* from, int32_t* faults, int32_t N) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N) return;
  reach.visit(from[n], [&](const Place& q) {
    const uint32_t bit = 1u << (q.z & 31), before = atomicOr(&index.find_run(q)->bits, bit);
    if (faults && before & bit) atomicAdd(faults + 1, 1);
  });
}

// The numbers of all places that `from` reaches; `total` gets how many there are, or is null.
inline int32_t build_ranks(const char* where, const Index& index, const IndexLayout& layout, uint64_t scratch, const Reach& reach,
                           const Place* from, int32_t N, int32_t* faults, int32_t* total, uint64_t stream) {
  const int64_t zeros = (layout.words + layout.cells) / 2, ones = layout.cells / 4;
  launch_next(clear_index, unsigned(ceil_div(zeros + ones + 3, 256)), 256, 0, stream, at<int4>(scratch), zeros, ones, faults);
  if (N) launch_next(mark_runs, unsigned(ceil_div(N, 256)), 256, 0, stream, index, reach, from, faults, N);
  if (layout.words) {
    if (int32_t status = scan::run(where, Words{index.runs, nullptr}, layout.scan_scratch(scratch), layout.words, stream)) return status;
  }
  if (N) launch_next(mark_cells, unsigned(ceil_div(N, 256)), 256, 0, stream, index, reach, from, faults, N);
  if (layout.cells) {
    if (int32_t status = scan::run(where, Words{index.cells, total}, layout.scan_scratch(scratch), layout.cells, stream)) return status;
  }
  return launched(where);
}
}  // namespace sparse
