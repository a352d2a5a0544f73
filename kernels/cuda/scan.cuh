// Exclusive sums and a stable radix sort, on integers: two runs agree. Both are a few launches, in scratch given by the caller.
#pragma once
#include "chain.cuh"

namespace scan {
constexpr int THREADS = 1024, ROUNDS = 16, WARPS = THREADS / 32, CHUNK = THREADS * ROUNDS;  // a block sums CHUNK numbers

inline int64_t chunks(int64_t n) { return ceil_div(n, CHUNK); }
inline uint64_t bytes(int64_t n) { return sizeof(int32_t) * uint64_t(ceil_div(chunks(n), 4) * 4); }

// The sum over the warps before this one; `all` is the whole block's.
__device__ inline int warps_before(int of_warp, int& all) {
  __shared__ int sums[WARPS];
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = of_warp;
  __syncthreads();
  int before = 0;
  all = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    before += w < int(threadIdx.x / 32) ? sums[w] : 0;
    all += sums[w];
  }
  return before;
}
__device__ inline int warp_total(int v) { return __reduce_add_sync(0xffffffffu, v); }

template <class Numbers>
__global__ void __launch_bounds__(THREADS) sum_chunks(Numbers numbers, int32_t* sums, int64_t n) {
  after_previous();
  const int64_t first = int64_t(blockIdx.x) * CHUNK + threadIdx.x;
  int sum = 0, all;
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) sum += first + i * THREADS < n ? numbers.get(first + i * THREADS) : 0;
  warps_before(warp_total(sum), all);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

template <class Numbers>
__global__ void __launch_bounds__(THREADS) scan_chunks(Numbers numbers, const int32_t* sums, int64_t n) {
  after_previous();
  const int lane = threadIdx.x % 32;
  const int64_t first = int64_t(blockIdx.x) * CHUNK + threadIdx.x / 32 * (32 * ROUNDS) + lane;
  int before = 0, all, at[ROUNDS], sum = 0;
  for (int64_t i = threadIdx.x; i < blockIdx.x; i += THREADS) before += sums[i];
  warps_before(warp_total(before), all);
  const int start = all;
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const int v = first + i * 32 < n ? numbers.get(first + i * 32) : 0;
    int up = v;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, up, o);
      up += lane >= o ? other : 0;
    }
    at[i] = sum + up - v;
    sum += __shfl_sync(0xffffffffu, up, 31);
  }
  before = start + warps_before(sum, all);
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    if (first + i * 32 < n) numbers.set(first + i * 32, before + at[i]);
  }
  if (threadIdx.x == 0 && blockIdx.x == gridDim.x - 1 && numbers.total) *numbers.total = start + all;
}

// numbers.set(i, the sum of numbers.get(j) over j < i) for i < n, *numbers.total = the sum of all where it is not null. n > 0.
template <class Numbers>
int32_t run(const char* where, Numbers numbers, int32_t* scratch, int64_t n, uint64_t stream) {
  if (n > CHUNK) launch_next(sum_chunks<Numbers>, unsigned(chunks(n)), THREADS, 0, stream, numbers, scratch, n);
  launch_next(scan_chunks<Numbers>, unsigned(chunks(n)), THREADS, 0, stream, numbers, static_cast<const int32_t*>(scratch), n);
  return launched(where);
}

struct Integers {
  int32_t *values, *total;
  __device__ int get(int64_t i) const { return values[i]; }
  __device__ void set(int64_t i, int sum) const { values[i] = sum; }
};
}  // namespace scan

namespace radix {
constexpr int DIGIT_BITS = 10, DIGITS = 1 << DIGIT_BITS, THREADS = 256, WARPS = THREADS / 32, ROUNDS = 8, CHUNK = THREADS * ROUNDS;

// Keys that lie in memory, n a set; others are computed: keys(set, i) is the i-th of a set.
struct Array {
  const uint64_t* keys;
  int64_t n;
  __device__ uint64_t operator()(int set, int64_t i) const { return keys[set * n + i]; }
};

// counts[set, digit, block], or with `by_block` [set, block, digit], of sets of n keys, one a row of blocks
template <class Keys>
__global__ void __launch_bounds__(THREADS) count_digits(int32_t* counts, Keys keys, int32_t n, int shift, int digits, bool by_block) {
  __shared__ int count[DIGITS];
  after_previous();
  counts += int64_t(blockIdx.y) * digits * gridDim.x;
  for (int i = threadIdx.x; i < digits; i += THREADS) count[i] = 0;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const int64_t at = int64_t(blockIdx.x) * CHUNK + i * THREADS + threadIdx.x;
    if (at < n) atomicAdd(&count[keys(blockIdx.y, at) >> shift & (digits - 1)], 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < digits; i += THREADS) {
    counts[by_block ? int64_t(blockIdx.x) * digits + i : int64_t(i) * gridDim.x + blockIdx.x] = count[i];
  }
}

// Moves keys and rows to their places by one digit. starts: counts summed up over all sets, or with `summed` false counts themselves, for
// few blocks: each sums them up on its own. rows_from: null means 0, 1, ...; keys_to may be null.
template <class Keys>
__global__ void __launch_bounds__(THREADS)
    move_digits(uint64_t* keys_to, int32_t* rows_to, Keys keys, const int32_t* rows_from, const int32_t* starts, int32_t n,
                int shift, int digits, bool summed) {
  static_assert(DIGITS % THREADS == 0);
  after_previous();
  __shared__ int places[WARPS][DIGITS], sums[WARPS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t set = int64_t(blockIdx.y) * n;  // where the set begins
  starts += int64_t(blockIdx.y) * digits * gridDim.x;
  for (int i = threadIdx.x; i < WARPS * DIGITS; i += THREADS) places[i / DIGITS][i % DIGITS] = 0;
  __syncthreads();
  const int64_t first = int64_t(blockIdx.x) * CHUNK + warp * (32 * ROUNDS) + lane;
  uint64_t key[ROUNDS];
  int rank[ROUNDS];
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const bool some = first + i * 32 < n;
    key[i] = some ? keys(blockIdx.y, first + i * 32) : 0;
    const int digit = some ? int(key[i] >> shift & (digits - 1)) : DIGITS;
    const uint32_t same = __match_any_sync(0xffffffffu, digit);
    const int before = some ? places[warp][digit] : 0;
    rank[i] = before + __popc(same & ((1u << lane) - 1));
    __syncwarp();
    if (some && __ffs(same) - 1 == lane) places[warp][digit] = before + __popc(same);
    __syncwarp();
  }
  __syncthreads();
  constexpr int EACH = DIGITS / THREADS;
  int start[EACH] = {};  // of digits EACH thread to EACH thread + EACH - 1
  const int mine = threadIdx.x * EACH;
  if (summed) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      if (mine + i < digits) start[i] = int(starts[int64_t(mine + i) * gridDim.x + blockIdx.x] - set);
    }
  } else {
    int all[EACH] = {};
    if (mine < digits) {
#pragma unroll 8
      for (unsigned b = 0; b < gridDim.x; b++) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
          const int count = mine + i < digits ? starts[int64_t(b) * digits + mine + i] : 0;
          start[i] += b < blockIdx.x ? count : 0;
          all[i] += count;
        }
      }
    }
    int own = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) own += all[i];
    int up = own;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, up, o);
      up += lane >= o ? other : 0;
    }
    if (lane == 31) sums[warp] = up;
    __syncthreads();
    int before = up - own;
    for (int w = 0; w < warp; w++) before += sums[w];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      start[i] += before;
      before += all[i];
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    for (int w = 0; w < WARPS; w++) {
      const int count = places[w][mine + i];
      places[w][mine + i] = start[i];
      start[i] += count;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    if (first + i * 32 >= n) continue;
    const int64_t to = set + places[warp][key[i] >> shift & (digits - 1)] + rank[i];
    if (keys_to) keys_to[to] = key[i];
    rows_to[to] = rows_from ? rows_from[set + first + i * 32] : int32_t(first + i * 32);
  }
}

struct Sizes {
  int64_t blocks, counts, scan_bytes, n;
  explicit Sizes(int64_t N, int64_t sets = 1)
      : blocks(ceil_div(N, CHUNK)), counts(sets * blocks * DIGITS), scan_bytes(int64_t(scan::bytes(counts))), n(ceil_div(sets * N, 4) * 4) {}
  uint64_t bytes() const { return uint64_t(2 * n * 8 + 2 * n * 4 + counts * 4 + scan_bytes); }
};

// One pass: places by one digit.
template <class Keys>
int32_t pass(const char* where, uint64_t* keys_to, int32_t* rows_to, Keys keys, const int32_t* rows, int32_t* counts, const Sizes& sizes,
             int32_t N, int sets, int shift, int digits, uint64_t stream) {
  const bool few = sizes.blocks <= 64;
  const dim3 blocks(unsigned(sizes.blocks), unsigned(sets));
  launch_next(count_digits<Keys>, blocks, THREADS, 0, stream, counts, keys, N, shift, digits, few);
  if (!few) {
    int32_t* const sums = counts + sizes.counts;
    if (int32_t status = scan::run(where, scan::Integers{counts, nullptr}, sums, sets * sizes.blocks * digits, stream)) return status;
  }
  launch_next(move_digits<Keys>, blocks, THREADS, 0, stream, keys_to, rows_to, keys, rows, counts, N, shift, digits, !few);
  return launched(where);
}

// order[set] = the rows by the lower `bits` bits of keys(set, row), equal ones in their own order. order: [sets, N], sets * N below 2^31
// scratch: Sizes(N, sets).bytes(), aligned to 16
template <class Keys>
int32_t sort(const char* where, int32_t* order, Keys first, uint64_t scratch, int32_t N, int sets, int bits, uint64_t stream) {
  const Sizes sizes(N, sets);
  uint64_t* const spare_keys[2] = {at<uint64_t>(scratch), at<uint64_t>(scratch) + sizes.n};
  int32_t* const spare_rows[2] = {at<int32_t>(scratch + 16 * sizes.n), at<int32_t>(scratch + 16 * sizes.n) + sizes.n};
  int32_t* const counts = spare_rows[1] + sizes.n;
  const int passes = bits <= DIGIT_BITS ? 1 : int(ceil_div(bits, DIGIT_BITS)), width = bits < 1 ? 1 : int(ceil_div(bits, passes));
  for (int i = 0; i < passes; i++) {
    const bool last = i == passes - 1;
    uint64_t* const keys_to = last ? nullptr : spare_keys[i % 2];
    int32_t* const rows_to = last ? order : spare_rows[i % 2];
    const int32_t status =
        i == 0 ? pass(where, keys_to, rows_to, first, nullptr, counts, sizes, N, sets, 0, 1 << width, stream)
               : pass(where, keys_to, rows_to, Array{spare_keys[1 - i % 2], N}, spare_rows[1 - i % 2], counts, sizes, N, sets, i * width,
                      1 << width, stream);
    if (status) return status;
  }
  return K_OK;
}
}  // namespace radix
