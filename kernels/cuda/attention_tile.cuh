// What the 16-bit attention kernels share: operands, tiles in shared memory, and products of them. A block has 4 warps. DP is D rounded
// up to 32, 64, 96 or 128, the rest zeros. A tile in shared memory has rows of DP + 8 elements: any 8 rows' 16 bytes fall into different
// banks.
#pragma once
#include "mma.cuh"

namespace attention {
constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

struct Sizes {
  int B, L, M, H, D;
};

// Elements between neighbours; a head's elements lie side by side.
struct Strides {
  int64_t batch, token, head;
};

// The tokens of one head of one sample.
template <class T>
struct Rows {
  T* data;
  int64_t token;
};

template <class T>
struct Operand {
  T* data;
  Strides stride;
  // `head` counts the heads of all samples.
  __device__ Rows<T> of(unsigned head, unsigned H) const {
    return {data + head / H * stride.batch + head % H * stride.head, stride.token};
  }
};

// A block's head among those of all samples, and its first token, where blocks of ROWS tokens follow each other.
struct Place {
  unsigned head;
  int from;
};
template <int ROWS>
__device__ Place place(int tokens) {
  const unsigned tiles = (unsigned(tokens) + ROWS - 1) / ROWS;
  return {blockIdx.x / tiles, int(blockIdx.x % tiles) * ROWS};
}

template <int DP>
constexpr int PITCH = DP + 8;

// Begins to copy tokens [from, from + ROWS) of x into a tile; tokens from `tokens` on and columns from D on become 0.
template <int ROWS, int DP, class T>
__device__ void load_tile(uint32_t tile, Rows<const T> x, int from, int tokens, int D) {
  constexpr int LANES = DP % 64 == 0 ? 8 : 4, STEP = THREADS / LANES;  // lanes a token, tokens at a time
  static_assert(ROWS % STEP == 0 && DP % (LANES * 8) == 0);
  const int thread = thread_again(), row = thread / LANES, column = thread % LANES * 8;
  const T* at = x.data + from * x.token + (row * x.token + column);
  tile += (row * PITCH<DP> + column) * 2;
#pragma unroll
  for (int i = 0; i < ROWS; i += STEP, at += STEP * x.token) {
#pragma unroll
    for (int d = 0; d < DP; d += LANES * 8) {
      const bool inside = from + row + i < tokens && column + d < D;
      cp_async16(tile + (i * PITCH<DP> + d) * 2, at + d, inside);
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

// Writes a warp's accumulators, rounded, to the tokens of x from `from` on, by way of `own`: MT * 16 rows that only this warp uses.
template <int DP, int MT, class T>
__device__ void store_rows(T* own, const float (&c)[MT][DP / 8][4], Rows<T> x, int from, int tokens, int D) {
  constexpr int CHUNKS = DP / 8;
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int n = 0; n < DP / 8; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        T* to = own + (m * 16 + half * 8 + lane / 4) * PITCH<DP> + n * 8 + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(to) = pack(T{}, c[m][n][half * 2], c[m][n][half * 2 + 1]);
      }
    }
  }
  __syncwarp();
  for (int i = lane; i < MT * 16 * CHUNKS; i += 32) {
    const int r = i / CHUNKS, d = i % CHUNKS * 8;
    if (from + r < tokens && d < D) {
      *reinterpret_cast<uint4*>(x.data + (from + r) * x.token + d) = *reinterpret_cast<const uint4*>(own + r * PITCH<DP> + d);
    }
  }
}
}  // namespace attention
