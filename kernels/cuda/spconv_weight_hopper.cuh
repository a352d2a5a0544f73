// The weight gradient on Hopper: a block has 128 x Tile::N elements of one tap and a run of its pairs. Producers gather rows of both
// operands, 64 pairs a stage, and two warpgroups of consumers multiply them by wgmma, both operands transposed.
#pragma once
#include "spconv_hopper.cuh"
#include "spconv_sum.cuh"

namespace spconv {
template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) pair_sum_hopper(const __grid_constant__ Sum p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int STAGES = Tile::STAGES, BOX = 64 * 128;  // BOX: bytes of 64 pairs by 64 columns
  extern __shared__ unsigned char raw[];
  const uint32_t ring = (shared_address(raw) + 1023) / 1024 * 1024, full = ring + Tile::RING, empty = full + 8 * STAGES;
  const Run run = Run::of_slot(p, blockIdx.y);
  if (run.tap < 0) return;
  const int columns = (p.N + Tile::N - 1) / Tile::N, m0 = blockIdx.x / columns * 128, n0 = blockIdx.x % columns * Tile::N;
  const int steps = int((run.last - run.first + 63) / 64);
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + 8 * s, Tile::PRODUCERS);
      barrier_init(empty + 8 * s, 8);
    }
    barrier_init_fence();
  }
  __syncthreads();

  if (threadIdx.x >= 256) {
    constexpr int ROWS = Tile::PRODUCERS / 8, LOADS = 64 / ROWS;
    if constexpr (Tile::BLOCKS == 1) registers_shrink<72>();
    const int thread = threadIdx.x - 256, chunk = thread % 8, row = thread / 8;
    const uint32_t to = ring + row * 128 + ((chunk ^ (row & 7)) << 4);
    const T *const left = static_cast<const T *>(p.left) + m0 + chunk * 8, *const right = static_cast<const T *>(p.right) + n0 + chunk * 8;
    // A warp needs 4 LOADS pairs a step, DEPTH steps ahead: lanes read them side by side and hand them round.
    constexpr int WORDS = LOADS / 4, DEPTH = 4, SHARE = 32 / (2 / WORDS);
    static_assert(WORDS == 1 || WORDS == 2);
    const int lane = thread % 32, share = lane % SHARE, mine = thread / 32 * 4 + share % 4 + share / 4 * ROWS;
    int32_t ahead[DEPTH][WORDS];
    const auto look = [&](int32_t(&to)[WORDS], int step) {
      const int64_t pair = run.first + int64_t(step) * 64 + mine;
#pragma unroll
      for (int i = 0; i < WORDS; i++) to[i] = pair < run.last ? p.pairs[pair + (WORDS == 1 ? lane / SHARE : i) * p.pitch] : -1;
    };
#pragma unroll
    for (int i = 0; i < DEPTH; i++) look(ahead[i], i);
    int stage = 0;
    uint32_t phase = 1;
    for (int first = 0; first < steps; first += DEPTH) {
#pragma unroll
      for (int turn = 0; turn < DEPTH; turn++) {
        if (first + turn >= steps) break;
        int32_t l[LOADS], r[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
          l[i] = __shfl_sync(0xffffffffu, ahead[turn][0], i * 4 + lane / 8);
          r[i] = __shfl_sync(0xffffffffu, ahead[turn][WORDS - 1], (WORDS == 1 ? 16 : 0) + i * 4 + lane / 8);
        }
        look(ahead[turn], first + turn + DEPTH);
        barrier_wait(empty + 8 * stage, phase);
        const uint32_t at = to + stage * Tile::STAGE;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
          const T *const a = left + int64_t(l[i]) * p.M, *const b = right + int64_t(r[i]) * p.N;
#pragma unroll
          for (int box = 0; box < 2; box++) {
            if (m0 + box * 64 >= p.M) break;  // what the stage holds there goes to no result
            const bool wanted = l[i] >= 0 && m0 + box * 64 + chunk * 8 < p.M;
            cp_async16(at + box * BOX + i * ROWS * 128, wanted ? a + box * 64 : p.left, wanted);
          }
#pragma unroll
          for (int box = 0; box < Tile::N / 64; box++) {
            if (n0 + box * 64 >= p.N) break;
            const bool wanted = r[i] >= 0 && n0 + box * 64 + chunk * 8 < p.N;
            cp_async16(at + Tile::A + box * BOX + i * ROWS * 128, wanted ? b + box * 64 : p.right, wanted);
          }
        }
        arrive_after_copies(full + 8 * stage);
        if (++stage == STAGES) stage = 0, phase ^= 1;
      }
    }
    return;
  }

  if constexpr (Tile::BLOCKS == 1) registers_grow<216>();
  float sum[Tile::N / 2] = {};
  const int half = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const uint64_t a = down_rows<64>(ring + half * BOX, BOX), b = down_rows<64>(ring + Tile::A, BOX);
  int stage = 0, pending = -1;
  uint32_t phase = 0;
  for (int step = 0; step < steps; step++) {
    barrier_wait(full + 8 * stage, phase);
    async_fence();
    wgmma_fence();
    const uint64_t at = units(stage * Tile::STAGE);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      wgmma<T, 1, 1>(sum, a + at + units(k * 16 * 128), b + at + units(k * 16 * 128), 1);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (lane == 0 && pending >= 0) barrier_arrive(empty + 8 * pending);
    pending = stage;
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  wgmma_wait<0>(sum);
#pragma unroll
  for (int upper = 0; upper < 2; upper++) {
    const int m = m0 + half * 64 + warp * 16 + lane / 4 + 8 * upper;
    if (m >= p.M) continue;
#pragma unroll
    for (int j = 0; j < Tile::N / 8; j++) {
      const int n = n0 + j * 8 + lane % 4 * 2;
      if (n < p.N) *reinterpret_cast<float2 *>(run.target(p, blockIdx.y, m, n)) = {sum[j * 4 + upper * 2], sum[j * 4 + upper * 2 + 1]};
    }
  }
#endif
}

template <class T, class Tile>
int32_t launch_sum_hopper(const char *where, const Sum &p, uint64_t stream) {
  constexpr int BYTES = 1024 + Tile::RING + Tile::BARRIERS;
  static const cudaError_t allowed = conv3d::allow_shared(pair_sum_hopper<T, Tile>, BYTES, Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const dim3 blocks(unsigned(ceil_div(p.M, 128) * ceil_div(p.N, Tile::N)), unsigned(p.slots));
  pair_sum_hopper<T, Tile><<<blocks, Tile::THREADS, BYTES, stream_of(stream)>>>(p);
  return launched(where);
}
}  // namespace spconv
