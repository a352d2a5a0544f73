// What the convolution kernels share: where the windows of a volume lie, and the tile of a product that a warp keeps in registers.
#pragma once
#include <algorithm>

#include "mma.cuh"

#include "../include/conv3d_sizes.hpp"

namespace conv3d {
// As cp_async16, and the line stays in L1: for rows that are read again soon.
__device__ inline void cp_async16_l1(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}
// Ends a group of the copies that this thread began.
__device__ inline void cp_async_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of this thread's groups are incomplete.
template <int pending>
__device__ inline void cp_async_wait_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// n / by for n < 2^31 (Granlund and Montgomery 1994: a product, a sum and a shift)
struct Divisor {
  uint32_t by, factor, shift;
  explicit Divisor(int64_t divisor) : by(uint32_t(divisor)), shift(0) {
    while ((uint64_t(1) << shift) < by) shift++;
    factor = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - by)) / by + 1);
  }
  __device__ uint32_t operator()(uint32_t n) const { return (__umulhi(n, factor) + n) >> shift; }
};

// The first cell of a window in a volume; it may lie outside.
struct Corner {
  int b, x, y, z;
};

// A volume [B, size, C] seen through windows of kernel^3 taps that stand on the cells of a grid [B, grid].
struct Windows {
  Divisor grid_x, grid_y, grid_z, channels;
  int size[3], C, kernel, stride, padding, taps;
  int64_t tap[27];  // elements from a window's corner to each tap

  Windows(const int64_t (&volume)[3], const int64_t (&grid)[3], int64_t C, int kernel, int stride, int padding)
      : grid_x(grid[0]), grid_y(grid[1]), grid_z(grid[2]), channels(C), size{int(volume[0]), int(volume[1]), int(volume[2])}, C(int(C)),
        kernel(kernel), stride(stride), padding(padding), taps(kernel * kernel * kernel), tap{} {
    for (int t = 0; t < taps; t++) {
      const int x = t / (kernel * kernel), y = t / kernel % kernel, z = t % kernel;
      tap[t] = ((x * volume[1] + y) * volume[2] + z) * C;
    }
  }
  __device__ Corner corner(uint32_t cell) const {
    const uint32_t line = grid_z(cell), plane = grid_y(line), b = grid_x(plane);
    return {int(b), int(plane - b * grid_x.by) * stride - padding, int(line - plane * grid_y.by) * stride - padding,
            int(cell - line * grid_z.by) * stride - padding};
  }
  // The corner's number among the cells of the volume, below 2^31; one that lies outside is still the tap offsets' origin.
  __device__ int index(const Corner& c) const { return ((c.b * size[0] + c.x) * size[1] + c.y) * size[2] + c.z; }
  // Bit t tells whether tap t lies inside of the volume.
  __device__ uint32_t inside(const Corner& c) const {
    uint32_t line = 0, plane = 0, all = 0;
#pragma unroll
    for (int t = 0; t < 3; t++) line |= t < kernel && unsigned(c.z + t) < unsigned(size[2]) ? 1u << t : 0;
#pragma unroll
    for (int t = 0; t < 3; t++) plane |= t < kernel && unsigned(c.y + t) < unsigned(size[1]) ? line << t * kernel : 0;
#pragma unroll
    for (int t = 0; t < 3; t++) all |= t < kernel && unsigned(c.x + t) < unsigned(size[0]) ? plane << t * kernel * kernel : 0;
    return all;
  }
};

// Where 16-byte chunk `chunk` of row `row` lies in a tile in shared memory with CHUNKS chunks a row: 8 rows' equal chunks, and the 8 chunks
// of 128 bytes, fall into different banks.
template <int CHUNKS>
__device__ inline uint32_t chunk_address(int row, int chunk) {
  constexpr int ROWS = CHUNKS < 8 ? 8 / CHUNKS : 1, TURNS = CHUNKS < 8 ? CHUNKS : 8;
  return uint32_t(row * CHUNKS + (chunk ^ (row / ROWS & (TURNS - 1)))) * 16;
}

// A [M, N] tile of a product in the registers of a warp. 16-bit operands meet in tensor cores, f32 ones in exact multiply-adds, a lane
// having M / 4 rows times N / 8 columns. With K_LAST the operands' rows are the tile's rows and columns, 64 bytes of K each; otherwise rows
// are K, BM and BN elements wide.
template <class T, int M, int N, bool K_LAST>
struct WarpTile {
  static constexpr bool F32 = sizeof(T) == 4;
  static constexpr int LM = M / 4, LN = N / 8, SIZE = M * N / 32;
  static constexpr int RUN = F32 ? 1 : 2;       // elements side by side in a row
  static constexpr int PACK = LN < 4 ? LN : 4;  // f32, K first: columns read at once
  float sum[SIZE / 4][4] = {};

  __device__ float& at(int e) { return sum[e / 4][e % 4]; }
  // The row and column of element e of a lane
  static __device__ int row(int e, int lane) {
    if constexpr (!F32) return e / (N / 2) * 16 + e % 4 / 2 * 8 + lane / 4;
    const int i = e / LN;
    return K_LAST ? i * 4 + lane / 8 : i / 4 * 16 + lane / 8 * 4 + i % 4;
  }
  static __device__ int column(int e, int lane) {
    if constexpr (!F32) return e / 4 % (N / 8) * 8 + lane % 4 * 2 + e % 2;
    const int j = e % LN;
    return K_LAST ? j * 8 + lane % 8 : j / PACK * PACK * 8 + lane % 8 * PACK + j % PACK;
  }

  // += a [M rows from m] b [N rows from n]^T over 64 bytes of K
  __device__ void add_rows(const unsigned char* a, int m, const unsigned char* b, int n, int lane) {
    static_assert(K_LAST);
    if constexpr (F32) {
#pragma unroll 1
      for (int chunk = 0; chunk < 4; chunk++) {
        Pack<float, 4> right[LN];
#pragma unroll
        for (int j = 0; j < LN; j++) right[j] = *reinterpret_cast<const Pack<float, 4>*>(b + chunk_address<4>(n + j * 8 + lane % 8, chunk));
#pragma unroll
        for (int i = 0; i < LM; i++) {
          const auto left = *reinterpret_cast<const Pack<float, 4>*>(a + chunk_address<4>(m + i * 4 + lane / 8, chunk));
#pragma unroll
          for (int k = 0; k < 4; k++) {
#pragma unroll
            for (int j = 0; j < LN; j++) at(i * LN + j) = fmaf(left.v[k], right[j].v[k], at(i * LN + j));
          }
        }
      }
    } else {
      const uint32_t a0 = shared_address(a), b0 = shared_address(b);
#pragma unroll
      for (int chunk = 0; chunk < 4; chunk += 2) {
        uint32_t left[M / 16][4], right[4];
#pragma unroll
        for (int i = 0; i < M / 16; i++) {
          ldmatrix(left[i], a0 + chunk_address<4>(m + i * 16 + lane % 16, chunk + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
          ldmatrix(right, b0 + chunk_address<4>(n + j * 16 + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
          multiply(left, right, j);
        }
      }
    }
  }

  // += a [K, BM columns, M from m]^T b [K, BN columns, N from n]
  template <int K, int BM, int BN>
  __device__ void add_columns(const unsigned char* a, int m, const unsigned char* b, int n, int lane) {
    static_assert(!K_LAST);
    if constexpr (F32) {
#pragma unroll 4
      for (int k = 0; k < K; k++) {
        Pack<float, 4> left[LM / 4];
        Pack<float, PACK> right[LN / PACK];
#pragma unroll
        for (int i = 0; i < LM / 4; i++) {
          left[i] = *reinterpret_cast<const Pack<float, 4>*>(a + chunk_address<BM / 4>(k, m / 4 + i * 4 + lane / 8));
        }
#pragma unroll
        for (int j = 0; j < LN / PACK; j++) {
          const int column = n + j * PACK * 8 + lane % 8 * PACK;
          right[j] = *reinterpret_cast<const Pack<float, PACK>*>(b + chunk_address<BN / 4>(k, column / 4) + column % 4 * 4);
        }
#pragma unroll
        for (int i = 0; i < LM; i++) {
#pragma unroll
          for (int j = 0; j < LN; j++) at(i * LN + j) = fmaf(left[i / 4].v[i % 4], right[j / PACK].v[j % PACK], at(i * LN + j));
        }
      }
    } else {
      const uint32_t a0 = shared_address(a), b0 = shared_address(b);
#pragma unroll
      for (int k = 0; k < K; k += 16) {
        uint32_t left[M / 16][4], right[4];
#pragma unroll
        for (int i = 0; i < M / 16; i++) {
          const uint32_t chunk = chunk_address<BM / 8>(k + lane / 16 * 8 + lane % 8, m / 8 + i * 2 + lane / 8 % 2);
          ldmatrix_trans(left[i], a0 + chunk);
        }
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
          const uint32_t chunk = chunk_address<BN / 8>(k + lane / 8 % 2 * 8 + lane % 8, n / 8 + j * 2 + lane / 16);
          ldmatrix_trans(right, b0 + chunk);
          multiply(left, right, j);
        }
      }
    }
  }

 private:
  // Columns 16 j to 16 j + 15 += left right
  __device__ void multiply(const uint32_t (&left)[M / 16][4], const uint32_t (&right)[4], int j) {
#pragma unroll
    for (int i = 0; i < M / 16; i++) {
      mma(T{}, sum[i * (N / 8) + j * 2], left[i], right[0], right[1]);
      mma(T{}, sum[i * (N / 8) + j * 2 + 1], left[i], right[2], right[3]);
    }
  }
};

// A block's tile of a product: M x N of it, WARP_M x WARP_N a warp, a ring of STAGES buffers, at least BLOCKS blocks on an SM.
template <int M_, int N_, int WARP_M_, int WARP_N_, int STAGES_, int BLOCKS_>
struct Tile {
  static constexpr int M = M_, N = N_, WARP_M = WARP_M_, WARP_N = WARP_N_, STAGES = STAGES_, BLOCKS = BLOCKS_;
  static constexpr int WARPS_N = N / WARP_N, THREADS = M / WARP_M * WARPS_N * 32;
};

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

// Lets `kernel` use `bytes` of dynamic shared memory, for `blocks` blocks on an SM; the rest of that memory stays L1 cache.
template <class F>
cudaError_t allow_shared(F* kernel, int bytes, int blocks) {
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor), wanted = blocks * (bytes + 2048);
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (e != cudaSuccess) return e;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              std::min(100, int((int64_t(wanted) * 100 + most - 1) / most)));
}
}  // namespace conv3d
