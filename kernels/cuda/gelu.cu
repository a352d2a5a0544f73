// The backward pass of the GELU between two linear layers, on CUDA. Bound by memory: two arrays read, two written.
#include "../include/gelu.h"

#include "../include/elementwise_ops.hpp"
#include "sums.cuh"

namespace {
// Writes dz and g on the way; see column_sums.
template <class T, int V>
struct GeluBackward {
  T *dz, *g;
  const T *dg, *z;
  struct Loaded {
    Pack<T, V> dg, z;
  };

  __device__ Loaded load(int64_t i) const {
    return {*reinterpret_cast<const Pack<T, V>*>(dg + i), *reinterpret_cast<const Pack<T, V>*>(z + i)};
  }
  __device__ void add(float (&sums)[1][V], const Loaded& at, int64_t i, int, int) const {
    float d[V], y[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float v = to_f32(at.z.v[j]);
      d[j] = Gelu::bwd(v, to_f32(at.dg.v[j]));
      y[j] = Gelu::fwd(v);
      sums[0][j] += d[j];
    }
    store_lanes(dz + i, d);
    if (g) store_lanes(g + i, y);
  }
};
}  // namespace

int32_t k_gelu_layer_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C) {
  *bytes = uint64_t(Chunks(1, N).S) * C * sizeof(float);
  return K_OK;
}

int32_t k_gelu_layer_bwd(uint64_t dz, uint64_t g, uint64_t db, uint64_t dg, uint64_t z, uint64_t scratch, int32_t N, int32_t C,
                         int32_t dtype, uint64_t stream) {
  const char* where = "k_gelu_layer_bwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, 0, N, 1, C)) return status;
  return with_float_type(where, dtype, [&](auto t) {
    using T = decltype(t);
    const auto run = [&](auto v) {
      const GeluBackward<T, v> terms{at<T>(dz), at<T>(g), at<const T>(dg), at<const T>(z)};
      return launch_column_sums<1, v>(where, scratch, samples, C, stream, terms);
    };
    constexpr int V = 16 / sizeof(T);
    const bool packed = C % V == 0 && aligned16(dz, g, dg, z);
    const int32_t status = packed ? run(std::integral_constant<int, V>{}) : run(std::integral_constant<int, 1>{});
    if (status || !db) return status;
    return launch_sum_partials(where, Sums<float>{{at<float>(db)}}, scratch, 1, Chunks(1, N).S, C, 1, stream);
  });
}
