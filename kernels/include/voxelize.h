// library: render
// Surface voxelization of a triangle mesh.
#pragma once
#include "k.h"

// occupancy[x, y, z] = 1 where the closed cube of voxel (x, y, z) touches any triangle, else 0. The R^3 cubes fill [-0.5, 0.5]^3, vertices
// are clamped to +-(0.5 - 1e-6) before. Cube and triangle touch unless one of 13 axes separates them: the 3 cube axes, the triangle's
// normal, the 9 cross products of a cube axis and a triangle edge; a gap below 1e-6 of a voxel counts as touching. Computed in f64.
//   occupancy: [R, R, R] u8, x slowest    positions: [V, 3] f32, finite    triangles: [T, 3] i32    R: 1 to 1024
// A triangle with an index outside [0, V) marks nothing. Degenerate triangles act as the segment or point they are.
K_API int32_t k_voxelize_fwd(uint64_t occupancy, uint64_t positions, uint64_t triangles, int32_t V, int32_t T, int32_t R, uint64_t stream);
