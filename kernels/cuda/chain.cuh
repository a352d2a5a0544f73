// Chains of small kernels: on Hopper and later a kernel may be started while the one before it in its stream still runs, and waits for it on
// the device; elsewhere launches are plain ones.
#pragma once
#include "device.cuh"

// The first thing that a kernel started by launch_next does: lets the next one be started, and waits until the one before is complete.
__device__ inline void after_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
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
