// What surrounds the products of the Hopper backward pass: sums of dq that blocks share, rows of gradients, and the small kernel before.
#pragma once
#include "attention_store_sm90.cuh"

namespace attention {
// Row 0 of a sequence of a head.
template <class T>
__device__ Operand<T> head_of(const Operand<T>& x, const Sequences& s, int sequence, int h, Span span) {
  return {x.data + h * x.stride.head + (s.offsets ? span.first * x.stride.token : sequence * x.stride.batch), x.stride};
}

// blockIdx.x, read anew each time, as thread_again() does.
__device__ inline unsigned block_again() {
  unsigned x;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
  return x;
}

// The A tiles of 16 rows, `address` the first of them in panels of WIDTH columns.
template <int WIDTH, int D>
__device__ inline void load_a(uint32_t (&a)[D / 16][4], uint32_t address, uint32_t panel_bytes) {
  const int lane = threadIdx.x % 32, row = lane % 16;
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
    const int unit = i * 16 % WIDTH / 8 + lane / 16, swizzled = WIDTH == 64 ? unit ^ row % 8 : unit ^ row / 2 % 4;
    ldmatrix(a[i], address + i * 16 / WIDTH * panel_bytes + row * WIDTH * 2 + swizzled * 16);
  }
}

// s -= lse / scale: scores of keys x queries as products leave them, from lse of the first query on; `left` queries have one.
template <int n>
__device__ inline void subtract_lse(float (&s)[n], float scale, const float* lse, int left) {
  const int first = thread_again() % 4 * 2;
  const float inverse = 1 / scale;
#pragma unroll
  for (int i = 0; i < n; i++) {
    const int l = i / 4 * 8 + first + i % 2;
    s[i] = fmaf(s[i], scale, l < left ? -lse[l] : 0) * inverse;
  }
}

// Has the compiler take these registers as holding nothing from here on: what a product overwrites need not be kept until then.
template <int n>
__device__ inline void forget(float (&r)[n]) {
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "=f"(r[i]));
}

template <int n>
__device__ inline void pin_rows(uint32_t (&r)[n][4]) {
#pragma unroll
  for (int i = 0; i < n; i++) pin(r[i]);
}

__device__ inline float2 unpack(__half, uint32_t a) { return __half22float2(reinterpret_cast<const __half2&>(a)); }
__device__ inline float2 unpack(__nv_bfloat16, uint32_t a) { return {__uint_as_float(a << 16), __uint_as_float(a & 0xffff0000u)}; }

// ---- Memory that blocks share.

// Copies or adds floats from shared memory, one thread, completing as map_store does.
__device__ inline void bulk_store(float4* to, uint32_t from, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes) : "memory");
}
__device__ inline void bulk_add(float4* to, uint32_t from, uint32_t bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes) : "memory");
}
// Copies into shared memory; the phase of `barrier` waits for the bytes.
__device__ inline void bulk_load(uint32_t to, const float4* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}
// Orders what the copy engine and this thread itself do to global memory.
__device__ inline void async_fence_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
__device__ inline uint32_t load_acquire(const uint32_t* from) {
  uint32_t x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
  return x;
}
__device__ inline void store_release(uint32_t* to, uint32_t x) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}

// delta = sum_D(d_o * o), dq = 0 where a query has no keys (lse is -inf), and zeros for the `zeros` float4 that blocks will share. A block
// for PREPARE_ROWS queries of a head, of a sequence (of all, where they are of variable length): heads first, chunks, then sequences.
constexpr int PREPARE_ROWS = 128;
template <class T, int D>
__global__ void __launch_bounds__(256) prepare_sm90(float* delta, float4* zero, int64_t zeros, Operand<T> dq, Operand<const T> d_o,
                                                    Operand<const T> o, Problem p, int tokens, int chunks) {
  constexpr int LANES = D == 128 ? 8 : 4, PARTS = (D / 8 + LANES - 1) / LANES, GROUPS = 256 / LANES, EACH = PREPARE_ROWS / GROUPS;
  for (int64_t i = blockIdx.x * int64_t(256) + threadIdx.x; i < zeros; i += gridDim.x * int64_t(256)) zero[i] = {};
  const int h = blockIdx.x % p.H, block = blockIdx.x / p.H, sequence = block / chunks, first = block % chunks * PREPARE_ROWS;
  const int lane = threadIdx.x % LANES, l = first + threadIdx.x / LANES;
  const auto head = [&](const auto& x) { return x.data + sequence * x.stride.batch + h * x.stride.head + lane * 8; };
  const T *x_at = head(d_o), *y_at = head(o);
  const int64_t stat = (int64_t(sequence) * p.H + h) * tokens + l;
  Pack<T, 8> x[EACH][PARTS], y[EACH][PARTS];
  float lse[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) {
#pragma unroll
    for (int j = 0; j < PARTS; j++) {
      if (l + i * GROUPS >= tokens || (lane + j * LANES) * 8 >= D) continue;
      x[i][j] = *reinterpret_cast<const Pack<T, 8>*>(x_at + (l + i * GROUPS) * d_o.stride.token + j * LANES * 8);
      y[i][j] = *reinterpret_cast<const Pack<T, 8>*>(y_at + (l + i * GROUPS) * o.stride.token + j * LANES * 8);
    }
    lse[i] = dq.data && l + i * GROUPS < tokens ? p.lse[stat + i * GROUPS] : 0;
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < PARTS; j++) {
      if (l + i * GROUPS >= tokens || (lane + j * LANES) * 8 >= D) continue;
#pragma unroll
      for (int e = 0; e < 8; e++) sum = fmaf(to_f32(x[i][j].v[e]), to_f32(y[i][j].v[e]), sum);
    }
#pragma unroll
    for (int lanes = LANES / 2; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (l + i * GROUPS >= tokens) continue;
    if (lane == 0) delta[stat + i * GROUPS] = sum;
    if (lse[i] == -INFINITY) {
#pragma unroll
      for (int j = 0; j < PARTS; j++) {
        if ((lane + j * LANES) * 8 < D) *reinterpret_cast<uint4*>(head(dq) + (l + i * GROUPS) * dq.stride.token + j * LANES * 8) = {};
      }
    }
  }
}
}  // namespace attention
