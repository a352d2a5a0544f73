// A stable radix sort of 32-bit keys with values, whose length and bits only the device knows: three launches a digit of at most 8 bits. Two runs
// agree. What is sorted says so: get() is the length, key(k) what is sorted by, most() the largest of these.
#pragma once
#include "chain.cuh"

namespace splat_sort {
constexpr int THREADS = 256, WARPS = THREADS / 32, ROUNDS = 4, CHUNK = THREADS * ROUNDS, DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS;
static_assert(DIGITS == THREADS);

inline int64_t blocks_of(int64_t most) { return ceil_div(most, CHUNK); }
// Of `counts` below, for at most `most` keys.
inline int64_t count_size(int64_t most) { return (blocks_of(most) + 1) * DIGITS; }

// The sum over the threads before this one, and over the whole block.
__device__ inline int block_scan(int v, int& all) {
  __shared__ int sums[WARPS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int up = v;
#pragma unroll
  for (int o = 1; o < 32; o *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, up, o);
    up += lane >= o ? other : 0;
  }
  __syncthreads();
  if (lane == 31) sums[warp] = up;
  __syncthreads();
  int before = up - v;
  all = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    before += w < warp ? sums[w] : 0;
    all += sums[w];
  }
  return before;
}

// Whether there are digits from bit `shift` on.
template <class Length>
__device__ bool has_digits(Length length, int shift) {
  return shift == 0 || (shift < 32 && length.most() >> shift != 0);
}

// counts[digit, block]
template <class Length>
__global__ void __launch_bounds__(THREADS) count_digits(int32_t* counts, const uint32_t* keys, Length length, int shift, int digits) {
  after_previous();
  __shared__ int count[DIGITS];
  if (!has_digits(length, shift)) return;
  const int64_t n = length.get(), first = int64_t(blockIdx.x) * CHUNK;
  if (first >= n) return;
  count[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const int64_t at = first + i * THREADS + threadIdx.x;
    if (at < n) atomicAdd(&count[(shift ? keys[at] : length.key(keys[at])) >> shift & (digits - 1)], 1);
  }
  __syncthreads();
  if (int(threadIdx.x) < digits) counts[int64_t(threadIdx.x) * gridDim.x + blockIdx.x] = count[threadIdx.x];
}

// A block a digit: counts become the sums over the blocks before, totals[digit] the whole.
template <class Length>
__global__ void __launch_bounds__(THREADS) scan_digits(int32_t* counts, int32_t* totals, Length length, int64_t blocks, int shift) {
  after_previous();
  if (!has_digits(length, shift)) return;
  const int64_t used = (length.get() + CHUNK - 1) / CHUNK;
  int32_t* row = counts + blockIdx.x * blocks;
  int before = 0, all;
  for (int64_t first = 0; first < used; first += THREADS) {
    const int64_t at = first + threadIdx.x;
    const int sum = block_scan(at < used ? row[at] : 0, all);
    if (at < used) row[at] = before + sum;
    before += all;
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

// values null: 0, 1, ... The pass that has no digits behind it writes to `last` in the place of values_to. By way of shared memory, so that what goes to one digit is written side by side.
template <class Value, class Length>
__global__ void __launch_bounds__(THREADS)
    move_digits(uint32_t* keys_to, Value* values_to, Value* last, const uint32_t* keys, const Value* values, const int32_t* counts,
                const int32_t* totals, Length length, int shift, int bits) {
  after_previous();
  __shared__ int places[WARPS][DIGITS], starts[DIGITS];
  __shared__ uint32_t moved_keys[CHUNK];
  __shared__ Value moved[CHUNK];
  const int64_t n = length.get(), chunk = int64_t(blockIdx.x) * CHUNK;
  if (chunk >= n || !has_digits(length, shift)) return;
  if (!has_digits(length, shift + bits)) values_to = last;
  const int digits = 1 << bits;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, digit_of_mine = threadIdx.x;
  for (int w = 0; w < WARPS; w++) places[w][threadIdx.x] = 0;
  __syncthreads();
  const int64_t first = chunk + warp * (32 * ROUNDS) + lane;
  uint32_t key[ROUNDS];
  int rank[ROUNDS];
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    key[i] = first + i * 32 < n ? keys[first + i * 32] : 0;
    if (shift == 0) key[i] = length.key(key[i]);
  }
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const bool some = first + i * 32 < n;
    const int digit = some ? int(key[i] >> shift & (digits - 1)) : DIGITS;
    const uint32_t same = __match_any_sync(0xffffffffu, digit);
    const int before = some ? places[warp][digit] : 0;
    rank[i] = before + __popc(same & ((1u << lane) - 1));
    __syncwarp();
    if (some && __ffs(same) - 1 == lane) places[warp][digit] = before + __popc(same);
    __syncwarp();
  }
  __syncthreads();
  int here = 0, all;
  for (int w = 0; w < WARPS; w++) here += places[w][digit_of_mine];
  const bool mine = digit_of_mine < digits;
  int local = block_scan(here, all);
  const int before = block_scan(mine ? totals[digit_of_mine] : 0, all);
  starts[digit_of_mine] = mine ? before + counts[int64_t(digit_of_mine) * gridDim.x + blockIdx.x] - local : 0;
  for (int w = 0; w < WARPS; w++) {
    const int count = places[w][digit_of_mine];
    places[w][digit_of_mine] = local;
    local += count;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    if (first + i * 32 >= n) continue;
    const int to = places[warp][key[i] >> shift & (digits - 1)] + rank[i];
    moved_keys[to] = key[i];
    moved[to] = values ? values[first + i * 32] : Value(first + i * 32);
  }
  __syncthreads();
  const int left = n - chunk < CHUNK ? int(n - chunk) : CHUNK;
  for (int j = threadIdx.x; j < left; j += THREADS) {
    const uint32_t k = moved_keys[j];
    const int to = starts[k >> shift & (digits - 1)] + j;
    keys_to[to] = k;
    values_to[to] = moved[j];
  }
}

// What a sort works on: what is sorted is only read, unless a spare buffer is the same. Pass p writes spare buffer p % 2.
template <class Value>
struct Buffers {
  const uint32_t* keys;
  const Value* values;  // null: 0, 1, ...
  uint32_t* spare_keys[2];
  Value* spare_values[2];
  int32_t* counts;  // count_size(most)
};

// Sorts by the lower `bits` bits; most is at least the length. The values go to `to`; the result are the sorted keys, where all passes have digits.
template <class Value, class Length>
const uint32_t* sort(Buffers<Value> b, Value* to, Length length, int64_t most, int bits, uint64_t stream) {
  const int64_t blocks = blocks_of(most);
  const int passes = bits <= DIGIT_BITS ? 1 : int(ceil_div(bits, DIGIT_BITS)), width = bits < 1 ? 1 : int(ceil_div(bits, passes));
  int32_t* const totals = b.counts + blocks * DIGITS;
  for (int pass = 0; pass < passes && most; pass++) {
    const int shift = pass * width;
    uint32_t* const keys_to = b.spare_keys[pass % 2];
    Value* const values_to = b.spare_values[pass % 2];
    launch_next(count_digits<Length>, unsigned(blocks), THREADS, 0, stream, b.counts, b.keys, length, shift, 1 << width);
    launch_next(scan_digits<Length>, 1u << width, THREADS, 0, stream, b.counts, totals, length, blocks, shift);
    launch_next(move_digits<Value, Length>, unsigned(blocks), THREADS, 0, stream, keys_to, values_to, to, b.keys, b.values, b.counts, totals, length,
                shift, width);
    b.keys = keys_to, b.values = values_to;
  }
  return b.keys;
}

constexpr int SCAN_THREADS = 1024, SCAN_EACH = 4;

// Sums become the sums before each; *total the whole. One block.
static __global__ void __launch_bounds__(SCAN_THREADS) scan_sums(int32_t* sums, int64_t n, int64_t* total) {
  after_previous();
  __shared__ int of_warps[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t before = 0;
  for (int64_t first = 0; first < n; first += SCAN_THREADS * SCAN_EACH) {
    const int64_t at = first + threadIdx.x * SCAN_EACH;
    int v[SCAN_EACH], sum = 0;
#pragma unroll
    for (int i = 0; i < SCAN_EACH; i++) v[i] = at + i < n ? sums[at + i] : 0;
#pragma unroll
    for (int i = 0; i < SCAN_EACH; i++) sum += v[i];
    int up = sum;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, up, o);
      up += lane >= o ? other : 0;
    }
    if (lane == 31) of_warps[warp] = up;
    __syncthreads();
    int64_t all = 0;
    int here = up - sum;
#pragma unroll
    for (int w = 0; w < 32; w++) {
      here += w < warp ? of_warps[w] : 0;
      all += of_warps[w];
    }
#pragma unroll
    for (int i = 0; i < SCAN_EACH; i++) {
      if (at + i < n) sums[at + i] = int32_t(before + here);
      here += v[i];
    }
    before += all;
    __syncthreads();
  }
  if (threadIdx.x == 0 && total) *total = before;
}
}  // namespace splat_sort
