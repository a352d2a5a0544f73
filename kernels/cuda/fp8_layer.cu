// The backward pass of the GELU between two linear layers in 8-bit floats, on CUDA. Bound by memory.
#include "../include/fp8.h"

#include "fp8_gelu.cuh"

int32_t k_fp8_gelu_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C) {
  *bytes = uint64_t(gelu_blocks(N, C)) * C * sizeof(float);
  return K_OK;
}

int32_t k_fp8_gelu_bwd(uint64_t dz, uint64_t dz_scale, uint64_t g, uint64_t g_scale, uint64_t db, uint64_t dg, uint64_t z, uint64_t columns,
                       uint64_t scratch, int32_t N, int32_t C, int32_t dtype, uint64_t stream) {
  const char* where = "k_fp8_gelu_bwd";
  if (const int32_t status = check_fp8(where, N, C)) return status;
  if (!aligned16(dg, z, columns, scratch) || ((dz | g) & 7)) return unaligned(where);
  const int64_t blocks = gelu_blocks(N, C);
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    int32_t status = K_OK;
    const auto run = [&](auto threads) {
      constexpr int THREADS = threads, bytes = GeluRows<T, THREADS>::BYTES;
      const auto kernel = gelu_bwd<T, THREADS>;
      const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
      kernel<<<unsigned(blocks), THREADS, bytes, stream_of(stream)>>>(at<uint8_t>(dz), at<float>(dz_scale), at<uint8_t>(g), at<float>(g_scale),
                                                                     db ? at<float>(scratch) : nullptr, at<const T>(dg), at<const T>(z),
                                                                     at<const float>(columns), N, C);
      return launched(where);
    };
    if (blocks) {
      if (C <= 2048) status = run(std::integral_constant<int, 128>{});
      else status = C <= 4096 ? run(std::integral_constant<int, 256>{}) : run(std::integral_constant<int, 512>{});
    }
    return status || !db ? status : launch_sum_partials(where, Sums<float>{{at<float>(db)}}, scratch, 1, blocks, C, 1, stream);
  });
}
