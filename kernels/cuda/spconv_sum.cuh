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
  int K, M, N, slots;
};

// The pairs of tap t are cut into `runs` of `length`, in slots from `slot` on. All runs together fit into p.slots. A tap of one run needs
// no slot: it goes to dw.
struct Run {
  int tap, runs, slot;
  int64_t first, last;

  static constexpr int STEP = 64;  // runs are multiples of a kernel's step
  static __device__ int64_t length(const Sum& p) {
    const int64_t most = p.slots - p.K, run = (int64_t(p.offsets[p.K]) + most - 1) / most;
    return run < 4 * STEP ? 4 * STEP : (run + STEP - 1) / STEP * STEP;
  }
  static __device__ int count(const Sum& p, int tap, int64_t length) {
    return int((p.offsets[tap + 1] - p.offsets[tap] + length - 1) / length);
  }
  // Of the block that has slot `at`: tap -1 where there is none.
  static __device__ Run of_slot(const Sum& p, int at) {
    const int64_t longest = length(p);
    int slot = 0;
    for (int tap = 0; tap < p.K; tap++) {
      const int runs = count(p, tap, longest);
      if (at < slot + runs) {
        const int64_t begin = p.offsets[tap], end = p.offsets[tap + 1];
        const int64_t each = ((end - begin + runs - 1) / runs + STEP - 1) / STEP * STEP, first = begin + (at - slot) * each;
        return {tap, runs, slot, first < end ? first : end, first + each < end ? first + each : end};
      }
      slot += runs;
    }
    return {-1, 0, 0, 0, 0};
  }
  static __device__ Run of_tap(const Sum& p, int tap) {
    const int64_t longest = length(p);
    int slot = 0;
    for (int t = 0; t < tap; t++) slot += count(p, t, longest);
    return {tap, count(p, tap, longest), slot, 0, 0};
  }
  // Where element (m, n) of this run's sum goes.
  __device__ float* target(const Sum& p, int at, int m, int n) const {
    return runs == 1 ? p.dw + (int64_t(m) * p.K + tap) * p.N + n : p.partial + (int64_t(at) * p.M + m) * p.N + n;
  }
};

// Adds the runs of taps that have none or several. A block has row m of a tap.
static __global__ void __launch_bounds__(128) add_runs(Sum p) {
  const int m = blockIdx.x / p.K, tap = blockIdx.x % p.K;
  const Run run = Run::of_tap(p, tap);
  if (run.runs == 1) return;
  const int64_t size = int64_t(p.M) * p.N;
  for (int n = threadIdx.x; n < p.N; n += 128) {
    const float* const from = p.partial + (int64_t(run.slot) * p.M + m) * p.N + n;
    float sum = 0;
#pragma unroll 4
    for (int i = 0; i < run.runs; i++) sum += from[i * size];
    p.dw[(int64_t(m) * p.K + tap) * p.N + n] = sum;
  }
}
}  // namespace spconv
