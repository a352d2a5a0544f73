// Dense convolution on CUDA, forward and input gradient: an implicit matrix product. Row m is cell m of y, K runs over the taps and channels of
// its window, columns are output channels. Each thread gathers 16-byte pieces of the windows into shared memory by asynchronous copies (zeros
// outside of the volume) through a ring of stages while the warps multiply: tensor cores with f32 sums in f16 and bf16, exact multiply-adds in
// f32. Copies of x stay in L1: where 32 channels divide C, K runs over the taps of 32 (f32: 16) channels at a time, so that the 27 reads of a
// cell come soon after each other. The input gradient is the same product over dy with the mirrored window, or, for windows that do not
// overlap, one product a tap.
// Bounds for 128 -> 128 channels at 64^3, batch 8, 16 bits: 1.86 TFLOP a pass take 1.9 ms at 989 TFLOP/s, about 3 ms at the rate that mma.sync
// reaches on Hopper; x, y and w are 1.1 GB, 0.25 ms at 4.3 TB/s. A 256 x 128 tile reads 85 FLOP a byte from L2 without L1, more with it.
#include "../include/conv3d.h"

#include "conv3d.cuh"

namespace {
using namespace conv3d;

struct Product {
  Windows windows;
  void* y;
  const void *x, *w, *bias;  // w: `parts` matrices [N, pitch], their rows in the order of K and zero from K on
  int64_t cells;             // B times the cells of the grid: rows of y, or of one part of it
  int N, K, pitch, depth;    // depth: channels of a tap before the next tap's, a divisor of C
  int step, size[3];         // cell (i, j, l) of part (u, v, w) is cell (i, j, l) * step + (u, v, w) of y [B, size, N]; with step 1 they are one
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

// N = 1 with windows of 3^3 that overlap: bytes, not products, so no tiles. GROUP lanes share the channels of a run of RUN results along z, and
// each x is read once for the three taps along z. w: [taps, C]
constexpr int RUN = 8;
template <class T>
__global__ void __launch_bounds__(256, 2) window_product_single(const __grid_constant__ Product p, int GROUP) {
  constexpr int V = 16 / sizeof(T);
  const Windows& windows = p.windows;
  const int depth = int(windows.grid_z.by), runs = (depth + RUN - 1) / RUN, lane = threadIdx.x & (GROUP - 1);
  const int64_t run = (int64_t(blockIdx.x) * 256 + threadIdx.x) / GROUP, line = run / runs;
  const int z0 = int(run % runs) * RUN;
  const bool some = line * depth < p.cells;
  const Corner corner = windows.corner(uint32_t(some ? line * depth + z0 : 0));
  const T *const x = static_cast<const T*>(p.x) + int64_t(windows.index(corner)) * windows.C,
      *const w = static_cast<const T*>(p.w);
  float sum[RUN] = {};
  for (int t = 0; some && t < 9; t++) {
    if (unsigned(corner.x + t / 3) >= unsigned(windows.size[0]) || unsigned(corner.y + t % 3) >= unsigned(windows.size[1])) continue;
    for (int c = lane * V; c < windows.C; c += GROUP * V) {
      float weights[3][V];
#pragma unroll
      for (int tz = 0; tz < 3; tz++) {
        const auto values = *reinterpret_cast<const Pack<T, V>*>(w + (t * 3 + tz) * windows.C + c);
#pragma unroll
        for (int e = 0; e < V; e++) weights[tz][e] = to_f32(values.v[e]);
      }
#pragma unroll
      for (int z = 0; z < RUN + 2; z++) {
        if (unsigned(corner.z + z) >= unsigned(windows.size[2])) continue;
        const auto values = *reinterpret_cast<const Pack<T, V>*>(x + windows.tap[t * 3] + int64_t(z) * windows.C + c);
#pragma unroll
        for (int e = 0; e < V; e++) {
#pragma unroll
          for (int tz = 0; tz < 3; tz++) {
            if (z - tz >= 0 && z - tz < RUN) sum[z - tz] = fmaf(to_f32(values.v[e]), weights[tz][e], sum[z - tz]);
          }
        }
      }
    }
  }
  const float bias = !p.bias ? 0 : p.bias_f32 ? *static_cast<const float*>(p.bias) : to_f32(*static_cast<const T*>(p.bias));
#pragma unroll
  for (int i = 0; i < RUN; i++) {
    for (int o = GROUP / 2; o; o >>= 1) sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], o);
    if (some && lane == 0 && z0 + i < depth) static_cast<T*>(p.y)[line * depth + z0 + i] = from_f32<T>(sum[i] + bias);
  }
}

// to = the matrices of a Product from w [Cout, Cin, taps]: rows n are its outputs, channels c its inputs. With `mirror` rows are Cin and the taps
// stand in the opposite order; with `apart` each tap is a matrix of its own. A block moves 8 rows x 32 channels through shared memory.
template <class T, class W>
__global__ void __launch_bounds__(256) pack_weights(T* to, const W* w, int N, int C, int taps, int pitch, int depth, bool by_input, bool apart) {
  constexpr int ROWS = 8, CHANNELS = 32;
  __shared__ T tile[ROWS][27][CHANNELS + 1];
  const int n0 = blockIdx.y * ROWS, c0 = blockIdx.x * CHANNELS, size = ROWS * CHANNELS * taps;
  for (int i = threadIdx.x; i < size; i += 256) {
    const int tap = i % taps, j = i / taps, n = by_input ? j % ROWS : j / CHANNELS, c = by_input ? j / ROWS : j % CHANNELS;
    if (n0 + n >= N || c0 + c >= C) continue;
    const int64_t from = by_input ? int64_t(c0 + c) * N + n0 + n : int64_t(n0 + n) * C + c0 + c;
    tile[n][by_input && !apart ? taps - 1 - tap : tap][c] = from_f32<T>(to_f32(w[from * taps + tap]));
  }
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += 256) {
    const int c = c0 + i % CHANNELS, tap = i / CHANNELS % taps, n = n0 + i / CHANNELS / taps;
    if (n >= N || c >= C) continue;
    const int64_t at = apart ? (int64_t(tap) * N + n) * pitch + c : int64_t(n) * pitch + (int64_t(c / depth) * taps + tap) * depth + c % depth;
    to[at] = tile[n - n0][tap][c - c0];
  }
  const int K = apart ? C : taps * C, rest = pitch - K, parts = apart ? taps : 1;
  for (int i = threadIdx.x; blockIdx.x == 0 && i < ROWS * parts * rest; i += 256) {
    const int n = n0 + i / rest % ROWS, part = i / rest / ROWS;
    if (n < N) to[(int64_t(part) * N + n) * pitch + K + i % rest] = from_f32<T>(0);
  }
}

template <class T, class Tile, bool ALIGNED>
int32_t launch(const char* where, const Product& p, int64_t parts, uint64_t stream) {
  constexpr int BYTES = std::max<int>(Tile::STAGES * (Tile::M + Tile::N) * 64, Tile::M * (Tile::N + 16 / sizeof(T)) * sizeof(T));
  static const cudaError_t allowed = allow_shared(window_product<T, Tile, ALIGNED>, BYTES, Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const int64_t blocks = ceil_div(p.cells, Tile::M) * ceil_div(p.N, Tile::N);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "%lld cells and %d channels are too many", static_cast<long long>(p.cells), p.N);
  window_product<T, Tile, ALIGNED><<<dim3(unsigned(blocks), unsigned(parts)), Tile::THREADS, BYTES, stream_of(stream)>>>(p);
  return launched(where);
}

template <class T>
int32_t launch_single(const char* where, const Product& p, uint64_t stream) {
  int group = 1;
  while (group < 32 && group * int(16 / sizeof(T)) < p.windows.C) group *= 2;
  const int64_t depth = p.windows.grid_z.by, runs = p.cells / depth * ceil_div(depth, RUN);
  window_product_single<T><<<unsigned(ceil_div(runs * group, 256)), 256, 0, stream_of(stream)>>>(p, group);
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
  if constexpr (sizeof(T) == 4) {
    return launch<T, Tile<128, 128, 32, 64, 4, 1>, true>(where, p, parts, stream);
  } else {
    if (p.N <= 64) return launch<T, Tile<256, 64, 64, 32, 3, 2>, true>(where, p, parts, stream);
    static const int sms = device_attribute(cudaDevAttrMultiProcessorCount);
    const bool few = ceil_div(p.cells, 256) * ceil_div(p.N, 128) * parts * 4 <= sms * 3;
    if (few) return launch<T, Tile<128, 128, 64, 32, 4, 2>, true>(where, p, parts, stream);
    return launch<T, Tile<256, 128, 64, 64, 4, 1>, true>(where, p, parts, stream);
  }
}

// The matrix product that a pass is: rows of N outputs, windows over volumes of C channels.
struct Pass {
  int64_t N, C, K, pitch, parts;
  uint64_t bytes;  // of the packed weights
  bool apart;
  Pass(const Conv3dSizes& s, bool by_input, int32_t dtype)
      : N(by_input ? s.Cin : s.Cout), C(by_input ? s.Cout : s.Cin), apart(by_input && !s.overlaps()) {
    K = apart ? C : s.taps * C;
    pitch = ceil_div(K, 8) * 8;
    parts = apart ? s.taps : 1;
    bytes = uint64_t(parts * N * pitch) * (dtype == K_F32 ? 4 : 2);
  }
};

int32_t workspace(const char* where, uint64_t* bytes, bool by_input, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout,
                  int32_t kernel, int32_t stride, int32_t padding, int32_t dtype) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, where, B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  *bytes = Pass(s, by_input, dtype).bytes;
  return K_OK;
}

// y = the product of the windows of x and w, where y and x are the forward pass's, or dx and dy of the backward pass with `by_input`.
template <class T>
int32_t convolve(const char* where, const Conv3dSizes& s, bool by_input, uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t scratch,
                 int32_t weight_dtype, int32_t bias_dtype, uint64_t stream) {
  constexpr int V = 16 / sizeof(T);
  const Pass pass(s, by_input, sizeof(T) == 4 ? K_F32 : K_F16);
  const bool aligned = pass.C % V == 0 && x % 16 == 0, mirror = by_input && !pass.apart;
  const bool single = aligned && pass.N == 1 && s.kernel == 3 && s.stride == 1;
  const int depth = aligned && !single && pass.C % (4 * V) == 0 ? 4 * V : int(pass.C);
  const dim3 blocks(unsigned(ceil_div(pass.C, 32)), unsigned(ceil_div(pass.N, 8)));
  const auto pack = [&](auto weight) {
    using W = decltype(weight);
    pack_weights<T, W><<<blocks, 256, 0, stream_of(stream)>>>(at<T>(scratch), at<const W>(w), int(pass.N), int(pass.C), int(s.taps),
                                                              int(pass.pitch), depth, by_input, pass.apart);
    return launched(where);
  };
  if (int32_t status = weight_dtype == K_F32 ? pack(float{}) : pack(T{})) return status;
  const Windows windows = pass.apart ? Windows(s.out, s.out, pass.C, 1, 1, 0)
                          : mirror   ? Windows(s.out, s.in, pass.C, s.kernel, 1, s.kernel - 1 - s.padding)
                                     : Windows(s.in, s.out, pass.C, s.kernel, s.stride, s.padding);
  const bool chunks = pass.N % V == 0 && y % 16 == 0;
  const Product p{windows, at<void>(y), at<const void>(x), at<const void>(scratch), at<const void>(bias), mirror ? s.cells_in : s.cells_out,
                  int(pass.N), int(pass.K), int(pass.pitch), depth, pass.apart ? s.stride : 1, {int(s.in[0]), int(s.in[1]), int(s.in[2])},
                  bias_dtype == K_F32, chunks};
  return single ? launch_single<T>(where, p, stream) : launch_product<T>(where, p, aligned, pass.parts, stream);
}

int32_t expect_types(const char* where, uint64_t scratch, int32_t dtype, int32_t weight_dtype, int32_t bias_dtype) {
  for (int32_t t : {weight_dtype, bias_dtype}) {
    if (t != K_F32 && t != dtype) return fail(K_UNSUPPORTED, where, "a weight or bias is of dtype %d, it must be f32 (0) or x's (%d)", t, dtype);
  }
  return scratch % 16 ? fail(K_BAD_ARGUMENT, where, "scratch is not aligned to 16 bytes") : K_OK;
}
}  // namespace

int32_t k_conv3d_fwd_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout, int32_t kernel,
                               int32_t stride, int32_t padding, int32_t dtype) {
  return workspace("k_conv3d_fwd_workspace", bytes, false, B, X, Y, Z, Cin, Cout, kernel, stride, padding, dtype);
}

int32_t k_conv3d_fwd(uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z,
                     int32_t Cin, int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, int32_t weight_dtype,
                     int32_t bias_dtype, uint64_t stream) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_fwd", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  if (int32_t status = expect_types("k_conv3d_fwd", scratch, dtype, weight_dtype, bias_dtype)) return status;
  if (s.cells_out == 0) return K_OK;
  return with_float_type("k_conv3d_fwd", dtype, [&](auto t) {
    return convolve<decltype(t)>("k_conv3d_fwd", s, false, y, x, w, bias, scratch, weight_dtype, bias_dtype, stream);
  });
}

int32_t k_conv3d_bwd_input_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout, int32_t kernel,
                                     int32_t stride, int32_t padding, int32_t dtype) {
  return workspace("k_conv3d_bwd_input_workspace", bytes, true, B, X, Y, Z, Cin, Cout, kernel, stride, padding, dtype);
}

int32_t k_conv3d_bwd_input(uint64_t dx, uint64_t dy, uint64_t w, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin,
                           int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, int32_t weight_dtype, uint64_t stream) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_bwd_input", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  if (int32_t status = expect_types("k_conv3d_bwd_input", scratch, dtype, weight_dtype, dtype)) return status;
  if (s.cells_in == 0) return K_OK;
  if (s.cells_out == 0 || X % stride || Y % stride || Z % stride) {  // cells past the last window stay 0
    const size_t bytes = size_t(s.cells_in) * Cin * (dtype == K_F32 ? 4 : 2);
    const cudaError_t e = cudaMemsetAsync(at<void>(dx), 0, bytes, stream_of(stream));
    if (e != cudaSuccess) return fail(e, "k_conv3d_bwd_input", "%s", cudaGetErrorString(e));
  }
  if (s.cells_out == 0) return K_OK;
  return with_float_type("k_conv3d_bwd_input", dtype, [&](auto t) {
    return convolve<decltype(t)>("k_conv3d_bwd_input", s, true, dx, dy, w, 0, scratch, weight_dtype, dtype, stream);
  });
}
