// Elementwise work by 16-byte accesses: lanes of one thread, and the launch that covers n elements.
#pragma once
#include "device.cuh"

// out = V elements from p in f32, by accesses of at most 16 bytes that p must be aligned to.
template <int V, class T>
__device__ inline void load_lanes(float (&out)[V], const T* p) {
  constexpr int W = V * sizeof(T) <= 16 ? V : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < V; i += W) {
    const Pack<T, W> pack = *reinterpret_cast<const Pack<T, W>*>(p + i);
#pragma unroll
    for (int j = 0; j < W; j++) out[i + j] = to_f32(pack.v[j]);
  }
}

// V elements at p from f32, as load_lanes.
template <int V, class T>
__device__ inline void store_lanes(T* p, const float (&v)[V]) {
  constexpr int W = V * sizeof(T) <= 16 ? V : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < V; i += W) {
    Pack<T, W> pack;
#pragma unroll
    for (int j = 0; j < W; j++) pack.v[j] = from_f32<T>(v[i + j]);
    *reinterpret_cast<Pack<T, W>*>(p + i) = pack;
  }
}

// Whether all addresses (0 = absent) are multiples of 16.
template <class... A>
bool aligned16(A... addresses) {
  return ((addresses | ...) & 15) == 0;
}

template <int V, class F>
__global__ void __launch_bounds__(256) each_kernel(int64_t first, int64_t end, F f) {
  const int64_t i = first + (int64_t(blockIdx.x) * 256 + threadIdx.x) * V;
  if (i < end) f.template run<V>(i);
}

// Calls f.run<V>(i), for the elements i to i + V, over all n: where vector is true V lanes a thread, the rest (n % V) in a launch of its
// own.
template <int V, class F>
int32_t each(const char* where, int64_t n, bool vector, F f, uint64_t stream) {
  const int64_t packed = vector ? n / V * V : 0, rest = n - packed;
  if (packed) each_kernel<V><<<unsigned(ceil_div(packed, 256 * V)), 256, 0, stream_of(stream)>>>(0, packed, f);
  if (rest) each_kernel<1><<<unsigned(ceil_div(rest, 256)), 256, 0, stream_of(stream)>>>(packed, n, f);
  return launched(where);
}
