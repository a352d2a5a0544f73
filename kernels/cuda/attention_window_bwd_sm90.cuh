// The backward pass of attention_window.cuh on Hopper, in one launch, for sequences of at most 96 rows. A warpgroup has 64 keys of an item
// (attention_window_sm90.cuh) against all of its queries, scores transposed, so that P and dS are register operands of dV and dK. dS then
// takes the place of o, and of v if there are more than 64 rows, in shared memory, and the warpgroup has 64 queries of dQ = dS K. Items of
// more than 64 rows are for two warpgroups together.
//
// On 15,192 voxels in shifted windows of 2 to 95 rows, 12 heads of 64, packed, in bf16: q, k, v, o, d_o and three gradients once are 186 MB,
// 43 us at an H200's 4.3 TB/s; 8.7 GFLOP, 16 in tiles. Measured: 85 us; loading and writing alone 67. What stands between is the time of an
// item from its arrival to its gradients.
#pragma once
#include "attention_window_sm90.cuh"

namespace attention {
using BackwardRing = UnitRing<5, 3>;  // q, k, v, d_o, o; where rows lie, -log2(e) lse, delta

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
__device__ inline float2 two_floats(__half, uint32_t x) { return __half22float2(reinterpret_cast<const __half2&>(x)); }
__device__ inline float2 two_floats(__nv_bfloat16, uint32_t x) { return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(x)); }

// Two threads a row: its delta, the product of d_o and o, and -log2(e) lse in the place of lse.
template <class T>
__device__ inline void row_stats(const char* d_o, int tile, float* stats, int rows, int own, int L) {
  const int r = own + threadIdx.x % 128 / 2, part = threadIdx.x % 2;
  float sum = 0;
  if (r < rows) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const char* at = d_o + r * 128 + ((part * 4 + j) ^ r % 8) * 16;
      const uint4 x = *reinterpret_cast<const uint4*>(at), y = *reinterpret_cast<const uint4*>(at + tile);
      const uint32_t a[4] = {x.x, x.y, x.z, x.w}, b[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float2 u = two_floats(T{}, a[i]), w = two_floats(T{}, b[i]);
        sum = fmaf(u.x, w.x, fmaf(u.y, w.y, sum));
      }
    }
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  if (r >= rows) return;
  if (part) {
    stats[r] = r < L ? -LOG2_E * stats[r] : -INFINITY;
  } else {
    stats[rows + r] = sum;
  }
}

// The products of 64 keys, of which `left` are there, with N queries: dS, rounded, and sums of dK (without the scale) and of dV. `at`: the
// item's tiles; `own`: the first of the keys.
template <class T, int N>
__device__ inline void key_products(uint32_t (&ds)[WINDOW_ROWS / 16][4], float (&sum_k)[32], float (&sum_v)[32], uint32_t at, int tile, int own,
                                    int left, const float* stats, int rows, float c) {
  float s[N / 2], dp[N / 2];
  const uint64_t q = along_rows<64>(at), k = along_rows<64>(at + tile + own * 128), v = along_rows<64>(at + 2 * tile + own * 128),
                 d_o = along_rows<64>(at + 3 * tile);
  pin(s), pin(dp);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; step++) wgmma<T, 0, 0>(s, k + units(32 * step), q + units(32 * step), step != 0);
  wgmma_commit();
#pragma unroll
  for (int step = 0; step < 4; step++) wgmma<T, 0, 0>(dp, v + units(32 * step), d_o + units(32 * step), step != 0);
  wgmma_commit();
  wgmma_wait<1>(s);
  const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
  const bool inside[2] = {row < left, row + 8 < left};
  stats += threadIdx.x % 4 * 2;
  if (threadIdx.x / 32 % 4 * 16 < left) {
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
      const float2 l = *reinterpret_cast<const float2*>(stats + n * 8);
#pragma unroll
      for (int e = 0; e < 4; e++) s[n * 4 + e] = exp2_fast(fmaf(s[n * 4 + e], c, e % 2 ? l.y : l.x));
    }
  }
  wgmma_wait<0>(dp);
  uint32_t p[N / 16][4];
#pragma unroll
  for (int n = 0; n < N / 8; n++) {
    const float2 d = *reinterpret_cast<const float2*>(stats + rows + n * 8);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float *w = s + n * 4 + half * 2, *x = dp + n * 4 + half * 2;
      p[n / 2][n % 2 * 2 + half] = pack(T{}, w[0], w[1]);
      ds[n / 2][n % 2 * 2 + half] = inside[half] ? pack(T{}, w[0] * (x[0] - d.x), w[1] * (x[1] - d.y)) : 0;
    }
  }
  const uint64_t right_v = down_rows<64>(at + 3 * tile, 0), right_k = down_rows<64>(at, 0);
  pin(sum_v), pin(sum_k);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < N / 16; step++) {
    wgmma<T, 1>(sum_v, p[step], right_v + units(step * 16 * 128), step != 0);
    wgmma<T, 1>(sum_k, ds[step], right_k + units(step * 16 * 128), step != 0);
  }
  wgmma_commit();
  wgmma_wait<0>(sum_v, sum_k);
}
#endif

template <class T>
__global__ void __launch_bounds__(WINDOW_THREADS, 1)
    backward_window_sm90(Operand<T> dq, Operand<T> dk, Operand<T> dv, const __grid_constant__ Inputs<T, 5> in,
                         const __grid_constant__ Problem p, const __grid_constant__ Shares shares, BackwardRing ring) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint4 memory[];
  char* base = reinterpret_cast<char*>(memory) + (1024 - shared_address(memory) % 1024) % 1024;
  const uint32_t shared = shared_address(base), full = shared + ring.full_at(), empty = shared + ring.empty_at();
  if (threadIdx.x < ENTRIES) {
    barrier_init(full + threadIdx.x * 8, FULL_ARRIVALS);
    barrier_init(empty + threadIdx.x * 8, WINDOW_GROUPS * 4);
  }
  Items items(p, shares);
  __syncthreads();
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (group == WINDOW_GROUPS) {
    registers_shrink<80>();
    load_items(in, p, ring, items, base);
    return;
  }
  registers_grow<144>();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const float c = p.scale * LOG2_E;
  Turns turns{group};
  for (EntryTurn turn;; turn.number++) {
    barrier_wait(full + turn.entry() * 8, turn.parity());
    const ItemEntry item = item_at(base + ring.entries_at() + turn.entry() * ENTRY_BYTES);
    if (item.L < 0) return;
    const uint32_t done = empty + turn.entry() * 8;
    const int half = turns.take(item.L), own = half * 64;
    if (own >= item.L) {
      leave_item(done);
      continue;
    }
    const bool alone = item.L <= 64;
    const int rows = units_of(item.L) * UNIT_ROWS, tile = rows * 128, row = own + warp * 16, left = item.L - row;
    const uint32_t at = shared + item.unit * ring.UNIT;
    const char* tiles = base + item.unit * ring.UNIT;
    int* list = reinterpret_cast<int*>(base + ring.lists_at() + item.unit * ring.LIST_UNIT);
    float* stats = reinterpret_cast<float*>(list + rows);
    const int index = lane < 16 && lane < left ? list[row + lane] : -1;
    // Waits for all who work on the item.
    const int others = alone ? 1 + group : 4 + (group + 3 - half) % 3, threads = alone ? 128 : 256;
    row_stats<T>(tiles + 3 * tile, tile, stats, rows, own, item.L);
    async_fence();
    named_wait(others, threads);

    float sum_k[8][4] = {}, sum_v[8][4] = {}, sum_q[8][4] = {};
    float(&flat_k)[32] = reinterpret_cast<float(&)[32]>(sum_k);
    float(&flat_v)[32] = reinterpret_cast<float(&)[32]>(sum_v);
    float(&flat_q)[32] = reinterpret_cast<float(&)[32]>(sum_q);
    uint32_t ds[WINDOW_ROWS / 16][4] = {};
    switch (rows / UNIT_ROWS) {
      case 1: key_products<T, 32>(ds, flat_k, flat_v, at, tile, own, item.L - own, stats, rows, c); break;
      case 2: key_products<T, 64>(ds, flat_k, flat_v, at, tile, own, item.L - own, stats, rows, c); break;
      default: key_products<T, 96>(ds, flat_k, flat_v, at, tile, own, item.L - own, stats, rows, c);
    }
    if (!alone) named_wait(others, threads);  // v is not read any more
    if (row < rows) {
      const uint32_t line = at + (row + lane % 16) * 128;
#pragma unroll
      for (int step = 0; step < WINDOW_ROWS / 16; step++) {
        if (step * 16 < item.L) {
          const uint32_t to = line + (step < 4 ? 4 : 2) * tile + ((step % 4 * 2 + lane / 16) ^ lane % 8) * 16;
          stmatrix(to, ds[step][0], ds[step][1], ds[step][2], ds[step][3]);
        }
      }
    }
    async_fence();
    named_wait(others, threads);
    const uint64_t left_q = down_rows<64>(at + (half ? 2 : 4) * tile, 0), right_q = down_rows<64>(at + tile, 0);
    pin(flat_q);
    wgmma_fence();
#pragma unroll 1
    for (int step = 0; step * 16 < item.L; step++) {
      wgmma<T, 1, 1>(flat_q, left_q + units(step * 16 * 128), right_q + units(step * 16 * 128), 1);
    }
    wgmma_commit();
    const auto write = [&](const Operand<T>& to, const float(&sum)[8][4], float scale) {
      if (left > 0 && to.data) write_rows(rows_from(to, p, item.sequence, item.head), int(to.stride.token), index, sum, scale, p.D);
    };
    write(dk, sum_k, p.scale);
    write(dv, sum_v, 1.0f);
    wgmma_wait<0>(flat_q);
    leave_item(done);
    write(dq, sum_q, p.scale);
  }
#endif
}
}  // namespace attention
