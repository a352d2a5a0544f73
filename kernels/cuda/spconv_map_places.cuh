// What a table finds its rows in. A small grid has a row number a cell; a larger one the bits and ranks of coordinates_index.cuh, with a word
// for every run of 32 cells where there is room, and ranks in any order: numbers are handed out by a counter, and no result depends on them.
#pragma once
#include "coordinates_index.cuh"

namespace sparse {
// rows[batch, x, y, z]: the first row there, all bits set for none
struct Grid {
  uint32_t* rows;
  int B, side;
  // The cells of one x and y.
  struct Line {
    const uint32_t* rows;
    __device__ int at(int z) { return int(rows[z]); }
  };
  __device__ int64_t cell(const Place& p) const { return ((int64_t(p.batch) * side + p.x) * side + p.y) * side + p.z; }
  __device__ Line line(const Place& p) const { return {rows + cell({p.batch, p.x, p.y, 0})}; }
};

struct Runs {
  Index index;
  struct Line {
    Index index;
    Place place;
    Word word;
    int known;  // the run that `word` is of
    __device__ int at(int z) {
      if (z / 32 != known) {
        known = z / 32;
        place.z = z;
        const Word* const run = index.find_run(place);
        word = run ? *run : Word{0, 0};
      }
      return word.bits >> (z & 31) & 1 ? int(index.rows[Index::rank(word, z)]) : -1;
    }
  };
  __device__ Line line(const Place& p) const { return {index, p, {0, 0}, -1}; }
};

// faults: as k_spconv_table says, but for rows that repeat a place
__device__ inline bool check_place(const Place* from, int64_t n, int B, int side, int32_t* faults) {
  const bool inside = from[n].inside(B, side);
  if (faults && !inside) atomicAdd(faults, 1);
  if (faults && n && from[n].batch < from[n - 1].batch) atomicAdd(faults + 2, 1);
  return inside;
}

static __global__ void place_on_grid(Grid grid, const Place* from, int32_t* faults, int32_t N) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N || !check_place(from, n, grid.B, grid.side, faults)) return;
  if (atomicMin(&grid.rows[grid.cell(from[n])], uint32_t(n)) != ~0u && faults) atomicAdd(faults + 1, 1);
}

static __global__ void mark_words(Index index, const Place* from, int32_t* faults, int32_t N) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N || !check_place(from, n, index.B, index.side, faults)) return;
  const uint32_t bit = 1u << (from[n].z & 31);
  if (atomicOr(&index.find_run(from[n])->bits, bit) & bit && faults) atomicAdd(faults + 1, 1);
}

// Gives the bits of each word numbers of their own: whichever block comes first takes the next ones from `used`.
constexpr int NUMBERERS = 512, NUMBERED = 8 * NUMBERERS;
static __global__ void __launch_bounds__(NUMBERERS) number_words(int4* words, int64_t pairs, uint32_t* used) {
  __shared__ uint32_t sums[NUMBERERS / 32], base;
  after_previous();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = int64_t(blockIdx.x) * (NUMBERED / 2) + threadIdx.x;
  int4 word[4];
  uint32_t own = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t at = first + i * NUMBERERS;
    word[i] = at < pairs ? words[at] : int4{0, 0, 0, 0};
    own += __popc(word[i].x) + __popc(word[i].z);
  }
  uint32_t up = own;
#pragma unroll
  for (int o = 1; o < 32; o *= 2) {
    const uint32_t other = __shfl_up_sync(0xffffffffu, up, o);
    up += lane >= o ? other : 0;
  }
  if (lane == 31) sums[warp] = up;
  __syncthreads();
  const uint32_t of_warp = lane < NUMBERERS / 32 ? sums[lane] : 0, before = __reduce_add_sync(0xffffffffu, lane < warp ? of_warp : 0);
  if (warp == 0) {
    const uint32_t all = __reduce_add_sync(0xffffffffu, of_warp);
    if (lane == 0) base = all ? atomicAdd(used, all) : 0;
  }
  __syncthreads();
  uint32_t number = base + before + up - own;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (!(word[i].x | word[i].z)) continue;
    word[i].y = int(number);
    number += __popc(word[i].x);
    word[i].w = int(number);
    number += __popc(word[i].z);
    words[first + i * NUMBERERS] = word[i];
  }
}

static __global__ void place_rows(Index index, const Place* from, int32_t N) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N || !from[n].inside(index.B, index.side)) return;
  const Place p = from[n];
  atomicMin(&index.rows[Index::rank(*index.find_run(p), p.z)], uint32_t(n));
}

// The most cells of a grid with a number each (16 MiB), and words of one with a word a run (64 MiB).
constexpr int64_t GRID_CELLS = int64_t(1) << 22, GRID_WORDS = int64_t(1) << 23;

// Where N places of B grids are found, in scratch of bytes(): in front are two counters of numbers used.
struct TableLayout {
  int32_t N, B, side;
  int64_t cells, words;
  TableLayout(int32_t N, int32_t B, int32_t side)
      : N(N), B(B), side(side), cells(int64_t(B) * side * side * side), words(int64_t(B) * side * side * ceil_div(side, 32)) {}
  bool has_grid() const { return cells <= GRID_CELLS; }
  bool has_words() const { return words <= GRID_WORDS; }
  uint64_t bytes() const {
    if (has_grid()) return uint64_t(ceil_div(cells, 4) * 16);
    return 16 + (has_words() ? uint64_t(ceil_div(words, 2) * 16 + ceil_div(N, 4) * 16) : IndexLayout(N, B, side).bytes());
  }

  // Calls fill(places), with what finds the rows, when it is built; returns its status.
  template <class F>
  int32_t build(uint64_t scratch, const Place* from, int32_t* faults, uint64_t stream, F fill) const {
    const unsigned blocks = unsigned(ceil_div(N, 256));
    const auto clear = [&](int64_t zeros, int64_t ones) {
      launch_next(clear_index, unsigned(ceil_div(zeros + ones + 3, 256)), 256, 0, stream, at<int4>(scratch), zeros, ones, faults);
    };
    const auto number = [&](Word* words, int64_t count, int counter) {
      launch_next(number_words, unsigned(ceil_div(count, NUMBERED)), NUMBERERS, 0, stream, reinterpret_cast<int4*>(words), count / 2,
                  at<uint32_t>(scratch) + counter);
    };
    if (has_grid()) {
      const Grid grid{at<uint32_t>(scratch), B, side};
      clear(0, ceil_div(cells, 4));
      if (N) launch_next(place_on_grid, blocks, 256, 0, stream, grid, from, faults, N);
      return fill(grid);
    }
    Index index{};
    if (has_words()) {
      const int64_t even = ceil_div(words, 2) * 2;
      Word* const first = at<Word>(scratch + 16);
      index = {nullptr, first, reinterpret_cast<uint32_t*>(first + even), B, side, int(ceil_div(side, 32))};
      clear(1 + even / 2, ceil_div(N, 4));
      if (N) launch_next(mark_words, blocks, 256, 0, stream, index, from, faults, N);
      if (N) number(first, even, 0);
    } else {
      const IndexLayout layout(N, B, side);
      const Reach itself{B, side, 1, 1, 0, side};
      index = layout.at_address(scratch + 16, B, side);
      clear(1 + (layout.words + layout.cells) / 2, layout.cells / 4);
      if (N) launch_next(mark_runs, blocks, 256, 0, stream, index, itself, from, faults, N);
      if (N) number(index.runs, layout.words, 0);
      if (N) launch_next(mark_cells, blocks, 256, 0, stream, index, itself, from, faults, N);
      if (N) number(index.cells, layout.cells, 1);
    }
    if (N) launch_next(place_rows, blocks, 256, 0, stream, index, from, N);
    return fill(Runs{index});
  }
};
}  // namespace sparse
