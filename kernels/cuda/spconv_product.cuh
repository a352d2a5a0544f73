// The product over a table for sm_80: threads gather rows of x by 16-byte asynchronous copies (zeros where a row has no such tap) and
// packed weights into a ring of stages while the warps multiply. Steps run over the taps that any of the block's rows has, then channels;
// warps whose 64 rows lack a tap do not multiply.
#pragma once
#include "spconv.cuh"

namespace spconv {
template <class T, class Tile, bool ALIGNED>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) table_product(const __grid_constant__ Product p) {
  static_assert(Tile::THREADS == 256);
  using namespace conv3d;
  constexpr int V = 16 / sizeof(T), DEPTH = 4 * V, LOADS = Tile::M / 64, W_LOADS = (Tile::N * 4 + 255) / 256;
  constexpr int STAGE = (Tile::M + Tile::N) * 64, PITCH = Tile::N + V;
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, chunk = thread % 4, row = thread / 4;
  const Work<Tile::M> work(p, Tile::N);
  const int n0 = work.column * Tile::N;
  const Rows<Tile::M> rows(shared + Tile::STAGES * STAGE, p, work, std::integral_constant<int, 256>{});
  const T* const x = static_cast<const T*>(p.x);
  const unsigned char* const w = static_cast<const unsigned char*>(p.w) + int64_t(work.column) * p.K * p.chunks * Tile::N * 64;
  const uint32_t ring = shared_address(shared);
  const int steps = rows.count * p.chunks;

  int at = 0, part = 0;  // of the next step: a place in rows.taps, and a part of the channels
  const auto load = [&](int step) {
    const int stage = step % Tile::STAGES * STAGE, tap = rows.taps[at] & 255, c = part * DEPTH + chunk * V;
    int32_t entries[LOADS];
    rows.read(entries, row, 64, tap);
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      const int m = row + i * 64;
      const int64_t from = entries[i];
      const uint32_t to = stage + chunk_address<4>(m, chunk);
      if constexpr (ALIGNED) {
        const bool wanted = from >= 0 && c < p.C;
        cp_async16(ring + to, wanted ? x + from * p.C + c : x, wanted);
      } else {
        Pack<T, V> values;
#pragma unroll
        for (int e = 0; e < V; e++) values.v[e] = from >= 0 && c + e < p.C ? x[from * p.C + c + e] : from_f32<T>(0);
        *reinterpret_cast<Pack<T, V>*>(shared + to) = values;
      }
    }
    const unsigned char* const tile = w + (int64_t(tap) * p.chunks + part) * Tile::N * 64;
#pragma unroll
    for (int i = 0; i < W_LOADS; i++) {
      const int byte = (thread + i * 256) * 16;
      if (byte < Tile::N * 64) cp_async16(ring + stage + Tile::M * 64 + byte, tile + byte, true);
    }
    if (++part == p.chunks) part = 0, at++;
  };

  WarpTile<T, Tile::WARP_M, Tile::WARP_N, true> tile;
  const int m_warp = warp / Tile::WARPS_N * Tile::WARP_M, n_warp = warp % Tile::WARPS_N * Tile::WARP_N;
  const uint32_t half = 1u << (8 + m_warp / 64);
#pragma unroll 1
  for (int step = 0; step < Tile::STAGES - 1; step++) {
    if (step < steps) load(step);
    cp_async_group();
  }
  for (int step = 0, used = 0, of = 0; step < steps; step++) {
    cp_async_wait_groups<Tile::STAGES - 2>();
    __syncthreads();  // the step's stage is complete, and no warp reads the stage before it
    if (step + Tile::STAGES - 1 < steps) load(step + Tile::STAGES - 1);
    cp_async_group();
    const unsigned char* const stage = shared + step % Tile::STAGES * STAGE;
    if (rows.taps[used] & half) tile.add_rows(stage, m_warp, stage + Tile::M * 64, n_warp, lane);
    if (++of == p.chunks) of = 0, used++;
  }
  cp_async_wait_groups<0>();
  if (p.parts > 1) {
    float* const partial = p.partial + int64_t(work.part) * p.rows * p.N;
#pragma unroll
    for (int e = 0; e < tile.SIZE; e++) {
      const int n = n0 + n_warp + tile.column(e, lane);
      const int64_t id = rows.ids[m_warp + tile.row(e, lane)];
      if (id >= 0 && n < p.N) partial[id * p.N + n] = tile.at(e);
    }
    return;
  }
  __syncthreads();

  T* const result = reinterpret_cast<T*>(shared);  // [M, PITCH]
  constexpr int RUN = decltype(tile)::RUN;
#pragma unroll
  for (int e = 0; e < tile.SIZE; e += RUN) {
    const int m = m_warp + tile.row(e, lane), n = n_warp + tile.column(e, lane);
    Pack<T, RUN> values;
#pragma unroll
    for (int i = 0; i < RUN; i++) values.v[i] = from_f32<T>(tile.at(e + i) + bias_at<T>(p, n0 + n + i));
    *reinterpret_cast<Pack<T, RUN>*>(result + m * PITCH + n) = values;
  }
  __syncthreads();
  constexpr int CHUNKS = Tile::N / V;
  for (int i = thread; i < Tile::M * CHUNKS; i += 256) {
    const int m = i / CHUNKS, n = i % CHUNKS * V;
    const int64_t id = rows.ids[m];
    if (id < 0 || n0 + n >= p.N) continue;
    T* const to = static_cast<T*>(p.y) + id * p.N + n0 + n;
    const auto values = *reinterpret_cast<const Pack<T, V>*>(result + m * PITCH + n);
    if (p.wide) {
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
int32_t launch(const char* where, const Product& p, uint64_t stream) {
  constexpr int RING = Tile::STAGES * (Tile::M + Tile::N) * 64;
  static_assert(Tile::M * (Tile::N + 16 / sizeof(T)) * sizeof(T) <= RING, "the result is staged in the ring");
  static const cudaError_t allowed = conv3d::allow_shared(table_product<T, Tile, ALIGNED>, RING + Rows<Tile::M>::bytes(27, 1), Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const int64_t blocks = Work<Tile::M>::count(p, Tile::N);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "%d rows are too many", p.rows);
  table_product<T, Tile, ALIGNED><<<unsigned(blocks), Tile::THREADS, RING + Rows<Tile::M>::bytes(p.K, p.parts), stream_of(stream)>>>(p);
  return launched(where);
}
}  // namespace spconv
