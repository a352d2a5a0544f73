// Voxelization on CUDA: a warp a triangle, its lanes over the columns of the bounding box. All writes are the same byte, so no atomics.
#include "../include/voxelize.h"

#include "../include/triangle_voxels.hpp"
#include "device.cuh"

namespace {
constexpr int WARPS = 4;

__global__ void voxelize(uint8_t* occupancy, const float* positions, const int32_t* triangles, int V, int T, int R) {
  const int64_t t = blockIdx.x * int64_t(WARPS) + threadIdx.y;
  if (t >= T) return;
  TriangleVoxels triangle;
  if (!triangle.load(positions, triangles + t * 3, V, R)) return;
  const int rows = triangle.hi[0] - triangle.lo[0] + 1, columns = triangle.hi[1] - triangle.lo[1] + 1;
  for (int c = threadIdx.x; c < rows * columns; c += 32) {
    triangle.column(triangle.lo[0] + c / columns, triangle.lo[1] + c % columns, R, [&](int64_t voxel) { occupancy[voxel] = 1; });
  }
}
}  // namespace

int32_t k_voxelize_fwd(uint64_t occupancy, uint64_t positions, uint64_t triangles, int32_t V, int32_t T, int32_t R, uint64_t stream) {
  if (V < 0 || T < 0) return fail(K_BAD_ARGUMENT, "k_voxelize_fwd", "V = %d and T = %d, they must be >= 0", V, T);
  if (R < 1 || R > 1024) return fail(K_BAD_ARGUMENT, "k_voxelize_fwd", "R = %d, it must be 1 to 1024", R);
  const cudaError_t e = cudaMemsetAsync(at<void>(occupancy), 0, size_t(R) * R * R, stream_of(stream));
  if (e != cudaSuccess) return fail(e, "k_voxelize_fwd", "%s", cudaGetErrorString(e));
  if (T == 0) return K_OK;
  voxelize<<<unsigned(ceil_div(T, WARPS)), dim3(32, WARPS), 0, stream_of(stream)>>>(at<uint8_t>(occupancy), at<const float>(positions),
                                                                                    at<const int32_t>(triangles), V, T, R);
  return launched("k_voxelize_fwd");
}
