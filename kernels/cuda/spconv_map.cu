// Tables of neighbours, the order of their rows and their pairs on CUDA. Bounds for N rows of 27 taps: the table is 108 bytes a row,
// written once and read once more (pairs); pairs are about 104 bytes a row; keys and tile masks are made from 4 bytes a row, and the sort
// moves 24 bytes a row up to four times: some 0.45 KB a row, 0.1 ms for a million rows at 4.3 TB/s. Small sets are bound by 12 to 16 launches,
// each of which is started while the one before runs.
#include "../include/spconv.h"

#include "spconv_map_few.cuh"

namespace {
using namespace sparse;

__global__ void place_rows(Index index, const Place* from, int32_t N) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N || !from[n].inside(index.B, index.side)) return;
  const Place p = from[n];
  atomicMin(&index.rows[Index::rank(*index.find_run(p), p.z)], uint32_t(n));
}

// A block has 32 rows, one a lane; warp w the taps [w * kernel, (w + 1) * kernel), which lie along z.
__global__ void fill_table(int32_t* table, uint32_t* taps, Index index, const Place* to, int32_t rows, int kernel, int stride, int padding,
                           bool transposed) {
  extern __shared__ int32_t found[];  // [32, K]
  after_previous();
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
  const int words = (K + 31) / 32;
  if (line < words && first + lane < rows) {
    uint32_t mask = 0;
    for (int t = line * 32; t < K && t < line * 32 + 32; t++) mask |= uint32_t(found[lane * K + t] >= 0) << t % 32;
    taps[(first + lane) * words + line] = mask;
  }
}

// Keys of rows by their taps, for radix::sort: a set is a part.
struct TapKeys {
  const uint32_t* taps;
  int K, parts, group;
  __device__ uint64_t operator()(int part, int64_t r) const {
    const uint64_t key = part_key(taps + r * ((K + 31) / 32), K, parts, part);
    return group ? uint64_t(r / group) << part_bits(K, parts) | key : key;
  }
};

// A warp has a tile of a part.
__global__ void __launch_bounds__(256)
    make_masks(uint32_t* masks, const int32_t* order, const uint32_t* taps, int32_t rows, int K, int parts) {
  after_previous();
  const int lane = threadIdx.x % 32, words = (K + 31) / 32, from = blockIdx.y * (K / parts), to = from + K / parts;
  const int64_t tile = int64_t(blockIdx.x) * 8 + threadIdx.x / 32, tiles = (int64_t(rows) + 63) / 64, first = tile * 64 + lane;
  if (tile >= tiles) return;
  order += int64_t(blockIdx.y) * rows;
  const int64_t low = first < rows ? order[first] : -1, high = first + 32 < rows ? order[first + 32] : -1;
  for (int word = 0; word < words; word++) {
    const uint32_t some = (low < 0 ? 0 : taps[low * words + word]) | (high < 0 ? 0 : taps[high * words + word]);
    const uint32_t mask = __reduce_or_sync(0xffffffffu, some) & word_mask(from, to, word);
    if (lane == 0) masks[(blockIdx.y * tiles + tile) * words + word] = mask;
  }
}

// Pairs: blocks of PAIR_THREADS threads have block_rows(K) rows.
constexpr int PAIR_THREADS = 256;
__host__ __device__ inline int block_rows(int K) { return K <= 32 ? 256 : 64; }

// counts[tap, block] = the block's rows that have the tap
__global__ void __launch_bounds__(PAIR_THREADS) count_pairs(int32_t* counts, const uint32_t* taps, int32_t rows, int K) {
  __shared__ int found[PAIR_THREADS / 32][128];
  after_previous();
  const int R = block_rows(K), lane = threadIdx.x % 32, warp = threadIdx.x / 32, words = (K + 31) / 32;
  const int64_t r = int64_t(blockIdx.x) * R + threadIdx.x;
  for (int word = 0; word < words; word++) {
    const uint32_t mask = int(threadIdx.x) < R && r < rows ? taps[r * words + word] : 0;
    int mine = 0;
#pragma unroll
    for (int t = 0; t < 32; t++) {
      const int count = __popc(__ballot_sync(0xffffffffu, mask >> t & 1));
      if (lane == t) mine = count;
    }
    found[warp][word * 32 + lane] = mine;
  }
  __syncthreads();
  if (int(threadIdx.x) < K) {
    int sum = 0;
#pragma unroll
    for (int w = 0; w < PAIR_THREADS / 32; w++) sum += found[w][threadIdx.x];
    counts[int64_t(threadIdx.x) * gridDim.x + blockIdx.x] = sum;
  }
}

// Rows are copied to shared memory; a warp has every eighth tap. `summed` says whether the counts have been summed up.
__global__ void __launch_bounds__(PAIR_THREADS)
    write_pairs(int32_t* pairs, int32_t* offsets, const int32_t* counts, const int32_t* table, int32_t rows, int K, bool summed) {
  extern __shared__ int32_t part[];
  __shared__ int32_t starts[125], all[125];
  after_previous();
  const int R = block_rows(K), lane = threadIdx.x % 32;
  const int64_t first = int64_t(blockIdx.x) * R, left = rows - first, count = (left < R ? left : R) * K;
  for (int i = threadIdx.x; i < R * K; i += PAIR_THREADS) part[i] = i < count ? table[first * K + i] : -1;
  if (!summed) {  // few blocks: each sums up on its own
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
    int64_t at = summed ? counts[int64_t(tap) * gridDim.x + blockIdx.x] : starts[tap];
    if (summed && blockIdx.x == 0 && lane == 0) offsets[tap] = int32_t(at);
    for (int r = lane; r < R; r += 32) {
      const int32_t from = part[r * K + tap];
      const uint32_t some = __ballot_sync(0xffffffffu, from >= 0);
      if (from >= 0) {
        const int64_t to = at + __popc(some & ((1u << lane) - 1));
        pairs[to] = int32_t(first + r);
        pairs[int64_t(rows) * K + to] = from;
      }
      at += __popc(some);
    }
  }
}
int64_t pair_blocks(int32_t rows, int32_t K) { return ceil_div(rows, block_rows(K)); }
}  // namespace

int32_t k_spconv_table_workspace(uint64_t* bytes, int32_t rows, int32_t N, int32_t B, int32_t side) {
  if (int32_t status = check_grid("k_spconv_table_workspace", N, B, side)) return status;
  *bytes = IndexLayout(N, B, side).bytes();
  return check_table("k_spconv_table_workspace", rows, 1);
}

int32_t k_spconv_table(uint64_t table, uint64_t taps, uint64_t faults, uint64_t to, uint64_t from, uint64_t scratch, int32_t rows, int32_t N,
                       int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding, int32_t transposed, uint64_t stream) {
  const char* where = "k_spconv_table";
  const int K = kernel * kernel * kernel;
  if (int32_t status = check_grid(where, N, B, side)) return status;
  if (int32_t status = check_window(where, kernel, stride, padding)) return status;
  if (int32_t status = check_table(where, rows, K)) return status;
  const IndexLayout layout(N, B, side);
  const Index index = layout.at_address(scratch, B, side);
  const Place* const places = at<const Place>(from);
  static const bool roomy = few::allow(few::build_index, few::INDEX_BYTES);
  if (roomy && few::index_fits(layout, N)) {
    launch_next(few::build_index, 1, few::THREADS, few::INDEX_BYTES, stream, index, places, at<int32_t>(faults), N, int(layout.words));
  } else {
    const Reach itself{B, side, 1, 1, 0, side};
    if (int32_t status = build_ranks(where, index, layout, scratch, itself, places, N, at<int32_t>(faults), nullptr, stream)) return status;
    if (N) launch_next(place_rows, unsigned(ceil_div(N, 256)), 256, 0, stream, index, places, N);
  }
  if (rows) {
    launch_next(fill_table, unsigned(ceil_div(rows, 32)), 32 * kernel * kernel, 32 * K * sizeof(int32_t), stream, at<int32_t>(table), at<uint32_t>(taps),
                index, at<const Place>(to), rows, kernel, stride, padding, transposed != 0);
  }
  return launched(where);
}

int32_t k_spconv_plan_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t parts) {
  if (int32_t status = check_parts("k_spconv_plan_workspace", rows, K, parts)) return status;
  *bytes = radix::Sizes(rows, parts).bytes();
  return K_OK;
}

int32_t k_spconv_plan(uint64_t order, uint64_t masks, uint64_t taps, uint64_t scratch, int32_t rows, int32_t K, int32_t parts,
                      int32_t group, uint64_t stream) {
  const char* where = "k_spconv_plan";
  if (int32_t status = check_parts(where, rows, K, parts)) return status;
  if (group < 0 || group % 64) return fail(K_BAD_ARGUMENT, where, "group is %d, it must be a multiple of 64", group);
  if (rows == 0) return K_OK;
  const bool grouped = group && rows > group;
  static const bool roomy = few::allow(few::make_plan, few::PLAN_BYTES);
  if (roomy && rows <= few::FASTER && !grouped) {
    launch_next(few::make_plan, unsigned(parts), few::THREADS, few::PLAN_BYTES, stream, at<int32_t>(order), at<uint32_t>(masks),
                at<const uint32_t>(taps), rows, K, parts);
    return launched(where);
  }
  int bits = part_bits(K, parts);
  for (int64_t groups = grouped ? ceil_div(rows, group) - 1 : 0; groups; groups /= 2) bits++;
  const TapKeys keys{at<const uint32_t>(taps), K, parts, grouped ? group : 0};
  if (int32_t status = radix::sort(where, at<int32_t>(order), keys, scratch, rows, parts, bits, stream)) return status;
  launch_next(make_masks, dim3(unsigned(ceil_div(rows, 512)), unsigned(parts)), 256, 0, stream, at<uint32_t>(masks),
              at<const int32_t>(order), keys.taps, rows, K, parts);
  return launched(where);
}

int32_t k_spconv_pairs_workspace(uint64_t* bytes, int32_t rows, int32_t K) {
  if (int32_t status = check_table("k_spconv_pairs_workspace", rows, K)) return status;
  const int64_t counts = ceil_div(pair_blocks(rows, K) * K, 4) * 4;
  *bytes = 4 * uint64_t(counts) + scan::bytes(counts);
  return K_OK;
}

int32_t k_spconv_pairs(uint64_t pairs, uint64_t offsets, uint64_t table, uint64_t taps, uint64_t scratch, int32_t rows, int32_t K,
                       uint64_t stream) {
  const char* where = "k_spconv_pairs";
  if (int32_t status = check_table(where, rows, K)) return status;
  if (rows == 0) {
    const cudaError_t e = cudaMemsetAsync(at<void>(offsets), 0, 4 * size_t(K + 1), stream_of(stream));
    return e == cudaSuccess ? K_OK : fail(e, where, "%s", cudaGetErrorString(e));
  }
  if (rows <= few::MOST_PAIR_ROWS) {
    launch_next(few::make_pairs, unsigned(K), few::THREADS, 0, stream, at<int32_t>(pairs), at<int32_t>(offsets), at<const int32_t>(table),
                at<const uint32_t>(taps), rows, K);
    return launched(where);
  }
  const int64_t blocks = pair_blocks(rows, K), size = blocks * K;
  int32_t *const counts = at<int32_t>(scratch), *const sums = counts + ceil_div(size, 4) * 4, *const first = at<int32_t>(offsets);
  launch_next(count_pairs, unsigned(blocks), PAIR_THREADS, 0, stream, counts, at<const uint32_t>(taps), rows, K);
  const bool summed = blocks > 256;
  if (summed) {
    if (int32_t status = scan::run(where, scan::Integers{counts, first + K}, sums, size, stream)) return status;
  }
  launch_next(write_pairs, unsigned(blocks), PAIR_THREADS, block_rows(K) * K * 4, stream, at<int32_t>(pairs), first, counts,
              at<const int32_t>(table), rows, K, summed);
  return launched(where);
}
