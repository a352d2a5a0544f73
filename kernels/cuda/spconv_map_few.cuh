// Maps of few rows, as small samples have them: one block does what takes several launches otherwise, in shared memory. It can do FEW; up to
// FASTER it is the quicker way.
#pragma once
#include "coordinates_index.cuh"

namespace sparse {
namespace few {
constexpr int THREADS = 1024, WARPS = THREADS / 32, ROUNDS = 16, FEW = THREADS * ROUNDS, FASTER = 8192, WORDS = 8192;

// The sum of `value` over the threads before this one; `all` is the whole block's. Every thread calls it.
__device__ inline int sum_before(int value, int& all) {
  __shared__ int sums[WARPS];
  const int lane = threadIdx.x % 32;
  int up = value;
#pragma unroll
  for (int o = 1; o < 32; o *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, up, o);
    up += lane >= o ? other : 0;
  }
  __syncthreads();
  if (lane == 31) sums[threadIdx.x / 32] = up;
  __syncthreads();
  const int of_warp = sums[lane];
  const int before = __reduce_add_sync(0xffffffffu, lane < int(threadIdx.x / 32) ? of_warp : 0);
  all = __reduce_add_sync(0xffffffffu, of_warp);
  return before + up - value;
}

// Whether build_index can make an index: its grid must be small too.
inline bool index_fits(const IndexLayout& layout, int32_t N) { return N <= FASTER && layout.words <= WORDS; }
constexpr int INDEX_BYTES = 8 * WORDS + 8 * FEW;

// What clear_index, mark_runs, mark_cells, their sums and place_rows do. One block.
static __global__ void __launch_bounds__(THREADS) build_index(Index index, const Place* from, int32_t* faults, int32_t N, int words) {
  extern __shared__ uint32_t shared[];
  uint32_t *const run_bits = shared, *const run_ranks = shared + WORDS, *const bits = shared + 2 * WORDS, *const ranks = bits + FEW;
  __shared__ int wrong[3];
  after_previous();
  const int t = threadIdx.x;
  for (int i = t; i < words; i += THREADS) run_bits[i] = 0;
  for (int i = t; i < N; i += THREADS) bits[i] = 0, index.rows[i] = ~0u;
  if (t < 3) wrong[t] = 0;
  __syncthreads();
  int place[ROUNDS];  // the number of the run, then z within it
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const int n = i * THREADS + t;
    place[i] = -1;
    if (n >= N) continue;
    const Place p = from[n];
    if (n && p.batch < from[n - 1].batch) atomicAdd(&wrong[2], 1);
    if (!p.inside(index.B, index.side)) {
      atomicAdd(&wrong[0], 1);
      continue;
    }
    const int run = int(index.run_of(p));
    place[i] = run << 5 | (p.z & 31);
    atomicOr(&run_bits[run >> 5], 1u << (run & 31));
  }
  __syncthreads();
  int count = 0, all;
  for (int i = t * (WORDS / THREADS); i < (t + 1) * (WORDS / THREADS) && i < words; i++) count += __popc(run_bits[i]);
  count = sum_before(count, all);
  for (int i = t * (WORDS / THREADS); i < (t + 1) * (WORDS / THREADS) && i < words; i++) {
    run_ranks[i] = uint32_t(count);
    count += __popc(run_bits[i]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    if (place[i] < 0) continue;
    const int run = place[i] >> 5;
    const uint32_t cell = run_ranks[run >> 5] + __popc(run_bits[run >> 5] & ((1u << (run & 31)) - 1)), bit = 1u << (place[i] & 31);
    if (atomicOr(&bits[cell], bit) & bit) atomicAdd(&wrong[1], 1);
    place[i] = int(cell) << 5 | (place[i] & 31);
  }
  __syncthreads();
  count = 0;
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) count += t * ROUNDS + i < N ? __popc(bits[t * ROUNDS + i]) : 0;
  count = sum_before(count, all);
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    if (t * ROUNDS + i >= N) continue;
    ranks[t * ROUNDS + i] = uint32_t(count);
    count += __popc(bits[t * ROUNDS + i]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    if (place[i] < 0) continue;
    const Word cell{bits[place[i] >> 5], ranks[place[i] >> 5]};
    atomicMin(&index.rows[Index::rank(cell, place[i])], uint32_t(i * THREADS + t));
  }
  for (int i = t; i < words; i += THREADS) index.runs[i] = {run_bits[i], run_ranks[i]};
  for (int i = t; i < N; i += THREADS) index.cells[i] = {bits[i], ranks[i]};
  if (t < 3 && faults) faults[t] = wrong[t];
}

constexpr int PLAN_BYTES = 4 * FEW + 2 * 2 * FEW + 2 * WARPS * 512;

// What radix::sort and make_masks do of keys of at most 27 bits. A block has a part.
static __global__ void __launch_bounds__(THREADS)
    make_plan(int32_t* order, uint32_t* masks, const uint32_t* taps, int32_t rows, int K, int parts) {
  extern __shared__ uint32_t shared[];
  uint32_t* const keys = shared;  // by row
  uint16_t *now = reinterpret_cast<uint16_t*>(shared + FEW), *next = now + FEW;
  uint16_t* const counts = now + 2 * FEW;  // [warp, digit]
  __shared__ int starts[512];
  after_previous();
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, words = (K + 31) / 32, part = blockIdx.x, bits = part_bits(K, parts);
  for (int r = t; r < rows; r += THREADS) {
    keys[r] = part_key(taps + int64_t(r) * words, K, parts, part);
    now[r] = uint16_t(r);
  }
  const int passes = (bits + 8) / 9, width = passes ? (bits + passes - 1) / passes : 0, digits = 1 << width;
  for (int pass = 0; pass < passes; pass++) {
    __syncthreads();
    for (int i = t; i < WARPS * digits; i += THREADS) counts[i / digits * 512 + i % digits] = 0;
    __syncthreads();
    uint16_t row[ROUNDS], rank[ROUNDS];
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      const int at = (warp * ROUNDS + i) * 32 + lane;
      const bool some = at < rows;
      row[i] = some ? now[at] : 0;
      const int digit = some ? int(keys[row[i]] >> pass * width & (digits - 1)) : 512;
      const uint32_t same = __match_any_sync(0xffffffffu, digit);
      const int before = some ? counts[warp * 512 + digit] : 0;
      rank[i] = uint16_t(before + __popc(same & ((1u << lane) - 1)));
      __syncwarp();
      if (some && __ffs(same) - 1 == lane) counts[warp * 512 + digit] = uint16_t(before + __popc(same));
      __syncwarp();
    }
    __syncthreads();
    int sum = 0, all;
    if (t < digits) {
#pragma unroll 8
      for (int w = 0; w < WARPS; w++) {
        const int count = counts[w * 512 + t];
        counts[w * 512 + t] = uint16_t(sum);
        sum += count;
      }
    }
    const int start = sum_before(sum, all);
    if (t < digits) starts[t] = start;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if ((warp * ROUNDS + i) * 32 + lane >= rows) continue;
      const int digit = int(keys[row[i]] >> pass * width & (digits - 1));
      next[starts[digit] + counts[warp * 512 + digit] + rank[i]] = row[i];
    }
    uint16_t* const other = now;
    now = next;
    next = other;
  }
  __syncthreads();
  const int from = part * (K / parts), to = from + K / parts, tiles = (rows + 63) / 64;
  for (int i = t; i < rows; i += THREADS) order[int64_t(part) * rows + i] = now[i];
  for (int item = warp; item < tiles * words; item += WARPS) {
    const int tile = item / words, word = item % words, low = tile * 64 + lane, high = low + 32;
    const uint32_t some = (low < rows ? taps[int64_t(now[low]) * words + word] : 0) | (high < rows ? taps[int64_t(now[high]) * words + word] : 0);
    const uint32_t mask = __reduce_or_sync(0xffffffffu, some) & word_mask(from, to, word);
    if (lane == 0) masks[(int64_t(part) * tiles + tile) * words + word] = mask;
  }
}

constexpr int MOST_PAIR_ROWS = 65536;

// The pairs of a tap and where they begin: a block has a tap, and counts those of the taps before it too.
static __global__ void __launch_bounds__(THREADS)
    make_pairs(int32_t* pairs, int32_t* offsets, const int32_t* table, const uint32_t* taps, int32_t rows, int K) {
  after_previous();
  const int tap = blockIdx.x, words = (K + 31) / 32, word = tap / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int each = (rows + WARPS * 32 - 1) / (WARPS * 32) * 32, first = warp * each, last = first + each < rows ? first + each : rows;
  int earlier = 0, mine = 0;  // pairs of the taps before, and of this tap, in the warp's rows
#pragma unroll 4
  for (int r = first + lane; r < last; r += 32) {
    for (int w = 0; w < word; w++) earlier += __popc(taps[int64_t(r) * words + w]);
    const uint32_t mask = taps[int64_t(r) * words + word];
    earlier += __popc(mask & ((1u << tap % 32) - 1));
    mine += mask >> tap % 32 & 1;
  }
  int begin, all;
  sum_before(earlier, begin);
  const int before = sum_before(mine, all);
  int at = begin + __shfl_sync(0xffffffffu, before, 0);
  if (threadIdx.x == 0) {
    offsets[tap] = begin;
    if (tap == K - 1) offsets[K] = begin + all;
  }
#pragma unroll 4
  for (int chunk = first; chunk < last; chunk += 32) {
    const int r = chunk + lane;
    const bool some = r < last && (taps[int64_t(r) * words + word] >> tap % 32 & 1);
    const uint32_t which = __ballot_sync(0xffffffffu, some);
    if (some) {
      const int64_t to = at + __popc(which & ((1u << lane) - 1));
      pairs[to] = r;
      pairs[int64_t(rows) * K + to] = table[int64_t(r) * K + tap];
    }
    at += __popc(which);
  }
}

// Lets `kernel` use `bytes` of shared memory; with false the device has less.
template <class F>
bool allow(F* kernel, int bytes) {
  int device = 0, most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes <= most && cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) == cudaSuccess;
}
}  // namespace few
}  // namespace sparse
