// The weight gradient on Hopper: a block has Tile::M x Tile::N elements of one tap and a run of its pairs. Producers gather rows of both
// operands, 64 pairs a stage, and warpgroups of consumers, each with 64 rows of the result, multiply them by wgmma, both operands transposed.
#pragma once
#include "spconv_hopper.cuh"
#include "spconv_sum.cuh"

namespace spconv {
// What the producers do: stages of 64 pairs, each of Tile::M / 64 boxes of left and Tile::N / 64 of right, a box 64 pairs by 64 columns. FULL:
// all columns are inside. Branches between the copies cost a third of the kernel's rate, so columns outside are filled with zeros.
template <class T, class Tile, bool FULL>
__device__ inline void gather_pairs(const Sum &p, const Run &run, int m0, int n0, int steps, uint32_t ring) {
  constexpr int BOX = 64 * 128, LEFT = Tile::M / 64, RIGHT = Tile::N / 64, ROWS = Tile::PRODUCERS / 8, LOADS = 64 / ROWS;
  constexpr int AHEAD = Tile::M == 192 ? 1 : Tile::N == 256 ? 2 : 3;  // steps whose pairs are read before they are needed
  const uint32_t full = ring + Tile::RING, empty = full + 8 * Tile::STAGES;
  const int thread = threadIdx.x - Tile::CONSUMERS, chunk = thread % 8, row = thread / 8;
  const uint32_t to = ring + row * 128 + ((chunk ^ (row & 7)) << 4);
  const T *const left = static_cast<const T *>(p.left) + m0 + chunk * 8, *const right = static_cast<const T *>(p.right) + n0 + chunk * 8;
  const int32_t *const pairs = p.pairs + run.first + row;
  const int count = int(run.last - run.first) - row;
  uint32_t columns = 0;  // bit 4 + box: whether this thread's columns of the box are inside, left boxes first
  if constexpr (!FULL) {
#pragma unroll
    for (int box = 0; box < LEFT; box++) columns |= m0 + box * 64 + chunk * 8 < p.M ? 16 << box : 0;
#pragma unroll
    for (int box = 0; box < RIGHT; box++) columns |= n0 + box * 64 + chunk * 8 < p.N ? 16 << (LEFT + box) : 0;
  }
  int32_t l[AHEAD][LOADS], r[AHEAD][LOADS];
  const auto look = [&](int32_t(&l)[LOADS], int32_t(&r)[LOADS], int step) {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      const bool some = step * 64 + i * ROWS < count;
      l[i] = some ? pairs[step * 64 + i * ROWS] : -1;
      r[i] = some ? pairs[p.pitch + step * 64 + i * ROWS] : 0;
    }
  };
#pragma unroll
  for (int turn = 0; turn < AHEAD; turn++) look(l[turn], r[turn], turn);
  int stage = 0;
  uint32_t phase = 1;
  for (int first = 0; first < steps; first += AHEAD) {
#pragma unroll
    for (int turn = 0; turn < AHEAD; turn++) {
      if (first + turn >= steps) break;
      barrier_wait(empty + 8 * stage, phase);
      const uint32_t at = to + stage * Tile::STAGE;
#pragma unroll
      for (int i = 0; i < LOADS; i++) {
        const bool some = l[turn][i] >= 0;
        const uint32_t inside = some ? columns : 0;
        const T *const a = left + int64_t(some ? l[turn][i] : 0) * p.M, *const b = right + int64_t(r[turn][i]) * p.N;
#pragma unroll
        for (int box = 0; box < LEFT; box++) cp_async16(at + box * BOX + i * ROWS * 128, a + box * 64, FULL ? some : inside >> box & 16);
#pragma unroll
        for (int box = 0; box < RIGHT; box++) {
          cp_async16(at + Tile::A + box * BOX + i * ROWS * 128, b + box * 64, FULL ? some : inside >> (LEFT + box) & 16);
        }
      }
      arrive_after_copies(full + 8 * stage);
      if (++stage == Tile::STAGES) stage = 0, phase ^= 1;
      look(l[turn], r[turn], first + turn + AHEAD);
    }
  }
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) pair_sum_hopper(const __grid_constant__ Sum p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int STAGES = Tile::STAGES, BOX = 64 * 128;  // BOX: bytes of 64 pairs by 64 columns
  constexpr int PARTS = Tile::M == 192 ? 2 : 1, PART = Tile::N / PARTS;  // PART: a product's columns
  extern __shared__ unsigned char raw[];
  const uint32_t ring = (shared_address(raw) + 1023) / 1024 * 1024, full = ring + Tile::RING, empty = full + 8 * STAGES;
  const Run run = Run::of_slot(p, blockIdx.y);
  if (run.tap < 0) return;
  const int columns = (p.N + Tile::N - 1) / Tile::N, m0 = blockIdx.x / columns * Tile::M, n0 = blockIdx.x % columns * Tile::N;
  const int steps = int((run.last - run.first + 63) / 64), groups = p.M - m0 < Tile::M ? (p.M - m0 + 63) / 64 : Tile::M / 64;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + 8 * s, Tile::PRODUCERS);
      barrier_init(empty + 8 * s, 4 * groups);
    }
    barrier_init_fence();
  }
  __syncthreads();

  if (threadIdx.x >= Tile::CONSUMERS) {
    if constexpr (Tile::BLOCKS == 1) registers_shrink<Tile::M == 128 ? 56 : 32>();
    if (m0 + Tile::M <= p.M && n0 + Tile::N <= p.N)
      gather_pairs<T, Tile, true>(p, run, m0, n0, steps, ring);
    else
      gather_pairs<T, Tile, false>(p, run, m0, n0, steps, ring);
    return;
  }

  if constexpr (Tile::BLOCKS == 1) registers_grow<Tile::M == 128 ? 224 : 160>();
  float sum[PARTS][PART / 2] = {};
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  if (group >= groups) return;
  const uint64_t a = down_rows<64>(ring + group * BOX, BOX), b = down_rows<64>(ring + Tile::A, BOX);
  int stage = 0, pending = -1;
  uint32_t phase = 0;
  for (int step = 0; step < steps; step++) {
    barrier_wait(full + 8 * stage, phase);
    async_fence();
    wgmma_fence();
    const uint64_t at = units(stage * Tile::STAGE);
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int i = 0; i < PARTS; i++) {
        wgmma<T, 1, 1>(sum[i], a + at + units(k * 16 * 128), b + at + units(i * (PART / 64) * BOX + k * 16 * 128), 1);
      }
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (lane == 0 && pending >= 0) barrier_arrive(empty + 8 * pending);
    pending = stage;
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  if constexpr (PARTS == 1) {
    wgmma_wait<0>(sum[0]);
  } else {
    wgmma_wait<0>(sum[0], sum[1]);
  }
#pragma unroll
  for (int upper = 0; upper < 2; upper++) {
    const int m = m0 + group * 64 + warp * 16 + lane / 4 + 8 * upper;
    if (m >= p.M) continue;
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
#pragma unroll
      for (int j = 0; j < PART / 8; j++) {
        const int n = n0 + i * PART + j * 8 + lane % 4 * 2;
        if (n < p.N)
          *reinterpret_cast<float2 *>(run.target(p, blockIdx.y, m, n)) = {sum[i][j * 4 + upper * 2], sum[i][j * 4 + upper * 2 + 1]};
      }
    }
  }
#endif
}

template <class T, class Tile>
int32_t launch_sum_hopper(const char *where, const Sum &p, uint64_t stream) {
  constexpr int BYTES = 1024 + Tile::RING + Tile::BARRIERS;
  static const cudaError_t allowed = conv3d::allow_shared(pair_sum_hopper<T, Tile>, BYTES, Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const dim3 blocks(unsigned(ceil_div(p.M, Tile::M) * ceil_div(p.N, Tile::N)), unsigned(p.slots));
  pair_sum_hopper<T, Tile><<<blocks, Tile::THREADS, BYTES, stream_of(stream)>>>(p);
  return launched(where);
}
}  // namespace spconv
