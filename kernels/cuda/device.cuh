// Shared by the CUDA families: status, address casts, dtype dispatch, 16-bit loads and stores, warp and block sums.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>

#include "../include/k.h"

extern thread_local char k_message[512];

template <class... A>
int32_t fail(int32_t status, const char* where, const char* format, A... values) {
  char what[400];
  if constexpr (sizeof...(A) == 0) {
    std::snprintf(what, sizeof what, "%s", format);
  } else {
    std::snprintf(what, sizeof what, format, values...);
  }
  std::snprintf(k_message, sizeof k_message, "%s: %s", where, what);
  return status;
}

// The status of the launch just made.
inline int32_t launched(const char* where) {
  const cudaError_t e = cudaGetLastError();
  return e == cudaSuccess ? K_OK : fail(e, where, "%s", cudaGetErrorString(e));
}

template <class T>
__host__ __device__ T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}
inline cudaStream_t stream_of(uint64_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

// Calls run(T{}) with the element type of a floating dtype and returns its status.
template <class F>
int32_t with_float_type(const char* where, int32_t dtype, F run) {
  if (dtype == K_F32) return run(float{});
  if (dtype == K_F16) return run(__half{});
  if (dtype == K_BF16) return run(__nv_bfloat16{});
  return fail(K_UNSUPPORTED, where, "dtype is %d, it must be f32 (0), f16 (1) or bf16 (2)", dtype);
}

__device__ inline float to_f32(float v) { return v; }
__device__ inline float to_f32(__half v) { return __half2float(v); }
__device__ inline float to_f32(__nv_bfloat16 v) { return __bfloat162float(v); }
template <class T>
__device__ inline T from_f32(float v);
template <>
__device__ inline float from_f32<float>(float v) { return v; }
template <>
__device__ inline __half from_f32<__half>(float v) { return __float2half_rn(v); }
template <>
__device__ inline __nv_bfloat16 from_f32<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

// V elements moved as one access of V * sizeof(T) bytes (at most 16); the address must be aligned to it.
template <class T, int V>
struct alignas(V * sizeof(T)) Pack {
  T v[V];
};

__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

// The sum over a block of THREADS threads, in every thread. A fixed order: two runs agree to the bit.
template <int THREADS>
__device__ inline float block_sum(float v) {
  static_assert(THREADS % 32 == 0);
  __shared__ float partial[THREADS / 32];
  v = warp_sum(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < THREADS / 32; i++) sum += partial[i];
  return sum;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
