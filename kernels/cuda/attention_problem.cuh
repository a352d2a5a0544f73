// A k_attention as the kernels take it: operands, sequences, and the tiles of rows that blocks work on.
#pragma once
#include "../include/attention.h"
#include "device.cuh"

namespace attention {
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
// Where scores in units of log2 are this large, exp2(c s - offset) shows how c and the offset were rounded: there offsets are subtracted first.
constexpr float LARGE = 8192;

// Elements between neighbours; a head's elements lie side by side.
struct Strides {
  int64_t batch, token, head;
};

template <class T>
struct Operand {
  T* data;
  Strides stride;
};

// The rows of the queries, or of the keys. `offsets` is null where all sequences have `longest` rows; `rows` is null where they lie in
// order.
struct Sequences {
  const int32_t* offsets;
  const int32_t* rows;
  int64_t total;
  int longest;
};

// Where a sequence begins among all rows, and how many it has.
struct Span {
  int64_t first;
  int length;
};
__device__ inline Span span_of(const Sequences& s, int sequence) {
  if (!s.offsets) return {int64_t(sequence) * s.longest, s.longest};
  const int first = s.offsets[sequence];
  return {first, s.offsets[sequence + 1] - first};
}

struct Problem {
  int B, H, D;
  float scale;
  Sequences q, k;
  float* lse;

  // Where lse (and delta) of head h begin for the sequence whose first query is `first`: [B, H, L], or [H, q_total].
  __device__ int64_t stat(int sequence, int h, int64_t first) const {
    return q.offsets ? h * q.total + first : (int64_t(sequence) * H + h) * q.longest;
  }
};

// Rows [from, from + the tile's size) of a sequence; fewer where it ends before.
struct Tile {
  int sequence, from;
};

// The tiles of some sequences. Of variable length they are listed by list_tiles, else they follow from the number.
struct Tiles {
  const Tile* listed;
  const int32_t* count;  // device; null where tiles follow from the number
  int per_sequence;

  __device__ bool find(int64_t number, Tile& tile, int size) const {
    if (!count) {
      tile = {int(number / per_sequence), int(number % per_sequence) * size};
      return true;
    }
    if (number >= *count) return false;
    tile = listed[number];
    return true;
  }
};

// The most tiles of `size` rows that B sequences can have.
inline int64_t tile_bound(const Sequences& s, int64_t B, int64_t size) {
  const int64_t each = B * ceil_div(s.longest, size);
  return s.offsets ? (each < s.total / size + B ? each : s.total / size + B) : each;
}
// The workspace of a list of that many tiles.
inline int64_t tile_bytes(int64_t bound) { return (16 + bound * int64_t(sizeof(Tile)) + 255) / 256 * 256; }

// Lists the tiles of sequences of variable length: those of a sequence in order, and the sequences by the length of `other`, with which a
// tile is multiplied, the longest first, in classes of equal width. One block; where a class begins does not depend on timing, the order
// within it may, and no result depends on that.
constexpr int LENGTH_CLASSES = 64;
static __global__ void __launch_bounds__(1024) list_tiles(int32_t* count, Tile* tiles, Sequences s, Sequences other, int B, int size) {
  __shared__ int begin[LENGTH_CLASSES];
  const auto tiles_of = [&](int sequence) { return (s.offsets[sequence + 1] - s.offsets[sequence] + size - 1) / size; };
  const auto class_of = [&](int sequence) {
    const int length = other.offsets[sequence + 1] - other.offsets[sequence];
    return int(int64_t(max(other.longest - length, 0)) * LENGTH_CLASSES / (int64_t(other.longest) + 1));
  };
  if (threadIdx.x < LENGTH_CLASSES) begin[threadIdx.x] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < B; i += 1024) atomicAdd(&begin[class_of(i)], tiles_of(i));
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x, first = begin[2 * lane], both = first + begin[2 * lane + 1];
    int sum = both;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int left = __shfl_up_sync(0xffffffffu, sum, o);
      if (lane >= o) sum += left;
    }
    begin[2 * lane] = sum - both;
    begin[2 * lane + 1] = sum - both + first;
    if (lane == 31) *count = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < B; i += 1024) {
    const int mine = tiles_of(i), at = mine ? atomicAdd(&begin[class_of(i)], mine) : 0;
    for (int k = 0; k < mine; k++) tiles[at + k] = {i, k * size};
  }
}

// The tiles of `s`, listed in `workspace` (tile_bytes of it) by a launch where that is needed; `other` is what they are multiplied with.
inline Tiles make_tiles(const Sequences& s, const Sequences& other, int B, int size, uint64_t workspace, cudaStream_t stream) {
  if (!s.offsets) return {nullptr, nullptr, int(ceil_div(s.longest, size))};
  int32_t* count = at<int32_t>(workspace);
  Tile* tiles = at<Tile>(workspace + 16);
  list_tiles<<<1, 1024, 0, stream>>>(count, tiles, s, other, B, size);
  return {tiles, count, 0};
}
}  // namespace attention
