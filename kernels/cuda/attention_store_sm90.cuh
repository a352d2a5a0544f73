// How the Hopper kernels write what a warp summed: by ordinary stores of 16 bytes, from registers. Bulk stores of tiles in shared memory were
// no faster, and initcheck does not see what they write.
#pragma once
#include "attention_boxes.cuh"

namespace attention {
// Word t of lane k to word k of lane t, among four neighbouring lanes.
__device__ inline uint4 transpose4(const uint32_t (&w)[4]) {
  const int t = thread_again() % 4;
  const bool odd = t & 1, high = t & 2;
  const uint32_t x = __shfl_xor_sync(~0u, odd ? w[0] : w[1], 1), y = __shfl_xor_sync(~0u, odd ? w[2] : w[3], 1);
  const uint32_t a = odd ? x : w[0], b = odd ? w[1] : x, c = odd ? y : w[2], d = odd ? w[3] : y;
  const uint32_t u = __shfl_xor_sync(~0u, high ? a : c, 2), v = __shfl_xor_sync(~0u, high ? b : d, 2);
  return high ? make_uint4(u, v, c, d) : make_uint4(a, b, u, v);
}

template <int R>
__device__ inline float4 four(const float (&r)[R], int i) {
  return make_float4(r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
}

// Writes a warp's sums (16 rows, N columns, as products leave them), scaled and rounded, to rows `from` on of those before `length`.
// get(i): the sums of columns 8 i to 8 i + 7.
template <int N, class T, class F>
__device__ inline void store_sums(T* to, int64_t token, float scale, int from, int length, F get) {
  const int lane = thread_again() % 32, t = lane % 4, row = from + lane / 4;
  T* lines[2] = {to + row * token, to + (row + 8) * token};
#pragma unroll
  for (int n = 0; n < N / 8; n += 4) {
    uint32_t w[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (n + i >= N / 8) continue;
      const float4 v = get(n + i);
      w[0][i] = pack(T{}, v.x * scale, v.y * scale);
      w[1][i] = pack(T{}, v.z * scale, v.w * scale);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const bool inside = row + 8 * half < length;
      if (n + 4 <= N / 8) {
        const uint4 out = transpose4(w[half]);
        if (inside) *reinterpret_cast<uint4*>(lines[half] + (n + t) * 8) = out;
      } else {
#pragma unroll
        for (int i = 0; i < N / 8 - n; i++) {
          if (inside) *reinterpret_cast<uint32_t*>(lines[half] + (n + i) * 8 + t * 2) = w[half][i];
        }
      }
    }
  }
}
}  // namespace attention
