// What the sparse convolution kernels share: a product over a table, its packed weights, and what a block knows of its rows.
#pragma once
#include "chain.cuh"
#include "conv3d.cuh"

#include "../include/coordinates.hpp"

namespace spconv {
// y[r, n] = bias[n] + sum over taps t and channels c of w(n, t, c) x[table[r, t], c]
struct Product {
  void* y;
  float* partial;  // [parts, rows, N]: the sum of each part's taps, where there are several
  const void *x, *w, *bias;
  const int32_t *table, *order;
  const uint32_t* masks;
  int rows, K, C, N, parts, chunks;  // chunks: a tap's steps along C
  bool bias_f32, wide, mirror;       // wide: 16 bytes of y can be written at once
};

// The columns that N are rounded up to, at most, whatever tile is chosen.
inline int64_t padded(int64_t N) { return N <= 128 ? 128 : ceil_div(N, 256) * 256; }

// Packs weights into tiles: for each N_TILE outputs, tap and step of CHUNKS * 16 bytes of channels the bytes of a tile in shared memory as
// chunk_address<CHUNKS> has it, zeros past N and C. from: [N, K, C], or with `by_input` [C, K, N] and, with `mirror`, the taps in the
// opposite order. A block packs 32 outputs of one tap and step; `direct`: 16 bytes of `from` can be copied at once.
template <class T, class W, int CHUNKS>
__global__ void __launch_bounds__(256)
    pack_weights(T* to, const W* from, int N, int C, int K, int N_TILE, bool by_input, bool mirror, bool direct) {
  constexpr int V = 16 / sizeof(T), DEPTH = CHUNKS * V;
  next_may_start();
  __shared__ T tile[32][DEPTH + 1];
  const int tap = blockIdx.x, step = blockIdx.y, n0 = blockIdx.z * 32, c0 = step * DEPTH, read = mirror ? K - 1 - tap : tap;
  unsigned char* const bytes =
      reinterpret_cast<unsigned char*>(to) + ((int64_t(n0 / N_TILE) * K + tap) * gridDim.y + step) * N_TILE * (CHUNKS * 16);
  if (!direct) {
    for (int i = threadIdx.x; i < 32 * DEPTH; i += 256) {
      const int n = by_input ? i % 32 : i / DEPTH, c = by_input ? i / 32 : i % DEPTH;
      const bool some = n0 + n < N && c0 + c < C;
      const int64_t row = by_input ? int64_t(c0 + c) * K + read : int64_t(n0 + n) * K + read;
      tile[n][c] = some ? from_f32<T>(to_f32(from[by_input ? row * N + n0 + n : row * C + c0 + c])) : from_f32<T>(0);
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < 32 * CHUNKS; i += 256) {
    const int n = i / CHUNKS, chunk = i % CHUNKS, c = c0 + chunk * V;
    Pack<T, V> values;
#pragma unroll
    for (int e = 0; e < V; e++) values.v[e] = direct ? from_f32<T>(0) : tile[n][chunk * V + e];
    if (direct && n0 + n < N && c < C) {
      values = *reinterpret_cast<const Pack<T, V>*>(reinterpret_cast<const T*>(from) + (int64_t(n0 + n) * K + read) * C + c);
    }
    *reinterpret_cast<Pack<T, V>*>(bytes + conv3d::chunk_address<CHUNKS>(n0 % N_TILE + n, chunk)) = values;
  }
}

// What a block works on: blocks go through the columns first, then the tiles of R rows, then the parts.
template <int R>
struct Work {
  int column, part;
  int64_t first;  // of its rows in the part's order
  __device__ Work(const Product& p, int width) {
    const int columns = (p.N + width - 1) / width, tiles = (p.rows + R - 1) / R, tile = blockIdx.x / columns;
    column = blockIdx.x % columns;
    part = tile / tiles;
    first = int64_t(tile % tiles) * R;
  }
  static int64_t count(const Product& p, int width) { return ceil_div(p.N, width) * ceil_div(p.rows, R) * p.parts; }
};

// The R rows of a block, the taps that they have and, where a part has at most 27, their part of the table.
template <int R>
struct Rows {
  static constexpr int TILES = R / 64, FIXED = R * 4 + 256;
  int32_t* ids;      // [R], -1 past the last
  uint16_t* taps;    // [count], bit 8 + i: whether tile i, of 64 rows, has the tap
  int32_t* entries;  // [R, pitch]
  const int32_t* table;
  int K, start, pitch, count;  // start: the part's first tap; pitch: odd, so that a tap's entries fall into different banks, or 0

  static int bytes(int K, int parts) { return FIXED + (K / parts <= 27 ? R * (K / parts | 1) * 4 : 0); }

  // All THREADS threads call it; it ends with a barrier.
  template <int THREADS>
  __device__ Rows(unsigned char* shared, const Product& p, const Work<R>& work, std::integral_constant<int, THREADS>)
      : ids(reinterpret_cast<int32_t*>(shared)),
        taps(reinterpret_cast<uint16_t*>(shared + R * 4)),
        entries(reinterpret_cast<int32_t*>(shared + FIXED)),
        table(p.table),
        K(p.K),
        start(work.part * (p.K / p.parts)),
        pitch(p.K / p.parts <= 27 ? p.K / p.parts | 1 : 0),
        count(0) {
    const int words = (K + 31) / 32, lane = threadIdx.x, own = K / p.parts;
    const int64_t first = work.first;
    const int32_t* const order = p.order + int64_t(work.part) * p.rows;
    const uint32_t* const masks = p.masks + int64_t(work.part) * ((p.rows + 63) / 64) * words;
    for (int i = threadIdx.x; i < R; i += THREADS) ids[i] = first + i < p.rows ? order[first + i] : -1;
    for (int w = 0; w < words; w++) {
      uint32_t all = 0, tiles = 0;
#pragma unroll
      for (int i = 0; i < TILES; i++) {
        const int64_t row = first + i * 64;
        const uint32_t mask = row < p.rows ? masks[row / 64 * words + w] : 0;
        all |= mask;
        if (lane < 32) tiles |= (mask >> lane & 1) << i;
      }
      if (tiles) taps[count + __popc(all & ((1u << lane) - 1))] = uint16_t(w * 32 + lane | tiles << 8);
      count += __popc(all);
    }
    __syncthreads();
    if (pitch) {  // a warp has a row and a lane a tap at a time: all loads are asked for before the first is used
      constexpr int WARPS = THREADS / 32, MOST = (R + WARPS - 1) / WARPS;
      const int tap = threadIdx.x % 32, warp = threadIdx.x / 32;
      int32_t found[MOST];
#pragma unroll
      for (int i = 0; i < MOST; i++) {
        const int m = warp + i * WARPS, id = m < R ? ids[m] : -1;
        found[i] = id >= 0 && tap < own ? table[int64_t(id) * K + start + tap] : -1;
      }
#pragma unroll
      for (int i = 0; i < MOST; i++) {
        const int m = warp + i * WARPS;
        if (m < R && tap < own) entries[m * pitch + tap] = found[i];
      }
    }
    __syncthreads();
  }
  // to[l] = what tap `tap` of row m + l * step reads.
  template <int COUNT>
  __device__ void read(int32_t (&to)[COUNT], int m, int step, int tap) const {
    if (pitch) {
#pragma unroll
      for (int l = 0; l < COUNT; l++) to[l] = entries[(m + l * step) * pitch + tap - start];
    } else {
#pragma unroll
      for (int l = 0; l < COUNT; l++) {
        const int64_t id = ids[m + l * step];
        to[l] = id < 0 ? -1 : table[id * K + tap];
      }
    }
  }
};

template <class T>
__device__ inline float bias_at(const Product& p, int n) {
  if (!p.bias || n >= p.N) return 0;
  return p.bias_f32 ? static_cast<const float*>(p.bias)[n] : to_f32(static_cast<const T*>(p.bias)[n]);
}

// y = the bias and the parts' sums, added in order; V elements a thread and turn.
template <class T, int V>
__global__ void __launch_bounds__(256) add_parts(Product p) {
  after_previous();
  const int64_t size = int64_t(p.rows) * p.N, step = int64_t(gridDim.x) * 256 * V;
  for (int64_t i = (int64_t(blockIdx.x) * 256 + threadIdx.x) * V; i < size; i += step) {
    float sum[V];
#pragma unroll
    for (int e = 0; e < V; e++) sum[e] = bias_at<T>(p, int(i % p.N) + e);
    for (int part = 0; part < p.parts; part++) {
      const auto values = *reinterpret_cast<const Pack<float, V>*>(p.partial + part * size + i);
#pragma unroll
      for (int e = 0; e < V; e++) sum[e] += values.v[e];
    }
    Pack<T, V> result;
#pragma unroll
    for (int e = 0; e < V; e++) result.v[e] = from_f32<T>(sum[e]);
    *reinterpret_cast<Pack<T, V>*>(static_cast<T*>(p.y) + i) = result;
  }
}

// Adds the parts, where there are several.
template <class T>
int32_t add_parts(const char* where, const Product& p, uint64_t stream) {
  if (p.parts == 1) return K_OK;
  const int64_t quads = ceil_div(int64_t(p.rows) * p.N, 4 * 256);
  const unsigned blocks = unsigned(quads < 132 * 16 ? quads : 132 * 16);
  if (p.N % 4 == 0 && reinterpret_cast<uint64_t>(p.y) % 16 == 0)
    launch_next(add_parts<T, 4>, blocks, 256, 0, stream, p);
  else
    launch_next(add_parts<T, 1>, blocks, 256, 0, stream, p);
  return launched(where);
}
}  // namespace spconv
