// The shape of the Hopper backward pass, and what is done beside the products: one warp brings tiles of queries and output gradients, one lse
// and delta, two send dq on its way.
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
  // What was fastest: the next scores before dk, or after it; values as register operands; dp before dq is put away, or after it.
  static constexpr bool SCORES_FIRST = D == 128, V_IN_REGISTERS = D == 80 || D == 96;
  static constexpr int DQ_WIDTH = HALVES ? D : D == 80 ? 48 : 64, SUMS = 32 * DQ_WIDTH;  // SUMS: float4 of a tile
  // Where in shared memory what lies: keys, values, stages of queries and output gradients, dS, dq, stages of lse and delta.
  static constexpr uint32_t K_PANEL = KEYS * ROW, Q_PANEL = QUERIES * ROW, K_BYTES = PANELS * K_PANEL, Q_BYTES = PANELS * Q_PANEL;
  static constexpr uint32_t V = K_BYTES, Q = 2 * K_BYTES, STAGE = 2 * Q_BYTES, DS = Q + STAGES * STAGE, DQ = DS + KEYS * QUERIES * 2;
  static constexpr uint32_t STATS = DQ + SUMS * 16, BARRIERS = STATS + STAGES * 2 * QUERIES * 4;
  // Barriers; of dq's there is one each for even and odd tiles. FAR is no barrier: of each stage, whether its scores are LARGE.
  static constexpr uint32_t KEYS_FULL = BARRIERS, DS_FULL = BARRIERS + 8, DS_EMPTY = BARRIERS + 16, SUMS_FULL = BARRIERS + 24,
                            DQ_EMPTY = BARRIERS + 32, DQ_FULL = BARRIERS + 40, FULL = BARRIERS + 56, EMPTY = FULL + 8 * STAGES,
                            FAR = EMPTY + 8 * STAGES, BYTES = BARRIERS + 128;
  static_assert(FAR + 4 * STAGES <= BYTES && BYTES <= 227 * 1024);
};

// Whether a third warpgroup sums dq. Else the two sum their parts themselves: they need the registers (of f16 at D = 64, 7 more than there are).
template <class T, int D>
constexpr bool THIRD = D == 32 || (D == 64 && std::is_same<T, __nv_bfloat16>::value);
template <class T, int D>
constexpr int BACKWARD_THREADS = THIRD<T, D> ? 512 : 384;

// What a block works on. dq: the block of the first tile of keys stores it as the sums, the next ones add, the last one rounds the whole.
struct Share {
  Tile tile;
  int h, count, number;  // `count` tiles of queries; the number of the tile of keys
  Span qs, ks;
  bool shares, rounds;
};

// The share of a block; false where there is none.
template <int D, class T>
__device__ inline bool find_share(const Backward<T>& x, unsigned block, Share& b) {
  using Z = BackwardShape<D>;
  const Problem& p = x.problem;
  b.h = block % p.H;
  if (!x.tiles.find(block / p.H, b.tile, Z::KEYS)) return false;
  b.qs = span_of(p.q, b.tile.sequence), b.ks = span_of(p.k, b.tile.sequence);
  b.count = (b.qs.length + Z::QUERIES - 1) / Z::QUERIES, b.number = b.tile.from / Z::KEYS;
  const int last = (b.ks.length - 1) / Z::KEYS;
  b.shares = last > 0, b.rounds = b.number == last;
  return true;
}

// Where the sums of a sequence's tiles of queries begin; of variable length only those with several tiles of keys have any.
template <int D, class T>
__device__ inline int64_t first_sum_tile(const Backward<T>& x, const Share& b) {
  if (!x.problem.q.offsets) return (int64_t(b.tile.sequence) * x.problem.H + b.h) * x.sum_tiles;
  return b.h * x.sum_tiles + b.qs.first / BackwardShape<D>::QUERIES + b.ks.first / (BackwardShape<D>::KEYS + 1);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Where threads read or write shared memory themselves, each of them arrives: racecheck does not follow one lane that arrives for its warp.
// Where warps only have wgmma read, or stores for it to see, one lane does.
template <class T, int D>
__device__ inline void init_barriers(uint32_t base) {
  using Z = BackwardShape<D>;
  barrier_init(base + Z::KEYS_FULL, 1);
  barrier_init(base + Z::DS_FULL, 8);
  barrier_init(base + Z::DS_EMPTY, THIRD<T, D> ? 4 : 8);
  barrier_init(base + Z::SUMS_FULL, 1);
  barrier_init(base + Z::DQ_FULL, THIRD<T, D> ? 128 : 256);
  barrier_init(base + Z::DQ_FULL + 8, THIRD<T, D> ? 128 : 256);
  barrier_init(base + Z::DQ_EMPTY, 1);
  for (int i = 0; i < Z::STAGES; i++) {
    barrier_init(base + Z::FULL + 8 * i, 33);
    barrier_init(base + Z::EMPTY + 8 * i, 256);
  }
  barrier_init_fence();
}

// One thread: the keys and values, then tile after tile of queries and output gradients.
template <int D>
__device__ inline void load_tiles(const CUtensorMap& q_map, const CUtensorMap& k_map, const CUtensorMap& v_map, const CUtensorMap& do_map,
                                  const Problem& p, const Share& b, uint32_t base) {
  using Z = BackwardShape<D>;
  const uint32_t keys_full = base + Z::KEYS_FULL;
  barrier_expect(keys_full, 2 * Z::K_BYTES);
  const RowBox keys = row_box(p.k, b.tile.sequence, b.h, first_of(p.k, b.ks) + b.tile.from, b.ks.length - b.tile.from, Z::KEYS);
  for (int i = 0; i < Z::PANELS; i++) load_box(base + i * Z::K_PANEL, k_map, i * Z::WIDTH, keys, keys_full);
  for (int i = 0; i < Z::PANELS; i++) load_box(base + Z::V + i * Z::K_PANEL, v_map, i * Z::WIDTH, keys, keys_full);
  for (int n = 0; n < b.count; n++) {
    const int stage = n % Z::STAGES, from = n * Z::QUERIES;
    const RowBox box = row_box(p.q, b.tile.sequence, b.h, first_of(p.q, b.qs) + from, b.qs.length - from, Z::QUERIES);
    const uint32_t to = base + Z::Q + stage * Z::STAGE, full = base + Z::FULL + 8 * stage;
    barrier_wait(base + Z::EMPTY + 8 * stage, n / Z::STAGES % 2 ^ 1);
    barrier_expect(full, Z::STAGE);
    for (int i = 0; i < Z::PANELS; i++) load_box(to + i * Z::Q_PANEL, q_map, i * Z::WIDTH, box, full);
    for (int i = 0; i < Z::PANELS; i++) load_box(to + Z::Q_BYTES + i * Z::Q_PANEL, do_map, i * Z::WIDTH, box, full);
  }
}

// One warp: -lse log2(e), or 0 where scores are LARGE, and delta; 0 past the end. Of 16 queries, those that a lane of the products needs lie
// side by side.
template <int D>
__device__ inline void load_stats(const Problem& p, const float* delta, const Share& b, uint8_t* shared) {
  using Z = BackwardShape<D>;
  constexpr int EACH = Z::QUERIES / 32;
  const uint32_t base = shared_address(shared);
  const int64_t stats = p.stat(b.tile.sequence, b.h, b.qs.first);
  for (int n = 0; n < b.count; n++) {
    const int stage = n % Z::STAGES, lane = threadIdx.x % 32;
    float lse[EACH], difference[EACH];
    bool far = false;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int l = n * Z::QUERIES + i * 32 + lane;
      lse[i] = l < b.qs.length ? -LOG2_E * p.lse[stats + l] : 0;
      difference[i] = l < b.qs.length ? delta[stats + l] : 0;
      far |= fabsf(lse[i]) > LARGE;
    }
    far = __any_sync(~0u, far);
    barrier_wait(base + Z::EMPTY + 8 * stage, n / Z::STAGES % 2 ^ 1);
    const int place = (lane & 16) | (lane & 6) << 1 | (lane & 8) >> 2 | (lane & 1);
    float* to = reinterpret_cast<float*>(shared + Z::STATS) + stage * 2 * Z::QUERIES + place;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      to[i * 32] = far ? 0 : lse[i];
      to[Z::QUERIES + i * 32] = difference[i];
    }
    if (lane == 0) reinterpret_cast<int*>(shared + Z::FAR)[stage] = far;
    barrier_arrive(base + Z::FULL + 8 * stage);
  }
}

// dq of tile n is put where it is to go: take_place() first, put_dq() of each of 8 parts (16 queries, or 16 of 64 and half of the columns),
// and then pass_dq(), as late as it may be: its fence waits for the stores.
template <int D>
__device__ inline void take_place(const Share& b, uint32_t base, int n) {
  using Z = BackwardShape<D>;
  if (!b.rounds) {
    barrier_wait(base + Z::DQ_EMPTY, n % 2 ^ 1);
  } else if (b.shares) {
    barrier_wait(base + Z::SUMS_FULL, n % 2);
  }
}
template <int D, class T, int R>
__device__ inline void put_dq(const Backward<T>& x, const Share& b, T* rows, uint8_t* shared, const float (&dq)[R], int n, int part) {
  using Z = BackwardShape<D>;
  float4* sums = reinterpret_cast<float4*>(shared + Z::DQ) + part * (Z::SUMS / 8) + thread_again() % 32;
  if (b.rounds) {
    const int from = n * Z::QUERIES + (Z::HALVES ? part : part % 4) * 16;
    rows += Z::HALVES ? 0 : part / 4 * Z::WIDTH;
    store_sums<Z::DQ_WIDTH>(rows, x.dq.stride.token, x.problem.scale, from, b.qs.length, [&](int i) {
      const float4 before = b.shares ? sums[i * 32] : float4{};
      return make_float4(dq[4 * i] + before.x, dq[4 * i + 1] + before.y, dq[4 * i + 2] + before.z, dq[4 * i + 3] + before.w);
    });
  } else {
#pragma unroll
    for (int i = 0; i < Z::DQ_WIDTH / 8; i++) sums[i * 32] = four(dq, i);
  }
}
template <int D>
__device__ inline void pass_dq(const Share& b, uint32_t base, int n) {
  if (!b.shares) return;
  async_fence();
  barrier_arrive(base + BackwardShape<D>::DQ_FULL + n % 2 * 8);
}

// dq = dS K, 64 queries and DQ_WIDTH columns of it: `part` is 0 or 1.
template <class T, int D, int R>
__device__ inline void issue_dq(float (&dq)[R], uint32_t base, int part) {
  using Z = BackwardShape<D>;
  const uint64_t ds = down_rows<64>(base + Z::DS + (Z::HALVES ? part * Z::KEYS * 128 : 0), 0);
  const uint64_t k = down_rows<Z::WIDTH>(base + (Z::HALVES ? 0 : part * Z::K_PANEL), Z::K_PANEL);
  forget(dq);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < Z::KEYS / 16; i++) wgmma<T, 1, 1>(dq, ds + units(i * 16 * 128), k + units(i * 16 * Z::ROW), i > 0);
  wgmma_commit();
}

// The third warpgroup: dq of each tile, one half after the other.
template <int D, class T>
__device__ inline void sum_dq(const Backward<T>& x, const Share& b, T* rows, uint8_t* shared) {
  using Z = BackwardShape<D>;
  const uint32_t base = shared_address(shared);
  float dq[Z::DQ_WIDTH / 2];
  barrier_wait(base + Z::KEYS_FULL, 0);
  for (int n = 0; n < b.count; n++) {
    barrier_wait(base + Z::DS_FULL, n % 2);
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
      issue_dq<T, D>(dq, base, half);
      if (half == 0 && x.dq.data) take_place<D>(b, base, n);
      wgmma_wait<0>(dq);
      __syncwarp();
      if (half == 1 && threadIdx.x % 32 == 0) barrier_arrive(base + Z::DS_EMPTY);
      if (x.dq.data) put_dq<D>(x, b, rows, shared, dq, n, half * 4 + threadIdx.x / 32 % 4);
    }
    if (x.dq.data) pass_dq<D>(b, base, n);
  }
}

// Two threads take turns with the tiles of dq, so that one waits for its turn while the other's sums are on their way: `first` is 0 or 1.
template <int D, class T>
__device__ inline void send_dq(const Backward<T>& x, const Share& b, uint32_t base, int first) {
  using Z = BackwardShape<D>;
  const int64_t sum_tile = first_sum_tile<D>(x, b);
  const uint32_t full = base + Z::DQ_FULL + 8 * first, empty = base + Z::DQ_EMPTY, sums_full = base + Z::SUMS_FULL;
  for (int n = first; n < b.count; n += 2) {
    uint32_t* turn = x.turns + sum_tile + n;
    float4* sums = x.sums + (sum_tile + n) * Z::SUMS;
    if (b.number > 0) {
      while (load_acquire(turn) < uint32_t(b.number)) {
      }
      async_fence_global();
    }
    if (b.rounds) {
      barrier_wait(empty, n % 2 ^ 1);
      barrier_expect(sums_full, Z::SUMS * 16);
      bulk_load(base + Z::DQ, sums, Z::SUMS * 16, sums_full);
      barrier_wait(full, n / 2 % 2);
      barrier_arrive(empty);
      continue;
    }
    barrier_wait(full, n / 2 % 2);
    if (b.number == 0) {
      bulk_store(sums, base + Z::DQ, Z::SUMS * 16);
    } else {
      bulk_add(sums, base + Z::DQ, Z::SUMS * 16);
    }
    store_commit();
    store_wait_read<0>();
    barrier_arrive(empty);
    store_wait();
    async_fence_global();
    store_release(turn, uint32_t(b.number + 1));
  }
}
#endif
}  // namespace attention
