// The Hopper backward pass: a block for each tile of 128 keys of a head, which goes over the queries in order. Two warpgroups have 64 keys
// each; scores are transposed, keys x queries, so that P and dS are register operands of dV += P^T dO and dK += dS^T Q. dS also goes
// through shared memory, where each warpgroup takes the part of dQ = dS K that it sums. A further warpgroup has one warp that loads tiles
// (TMA), one that brings lse and delta, and two that send dq on its way.
//
// dq is the sum over blocks, in f32 in the workspace, laid out as warps hold it. Blocks add in the order of their tiles of keys, each tile
// of queries has a counter of those that did: two runs agree to the bit. A block waits only for blocks of lower numbers, which were started
// before it; its products go on meanwhile, since one tile of dq waits in shared memory. The last block in order adds and rounds: there are
// neither zeros to write before nor a pass to make after. Heads follow each other in the grid, so that few tiles of a head run at a time.
//
// A tile of 128 x 128 at D = 64 is 10.5 MFLOP: 2560 clocks of the tensor cores (4096 a clock), 1024 of the exponential unit (16 a clock),
// and about 390 KB to and from shared memory: 3070 clocks (128 a clock). At D = 128 one of 128 x 64 takes 2560, 512 and, for about 375 KB,
// 2930. Measured on an H200 (bf16, batch 8, 16 heads, 4096 x 4096, all launches): 500 TFLOP/s at D = 64, about 4500 clocks a tile, half of
// the tensor cores' rate and two thirds of shared memory's; 545 at D = 128.
#pragma once
#include "attention_bwd_sm90_rows.cuh"

namespace attention {
// Everything but the tensor maps that the kernel takes.
template <class T>
struct Backward {
  Problem problem;
  Tiles tiles;
  const float* delta;
  float4* sums;       // dq in f32, as the warps hold it
  uint32_t* turns;    // of each tile of queries: how many tiles of keys have added theirs
  int64_t sum_tiles;  // of a head (of variable length), or of a sequence
  Operand<T> dq, dk, dv;
};

template <int D>
struct BackwardShape {
  static constexpr int KEYS = 128, QUERIES = D > 64 ? 64 : 128, STAGES = 3;
  static constexpr int WIDTH = D % 64 ? 32 : 64, PANELS = (D + WIDTH - 1) / WIDTH, ROW = WIDTH * 2;
  // Columns of dq that a warpgroup sums: all for its half of 128 queries; or for all 64, from column 0 and from WIDTH on (some twice).
  static constexpr bool HALVES = QUERIES == 128;
  // What was fastest: the next scores before dk, or after it; values as register operands.
  static constexpr bool SCORES_FIRST = D == 128, V_IN_REGISTERS = D == 80 || D == 96;
  static constexpr int DQ_WIDTH = HALVES ? D : D == 80 ? 48 : 64, SUMS = 32 * DQ_WIDTH;  // SUMS: float4 of a tile
  static constexpr uint32_t K_PANEL = KEYS * ROW, Q_PANEL = QUERIES * ROW, K_BYTES = PANELS * K_PANEL, Q_BYTES = PANELS * Q_PANEL;
  static constexpr uint32_t V = K_BYTES, Q = 2 * K_BYTES, STAGE = 2 * Q_BYTES, DS = Q + STAGES * STAGE, DQ = DS + KEYS * QUERIES * 2;
  static constexpr uint32_t STATS = DQ + SUMS * 16, BARRIERS = STATS + STAGES * 2 * QUERIES * 4, BYTES = BARRIERS + 128;
};

// Where the sums of a sequence's tiles of queries begin; of variable length only those with several tiles of keys have any.
template <int D, class T>
__device__ inline int64_t first_sum_tile(const Backward<T>& x, int sequence, int h, Span qs, Span ks) {
  if (!x.problem.q.offsets) return (int64_t(sequence) * x.problem.H + h) * x.sum_tiles;
  return h * x.sum_tiles + qs.first / BackwardShape<D>::QUERIES + ks.first / (BackwardShape<D>::KEYS + 1);
}

template <class T, int D>
__global__ void __launch_bounds__(384, 1)
    backward_sm90_kernel(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                         const __grid_constant__ CUtensorMap v_map, const __grid_constant__ CUtensorMap do_map, const Backward<T> x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Z = BackwardShape<D>;
  constexpr int KEYS = Z::KEYS, QUERIES = Z::QUERIES, WIDTH = Z::WIDTH, STEPS = QUERIES / 16;
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t base = shared_address(shared), barriers = base + Z::BARRIERS;
  const uint32_t keys_full = barriers, ds_full = barriers + 8, ds_empty = barriers + 16, sums_full = barriers + 24,
                 dq_empty = barriers + 32, dq_full = barriers + 40, full = barriers + 56, empty = full + 8 * Z::STAGES;
  const Problem& p = x.problem;

  const int h = blockIdx.x % p.H;
  Tile tile;
  if (!x.tiles.find(blockIdx.x / p.H, tile, KEYS)) return;
  const Span qs = span_of(p.q, tile.sequence), ks = span_of(p.k, tile.sequence);
  const int count = (qs.length + QUERIES - 1) / QUERIES, number = tile.from / KEYS, last = (ks.length - 1) / KEYS;
  // What becomes of dq: the block of the first tile of keys stores it as the sums, the next ones add, the last one rounds the whole.
  const bool shares = last > 0, rounds = number == last;

  if (threadIdx.x == 0) {
    barrier_init(keys_full, 1);
    barrier_init(ds_full, 8);
    barrier_init(ds_empty, 8);
    barrier_init(sums_full, 1);
    barrier_init(dq_full, 8);
    barrier_init(dq_full + 8, 8);
    barrier_init(dq_empty, 1);
    for (int i = 0; i < Z::STAGES; i++) {
      barrier_init(full + 8 * i, 2);
      barrier_init(empty + 8 * i, 8);
    }
    barrier_init_fence();
  }
  __syncthreads();

  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;  // by shuffle: known to be uniform
  if (warp >= 8) {
    registers_shrink<24>();
    if (warp == 8 && lane == 0) {
      barrier_expect(keys_full, 2 * Z::K_BYTES);
      const RowBox keys = row_box(p.k, tile.sequence, h, first_of(p.k, ks) + tile.from, ks.length - tile.from, KEYS);
      for (int i = 0; i < Z::PANELS; i++) load_box(base + i * Z::K_PANEL, k_map, i * WIDTH, keys, keys_full);
      for (int i = 0; i < Z::PANELS; i++) load_box(base + Z::V + i * Z::K_PANEL, v_map, i * WIDTH, keys, keys_full);
      for (int n = 0; n < count; n++) {
        const int stage = n % Z::STAGES;
        const RowBox box = row_box(p.q, tile.sequence, h, first_of(p.q, qs) + n * QUERIES, qs.length - n * QUERIES, QUERIES);
        const uint32_t to = base + Z::Q + stage * Z::STAGE, barrier = full + 8 * stage;
        barrier_wait(empty + 8 * stage, n / Z::STAGES % 2 ^ 1);
        barrier_expect(barrier, Z::STAGE);
        for (int i = 0; i < Z::PANELS; i++) load_box(to + i * Z::Q_PANEL, q_map, i * WIDTH, box, barrier);
        for (int i = 0; i < Z::PANELS; i++) load_box(to + Z::Q_BYTES + i * Z::Q_PANEL, do_map, i * WIDTH, box, barrier);
      }
    } else if (warp == 9) {
      // -lse log2(e) and delta, 0 past the end; of 16 queries, those that a lane of the products needs lie side by side.
      const int64_t stats = p.stat(tile.sequence, h, qs.first);
      for (int n = 0; n < count; n++) {
        const int stage = n % Z::STAGES, from = n * QUERIES;
        float a[QUERIES / 32], b[QUERIES / 32];
#pragma unroll
        for (int i = 0; i < QUERIES / 32; i++) {
          const int l = from + i * 32 + lane;
          a[i] = l < qs.length ? -LOG2_E * p.lse[stats + l] : 0;
          b[i] = l < qs.length ? x.delta[stats + l] : 0;
        }
        barrier_wait(empty + 8 * stage, n / Z::STAGES % 2 ^ 1);
        const int l = thread_again() % 32, place = (l & 16) | (l & 6) << 1 | (l & 8) >> 2 | (l & 1);
        float* to = reinterpret_cast<float*>(shared + Z::STATS) + stage * 2 * QUERIES + place;
#pragma unroll
        for (int i = 0; i < QUERIES / 32; i++) {
          to[i * 32] = a[i];
          to[QUERIES + i * 32] = b[i];
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(full + 8 * stage);
      }
    } else if (lane == 0 && x.dq.data && shares) {
      // dq. Two warps take turns, so that one waits for its turn while the other's sums are on their way.
      const int64_t sum_tile = first_sum_tile<D>(x, tile.sequence, h, qs, ks);
      for (int n = warp - 10; n < count; n += 2) {
        uint32_t* turn = x.turns + sum_tile + n;
        float4* sums = x.sums + (sum_tile + n) * Z::SUMS;
        if (number > 0) {
          while (load_acquire(turn) < uint32_t(number)) {
          }
          async_fence_global();
        }
        if (rounds) {
          barrier_wait(dq_empty, n % 2 ^ 1);
          barrier_expect(sums_full, Z::SUMS * 16);
          bulk_load(base + Z::DQ, sums, Z::SUMS * 16, sums_full);
          barrier_wait(dq_full + n % 2 * 8, n / 2 % 2);
          barrier_arrive(dq_empty);
        } else {
          barrier_wait(dq_full + n % 2 * 8, n / 2 % 2);
          if (number == 0) {
            bulk_store(sums, base + Z::DQ, Z::SUMS * 16);
          } else {
            bulk_add(sums, base + Z::DQ, Z::SUMS * 16);
          }
          store_commit();
          store_wait_read<0>();
          barrier_arrive(dq_empty);
          store_wait();
          async_fence_global();
          store_release(turn, uint32_t(number + 1));
        }
      }
    }
    return;
  }

  registers_grow<240>();
  const int group = warp / 4;
  const float c = p.scale * LOG2_E;
  T* const dq_rows = head_of(x.dq, p.q, tile.sequence, h, qs).data;
  const int left = ks.length - tile.from;  // keys from here to the end of the sequence
  const uint32_t own_keys = base + group * 64 * Z::ROW;
  const uint64_t ds_a = down_rows<64>(base + Z::DS + (Z::HALVES ? group * KEYS * 128 : 0), 0);
  const uint64_t k_b = down_rows<WIDTH>(base + (Z::HALVES ? 0 : group * Z::K_PANEL), Z::K_PANEL);
  float s[QUERIES / 2], dp[QUERIES / 2], dq[Z::DQ_WIDTH / 2], dk[D / 2] = {}, dv[D / 2] = {};
  uint32_t p16[STEPS][4], ds16[STEPS][4];
  pin(dk);
  pin(dv);

  barrier_wait(keys_full, 0);
  uint32_t v_a[D / 16][4];
  if constexpr (Z::V_IN_REGISTERS) load_a<WIDTH, D>(v_a, base + Z::V + warp * 16 * Z::ROW, Z::K_PANEL);
  const auto scores = [&](int stage) {
    const uint32_t q_tile = base + Z::Q + stage * Z::STAGE;
    forget(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      const uint32_t panel = i * 16 / WIDTH, column = i * 16 % WIDTH * 2;
      const uint64_t b = along_rows<WIDTH>(q_tile) + units(panel * Z::Q_PANEL + column);
      wgmma<T, 0, 0>(s, along_rows<WIDTH>(own_keys) + units(panel * Z::K_PANEL + column), b, i > 0);
    }
    wgmma_commit();
  };
  const auto exponentials = [&](const float4* lse, int from) {
#pragma unroll
    for (int i = from; i < from + STEPS / 2; i++) {
      const float4 l = lse[i * 4 + lane % 4];
      float e[8];
#pragma unroll
      for (int j = 0; j < 8; j++) e[j] = exp2_fast(fmaf(s[8 * i + j], c, j % 2 ? (j < 4 ? l.y : l.w) : (j < 4 ? l.x : l.z)));
#pragma unroll
      for (int j = 0; j < 4; j++) p16[i][j] = pack(T{}, e[2 * j], e[2 * j + 1]);
      pin(p16[i]);
    }
  };
  const auto sum_dq = [&] {
    forget(dq);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) wgmma<T, 1, 1>(dq, ds_a + units(i * 16 * 128), k_b + units(i * 16 * Z::ROW), i > 0);
    wgmma_commit();
  };
  const auto put_dq = [&](int n) {
    if (!x.dq.data) return;
    float4* sums = reinterpret_cast<float4*>(shared + Z::DQ) + thread_again() / 32 * (Z::SUMS / 8) + thread_again() % 32;
    if (rounds) {
      const int warp = thread_again() / 32, from = n * QUERIES + (Z::HALVES ? warp : warp % 4) * 16;
      if (shares) barrier_wait(sums_full, n % 2);
      store_sums<Z::DQ_WIDTH>(dq_rows + (Z::HALVES ? 0 : warp / 4 * WIDTH), x.dq.stride.token, p.scale, from, qs.length, [&](int i) {
        const float4 before = shares ? sums[i * 32] : float4{};
        return make_float4(dq[4 * i] + before.x, dq[4 * i + 1] + before.y, dq[4 * i + 2] + before.z, dq[4 * i + 3] + before.w);
      });
      if (!shares) return;
    } else {
      barrier_wait(dq_empty, n % 2 ^ 1);
#pragma unroll
      for (int i = 0; i < Z::DQ_WIDTH / 8; i++) sums[i * 32] = four(dq, i);
    }
    async_fence();
    __syncwarp();
    if (lane == 0) barrier_arrive(dq_full + n % 2 * 8);
  };

  if (count) {
    barrier_wait(full, 0);
    scores(0);
    if constexpr (Z::SCORES_FIRST) wgmma_wait<0>(s);
    int n = 0;
    do {
      const int stage = n % Z::STAGES, next = (n + 1) % Z::STAGES;
      const uint32_t q_tile = base + Z::Q + stage * Z::STAGE, do_tile = q_tile + Z::Q_BYTES;
      const float4* lse = reinterpret_cast<const float4*>(shared + Z::STATS) + stage * (QUERIES / 2);
      const float4* delta = lse + QUERIES / 4;

      if constexpr (!Z::SCORES_FIRST) {
        wgmma_wait<0>(s, dk, dv);
        pin_rows(ds16);
        if (n && lane == 0) barrier_arrive(empty + 8 * ((n - 1) % Z::STAGES));
      }
      if (n) barrier_wait(ds_full, (n - 1) % 2);
      sum_dq();
      exponentials(lse, 0);
      wgmma_wait<0>(dq, dk);
      if constexpr (Z::SCORES_FIRST) pin_rows(ds16);
      __syncwarp();
      if (Z::SCORES_FIRST && n && lane == 0) barrier_arrive(empty + 8 * ((n - 1) % Z::STAGES));
      if (lane == 0) barrier_arrive(ds_empty);
      if (n) put_dq(n - 1);
      forget(dp);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < D / 16; i++) {
        const uint32_t panel = i * 16 / WIDTH, column = i * 16 % WIDTH * 2;
        const uint64_t b = along_rows<WIDTH>(do_tile) + units(panel * Z::Q_PANEL + column);
        if constexpr (Z::V_IN_REGISTERS) {
          wgmma<T, 0>(dp, v_a[i], b, i > 0);
        } else {
          wgmma<T, 0, 0>(dp, along_rows<WIDTH>(own_keys + Z::V) + units(panel * Z::K_PANEL + column), b, i > 0);
        }
      }
      wgmma_commit();
      exponentials(lse, STEPS / 2);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < STEPS; i++) wgmma<T, 1>(dv, p16[i], down_rows<WIDTH>(do_tile, Z::Q_PANEL) + units(i * 16 * Z::ROW), 1);
      wgmma_commit();

      wgmma_wait<1>(dp);
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        const float4 l = delta[i * 4 + lane % 4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const float low = dp[8 * i + 2 * j] - (j < 2 ? l.x : l.z), high = dp[8 * i + 2 * j + 1] - (j < 2 ? l.y : l.w);
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
        if (n + 1 < count) barrier_wait(full + 8 * next, (n + 1) / Z::STAGES % 2);
        wgmma_wait<0>(dv);
        pin_rows(p16);
        scores(next);
      }
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < STEPS; i++) wgmma<T, 1>(dk, ds16[i], down_rows<WIDTH>(q_tile, Z::Q_PANEL) + units(i * 16 * Z::ROW), 1);
      wgmma_commit();

      barrier_wait(ds_empty, n % 2);
      const int thread = thread_again();
      const uint32_t ds_row = base + Z::DS + (thread / 32 * 16 + thread % 16) * 128, ds_unit = (thread / 16 % 2 ^ thread % 8) * 16;
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        stmatrix(ds_row + i / 4 * (KEYS * 128) + (ds_unit ^ 32 * (i % 4)), ds16[i][0], ds16[i][1], ds16[i][2], ds16[i][3]);
      }
      async_fence();
      __syncwarp();
      if (lane == 0) barrier_arrive(ds_full);
      if constexpr (Z::SCORES_FIRST) {
        wgmma_wait<1>(s);
      } else {
        if (n + 1 < count) barrier_wait(full + 8 * next, (n + 1) / Z::STAGES % 2);
        wgmma_wait<1>(dv);  // frees p16, else there are not registers enough
        pin_rows(p16);
        scores(next);
      }
    } while (++n < count);
    barrier_wait(ds_full, (count - 1) % 2);
    sum_dq();
    wgmma_wait<0>(s, dq, dk, dv);
    put_dq(count - 1);
  }
  // Where the keys are is looked up again: there are not registers enough to know it all the time.
  const unsigned block = block_again();
  x.tiles.find(block / p.H, tile, KEYS);
  const Span own = span_of(p.k, tile.sequence);
  const int from = tile.from + thread_again() / 32 * 16, head = int(block % p.H);
  if (x.dk.data) {
    const Operand<T> to = head_of(x.dk, p.k, tile.sequence, head, own);
    store_sums<D>(to.data, to.stride.token, p.scale, from, own.length, [&](int i) { return four(dk, i); });
  }
  if (x.dv.data) {
    const Operand<T> to = head_of(x.dv, p.k, tile.sequence, head, own);
    store_sums<D>(to.data, to.stride.token, 1.0f, from, own.length, [&](int i) { return four(dv, i); });
  }
#endif
}
}  // namespace attention
