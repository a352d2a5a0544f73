// What the 16-bit kernels for any card since sm_80 share: rows in device memory, tiles in shared memory, and products of them. DP is D
// rounded up to 32, 64, 96 or 128, the rest zeros. A tile in shared memory has rows of DP + 8 elements: any 8 rows' 16 bytes fall into
// different banks.
#pragma once
#include "attention_problem.cuh"
#include "mma.cuh"

namespace attention {
constexpr int WARPS = 4, THREADS = WARPS * 32;

// The rows of one head of one sequence. MAPPED ones lie where `map` says, unless it is null.
template <class T, bool MAPPED>
struct Rows {
  T* data;
  int64_t token;
  const int32_t* map;

  __device__ T* row(int r) const {
    if constexpr (MAPPED) return data + (map ? map[r] : r) * token;
    return data + r * token;
  }
};

template <bool MAPPED, class T>
__device__ Rows<T, MAPPED> rows_of(const Operand<T>& x, const Sequences& s, int sequence, int h, int64_t first) {
  T* head = x.data + h * x.stride.head;
  if (!s.offsets) return {head + sequence * x.stride.batch, x.stride.token, nullptr};
  if (MAPPED && s.rows) return {head, x.stride.token, s.rows + first};
  return {head + first * x.stride.token, x.stride.token, nullptr};
}

// A block's head of a sequence, and its first row.
struct Place {
  int sequence, head, from;
};

// Where a block works, whose grid is as grid_of counts it: one tile of `size` rows after the other. False where there is nothing left.
__device__ inline bool find_place(Place& place, const Tiles& tiles, int H, int size) {
  if (!tiles.count) {
    const unsigned head = blockIdx.x / unsigned(tiles.per_sequence), tile = blockIdx.x % unsigned(tiles.per_sequence);
    place = {int(head / unsigned(H)), int(head % unsigned(H)), int(tile) * size};
    return true;
  }
  const unsigned a_head = gridDim.x / unsigned(H), number = blockIdx.x % a_head;
  if (number >= unsigned(*tiles.count)) return false;
  const Tile tile = tiles.listed[number];
  place = {tile.sequence, int(blockIdx.x / a_head), tile.from};
  return true;
}
inline int64_t grid_of(const Sequences& s, int64_t B, int64_t H, int size) { return tile_bound(s, B, size) * H; }

template <int DP>
constexpr int PITCH = DP + 8;

// Begins to copy rows [from, from + ROWS) of x into a tile; rows from `length` on and columns from D on become 0.
template <int ROWS, int DP, class T, bool MAPPED>
__device__ void load_tile(uint32_t tile, const Rows<const T, MAPPED>& x, int from, int length, int D) {
  constexpr int LANES = DP % 64 == 0 ? 8 : 4, STEP = THREADS / LANES;  // lanes a row, rows at a time
  static_assert(ROWS % STEP == 0 && DP % (LANES * 8) == 0);
  const int thread = thread_again(), row = thread / LANES, column = thread % LANES * 8;
  tile += (row * PITCH<DP> + column) * 2;
  if constexpr (MAPPED) {
    const T* at[ROWS / STEP];
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) at[i] = from + row + i * STEP < length ? x.row(from + row + i * STEP) + column : x.data;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
#pragma unroll
      for (int d = 0; d < DP; d += LANES * 8) {
        cp_async16(tile + (i * STEP * PITCH<DP> + d) * 2, at[i] + d, from + row + i * STEP < length && column + d < D);
      }
    }
  } else {
    const T* at = x.data + from * x.token + (row * x.token + column);
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP, at += STEP * x.token) {
#pragma unroll
      for (int d = 0; d < DP; d += LANES * 8) {
        const bool inside = from + row + i < length && column + d < D;
        cp_async16(tile + (i * PITCH<DP> + d) * 2, at + d, inside);
      }
    }
  }
}

// This lane's row for ldmatrix, in bytes from the tile's start: of an A tile, or with ldmatrix_trans of a B that lies [inner][column].
template <int DP>
__device__ uint32_t lane_a() {
  const uint32_t lane = threadIdx.x % 32;
  return (lane % 16 * PITCH<DP> + lane / 16 * 8) * 2;
}
// Of two B tiles side by side that lie [column][inner].
template <int DP>
__device__ uint32_t lane_b() {
  const uint32_t lane = threadIdx.x % 32;
  return ((lane % 8 + lane / 16 * 8) * PITCH<DP> + lane / 8 % 2 * 8) * 2;
}

// c += a b over 16 of the inner axis; b lies [column][inner] at `b`, which has the lane's offset (lane_b).
template <class T, int DP, int MT, int NT>
__device__ void multiply_nt(float (&c)[MT][NT][4], const uint32_t (&a)[MT][4], uint32_t b) {
#pragma unroll
  for (int n = 0; n < NT; n += 2) {
    uint32_t f[4];
    ldmatrix(f, b + n * 8 * PITCH<DP> * 2);
#pragma unroll
    for (int m = 0; m < MT; m++) {
      mma(T{}, c[m][n], a[m], f[0], f[1]);
      mma(T{}, c[m][n + 1], a[m], f[2], f[3]);
    }
  }
}

// c += a b over 16 of the inner axis; b lies [inner][column] at `b`, which has the lane's offset (lane_a).
template <class T, int MT, int NT>
__device__ void multiply_nn(float (&c)[MT][NT][4], const uint32_t (&a)[MT][4], uint32_t b) {
#pragma unroll
  for (int n = 0; n < NT; n += 2) {
    uint32_t f[4];
    ldmatrix_trans(f, b + n * 8 * 2);
#pragma unroll
    for (int m = 0; m < MT; m++) {
      mma(T{}, c[m][n], a[m], f[0], f[1]);
      mma(T{}, c[m][n + 1], a[m], f[2], f[3]);
    }
  }
}

// Columns [16 step, 16 step + 16) of accumulators, rounded, as A tiles.
template <class T, int MT, int NT>
__device__ void to_a(uint32_t (&a)[MT][4], const float (&c)[MT][NT][4], int step) {
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float* pair = c[m][2 * step + i / 2] + i % 2 * 2;
      a[m][i] = pack(T{}, pair[0], pair[1]);
    }
  }
}

// Rounds a warp's accumulators into `own`: MT * 16 rows that only this warp uses.
template <int DP, class T, int MT, int NT>
__device__ void stage_rows(T* own, const float (&c)[MT][NT][4]) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        T* to = own + (m * 16 + half * 8 + lane / 4) * PITCH<DP> + n * 8 + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(to) = pack(T{}, c[m][n][half * 2], c[m][n][half * 2 + 1]);
      }
    }
  }
  __syncwarp();
}

// Writes a warp's accumulators, rounded, to the rows of x from `from` on, by way of `own` (stage_rows).
template <int DP, int MT, class T, bool MAPPED>
__device__ void store_rows(T* own, const float (&c)[MT][DP / 8][4], const Rows<T, MAPPED>& x, int from, int length, int D) {
  constexpr int CHUNKS = DP / 8;
  const int lane = threadIdx.x % 32;
  stage_rows<DP>(own, c);
  for (int i = lane; i < MT * 16 * CHUNKS; i += 32) {
    const int r = i / CHUNKS, d = i % CHUNKS * 8;
    if (from + r < length && d < D) {
      *reinterpret_cast<uint4*>(x.row(from + r) + d) = *reinterpret_cast<const uint4*>(own + r * PITCH<DP> + d);
    }
  }
}
}  // namespace attention
