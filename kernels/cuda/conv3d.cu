// Dense convolution on CUDA, forward and input gradient, by conv3d_product.cuh: tensor cores with f32 sums in f16 and bf16, exact
// multiply-adds in f32. Weights are packed into the order of K first. The input gradient is the same product over dy with the mirrored
// window or, for windows that do not overlap, one product a tap. Bounds for 128 -> 128 channels at 64^3, batch 8, 16 bits: 1.86 TFLOP a
// pass take 1.9 ms at 989 TFLOP/s, about 3 ms at the rate that mma.sync reaches on Hopper; x, y and w are 1.1 GB, 0.25 ms at 4.3 TB/s. A
// 256 x 128 tile does 85 FLOP a byte copied. Copies of x stay in L1, and where 32 channels (f32: 16) divide C, K runs over all taps of as
// many channels before the next ones, so that the 27 reads of a cell come soon after each other and most need no L2.
#include "../include/conv3d.h"

#include "conv3d_product.cuh"

namespace {
using namespace conv3d;

// N = 1 with windows of 3^3 that overlap: bytes, not products, so no tiles. GROUP lanes share the channels of a run of RUN results along z,
// and each x is read once for the three taps along z. w: [taps, C]
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
  const T *const x = static_cast<const T*>(p.x) + int64_t(windows.index(corner)) * windows.C, *const w = static_cast<const T*>(p.w);
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

template <class T>
int32_t launch_single(const char* where, const Product& p, uint64_t stream) {
  int group = 1;
  while (group < 32 && group * int(16 / sizeof(T)) < p.windows.C) group *= 2;
  const int64_t depth = p.windows.grid_z.by, runs = p.cells / depth * ceil_div(depth, RUN);
  window_product_single<T><<<unsigned(ceil_div(runs * group, 256)), 256, 0, stream_of(stream)>>>(p, group);
  return launched(where);
}

// to = the matrices of a Product from w [Cout, Cin, TAPS]: rows n are its outputs, channels c its inputs. With `by_input` outputs are Cin,
// and the taps stand in the opposite order or, with `apart`, each is a matrix of its own. A block moves 8 rows x 32 channels through shared
// memory.
template <class T, class W, int TAPS>
__global__ void __launch_bounds__(256) pack_weights(T* to, const W* w, int N, int C, int pitch, int depth, bool by_input, bool apart) {
  constexpr int ROWS = 8, CHANNELS = 32, SIZE = ROWS * CHANNELS * TAPS;
  __shared__ T tile[ROWS][TAPS][CHANNELS + 1];
  const int n0 = blockIdx.y * ROWS, c0 = blockIdx.x * CHANNELS;
  for (int i = threadIdx.x; i < SIZE; i += 256) {
    const int tap = i % TAPS, j = i / TAPS, n = by_input ? j % ROWS : j / CHANNELS, c = by_input ? j / ROWS : j % CHANNELS;
    if (n0 + n >= N || c0 + c >= C) continue;
    const int64_t from = by_input ? int64_t(c0 + c) * N + n0 + n : int64_t(n0 + n) * C + c0 + c;
    tile[n][by_input && !apart ? TAPS - 1 - tap : tap][c] = from_f32<T>(to_f32(w[from * TAPS + tap]));
  }
  __syncthreads();
  for (int i = threadIdx.x; i < SIZE; i += 256) {
    const int c = c0 + i % CHANNELS, tap = i / CHANNELS % TAPS, n = n0 + i / CHANNELS / TAPS;
    if (n >= N || c >= C) continue;
    const int part = depth == C ? 0 : c / depth;
    const int64_t at = apart ? (int64_t(tap) * N + n) * pitch + c : int64_t(n) * pitch + (part * TAPS + tap) * depth + (c - part * depth);
    to[at] = tile[n - n0][tap][c - c0];
  }
  const int K = apart ? C : TAPS * C, rest = pitch - K, matrices = apart ? TAPS : 1;
  for (int i = threadIdx.x; blockIdx.x == 0 && i < ROWS * matrices * rest; i += 256) {
    const int n = n0 + i / rest % ROWS, matrix = i / rest / ROWS;
    if (n < N) to[(int64_t(matrix) * N + n) * pitch + K + i % rest] = from_f32<T>(0);
  }
}

template <class T, class W>
int32_t launch_pack(const char* where, T* to, const W* w, int64_t N, int64_t C, int64_t taps, int64_t pitch, int depth, bool by_input,
                    bool apart, uint64_t stream) {
  const auto kernel = taps == 27 ? pack_weights<T, W, 27> : taps == 8 ? pack_weights<T, W, 8> : pack_weights<T, W, 1>;
  const dim3 blocks(unsigned(ceil_div(C, 32)), unsigned(ceil_div(N, 8)));
  kernel<<<blocks, 256, 0, stream_of(stream)>>>(to, w, int(N), int(C), int(pitch), depth, by_input, apart);
  return launched(where);
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
int32_t convolve(const char* where, const Conv3dSizes& s, bool by_input, uint64_t y, uint64_t x, uint64_t w, uint64_t bias,
                 uint64_t scratch, int32_t weight_dtype, int32_t bias_dtype, uint64_t stream) {
  constexpr int V = 16 / sizeof(T);
  const Pass pass(s, by_input, sizeof(T) == 4 ? K_F32 : K_F16);
  const bool aligned = pass.C % V == 0 && x % 16 == 0, mirror = by_input && !pass.apart;
  const bool single = aligned && pass.N == 1 && s.kernel == 3 && s.stride == 1;
  const int depth = aligned && !single && pass.C % (4 * V) == 0 ? 4 * V : int(pass.C);
  const auto pack = [&](auto weight) {
    const auto* from = at<const decltype(weight)>(w);
    return launch_pack(where, at<T>(scratch), from, pass.N, pass.C, s.taps, pass.pitch, depth, by_input, pass.apart, stream);
  };
  if (int32_t status = weight_dtype == K_F32 ? pack(float{}) : pack(T{})) return status;
  const Windows windows = pass.apart ? Windows(s.out, s.out, pass.C, 1, 1, 0)
                          : mirror   ? Windows(s.out, s.in, pass.C, s.kernel, 1, s.kernel - 1 - s.padding)
                                     : Windows(s.in, s.out, pass.C, s.kernel, s.stride, s.padding);
  const bool chunks = pass.N % V == 0 && y % 16 == 0;
  const Product p{windows,
                  at<void>(y),
                  at<const void>(x),
                  at<const void>(scratch),
                  at<const void>(bias),
                  mirror ? s.cells_in : s.cells_out,
                  int(pass.N),
                  int(pass.K),
                  int(pass.pitch),
                  depth,
                  pass.apart ? s.stride : 1,
                  {int(s.in[0]), int(s.in[1]), int(s.in[2])},
                  bias_dtype == K_F32,
                  chunks};
  return single ? launch_single<T>(where, p, stream) : launch_product<T>(where, p, aligned, pass.parts, stream);
}

int32_t expect_types(const char* where, uint64_t scratch, int32_t dtype, int32_t weight_dtype, int32_t bias_dtype) {
  for (int32_t t : {weight_dtype, bias_dtype}) {
    if (t != K_F32 && t != dtype) return fail(K_UNSUPPORTED, where, "weight or bias dtype is %d, it must be f32 (0) or x's, %d", t, dtype);
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
                           int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, int32_t weight_dtype,
                           uint64_t stream) {
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
