// What the weight gradient's kernels share: how the pairs of all taps are cut into runs, one a block and tile, whose sums are added in
// order.
#pragma once
#include "spconv.cuh"

namespace spconv {
// sum(t)[m, n] = sum over the pairs (r, q) of tap t of left[r, m] right[q, n]
struct Sum {
  float *dw, *partial;  // dw: [M, K, N]    partial: [slots, M, N]
  const void *left, *right;
  const int32_t *pairs, *offsets;
  int64_t pitch;  // from pairs' first row to its second
  int K, M, N, regions, slots;
};

// The pairs of every tap are cut into as many regions, so that a region of all taps has about the same rows, and these into runs of about
// equal length. Slots go through the regions, in each through the taps, in each through its runs: blocks of a moment have taps side by side,
// which read nearly the same rows. All runs together fit into p.slots. A tap of one run needs no slot: it goes to dw.
struct Runs {
  int64_t length;
  int of_region;

  static constexpr int STEP = 64;  // runs are multiples of a kernel's step
  // All lanes of a warp call it.
  __device__ explicit Runs(const Sum& p) : of_region(0) {
    const int64_t most = int64_t(p.slots / p.regions - p.K) * p.regions, run = (int64_t(p.offsets[p.K]) + most - 1) / most;
    length = run < 4 * STEP ? 4 * STEP : (run + STEP - 1) / STEP * STEP;
    for (int tap = threadIdx.x % 32; tap < p.K; tap += 32) of_region += count(p, tap);
    of_region = __reduce_add_sync(0xffffffffu, of_region);
  }
  // The runs of a region that a tap has.
  __device__ int count(const Sum& p, int tap) const {
    const int64_t pairs = p.offsets[tap + 1] - p.offsets[tap];
    return int((pairs + length * p.regions - 1) / (length * p.regions));
  }
  // The runs of a region that the taps before this one have. All lanes of a warp call it.
  __device__ int before(const Sum& p, int tap) const {
    int sum = 0;
    for (int t = threadIdx.x % 32; t < tap; t += 32) sum += count(p, t);
    return __reduce_add_sync(0xffffffffu, sum);
  }
};

// The run in slot `at`: tap -1 where there is none. All lanes of a warp call it.
struct Run {
  int tap;
  bool alone;  // whether the tap has no other run
  int64_t first, last;

  static constexpr int STEP = Runs::STEP;
  static __device__ Run of_slot(const Sum& p, int at) {
    const Runs runs(p);
    if (runs.of_region == 0 || at >= runs.of_region * p.regions) return {-1, false, 0, 0};
    const int region = at / runs.of_region, lane = threadIdx.x % 32;
    int rest = at - region * runs.of_region, tap = 0, count = 0;
    for (int group = 0; group < p.K; group += 32) {  // 32 taps at a time
      const int mine = group + lane < p.K ? runs.count(p, group + lane) : 0;
      int up = mine;
      for (int o = 1; o < 32; o *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, up, o);
        up += lane >= o ? other : 0;
      }
      const uint32_t past = __ballot_sync(0xffffffffu, up > rest);
      const int which = past ? __ffs(past) - 1 : 31;
      count = __shfl_sync(0xffffffffu, mine, which);
      tap = group + which;
      if (past) {
        rest -= __shfl_sync(0xffffffffu, up - mine, which);
        break;
      }
      rest -= __shfl_sync(0xffffffffu, up, 31);
    }
    const int64_t start = p.offsets[tap], pairs = p.offsets[tap + 1] - start;
    const int64_t begin = start + pairs * region / p.regions, end = start + pairs * (region + 1) / p.regions;
    const int64_t each = ((end - begin + count - 1) / count + STEP - 1) / STEP * STEP, first = begin + rest * each;
    return {tap, count == 1 && p.regions == 1, first < end ? first : end, first + each < end ? first + each : end};
  }
  // Where element (m, n) of this run's sum goes.
  __device__ float* target(const Sum& p, int at, int m, int n) const {
    return alone ? p.dw + (int64_t(m) * p.K + tap) * p.N + n : p.partial + (int64_t(at) * p.M + m) * p.N + n;
  }
};

// Adds the runs of taps that have none or several. Blocks (i, tap) go through a tap's sum together, V elements a thread and turn.
template <int V>
__global__ void __launch_bounds__(128) add_runs(Sum p) {
  after_previous();
  const int tap = blockIdx.y;
  const Runs runs(p);
  const int count = runs.count(p, tap), before = runs.before(p, tap);
  if (count == 1 && p.regions == 1) return;
  const int64_t size = int64_t(p.M) * p.N, step = int64_t(gridDim.x) * 128 * V;
  for (int64_t at = (int64_t(blockIdx.x) * 128 + threadIdx.x) * V; at < size; at += step) {
    Pack<float, V> sum{};
    for (int region = 0; region < (count ? p.regions : 0); region++) {
      const float* const from = p.partial + int64_t(region * runs.of_region + before) * size + at;
#pragma unroll 8
      for (int i = 0; i < count; i++) {
        const auto more = *reinterpret_cast<const Pack<float, V>*>(from + i * size);
#pragma unroll
        for (int e = 0; e < V; e++) sum.v[e] += more.v[e];
      }
    }
    const int64_t m = at / p.N;
    *reinterpret_cast<Pack<float, V>*>(p.dw + (m * p.K + tap) * p.N + (at - m * p.N)) = sum;
  }
}

inline int32_t add_runs(const char* where, const Sum& p, uint64_t stream) {
  const bool wide = p.N % 4 == 0 && reinterpret_cast<uint64_t>(p.dw) % 16 == 0 && reinterpret_cast<uint64_t>(p.partial) % 16 == 0;
  const int64_t turns = ceil_div(int64_t(p.M) * p.N, wide ? 512 : 128);
  const dim3 blocks(unsigned(turns < 256 ? turns : 256), unsigned(p.K));
  if (wide)
    launch_next(add_runs<4>, blocks, 128, 0, stream, p);
  else
    launch_next(add_runs<1>, blocks, 128, 0, stream, p);
  return launched(where);
}
}  // namespace spconv
