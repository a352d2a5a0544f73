// Voxelization on the CPU: triangles in parallel, each over the columns of its bounding box.
#include "../include/voxelize.h"

#include <cstring>

#include "../include/triangle_voxels.hpp"
#include "host.hpp"

int32_t k_voxelize_fwd(uint64_t occupancy, uint64_t positions, uint64_t triangles, int32_t V, int32_t T, int32_t R, uint64_t) {
  if (V < 0 || T < 0) return fail(K_BAD_ARGUMENT, "k_voxelize_fwd", "V = %d and T = %d, they must be >= 0", V, T);
  if (R < 1 || R > 1024) return fail(K_BAD_ARGUMENT, "k_voxelize_fwd", "R = %d, it must be 1 to 1024", R);
  uint8_t* out = at<uint8_t>(occupancy);
  std::memset(out, 0, size_t(R) * R * R);
#pragma omp parallel for schedule(dynamic, 64) if (T > 4096)
  for (int32_t t = 0; t < T; t++) {
    TriangleVoxels triangle;
    if (!triangle.load(at<const float>(positions), at<const int32_t>(triangles) + int64_t(t) * 3, V, R)) continue;
    for (int i = triangle.lo[0]; i <= triangle.hi[0]; i++) {
      for (int j = triangle.lo[1]; j <= triangle.hi[1]; j++) {
        triangle.column(i, j, R, [&](int64_t voxel) { __atomic_store_n(out + voxel, uint8_t(1), __ATOMIC_RELAXED); });
      }
    }
  }
  return K_OK;
}
