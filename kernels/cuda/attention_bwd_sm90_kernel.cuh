// The Hopper backward pass: a block for each tile of 128 keys of a head, which goes over the queries in order. Two warpgroups have 64 keys
// each; scores are transposed, keys x queries, so that P and dS are register operands of dV += P^T dO and dK += dS^T Q. dS also goes
// through shared memory, for dQ = dS K: a third warpgroup sums it where registers allow, else the two take a part each. A further warpgroup
// has one warp that loads tiles (TMA), one that brings lse and delta, and two that send dq on its way.
//
// dq is the sum over blocks, in f32 in the workspace, laid out as warps hold it. Blocks add in the order of their tiles of keys, each tile
// of queries has a counter of those that did: two runs agree to the bit. A block waits only for blocks of lower numbers, which were started
// before it; its products go on meanwhile, since one tile of dq waits in shared memory. The last block in order adds and rounds: there are
// neither zeros to write before nor a pass to make after. Heads follow each other in the grid, so that few tiles of a head run at a time.
//
// A tile of 128 x 128 at D = 64 is 10.5 MFLOP: 2560 clocks of the tensor cores (4096 a clock), 1024 of the exponential unit (16 a clock),
// and about 390 KB to and from shared memory: 3070 clocks (128 a clock). At D = 128 one of 128 x 64 takes 2560, 512 and, for about 375 KB,
// 2930. Measured on an H200 (bf16, batch 8, 16 heads, 4096 x 4096, all launches): 518 TFLOP/s at D = 64, about 4350 clocks a tile, 52 % of
// the tensor cores' rate and seven tenths of shared memory's; 552 at D = 128. What stands between is kernels/README.md's.
#pragma once
#include "attention_bwd_sm90_feed.cuh"

namespace attention {
template <class T, int D>
__global__ void __launch_bounds__(BACKWARD_THREADS<T, D>, 1)
    backward_sm90_kernel(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                         const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap do_map, const Backward<T> x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Z = BackwardShape<D>;
  constexpr int KEYS = Z::KEYS, QUERIES = Z::QUERIES, WIDTH = Z::WIDTH, STEPS = QUERIES / 16;
  constexpr bool THIRD = attention::THIRD<T, D>;
  constexpr int FEEDERS = BACKWARD_THREADS<T, D> / 32 - 4;  // the first warp of those that do not compute
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t base = shared_address(shared), full = base + Z::FULL, empty = base + Z::EMPTY;
  const Problem& p = x.problem;

  Share b;
  if (!find_share<D>(x, blockIdx.x, b)) return;
  const int count = b.count;

  if (threadIdx.x == 0) init_barriers<T, D>(base);
  __syncthreads();

  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;  // by shuffle: known to be uniform
  T* const dq_rows = head_of(x.dq, p.q, b.tile.sequence, b.h, b.qs).data;
  if (warp >= FEEDERS) {
    registers_shrink<24>();
    const int job = warp - FEEDERS;
    if (job == 0 && lane == 0) {
      load_tiles<D>(q_map, k_map, v_map, do_map, p, b, base);
    } else if (job == 1) {
      load_stats<D>(p, x.delta, b, shared);
    } else if (job > 1 && lane == 0 && x.dq.data && b.shares) {
      send_dq<D>(x, b, base, job - 2);
    }
    return;
  }
  if (THIRD && warp >= 8) {
    registers_shrink<72>();
    sum_dq<D>(x, b, dq_rows, shared);
    return;
  }

  registers_grow<THIRD ? 208 : 240>();
  const int group = warp / 4;
  const float c = p.scale * LOG2_E;
  const int left = b.ks.length - b.tile.from;  // keys from here to the end of the sequence
  const uint32_t own_keys = base + group * 64 * Z::ROW;
  float s[QUERIES / 2], dp[QUERIES / 2], dq[Z::DQ_WIDTH / 2], dk[D / 2] = {}, dv[D / 2] = {};
  uint32_t p16[STEPS][4], ds16[STEPS][4];
  pin(dk);
  pin(dv);

  barrier_wait(base + Z::KEYS_FULL, 0);
  uint32_t v_a[D / 16][4];
  if constexpr (Z::V_IN_REGISTERS) load_a<WIDTH, D>(v_a, base + Z::V + warp * 16 * Z::ROW, Z::K_PANEL);
  const auto issue_scores = [&](int stage) {
    const uint32_t q_tile = base + Z::Q + stage * Z::STAGE;
    forget(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      const uint32_t panel = i * 16 / WIDTH, column = i * 16 % WIDTH * 2;
      const uint64_t q = along_rows<WIDTH>(q_tile) + units(panel * Z::Q_PANEL + column);
      wgmma<T, 0, 0>(s, along_rows<WIDTH>(own_keys) + units(panel * Z::K_PANEL + column), q, i > 0);
    }
    wgmma_commit();
  };
  if (count) {
    barrier_wait(full, 0);
    issue_scores(0);
    if constexpr (Z::SCORES_FIRST) wgmma_wait<0>(s);
    int n = 0, stage = 0, before = 0;
    uint32_t parity = 0;
    do {
      const int next = stage + 1 == Z::STAGES ? 0 : stage + 1;
      parity ^= next == 0;
      const uint32_t q_tile = base + Z::Q + stage * Z::STAGE, do_tile = q_tile + Z::Q_BYTES;
      const float4* stats = reinterpret_cast<const float4*>(shared + Z::STATS) + stage * (QUERIES / 2) + lane % 4;
      float4 lse[STEPS], delta[STEPS];
      const auto load_lse = [&](int from, int to) {
#pragma unroll
        for (int i = from; i < to; i++) lse[i] = stats[i * 4];
      };
      const auto exponentials = [&](int from, int to) {
#pragma unroll
        for (int i = from; i < to; i++) {
          float e[8];
#pragma unroll
          for (int j = 0; j < 8; j++) {
            e[j] = exp2_fast(fmaf(s[8 * i + j], c, j % 2 ? (j < 4 ? lse[i].y : lse[i].w) : (j < 4 ? lse[i].x : lse[i].z)));
          }
#pragma unroll
          for (int j = 0; j < 4; j++) p16[i][j] = pack(T{}, e[2 * j], e[2 * j + 1]);
          pin(p16[i]);
        }
      };
      const auto issue_dp = [&] {
        forget(dp);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
          const uint32_t panel = i * 16 / WIDTH, column = i * 16 % WIDTH * 2;
          const uint64_t y = along_rows<WIDTH>(do_tile) + units(panel * Z::Q_PANEL + column);
          if constexpr (Z::V_IN_REGISTERS) {
            wgmma<T, 0>(dp, v_a[i], y, i > 0);
          } else {
            wgmma<T, 0, 0>(dp, along_rows<WIDTH>(own_keys + Z::V) + units(panel * Z::K_PANEL + column), y, i > 0);
          }
        }
        wgmma_commit();
      };

      load_lse(0, STEPS / 2);
      const bool far = reinterpret_cast<const int*>(shared + Z::FAR)[stage];
      if constexpr (!Z::SCORES_FIRST) {
        wgmma_wait<0>(s, dk, dv);
        pin_rows(ds16);
        if (n) barrier_arrive(empty + 8 * before);
      }
      if (far) {
        Share again;  // there are not registers enough to know it all the time
        find_share<D>(x, block_again(), again);
        const float* at = p.lse + p.stat(again.tile.sequence, again.h, again.qs.first) + n * QUERIES;
        subtract_lse(s, p.scale, at, again.qs.length - n * QUERIES);
      }
      if constexpr (THIRD) {
        exponentials(0, STEPS / 4);
        issue_dp();
        exponentials(STEPS / 4, STEPS / 2);
        load_lse(STEPS / 2, STEPS);
      } else {
        if (n) barrier_wait(base + Z::DS_FULL, (n - 1) % 2);
        issue_dq<T, D>(dq, base, group);
        exponentials(0, STEPS / 2);
        wgmma_wait<0>(dq, dk);
        if constexpr (Z::SCORES_FIRST) {
          pin_rows(ds16);
          if (n) barrier_arrive(empty + 8 * before);
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(base + Z::DS_EMPTY);
        if (n && x.dq.data) {
          take_place<D>(b, base, n - 1);
          put_dq<D>(x, b, dq_rows, shared, dq, n - 1, thread_again() / 32);
        }
        load_lse(STEPS / 2, STEPS);
        issue_dp();
        if (n && x.dq.data) pass_dq<D>(b, base, n - 1);
      }
      const auto issue_dv = [&](int from, int to) {
        wgmma_fence();
#pragma unroll
        for (int i = from; i < to; i++) wgmma<T, 1>(dv, p16[i], down_rows<WIDTH>(do_tile, Z::Q_PANEL) + units(i * 16 * Z::ROW), 1);
        wgmma_commit();
      };
      if constexpr (THIRD) {
        exponentials(STEPS / 2, STEPS * 3 / 4);
        issue_dv(0, STEPS / 2);
        exponentials(STEPS * 3 / 4, STEPS);
        issue_dv(STEPS / 2, STEPS);
      } else {
        exponentials(STEPS / 2, STEPS);
        issue_dv(0, STEPS);
      }

      constexpr int EARLY = THIRD ? 2 : 4;  // as there are registers
#pragma unroll
      for (int i = 0; i < EARLY; i++) delta[i] = stats[QUERIES / 4 + i * 4];
      wgmma_wait<THIRD ? 2 : 1>(dp);
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        if (i >= EARLY) delta[i] = stats[QUERIES / 4 + i * 4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const float low = dp[8 * i + 2 * j] - (j < 2 ? delta[i].x : delta[i].z);
          const float high = dp[8 * i + 2 * j + 1] - (j < 2 ? delta[i].y : delta[i].w);
          const float2 e = unpack(T{}, p16[i][j]);
          ds16[i][j] = pack(T{}, e.x * low, e.y * high);
        }
      }
      if (left < KEYS) {
        const int here = left - thread_again() / 32 * 16 - thread_again() % 32 / 4;
        const uint32_t tail[2] = {here > 0 ? ~0u : 0, here > 8 ? ~0u : 0};
#pragma unroll
        for (int i = 0; i < STEPS * 4; i++) ds16[i / 4][i % 4] &= tail[i % 2];
      }
      pin_rows(ds16);
      if constexpr (Z::SCORES_FIRST) {
        if (n + 1 < count) barrier_wait(full + 8 * next, parity);
        wgmma_wait<0>(dv);
        pin_rows(p16);
        issue_scores(next);
      }
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < STEPS; i++) wgmma<T, 1>(dk, ds16[i], down_rows<WIDTH>(q_tile, Z::Q_PANEL) + units(i * 16 * Z::ROW), 1);
      wgmma_commit();

      if constexpr (THIRD) {
        if (n) barrier_wait(base + Z::DS_EMPTY, (n - 1) % 2);
      } else {
        barrier_wait(base + Z::DS_EMPTY, n % 2);
      }
      const int thread = thread_again();
      const uint32_t ds_row = base + Z::DS + (thread / 32 * 16 + thread % 16) * 128, ds_unit = (thread / 16 % 2 ^ thread % 8) * 16;
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        stmatrix(ds_row + i / 4 * (KEYS * 128) + (ds_unit ^ 32 * (i % 4)), ds16[i][0], ds16[i][1], ds16[i][2], ds16[i][3]);
      }
      if constexpr (!Z::SCORES_FIRST) {
        if (n + 1 < count) barrier_wait(full + 8 * next, parity);
        wgmma_wait<1>(dv);  // frees p16, else there are not registers enough
        pin_rows(p16);
        issue_scores(next);
      }
      // Only now: the fence waits for the stores.
      async_fence();
      __syncwarp();
      if (lane == 0) barrier_arrive(base + Z::DS_FULL);
      if constexpr (Z::SCORES_FIRST) wgmma_wait<1>(s);
      before = stage;
      stage = next;
    } while (++n < count);
    if constexpr (THIRD) {
      wgmma_wait<0>(s, dk, dv);
    } else {
      barrier_wait(base + Z::DS_FULL, (count - 1) % 2);
      issue_dq<T, D>(dq, base, group);
      wgmma_wait<0>(s, dq, dk, dv);
      if (x.dq.data) {
        take_place<D>(b, base, count - 1);
        put_dq<D>(x, b, dq_rows, shared, dq, count - 1, thread_again() / 32);
        pass_dq<D>(b, base, count - 1);
      }
    }
  }
  find_share<D>(x, block_again(), b);
  const int from = b.tile.from + thread_again() / 32 * 16;
  if (x.dk.data) {
    const Operand<T> to = head_of(x.dk, p.k, b.tile.sequence, b.h, b.ks);
    store_sums<D>(to.data, to.stride.token, p.scale, from, b.ks.length, [&](int i) { return four(dk, i); });
  }
  if (x.dv.data) {
    const Operand<T> to = head_of(x.dv, p.k, b.tile.sequence, b.h, b.ks);
    store_sums<D>(to.data, to.stride.token, 1.0f, from, b.ks.length, [&](int i) { return four(dv, i); });
  }
#endif
}
}  // namespace attention
