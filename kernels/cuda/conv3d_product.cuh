// The products of windows and weights: an implicit matrix product. Row m is cell m of y, K runs over the taps and channels of its window,
// columns are output channels. Threads gather 16-byte pieces of the windows into shared memory by asynchronous copies (zeros outside of the
// volume) through a ring of stages while the warps multiply.
#pragma once
#include "conv3d.cuh"

namespace conv3d {
struct Product {
  Windows windows;
  void* y;
  const void *x, *w, *bias;  // w: `parts` matrices [N, pitch], their rows in the order of K and zero from K on
  int64_t cells;             // B times the cells of the grid: rows of y, or of one part of it
  int N, K, pitch, depth;    // depth: channels of a tap before the next tap's, a divisor of C
  int step, size[3];         // cell (i, j, l) of part (u, v, w) is cell (i, j, l) * step + (u, v, w) of y [B, size, N]
  bool bias_f32, chunks;     // chunks: 16 bytes of y can be written at once
};

template <class T, class Tile, bool ALIGNED>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) window_product(const __grid_constant__ Product p) {
  constexpr int V = 16 / sizeof(T), K_STEP = 4 * V, ROWS = Tile::THREADS / 4, LOADS = Tile::M / ROWS, W_LOADS = (Tile::N + ROWS - 1) / ROWS;
  constexpr int STAGE = (Tile::M + Tile::N) * 64, PITCH = Tile::N + V;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float bias[Tile::N];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, chunk = thread % 4, row = thread / 4;
  const int columns = (p.N + Tile::N - 1) / Tile::N, n0 = blockIdx.x % columns * Tile::N;
  const int64_t m0 = int64_t(blockIdx.x / columns) * Tile::M;
  const T* const x = static_cast<const T*>(p.x);
  const T* w = static_cast<const T*>(p.w) + (int64_t(blockIdx.y) * p.N + n0 + row) * p.pitch + chunk * V;  // of the next step
  const int64_t w_rows = int64_t(ROWS) * p.pitch;
  const uint32_t ring = shared_address(shared);

  for (int n = thread; n < Tile::N; n += Tile::THREADS) {
    const bool some = p.bias && n0 + n < p.N;
    bias[n] = !some ? 0 : p.bias_f32 ? static_cast<const float*>(p.bias)[n0 + n] : to_f32(static_cast<const T*>(p.bias)[n0 + n]);
  }
  int64_t first[LOADS];
  uint32_t inside[LOADS];
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    const int64_t cell = m0 + row + i * ROWS;
    const Corner corner = p.windows.corner(uint32_t(cell < p.cells ? cell : 0));
    first[i] = int64_t(p.windows.index(corner)) * p.windows.C;
    inside[i] = cell < p.cells ? p.windows.inside(corner) : 0;
  }

  int tap = 0, base = 0, channel = chunk * V;  // of the next step's chunk: channel `base + channel` of `tap`
  const auto load = [&](int step) {
    const int stage = step % Tile::STAGES * STAGE, k = step * K_STEP + chunk * V;
    const bool some = k < p.K;
    if constexpr (ALIGNED) {
      while (channel >= p.depth) {
        channel -= p.depth;
        if (++tap == p.windows.taps) tap = 0, base += p.depth;
      }
      const T* const from = x + p.windows.tap[tap] + base + channel;
#pragma unroll
      for (int i = 0; i < LOADS; i++) {
        const bool wanted = some && (inside[i] >> tap & 1);
        cp_async16_l1(ring + stage + chunk_address<4>(row + i * ROWS, chunk), wanted ? from + first[i] : x, wanted);
      }
      channel += K_STEP;
    } else {
      Pack<T, V> values[LOADS];
#pragma unroll
      for (int e = 0; e < V; e++) {
        const int t = k + e < p.K ? p.windows.channels(k + e) : 0;
        const int64_t shift = p.windows.tap[t] + (k + e - t * p.windows.C);
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
          values[i].v[e] = k + e < p.K && (inside[i] >> t & 1) ? x[first[i] + shift] : from_f32<T>(0);
        }
      }
#pragma unroll
      for (int i = 0; i < LOADS; i++) {
        *reinterpret_cast<Pack<T, V>*>(shared + stage + chunk_address<4>(row + i * ROWS, chunk)) = values[i];
      }
    }
#pragma unroll
    for (int i = 0; i < W_LOADS; i++) {
      const int n = row + i * ROWS;
      if (Tile::N % ROWS && n >= Tile::N) break;
      const bool wanted = some && n0 + n < p.N;
      cp_async16(ring + stage + Tile::M * 64 + chunk_address<4>(n, chunk), wanted ? w + i * w_rows : p.w, wanted);
    }
    w += K_STEP;
  };

  WarpTile<T, Tile::WARP_M, Tile::WARP_N, true> tile;
  const int m_warp = warp / Tile::WARPS_N * Tile::WARP_M, n_warp = warp % Tile::WARPS_N * Tile::WARP_N, steps = (p.K + K_STEP - 1) / K_STEP;
#pragma unroll 1
  for (int step = 0; step < Tile::STAGES - 1; step++) {
    if (step < steps) load(step);
    cp_async_group();
  }
  for (int step = 0; step < steps; step++) {
    cp_async_wait_groups<Tile::STAGES - 2>();
    __syncthreads();  // the step's stage is complete, and no warp reads the stage before it
    if (step + Tile::STAGES - 1 < steps) load(step + Tile::STAGES - 1);
    cp_async_group();
    const unsigned char* const stage = shared + step % Tile::STAGES * STAGE;
    tile.add_rows(stage, m_warp, stage + Tile::M * 64, n_warp, lane);
  }
  cp_async_wait_groups<0>();
  __syncthreads();

  T* const result = reinterpret_cast<T*>(shared);  // [M, PITCH]
  constexpr int RUN = decltype(tile)::RUN;
#pragma unroll
  for (int e = 0; e < tile.SIZE; e += RUN) {
    const int m = m_warp + tile.row(e, lane), n = n_warp + tile.column(e, lane);
    Pack<T, RUN> values;
#pragma unroll
    for (int i = 0; i < RUN; i++) values.v[i] = from_f32<T>(tile.at(e + i) + bias[n + i]);
    *reinterpret_cast<Pack<T, RUN>*>(result + m * PITCH + n) = values;
  }
  __syncthreads();
  constexpr int CHUNKS = Tile::N / V;
  for (int i = thread; i < Tile::M * CHUNKS; i += Tile::THREADS) {
    const int m = i / CHUNKS, n = i % CHUNKS * V;
    int64_t cell = m0 + m;
    if (cell >= p.cells || n0 + n >= p.N) continue;
    if (p.step > 1) {
      const Corner at = p.windows.corner(uint32_t(cell));
      const int part = blockIdx.y, u = part / (p.step * p.step), v = part / p.step % p.step;
      cell = ((int64_t(at.b) * p.size[0] + at.x * p.step + u) * p.size[1] + at.y * p.step + v) * p.size[2] + at.z * p.step + part % p.step;
    }
    T* const to = static_cast<T*>(p.y) + cell * p.N + n0 + n;
    const auto values = *reinterpret_cast<const Pack<T, V>*>(result + m * PITCH + n);
    if (p.chunks) {
      *reinterpret_cast<Pack<T, V>*>(to) = values;
    } else {
#pragma unroll
      for (int e = 0; e < V; e++) {
        if (n0 + n + e < p.N) to[e] = values.v[e];
      }
    }
  }
}

template <class T, class Tile, bool ALIGNED>
int32_t launch(const char* where, const Product& p, int64_t parts, uint64_t stream) {
  constexpr int BYTES = std::max<int>(Tile::STAGES * (Tile::M + Tile::N) * 64, Tile::M * (Tile::N + 16 / sizeof(T)) * sizeof(T));
  static const cudaError_t allowed = allow_shared(window_product<T, Tile, ALIGNED>, BYTES, Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const int64_t blocks = ceil_div(p.cells, Tile::M) * ceil_div(p.N, Tile::N);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "%lld cells are too many", static_cast<long long>(p.cells));
  window_product<T, Tile, ALIGNED><<<dim3(unsigned(blocks), unsigned(parts)), Tile::THREADS, BYTES, stream_of(stream)>>>(p);
  return launched(where);
}

// Runs a Product on the tile that fits its columns: narrow ones waste less, and fewer rows a tile fill the GPU where cells are few.
template <class T>
int32_t launch_product(const char* where, const Product& p, bool aligned, int64_t parts, uint64_t stream) {
  if (!aligned) return launch<T, Tile<128, 32, 16, 32, 3, 2>, false>(where, p, parts, stream);
  if constexpr (sizeof(T) == 2) {
    if (p.N <= 16) return launch<T, Tile<256, 16, 32, 16, 3, 2>, true>(where, p, parts, stream);
  }
  if (p.N <= 32) return launch<T, Tile<256, 32, 32, 32, 3, 2>, true>(where, p, parts, stream);
  if (p.N <= 64) return launch<T, Tile<256, 64, 64, 32, 3, sizeof(T) == 2 ? 2 : 1>, true>(where, p, parts, stream);
  if constexpr (sizeof(T) == 4) {
    return launch<T, Tile<128, 128, 32, 64, 4, 1>, true>(where, p, parts, stream);
  } else {
    static const int sms = device_attribute(cudaDevAttrMultiProcessorCount);
    const bool few = ceil_div(p.cells, 256) * ceil_div(p.N, 128) * parts * 4 <= sms * 3;
    if (few) return launch<T, Tile<128, 128, 64, 32, 4, 2>, true>(where, p, parts, stream);
    return launch<T, Tile<256, 128, 64, 64, 4, 1>, true>(where, p, parts, stream);
  }
}
}  // namespace conv3d
