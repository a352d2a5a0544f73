// The forward pass within sequences of at most 96 rows on Hopper, where they have more than 48 keys: by wgmma, a warpgroup with 64 queries at a time.
//
// Registers have to suffice for six blocks a multiprocessor: all scores of 64 queries, rounded into the places of half of them, then one half
// of the outputs' columns after the other.
#pragma once
#include "attention_window_whole_mma.cuh"

namespace attention {
// A head's slots, four at a time, a warp each, by its M keys, N with the last ones filled up.
template <class T, int N>
__device__ inline void attend_group(const WholeMemory& memory, int warp, int slots, int M, const Lines& o, const Problem& p, int sequence) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const float c = p.scale * LOG2_E;
  const uint32_t tiles = shared_address(memory.queries);
  uint64_t q = along_rows<64>(tiles);
  const uint64_t k = along_rows<64>(tiles + WHOLE_TILE);
  wait_tiles<1, true>();
#pragma unroll 1
  for (int slot = warp;; slot += WHOLE_WARPS) {
    const int lane = threadIdx.x % 32;
    const bool busy = slot < slots;
    float s[N / 2];
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; step++) wgmma<T, 0, 0>(s, q + units(32 * step), k + units(32 * step), step != 0);
    wgmma_commit();
    q += units(WHOLE_WARPS * SLOT_BYTES);
    wgmma_wait<0>(s);
    float top[2] = {0, 0}, weight[2] = {0, 0};
    if (N > 80 || busy) {  // with 96 keys a branch would cost more registers than there are
      const int inside = M - (N - SLOT_ROWS) - lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (i / 4 * 8 + i % 2 >= inside) s[N / 2 - 8 + i] = -INFINITY;
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float high = fmaxf(s[half * 2], s[half * 2 + 1]);
#pragma unroll
        for (int n = 1; n < N / 8; n++) high = fmaxf(high, fmaxf(s[n * 4 + half * 2], s[n * 4 + half * 2 + 1]));
        high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
        top[half] = fmaxf(high, __shfl_xor_sync(~0u, high, 2)) * c;
      }
#pragma unroll
      for (int i = 0; i < N / 2; i += 2) {
        const int half = i / 2 % 2;
        s[i] = exp2_fast(fmaf(s[i], c, -top[half])), s[i + 1] = exp2_fast(fmaf(s[i + 1], c, -top[half]));
        weight[half] += s[i] + s[i + 1];
      }
    }
    uint32_t a[N / 16][4];
#pragma unroll
    for (int i = 0; i < N / 4; i++) a[i / 4][i % 4] = pack(T{}, s[i * 2], s[i * 2 + 1]);
    if (slot < WHOLE_WARPS) wait_tiles<0, true>();
    const uint32_t own = tiles + slot * SLOT_BYTES + piece_at(lane % 16, lane / 16);
#pragma unroll
    for (int part = 0; part < 2; part++) {
      float sum[16];
      const uint64_t v = down_rows<64>(tiles + 2 * WHOLE_TILE + part * 64, 0);
      pin(sum);
#pragma unroll
      for (int j = 0; j < N / 16; j++) pin(a[j]);
      wgmma_fence();
#pragma unroll
      for (int j = 0; j < N / 16; j++) wgmma<T, 1>(sum, a[j], v + units(j * SLOT_BYTES), j != 0);
      wgmma_commit();
      if (part == 0 && busy) finish_weights(memory, slot, top, weight);
      wgmma_wait<0>(sum);
      if (busy) {
#pragma unroll
        for (int d = 0; d < 4; d += 2) place(T{}, own ^ (part * 4 + d) * 16, sum + d * 4, sum + d * 4 + 4, weight);
      }
    }
    if (busy) write_slot(memory, slot, o, sequence, p.D);
    if (slot >= WHOLE_WARPS || slots <= WHOLE_WARPS) return;
  }
#endif
}
}  // namespace attention
