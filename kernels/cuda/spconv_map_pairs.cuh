// The pairs of a table by tap, in two launches: the taps are counted in runs of rows, then each run of rows adds up what lies before it and
// writes its pairs. Whoever counts also adds up groups of runs, so that a run reads some 2 sqrt(runs) counts a tap.
#pragma once
#include "chain.cuh"
#include "mma.cuh"

namespace sparse {
namespace pairs {
constexpr int COUNTERS = 1024, WRITERS = 288;  // threads: a warp counts a run; a writing warp has every ninth tap, three of 27

struct Sizes {
  int rows, group, words;  // rows of a run, runs of a group
  int64_t runs, groups;
  Sizes(int32_t N, int32_t K) : rows(N <= 393216 || K > 27 ? 128 : 512), group(32), words(int(ceil_div(K, 32))) {
    runs = ceil_div(N, rows);
    while (4 * int64_t(group) * group < runs) group *= 2;
    groups = ceil_div(runs, group);
  }
  uint64_t bytes() const { return uint64_t(runs + groups) * words * 128; }
};
constexpr int MOST_SHARED = 128 * 125 * 4;  // bytes a writing block has of the table

// Bit r of lane t = bit t of lane r.
__device__ inline uint32_t transpose(uint32_t bits) {
  const int lane = threadIdx.x % 32;
  uint32_t kept = 0x0000ffff;
#pragma unroll
  for (int s = 16; s; s /= 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, bits, s);
    bits = lane & s ? (bits & ~kept) | (other >> s & kept) : (bits & kept) | (other << s & ~kept);
    kept ^= kept << s / 2;
  }
  return bits;
}

// counts[run, tap] = the run's rows that have the tap, sums[group, tap] = those of the group's runs; both by words of 32 taps. A block has a
// group.
static __global__ void __launch_bounds__(COUNTERS)
    count(int32_t* counts, int32_t* sums, const uint32_t* taps, int32_t rows, int words, int of_run, int64_t runs, int group) {
  __shared__ int found[COUNTERS / 32][32];
  after_previous();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int word = 0; word < words; word++) {
    int all = 0;
    for (int64_t run = int64_t(blockIdx.x) * group + warp; run < runs && run < int64_t(blockIdx.x + 1) * group; run += COUNTERS / 32) {
      const int64_t first = run * of_run + lane;
      int mine = 0;
#pragma unroll 4
      for (int i = 0; i < of_run; i += 32) mine += __popc(transpose(first + i < rows ? taps[(first + i) * words + word] : 0));
      counts[(run * words + word) * 32 + lane] = mine;
      all += mine;
    }
    found[warp][lane] = all;
    __syncthreads();
    if (warp == 0) {
      int sum = 0;
#pragma unroll
      for (int w = 0; w < COUNTERS / 32; w++) sum += found[w][lane];
      sums[(int64_t(blockIdx.x) * words + word) * 32 + lane] = sum;
    }
    __syncthreads();
  }
}

// A block has a run: its part of the table in shared memory, a warp every ninth tap.
static __global__ void __launch_bounds__(WRITERS)
    write(int32_t* pairs, int32_t* offsets, const int32_t* counts, const int32_t* sums, const int32_t* table, int32_t rows, int K, int words,
          int of_run, int group, int groups) {
  extern __shared__ __align__(16) int32_t part[];  // [of_run, K]
  __shared__ int before[WRITERS / 32][32], all[WRITERS / 32][32], starts[128];
  after_previous();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, run = blockIdx.x, mine = run / group;
  const int64_t first = int64_t(run) * of_run;
  const int own_rows = int(rows - first < of_run ? rows - first : of_run), count = own_rows * K;
  for (int i = threadIdx.x * 4; i < count; i += WRITERS * 4) {
    if (i + 4 <= count) {
      cp_async16(shared_address(part + i), table + first * K + i, true);
    } else {
      for (int j = i; j < count; j++) cp_async4(shared_address(part + j), table + first * K + j, true);
    }
  }
  int taps_before = 0;  // pairs of the words before
  for (int word = 0; word < words; word++) {
    int own = 0, sum = 0;
#pragma unroll 4
    for (int g = warp; g < groups; g += WRITERS / 32) {
      const int c = sums[(int64_t(g) * words + word) * 32 + lane];
      own += g < mine ? c : 0;
      sum += c;
    }
#pragma unroll 4
    for (int r = mine * group + warp; r < run; r += WRITERS / 32) own += counts[(int64_t(r) * words + word) * 32 + lane];
    before[warp][lane] = own;
    all[warp][lane] = sum;
    __syncthreads();
    if (warp == 0) {
      own = sum = 0;
#pragma unroll
      for (int w = 0; w < WRITERS / 32; w++) own += before[w][lane], sum += all[w][lane];
      int up = sum;
#pragma unroll
      for (int o = 1; o < 32; o *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, up, o);
        up += lane >= o ? other : 0;
      }
      const int begin = taps_before + up - sum, tap = word * 32 + lane;
      starts[tap] = begin + own;
      if (run == 0 && tap < K) offsets[tap] = begin;
      if (run == 0 && tap == K - 1) offsets[K] = begin + sum;
      taps_before += __shfl_sync(0xffffffffu, up, 31);
    }
    __syncthreads();
  }
  cp_async_wait();
  __syncthreads();
  const uint32_t below = (1u << lane) - 1;
  for (int tap = warp; tap < K; tap += WRITERS / 32) {
    int32_t* to = pairs + starts[tap];
    const int32_t* mine = part + lane * K + tap;
#pragma unroll 4
    for (int r = lane; r < of_run; r += 32) {
      const int32_t n = r < own_rows ? *mine : -1;
      const uint32_t some = __ballot_sync(0xffffffffu, n >= 0);
      if (n >= 0) {
        int32_t* const here = to + __popc(some & below);
        here[0] = int32_t(first) + r;
        here[int64_t(rows) * K] = n;
      }
      to += __popc(some);
      mine += 32 * K;
    }
  }
}

// rows > 0; scratch: Sizes(rows, K).bytes(), aligned to 16
inline int32_t build(const char* where, int32_t* pairs, int32_t* offsets, const int32_t* table, const uint32_t* taps, int32_t* scratch, int32_t rows,
                     int32_t K, uint64_t stream) {
  const Sizes sizes(rows, K);
  int32_t *const counts = scratch, *const sums = counts + sizes.runs * sizes.words * 32;
  static const cudaError_t roomy = cudaFuncSetAttribute(write, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_SHARED);
  if (roomy != cudaSuccess) return fail(roomy, where, "%s", cudaGetErrorString(roomy));
  launch_next(count, unsigned(sizes.groups), COUNTERS, 0, stream, counts, sums, taps, rows, sizes.words, sizes.rows, sizes.runs, sizes.group);
  launch_next(write, unsigned(sizes.runs), WRITERS, size_t(sizes.rows) * K * sizeof(int32_t), stream, pairs, offsets, counts, sums, table, rows, K,
              sizes.words, sizes.rows, sizes.group, int(sizes.groups));
  return launched(where);
}
}  // namespace pairs
}  // namespace sparse
