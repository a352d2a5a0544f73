// Tables of neighbours, the order of their rows and their pairs on CUDA. Bounds for N rows of 27 taps: the table is 108 bytes a row,
// written once and read three times (keys, tile masks, pairs twice), pairs are about 104 bytes a row, the sort moves 24 bytes a row three
// times: some 0.6 KB a row, 0.15 ms for a million rows at 4.3 TB/s. Small sets are bound by about 20 launches.
#include "../include/spconv.h"

#include "coordinates_index.cuh"

namespace {
using namespace sparse;

__global__ void place_rows(Index index, const Place* from, int32_t N) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N || !from[n].inside(index.B, index.side)) return;
  const Place p = from[n];
  atomicMin(&index.rows[Index::rank(*index.find_run(p), p.z)], uint32_t(n));
}

// A block has 32 rows, one a lane; warp w the taps [w * kernel, (w + 1) * kernel), which lie along z.
__global__ void fill_table(int32_t* table, Index index, const Place* to, int32_t rows, int kernel, int stride, int padding,
                           bool transposed) {
  extern __shared__ int32_t found[];  // [32, K]
  const int K = kernel * kernel * kernel, lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const int64_t first = int64_t(blockIdx.x) * 32;
  const Place center = first + lane < rows ? to[first + lane] : Place{-1, 0, 0, 0};
  Place p{center.batch, reads(center.x, line / kernel, stride, padding, transposed),
          reads(center.y, line % kernel, stride, padding, transposed), 0};
  const bool some = p.inside(index.B, index.side);
  int known = -1;  // the run that `word` is of
  Word word{0, 0};
  for (int t = 0; t < kernel; t++) {
    p.z = reads(center.z, t, stride, padding, transposed);
    int row = -1;
    if (some && unsigned(p.z) < unsigned(index.side)) {
      if (p.z / 32 != known) {
        known = p.z / 32;
        const Word* const run = index.find_run(p);
        word = run ? *run : Word{0, 0};
      }
      if (word.bits >> (p.z & 31) & 1) row = int(index.rows[Index::rank(word, p.z)]);
    }
    found[lane * K + line * kernel + t] = row;
  }
  __syncthreads();
  const int64_t count = (rows - first < 32 ? rows - first : 32) * K;
  for (int i = threadIdx.x; i < count; i += blockDim.x) table[first * K + i] = found[i];
}

// A warp has 32 rows: its lanes look at the taps of one row after the other.
__global__ void __launch_bounds__(256) make_keys(uint64_t* keys, const int32_t* table, int32_t rows, int K, int group) {
  const int lane = threadIdx.x % 32, taps = key_taps(K), tap = lane < taps ? mask_tap(K, lane) : 0;
  const int64_t first = (int64_t(blockIdx.x) * 256 + threadIdx.x) / 32 * 32;
  uint32_t mine = 0;
#pragma unroll 8
  for (int i = 0; i < 32; i++) {
    const uint32_t mask = __ballot_sync(0xffffffffu, lane < taps && first + i < rows && table[(first + i) * K + tap] >= 0);
    if (i == lane) mine = mask;
  }
  const int64_t r = first + lane;
  if (r < rows) keys[r] = uint64_t(group ? r / group : 0) << KEY_TAPS | order_key(mine, taps);
}

// A warp has a tile.
__global__ void __launch_bounds__(256) make_masks(uint32_t* masks, const int32_t* order, const int32_t* table, int32_t rows, int K) {
  const int lane = threadIdx.x % 32, words = (K + 31) / 32;
  const int64_t tile = int64_t(blockIdx.x) * 8 + threadIdx.x / 32;
  if (tile * 64 >= rows) return;
  const int64_t first = tile * 64 + lane;
  const int32_t low = first < rows ? order[first] : -1, high = first + 32 < rows ? order[first + 32] : -1;
  for (int word = 0; word < words; word++) {
    const int tap = word * 32 + lane;
    bool some = false;
#pragma unroll 4
    for (int i = 0; i < 64; i++) {
      const int64_t r = __shfl_sync(0xffffffffu, i < 32 ? low : high, i % 32);
      some |= r >= 0 && tap < K && table[r * K + tap] >= 0;
    }
    const uint32_t mask = __ballot_sync(0xffffffffu, some);
    if (lane == 0) masks[tile * words + word] = mask;
  }
}

// Pairs: blocks of PAIR_THREADS threads have block_rows(K) rows, copied to shared memory; a warp has every eighth tap.
constexpr int PAIR_THREADS = 256;
__host__ __device__ inline int block_rows(int K) { return K <= 32 ? 256 : 64; }

// The first pass gives counts[tap, block]; the second writes pairs, where `summed` says whether the counts have been summed up.
template <bool WRITE>
__global__ void __launch_bounds__(PAIR_THREADS)
    walk_pairs(int32_t* counts, int32_t* pairs, int32_t* offsets, const int32_t* table, int32_t rows, int K, bool summed) {
  extern __shared__ int32_t part[];
  __shared__ int32_t starts[125], all[125];
  const int R = block_rows(K), lane = threadIdx.x % 32;
  const int64_t first = int64_t(blockIdx.x) * R, left = rows - first, count = (left < R ? left : R) * K;
  for (int i = threadIdx.x; i < R * K; i += PAIR_THREADS) part[i] = i < count ? table[first * K + i] : -1;
  if (WRITE && !summed) {  // few blocks: each sums up on its own
    for (int tap = threadIdx.x / 32; tap < K; tap += PAIR_THREADS / 32) {
      int before = 0, sum = 0;
      for (unsigned b = lane; b < gridDim.x; b += 32) {
        const int32_t c = counts[tap * gridDim.x + b];
        before += b < blockIdx.x ? c : 0;
        sum += c;
      }
      before = scan::warp_total(before);
      sum = scan::warp_total(sum);
      if (lane == 0) starts[tap] = before, all[tap] = sum;
    }
    __syncthreads();
    int before = 0;
    for (int tap = 0; tap < K && tap < int(threadIdx.x); tap++) before += all[tap];
    if (blockIdx.x == 0 && int(threadIdx.x) <= K) offsets[threadIdx.x] = before;
    if (int(threadIdx.x) < K) starts[threadIdx.x] += before;
  }
  __syncthreads();
  for (int tap = threadIdx.x / 32; tap < K; tap += PAIR_THREADS / 32) {
    int64_t at = !WRITE ? 0 : summed ? counts[int64_t(tap) * gridDim.x + blockIdx.x] : starts[tap];
    if (WRITE && summed && blockIdx.x == 0 && lane == 0) offsets[tap] = int32_t(at);
    for (int r = lane; r < R; r += 32) {
      const int32_t from = part[r * K + tap];
      const uint32_t some = __ballot_sync(0xffffffffu, from >= 0);
      if (WRITE && from >= 0) {
        const int64_t to = at + __popc(some & ((1u << lane) - 1));
        pairs[to] = int32_t(first + r);
        pairs[int64_t(rows) * K + to] = from;
      }
      at += __popc(some);
    }
    if (!WRITE && lane == 0) counts[int64_t(tap) * gridDim.x + blockIdx.x] = int32_t(at);
  }
}
int64_t pair_blocks(int32_t rows, int32_t K) { return ceil_div(rows, block_rows(K)); }
}  // namespace

int32_t k_spconv_table_workspace(uint64_t* bytes, int32_t rows, int32_t N, int32_t B, int32_t side) {
  if (int32_t status = check_grid("k_spconv_table_workspace", N, B, side)) return status;
  *bytes = IndexLayout(N, B, side).bytes();
  return check_table("k_spconv_table_workspace", rows, 1);
}

int32_t k_spconv_table(uint64_t table, uint64_t faults, uint64_t to, uint64_t from, uint64_t scratch, int32_t rows, int32_t N, int32_t B,
                       int32_t side, int32_t kernel, int32_t stride, int32_t padding, int32_t transposed, uint64_t stream) {
  const char* where = "k_spconv_table";
  const int K = kernel * kernel * kernel;
  if (int32_t status = check_grid(where, N, B, side)) return status;
  if (int32_t status = check_window(where, kernel, stride, padding)) return status;
  if (int32_t status = check_table(where, rows, K)) return status;
  const IndexLayout layout(N, B, side);
  const Index index = layout.at_address(scratch, B, side);
  const Reach itself{B, side, 1, 1, 0, side};
  const Place* const places = at<const Place>(from);
  if (int32_t status = build_ranks(where, index, layout, scratch, itself, places, N, at<int32_t>(faults), nullptr, stream)) return status;
  if (N) place_rows<<<unsigned(ceil_div(N, 256)), 256, 0, stream_of(stream)>>>(index, places, N);
  if (rows) {
    fill_table<<<unsigned(ceil_div(rows, 32)), 32 * kernel * kernel, 32 * K * sizeof(int32_t), stream_of(stream)>>>(
        at<int32_t>(table), index, at<const Place>(to), rows, kernel, stride, padding, transposed != 0);
  }
  return launched(where);
}

int32_t k_spconv_plan_workspace(uint64_t* bytes, int32_t rows, int32_t K) {
  if (int32_t status = check_table("k_spconv_plan_workspace", rows, K)) return status;
  *bytes = uint64_t(ceil_div(rows, 2) * 16) + radix::Sizes(rows).bytes();
  return K_OK;
}

int32_t k_spconv_plan(uint64_t order, uint64_t masks, uint64_t table, uint64_t scratch, int32_t rows, int32_t K, int32_t group,
                      uint64_t stream) {
  const char* where = "k_spconv_plan";
  if (int32_t status = check_table(where, rows, K)) return status;
  if (group < 0 || group % 64) return fail(K_BAD_ARGUMENT, where, "group is %d, it must be a multiple of 64", group);
  if (rows == 0) return K_OK;
  const cudaStream_t s = stream_of(stream);
  uint64_t* const keys = at<uint64_t>(scratch);
  int bits = K <= 27 ? K : KEY_TAPS;
  if (group && rows > group) {
    bits = KEY_TAPS;
    for (int64_t groups = ceil_div(rows, group) - 1; groups; groups /= 2) bits++;
  }
  make_keys<<<unsigned(ceil_div(rows, 256)), 256, 0, s>>>(keys, at<const int32_t>(table), rows, K, group);
  const uint64_t rest = scratch + uint64_t(ceil_div(rows, 2) * 16);
  if (int32_t status = radix::sort(where, at<int32_t>(order), keys, rest, rows, bits, stream)) return status;
  make_masks<<<unsigned(ceil_div(rows, 512)), 256, 0, s>>>(at<uint32_t>(masks), at<const int32_t>(order), at<const int32_t>(table), rows,
                                                           K);
  return launched(where);
}

int32_t k_spconv_pairs_workspace(uint64_t* bytes, int32_t rows, int32_t K) {
  if (int32_t status = check_table("k_spconv_pairs_workspace", rows, K)) return status;
  const int64_t counts = ceil_div(pair_blocks(rows, K) * K, 4) * 4;
  *bytes = 4 * uint64_t(counts) + scan::bytes(counts);
  return K_OK;
}

int32_t k_spconv_pairs(uint64_t pairs, uint64_t offsets, uint64_t table, uint64_t scratch, int32_t rows, int32_t K, uint64_t stream) {
  const char* where = "k_spconv_pairs";
  if (int32_t status = check_table(where, rows, K)) return status;
  if (rows == 0) {
    const cudaError_t e = cudaMemsetAsync(at<void>(offsets), 0, 4 * size_t(K + 1), stream_of(stream));
    return e == cudaSuccess ? K_OK : fail(e, where, "%s", cudaGetErrorString(e));
  }
  const int64_t blocks = pair_blocks(rows, K), size = blocks * K;
  int32_t *const counts = at<int32_t>(scratch), *const sums = counts + ceil_div(size, 4) * 4, *const first = at<int32_t>(offsets);
  const int bytes = block_rows(K) * K * 4;
  const int32_t* const entries = at<const int32_t>(table);
  walk_pairs<false><<<unsigned(blocks), PAIR_THREADS, bytes, stream_of(stream)>>>(counts, nullptr, nullptr, entries, rows, K, false);
  const bool summed = blocks > 256;
  if (summed) {
    if (int32_t status = scan::run(where, scan::Integers{counts, first + K}, sums, size, stream)) return status;
  }
  walk_pairs<true>
      <<<unsigned(blocks), PAIR_THREADS, bytes, stream_of(stream)>>>(counts, at<int32_t>(pairs), first, entries, rows, K, summed);
  return launched(where);
}
