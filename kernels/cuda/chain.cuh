// Chains of small kernels: on Hopper and later a kernel may be started while the one before it in its stream still runs, and waits for it on
// the device; elsewhere launches are plain ones.
#pragma once
#include "device.cuh"

// Lets the next kernel be started, if by launch_next, once every block has come here.
__device__ inline void next_may_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits, in a kernel started by launch_next, until the one before is complete.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// What most kernels started by launch_next do first.
__device__ inline void after_previous() {
  next_may_start();
  wait_for_previous();
}

inline bool device_has_chains() {
  static const bool has = [] {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major >= 9;
  }();
  return has;
}

// Launches `kernel`, which begins with after_previous(); launched() tells how it went.
template <class... P, class... A>
void launch_next(void (*kernel)(P...), dim3 blocks, unsigned threads, size_t shared, uint64_t stream, A... arguments) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream_of(stream);
  config.attrs = &overlap;
  config.numAttrs = device_has_chains() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}
