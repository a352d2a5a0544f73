// SSIM on CUDA. A block makes 32 x 16 pixels of one channel: values with their border into shared memory, the window along x, then along y.
// Moments are taken around the values of the tile's middle: where a picture is flat, its variance is not the difference of large sums.
// At [4, 512, 512, 3]: forward reads 25 MB and writes 13 MB (50 MB with partials), 110 multiply-adds a value: about 10 to 20 us; the backward
// pass reads 75 MB, writes 13 MB: about 25 us. The channels of a tile are neighbours in the grid, so that lines are fetched once.
#include "../include/ssim.h"

#include "../include/ssim_window.hpp"
#include "device.cuh"

namespace {
constexpr int TX = 32, TY = 16, THREADS = 256, IN_X = TX + 2 * SSIM_REACH, IN_Y = TY + 2 * SSIM_REACH;

struct Shape {
  int H, W, C, tiles;
};

// Where a block's tile lies: its first pixel, and the offset of its image's channel.
struct Tile {
  int x0, y0;
  int64_t image;
  __device__ explicit Tile(const Shape& s) {
    const int tile = blockIdx.x / s.C;
    x0 = tile % s.tiles * TX, y0 = tile / s.tiles * TY;
    image = int64_t(blockIdx.y) * s.H * s.W * s.C + blockIdx.x % s.C;
  }
};

// Fills N planes with load(offset, values) inside of the image and `outside` outside, and gives their sums along x.
template <int N, class F>
__device__ void blur_across(float (&across)[N][IN_Y][TX], const Shape& s, const Tile& tile, const SsimWindow<float>& window,
                            const float (&outside)[2], F load) {
  __shared__ float values[2][IN_Y][IN_X];
  static_assert(N == 5 || N == 3);
  constexpr int PLANES = N == 5 ? 2 : 1;
  for (int round = 0; round < (N == 5 ? 1 : 3); round++) {
    __syncthreads();
    for (int i = threadIdx.x; i < IN_Y * IN_X; i += THREADS) {
      const int x = tile.x0 + i % IN_X - SSIM_REACH, y = tile.y0 + i / IN_X - SSIM_REACH;
      const bool inside = x >= 0 && x < s.W && y >= 0 && y < s.H;
      float v[PLANES];
      for (int k = 0; k < PLANES; k++) v[k] = outside[k];
      if (inside) load(tile.image + (int64_t(y) * s.W + x) * s.C, round, v);
      for (int k = 0; k < PLANES; k++) values[k][i / IN_X][i % IN_X] = v[k];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < IN_Y * TX; i += THREADS) {
      const int row = i / TX, x = i % TX;
      float sum[5] = {};
#pragma unroll
      for (int k = 0; k < SSIM_SIDE; k++) {
        const float w = window.weight[k], a = values[0][row][x + k];
        if constexpr (N == 5) {
          const float b = values[1][row][x + k];
          sum[0] += w * a, sum[1] += w * b, sum[2] += w * a * a, sum[3] += w * b * b, sum[4] += w * a * b;
        } else {
          sum[0] += w * a;
        }
      }
      if constexpr (N == 5) {
        for (int k = 0; k < N; k++) across[k][row][x] = sum[k];
      } else {
        across[round][row][x] = sum[0];
      }
    }
  }
  __syncthreads();
}

// done(offset of the pixel, its N windowed sums) for each pixel of the tile.
template <int N, class F>
__device__ void blur_down(const float (&across)[N][IN_Y][TX], const Shape& s, const Tile& tile, const SsimWindow<float>& window, F done) {
  for (int i = threadIdx.x; i < TY * TX; i += THREADS) {
    const int row = i / TX, x = i % TX;
    if (tile.x0 + x >= s.W || tile.y0 + row >= s.H) continue;
    float sum[N] = {};
#pragma unroll
    for (int k = 0; k < SSIM_SIDE; k++) {
      for (int n = 0; n < N; n++) sum[n] += window.weight[k] * across[n][row + k][x];
    }
    done(tile.image + (int64_t(tile.y0 + row) * s.W + tile.x0 + x) * s.C, sum);
  }
}

__global__ void __launch_bounds__(THREADS)
    ssim_forward(float* map, float* partials, const float* x, const float* y, Shape s, int64_t all, SsimWindow<float> window) {
  __shared__ float across[5][IN_Y][TX];
  const Tile tile(s);
  const int64_t middle = tile.image + (int64_t(min(tile.y0 + TY / 2, s.H - 1)) * s.W + min(tile.x0 + TX / 2, s.W - 1)) * s.C;
  const float px = x[middle], py = y[middle], outside[2] = {-px, -py};
  blur_across(across, s, tile, window, outside, [&](int64_t i, int, float (&v)[2]) { v[0] = x[i] - px, v[1] = y[i] - py; });
  blur_down(across, s, tile, window, [&](int64_t i, const float (&m)[5]) {
    const Ssim<float> at_pixel(px + m[0], py + m[1], m[2] - m[0] * m[0] + (m[3] - m[1] * m[1]), m[4] - m[0] * m[1]);
    map[i] = at_pixel.map;
    if (!partials) return;
    partials[i] = at_pixel.after_x, partials[all + i] = at_pixel.after_xx, partials[2 * all + i] = at_pixel.after_xy;
  });
}

__global__ void __launch_bounds__(THREADS) ssim_backward(float* dx, const float* dmap, const float* partials, const float* x,
                                                         const float* y, Shape s, int64_t all, SsimWindow<float> window) {
  __shared__ float across[3][IN_Y][TX];
  const Tile tile(s);
  const float outside[2] = {};
  blur_across(across, s, tile, window, outside, [&](int64_t i, int k, float (&v)[1]) { v[0] = dmap[i] * partials[k * all + i]; });
  blur_down(across, s, tile, window, [&](int64_t i, const float (&sum)[3]) { dx[i] = sum[0] + 2 * x[i] * sum[1] + y[i] * sum[2]; });
}

int32_t plan(const char* where, Shape& s, dim3& grid, int32_t B, int32_t H, int32_t W, int32_t C) {
  if (B < 0 || H < 0 || W < 0 || C < 0) {
    return fail(K_BAD_ARGUMENT, where, "B = %d, H = %d, W = %d, C = %d, they must be >= 0", B, H, W, C);
  }
  s = {H, W, C, int(ceil_div(W, TX))};
  const int64_t across = ceil_div(W, TX) * ceil_div(H, TY) * C;
  if (across > INT32_MAX || B > 65535) return fail(K_BAD_ARGUMENT, where, "B = %d images of %d x %d, they are too many", B, H, W);
  grid = dim3(unsigned(across), unsigned(B));
  return K_OK;
}
}  // namespace

int32_t k_ssim_fwd(uint64_t map, uint64_t partials, uint64_t x, uint64_t y, int32_t B, int32_t H, int32_t W, int32_t C, uint64_t stream) {
  Shape s;
  dim3 grid;
  if (const int32_t status = plan("k_ssim_fwd", s, grid, B, H, W, C)) return status;
  if (grid.x == 0 || grid.y == 0) return K_OK;
  ssim_forward<<<grid, THREADS, 0, stream_of(stream)>>>(at<float>(map), at<float>(partials), at<const float>(x), at<const float>(y), s,
                                                        int64_t(B) * H * W * C, SsimWindow<float>());
  return launched("k_ssim_fwd");
}

int32_t k_ssim_bwd(uint64_t dx, uint64_t dmap, uint64_t partials, uint64_t x, uint64_t y, int32_t B, int32_t H, int32_t W, int32_t C,
                   uint64_t stream) {
  Shape s;
  dim3 grid;
  if (const int32_t status = plan("k_ssim_bwd", s, grid, B, H, W, C)) return status;
  if (grid.x == 0 || grid.y == 0) return K_OK;
  ssim_backward<<<grid, THREADS, 0, stream_of(stream)>>>(at<float>(dx), at<const float>(dmap), at<const float>(partials),
                                                         at<const float>(x), at<const float>(y), s, int64_t(B) * H * W * C,
                                                         SsimWindow<float>());
  return launched("k_ssim_bwd");
}
