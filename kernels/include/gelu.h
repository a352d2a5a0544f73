// library: ops
// The backward pass of the tanh-GELU between two linear layers, with what both need of it.
#pragma once
#include "k.h"

// Bytes of scratch that k_gelu_layer_bwd needs.
K_API int32_t k_gelu_layer_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C);

// dz = dg gelu'(z)    g = gelu(z)    db = sum_N(dz), of dz before it is rounded
//   dz, g, dg, z: [N, C] dtype; dz may be dg, g is 0 where it is not wanted    db: [C] f32, or 0 where it is not wanted
K_API int32_t k_gelu_layer_bwd(uint64_t dz, uint64_t g, uint64_t db, uint64_t dg, uint64_t z, uint64_t scratch, int32_t N, int32_t C,
                               int32_t dtype, uint64_t stream);
