// Dense convolution on CUDA, gradient of the weight. dw [Cout, taps * Cin] is a matrix product over all cells p of y: rows dy[p], columns
// the windows of x. A block owns a tile of dw and a run of cells, gathers both operands into shared memory as conv3d.cu does (K is the row
// there, so that tensor cores read them transposed) and writes its f32 partial sums to scratch; a second kernel adds the runs in order.
// With few output channels the roles are exchanged: rows x[q], columns the mirrored windows of dy. Bounds for 128 -> 128 channels at 64^3,
// batch 8, 16 bits: as the forward pass, 1.86 TFLOP and 1.1 GB, and 1.8 MB of partial sums a run.
#include "../include/conv3d.h"

#include "conv3d.cuh"

namespace {
using namespace conv3d;

struct Sum {
  Windows windows;
  float* partial;  // [runs, M, N], M and N rounded up to whole tiles
  const void *rows, *x;
  int64_t cells, run, run_size;  // rows [cells, M]; run: cells a block sums; run_size: elements of partial a run
  int M, N, pitch;               // N = taps * C of the windows; pitch: N rounded up
  bool rows_aligned;             // 16 bytes of rows can be copied at once
};

// K: cells a step
template <class T, class Tile, int K, bool ALIGNED>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) window_sum(const __grid_constant__ Sum p) {
  constexpr int V = 16 / sizeof(T), M_CHUNKS = Tile::M / V, N_CHUNKS = Tile::N / V, ROWS = Tile::THREADS / N_CHUNKS, LOADS = K / ROWS;
  constexpr int A_BYTES = K * Tile::M * sizeof(T), STAGE = A_BYTES + K * Tile::N * sizeof(T);
  static_assert(Tile::THREADS % N_CHUNKS == 0 && K % ROWS == 0);
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, chunk = thread % N_CHUNKS, row = thread / N_CHUNKS;
  const int columns = (p.N + Tile::N - 1) / Tile::N, m0 = blockIdx.x / columns * Tile::M, n0 = blockIdx.x % columns * Tile::N;
  const int64_t begin = blockIdx.y * p.run, end = begin + p.run < p.cells ? begin + p.run : p.cells;
  const T *const rows = static_cast<const T*>(p.rows), *const x = static_cast<const T*>(p.x);
  const uint32_t ring = shared_address(shared);

  // Where the windows of a step's cells lie, found by one thread each, a step ahead of the copies
  struct Place {
    int index;
    uint32_t inside;
  };
  __shared__ Place places[2][K];
  const auto find_places = [&](int step) {
    const int64_t cell = begin + int64_t(step) * K + thread;
    if (thread >= K) return;
    const Corner corner = p.windows.corner(uint32_t(cell < end ? cell : 0));
    places[step % 2][thread] = {p.windows.index(corner), cell < end ? p.windows.inside(corner) : 0};
  };

  // The taps of this thread's columns, -1 past the last one: one tap where chunks of x are copied
  constexpr int OWN = ALIGNED ? 1 : V;
  const int n = n0 + chunk * V;
  int tap[OWN];
#pragma unroll
  for (int e = 0; e < OWN; e++) tap[e] = n + e < p.N ? int(p.windows.channels(n + e)) : -1;
  const auto shift = [&](int e) { return p.windows.tap[max(tap[e], 0)] + (n + e - tap[e] * p.windows.C); };
  const T* const from = x + shift(0);
  const uint32_t from_tap = tap[0] < 0 ? 0 : 1u << tap[0];

  const auto load = [&](int step) {
    const int stage = step % Tile::STAGES * STAGE;
    const int64_t cell0 = begin + int64_t(step) * K;
#pragma unroll
    for (int i = 0; i < (K * M_CHUNKS + Tile::THREADS - 1) / Tile::THREADS; i++) {
      const int at = thread + i * Tile::THREADS, k = at / M_CHUNKS, m = m0 + at % M_CHUNKS * V;
      if (K * M_CHUNKS % Tile::THREADS && k >= K) break;
      const int64_t cell = cell0 + k;
      const uint32_t to = stage + chunk_address<M_CHUNKS>(k, at % M_CHUNKS);
      if (ALIGNED || p.rows_aligned) {
        const bool wanted = cell < end && m < p.M;
        cp_async16(ring + to, wanted ? rows + cell * p.M + m : rows, wanted);
      } else {
        Pack<T, V> values;
#pragma unroll
        for (int e = 0; e < V; e++) values.v[e] = cell < end && m + e < p.M ? rows[cell * p.M + m + e] : from_f32<T>(0);
        *reinterpret_cast<Pack<T, V>*>(shared + to) = values;
      }
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      const int k = row + i * ROWS;
      const Place place = places[step % 2][k];
      const int64_t first = int64_t(place.index) * p.windows.C;
      const uint32_t to = stage + A_BYTES + chunk_address<N_CHUNKS>(k, chunk);
      if constexpr (ALIGNED) {
        const bool wanted = place.inside & from_tap;
        cp_async16_l1(ring + to, wanted ? from + first : x, wanted);
      } else {
        Pack<T, V> values;
#pragma unroll
        for (int e = 0; e < V; e++) {
          const bool wanted = tap[e] >= 0 && (place.inside >> tap[e] & 1);
          values.v[e] = wanted ? x[first + shift(e)] : from_f32<T>(0);
        }
        *reinterpret_cast<Pack<T, V>*>(shared + to) = values;
      }
    }
  };

  WarpTile<T, Tile::WARP_M, Tile::WARP_N, false> tile;
  const int m_warp = warp / Tile::WARPS_N * Tile::WARP_M, n_warp = warp % Tile::WARPS_N * Tile::WARP_N,
            steps = int((end - begin + K - 1) / K);
#pragma unroll 1
  for (int step = 0; step < Tile::STAGES - 1; step++) {
    find_places(step);
    __syncthreads();
    if (step < steps) load(step);
    cp_async_group();
  }
  find_places(Tile::STAGES - 1);
  for (int step = 0; step < steps; step++) {
    const int next = step + Tile::STAGES - 1;
    cp_async_wait_groups<Tile::STAGES - 2>();
    __syncthreads();  // the step's stage and the next places are complete, and no warp reads those before them
    if (next < steps) load(next);
    cp_async_group();
    find_places(next + 1);
    const unsigned char* const stage = shared + step % Tile::STAGES * STAGE;
    tile.template add_columns<K, Tile::M, Tile::N>(stage, m_warp, stage + A_BYTES, n_warp, lane);
  }
  float* const to =
      p.partial + blockIdx.y * p.run_size + int64_t(m0 + m_warp + tile.row(0, lane)) * p.pitch + n0 + n_warp + tile.column(0, lane);
  constexpr int RUN = decltype(tile)::RUN;
#pragma unroll
  for (int e = 0; e < tile.SIZE; e += RUN) {
    Pack<float, RUN> values;
#pragma unroll
    for (int i = 0; i < RUN; i++) values.v[i] = tile.at(e + i);
    *reinterpret_cast<Pack<float, RUN>*>(to + tile.row(e, 0) * p.pitch + tile.column(e, 0)) = values;
  }
}

// dw[m * m_stride + c * c_stride + tap] = sum over the runs of partial[run, m, tap, c], the taps in the opposite order with `mirror`. A
// block has row m and 2^shift channels; its threads in GROUPS add every GROUPS-th run, then the groups are added.
template <int TAPS, int GROUPS>
__global__ void __launch_bounds__(256) add_runs(float* dw, const float* partial, int64_t run_size, int runs, int pitch, int C, int shift,
                                                int64_t m_stride, int64_t c_stride, bool mirror) {
  __shared__ float sums[GROUPS][TAPS * 32];
  constexpr int THREADS = 256 / GROUPS;
  const int m = blockIdx.y, c0 = blockIdx.x << shift, size = TAPS << shift, group = threadIdx.x / THREADS;
  for (int i = threadIdx.x % THREADS; i < size; i += THREADS) {
    const int tap = i >> shift, c = c0 + i - (tap << shift);
    const float* from = partial + int64_t(m) * pitch + tap * C + c;
    float sum = 0;
#pragma unroll 8
    for (int run = group; run < runs && c < C; run += GROUPS) sum += from[run * run_size];
    sums[group][i] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += 256) {
    const int tap = i % TAPS, c = i / TAPS;
    if (c0 + c >= C) break;
    float sum = 0;
    for (int j = 0; j < GROUPS; j++) sum += sums[j][(tap << shift) + c];
    dw[m * m_stride + (c0 + c) * c_stride + (mirror ? TAPS - 1 - tap : tap)] = sum;
  }
}

template <class T, class Tile, int K, bool ALIGNED>
int32_t launch(const char* where, const Sum& p, int64_t runs, uint64_t stream) {
  constexpr int BYTES = Tile::STAGES * K * (Tile::M + Tile::N) * sizeof(T);
  static const cudaError_t allowed = allow_shared(window_sum<T, Tile, K, ALIGNED>, BYTES, Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const dim3 blocks(unsigned(ceil_div(p.M, Tile::M) * ceil_div(p.N, Tile::N)), unsigned(runs));
  window_sum<T, Tile, K, ALIGNED><<<blocks, Tile::THREADS, BYTES, stream_of(stream)>>>(p);
  return launched(where);
}

// The product that a weight gradient is, its tiles, and how its cells are cut into runs.
struct Plan {
  static constexpr int STEP = 64;                  // runs are multiples of every kernel's step
  int64_t M, C, N, cells, rows, pitch, runs, run;  // rows and pitch: M and N rounded up to whole tiles
  bool exchanged, aligned, wide;
  Plan(const Conv3dSizes& s, int32_t dtype) {
    exchanged = s.overlaps() && s.Cout < 32 && s.Cout < s.Cin;
    M = exchanged ? s.Cin : s.Cout;
    C = exchanged ? s.Cout : s.Cin;
    N = s.taps * C;
    cells = exchanged ? s.cells_in : s.cells_out;
    const int V = dtype == K_F32 ? 4 : 8;
    aligned = M % V == 0 && C % V == 0;
    wide = aligned && M > 64;
    const int tile_m = wide ? 128 : 32, tile_n = !aligned ? 32 : dtype == K_F32 ? 128 : 256;
    const int64_t tiles = ceil_div(M, tile_m) * ceil_div(N, tile_n);
    rows = ceil_div(M, tile_m) * tile_m;
    pitch = ceil_div(N, tile_n) * tile_n;
    static const int sms = device_attribute(cudaDevAttrMultiProcessorCount);
    const int64_t slots = int64_t(sms) * (!aligned ? 4 : wide ? 1 : 2), most = ceil_div(cells, 4 * STEP);
    // Time in units of a full GPU's: blocks come in waves of `slots`, and each run's sums are written and read again.
    const auto time = [&](int64_t n) { return double(ceil_div(tiles * n, slots) * slots) / (tiles * n) + n * 500. / cells; };
    runs = 1;
    for (int waves = 1; waves <= 8; waves++) {
      const int64_t n = std::clamp<int64_t>(waves * slots / tiles, 1, most);
      if (time(n) < time(runs)) runs = n;
    }
    run = ceil_div(ceil_div(cells, runs), STEP) * STEP;
    runs = ceil_div(cells, run);
  }
  uint64_t bytes() const { return sizeof(float) * uint64_t(runs * rows * pitch); }
};

template <int TAPS>
int32_t launch_add(const char* where, uint64_t dw, const Sum& p, const Conv3dSizes& s, const Plan& plan, uint64_t stream) {
  int shift = 0;
  while (shift < 5 && 1 << shift < plan.C) shift++;
  const int64_t by_output = s.taps * s.Cin, by_input = s.taps;  // strides of dw
  const dim3 blocks(unsigned(ceil_div(plan.C, 1 << shift)), unsigned(plan.M));
  const auto kernel = plan.runs >= 64 ? add_runs<TAPS, 8> : add_runs<TAPS, 1>;
  kernel<<<blocks, 256, 0, stream_of(stream)>>>(at<float>(dw), p.partial, p.run_size, int(plan.runs), p.pitch, int(plan.C), shift,
                                                plan.exchanged ? by_input : by_output, plan.exchanged ? by_output : by_input,
                                                plan.exchanged);
  return launched(where);
}

template <class T>
int32_t weight_gradient(const char* where, uint64_t dw, uint64_t dy, uint64_t x, uint64_t scratch, const Conv3dSizes& s, const Plan& plan,
                        uint64_t stream) {
  constexpr int V = 16 / sizeof(T);
  const uint64_t rows = plan.exchanged ? x : dy, volume = plan.exchanged ? dy : x;
  const Windows windows = plan.exchanged ? Windows(s.out, s.in, plan.C, s.kernel, 1, s.kernel - 1 - s.padding)
                                         : Windows(s.in, s.out, plan.C, s.kernel, s.stride, s.padding);
  const Sum p{
      windows,     at<float>(scratch), at<const void>(rows), at<const void>(volume),           plan.cells, plan.run, plan.rows * plan.pitch,
      int(plan.M), int(plan.N),        int(plan.pitch),      plan.M % V == 0 && rows % 16 == 0};
  int32_t status;
  if (!plan.aligned || rows % 16 || volume % 16) {
    status = launch<T, Tile<32, 32, 16, 16, 3, 4>, 8 * V, false>(where, p, plan.runs, stream);
  } else if constexpr (sizeof(T) == 4) {
    status = plan.wide ? launch<T, Tile<128, 128, 32, 64, 4, 1>, 16, true>(where, p, plan.runs, stream)
                       : launch<T, Tile<32, 128, 16, 32, 3, 2>, 16, true>(where, p, plan.runs, stream);
  } else {
    status = plan.wide ? launch<T, Tile<128, 256, 64, 64, 4, 1>, 32, true>(where, p, plan.runs, stream)
                       : launch<T, Tile<32, 256, 32, 32, 3, 2>, 32, true>(where, p, plan.runs, stream);
  }
  if (status) return status;
  return s.taps == 27  ? launch_add<27>(where, dw, p, s, plan, stream)
         : s.taps == 8 ? launch_add<8>(where, dw, p, s, plan, stream)
                       : launch_add<1>(where, dw, p, s, plan, stream);
}
}  // namespace

int32_t k_conv3d_bwd_weight_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout,
                                      int32_t kernel, int32_t stride, int32_t padding, int32_t dtype) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_bwd_weight_workspace", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  *bytes = s.empty() ? 0 : Plan(s, dtype).bytes();
  return K_OK;
}

int32_t k_conv3d_bwd_weight(uint64_t dw, uint64_t dy, uint64_t x, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin,
                            int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, uint64_t stream) {
  const char* where = "k_conv3d_bwd_weight";
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, where, B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  if (s.empty()) {
    const cudaError_t e = cudaMemsetAsync(at<void>(dw), 0, sizeof(float) * s.taps * s.Cin * s.Cout, stream_of(stream));
    return e == cudaSuccess ? K_OK : fail(e, where, "%s", cudaGetErrorString(e));
  }
  return with_float_type(where, dtype,
                         [&](auto t) { return weight_gradient<decltype(t)>(where, dw, dy, x, scratch, s, Plan(s, dtype), stream); });
}
