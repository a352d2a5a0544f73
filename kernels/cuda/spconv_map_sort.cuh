// The order of a table's rows by their taps, and its tile masks, in one launch on Hopper. A cluster of up to 16 blocks has a set (a part of the
// taps and a group of rows) in its shared memory, and sorts it by 9 bits a pass, lowest first: a block ranks its items, tells every block of the
// cluster how many of each digit it has, and writes them where they belong in whichever block. Two barriers of the cluster a pass, no global
// memory but for the taps read and the results written.
#pragma once
#include <cooperative_groups.h>

#include "chain.cuh"

#include "../include/coordinates.hpp"

namespace sparse {
namespace sorter {
constexpr int THREADS = 1024, WARPS = THREADS / 32, MOST_ROUNDS = 12, MOST = THREADS * MOST_ROUNDS, BITS = 9, DIGITS = 1 << BITS,
              PAIRS = DIGITS / 2, BLOCKS = 16;
constexpr int ROW_BITS = 18;  // of a row within a set, and of its rank within a warp what is left of 32
static_assert(BLOCKS * MOST <= 1 << ROW_BITS && 32 * MOST_ROUNDS <= 1 << (32 - ROW_BITS));

struct alignas(8) Item {
  uint32_t key;
  int row;  // within the set
};

// Counts lie in pairs, the lower digit in the lower 16 bits: a block has at most MOST items.
struct Shared {
  uint32_t counts[WARPS][PAIRS];    // of each warp's items, then those of the warps before
  uint32_t quarters[4][PAIRS];      // of a quarter of the warps
  uint32_t blocks[BLOCKS][PAIRS];   // of each block of the cluster
  int starts[DIGITS];
  int sums[PAIRS / 32];
  uint32_t keys[3][DIGITS];  // what 9 bits of the taps, one plane, add to a key of all 27
  Item items[1];
};
inline size_t bytes(int items) { return sizeof(Shared) + sizeof(Item) * size_t(items); }

// The rows of a block of `blocks` that share a set of n.
inline int items_of(int64_t n, int blocks) { return int(ceil_div(ceil_div(n, blocks), 64) * 64); }

// Up to ROUNDS rows a thread.
template <int ROUNDS>
__global__ void __launch_bounds__(THREADS)
    make_plan(int32_t* order, uint32_t* masks, const uint32_t* taps, int32_t rows, int K, int parts, int64_t group, int each, uint32_t inverse) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(16) unsigned char memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  const auto cluster = cooperative_groups::this_cluster();
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, words = (K + 31) / 32, part = blockIdx.z, me = int(cluster.block_rank()),
            blocks = int(cluster.num_blocks());
  const bool planes = parts == 1 && K == 27;  // keys are linear: that of the taps is the sum (exclusive or) of those of its planes
  next_may_start();
  if (planes) {
    for (int i = t; i < 3 * DIGITS; i += THREADS) s.keys[i / DIGITS][i % DIGITS] = order_key(uint32_t(i % DIGITS) << i / DIGITS * 9, 27);
  }
  cluster.sync();
  wait_for_previous();
  const int64_t first = blockIdx.y * group;
  const int n = int(rows - first < group ? rows - first : group), begin = me * each, left = n - begin, own = left < each ? left : each;
  const int rounds = (each + THREADS - 1) / THREADS, bits = part_bits(K, parts), base = warp * rounds * 32 + lane;
  uint32_t key[ROUNDS], row[ROUNDS];
#pragma unroll
  for (int i = 0; i < ROUNDS; i++) {
    const int at = base + i * 32;
    if (i >= rounds || at >= own) continue;
    row[i] = uint32_t(begin + at);
    const uint32_t* const mine = taps + (first + row[i]) * words;
    key[i] = planes ? *mine : part_key(mine, K, parts, part);
  }
  if (planes) {
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if (i >= rounds || base + i * 32 >= own) continue;
      key[i] = s.keys[0][key[i] & (DIGITS - 1)] ^ s.keys[1][key[i] >> 9 & (DIGITS - 1)] ^ s.keys[2][key[i] >> 18 & (DIGITS - 1)];
    }
  }
  for (int shift = 0; shift < bits; shift += BITS) {
    for (int i = t; i < WARPS * PAIRS; i += THREADS) s.counts[i / PAIRS][i % PAIRS] = 0;
    __syncthreads();
    uint16_t* const count = reinterpret_cast<uint16_t*>(s.counts[warp]);
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if (i >= rounds) continue;
      const bool some = base + i * 32 < own;
      if (some && shift) key[i] = s.items[base + i * 32].key, row[i] = uint32_t(s.items[base + i * 32].row);
      const int digit = some ? int(key[i] >> shift & (DIGITS - 1)) : DIGITS;
      const uint32_t same = __match_any_sync(0xffffffffu, digit);
      const int before = some ? count[digit] : 0;
      if (some) row[i] |= uint32_t(before + __popc(same & ((1u << lane) - 1))) << ROW_BITS;
      __syncwarp();
      if (some && __ffs(same) - 1 == lane) count[digit] = uint16_t(before + __popc(same));
      __syncwarp();
    }
    __syncthreads();
    const int pair = t % PAIRS, quarter = t / PAIRS;
    uint32_t of[WARPS / 4], sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS / 4; w++) of[w] = s.counts[quarter * (WARPS / 4) + w][pair];
#pragma unroll
    for (int w = 0; w < WARPS / 4; w++) sum += of[w];
    s.quarters[quarter][pair] = sum;
    __syncthreads();
    uint32_t before = 0, all = 0;
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const uint32_t c = s.quarters[q][pair];
      before += q < quarter ? c : 0;
      all += c;
    }
    for (int b = quarter; b < blocks; b += 4) cluster.map_shared_rank(&s.blocks[0][0], b)[me * PAIRS + pair] = all;
#pragma unroll
    for (int w = 0; w < WARPS / 4; w++) {
      s.counts[quarter * (WARPS / 4) + w][pair] = before;
      before += of[w];
    }
    cluster.sync();  // every block has its items in registers, and the others' counts
    int low = 0, high = 0, lows = 0, highs = 0;  // of the pair: in the blocks before, and in all
    if (t < PAIRS) {
#pragma unroll 4
      for (int b = 0; b < blocks; b++) {
        const uint32_t c = s.blocks[b][t];
        low += b < me ? int(c & 0xffff) : 0;
        high += b < me ? int(c >> 16) : 0;
        lows += int(c & 0xffff);
        highs += int(c >> 16);
      }
    }
    int up = lows + highs;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, up, o);
      up += lane >= o ? other : 0;
    }
    if (t < PAIRS && lane == 31) s.sums[warp] = up;
    __syncthreads();
    if (t < PAIRS) {
      int start = up - lows - highs;
      for (int w = 0; w < warp; w++) start += s.sums[w];
      s.starts[2 * t] = start + low;
      s.starts[2 * t + 1] = start + lows + high;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if (i >= rounds || base + i * 32 >= own) continue;
      const int digit = int(key[i] >> shift & (DIGITS - 1)), to = s.starts[digit] + count[digit] + int(row[i] >> ROW_BITS),
                block = int(__umulhi(uint32_t(to), inverse));  // to / each, since each to is below 2^32
      cluster.map_shared_rank(&s.items[0], block)[to - block * each] = {key[i], int(row[i] & ((1u << ROW_BITS) - 1))};
    }
    cluster.sync();
  }
  for (int i = t; i < own; i += THREADS) order[part * int64_t(rows) + first + begin + i] = int32_t(first + s.items[i].row);
  const int64_t tiles = (int64_t(rows) + 63) / 64, tile = (first + begin) / 64;
  const int from = part * (K / parts), to = from + K / parts;
  for (int item = warp; item < (own + 63) / 64 * words; item += WARPS) {
    const int mine = item / words, word = item % words, low = mine * 64 + lane, high = low + 32;
    const uint32_t some = (low < own ? taps[(first + s.items[low].row) * words + word] : 0) |
                          (high < own ? taps[(first + s.items[high].row) * words + word] : 0);
    const uint32_t mask = __reduce_or_sync(0xffffffffu, some) & word_mask(from, to, word);
    if (lane == 0) masks[(part * tiles + tile + mine) * words + word] = mask;
  }
#endif
}

// The launch of clusters of `blocks`, each block with `items`.
struct Launch {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config{};
  Launch(dim3 grid, unsigned blocks, int items, uint64_t stream) {
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {blocks, 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = bytes(items);
    config.stream = stream_of(stream);
    config.attrs = attributes;
    config.numAttrs = 2;
  }
};

template <int ROUNDS>
int most_blocks_of() {
  cudaFuncSetAttribute(make_plan<ROUNDS>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes(THREADS * ROUNDS)));
  cudaFuncSetAttribute(make_plan<ROUNDS>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  for (int blocks = BLOCKS; blocks; blocks /= 2) {
    Launch launch(dim3(unsigned(blocks)), unsigned(blocks), THREADS * ROUNDS, 0);
    int clusters = 0;
    if (cudaOccupancyMaxActiveClusters(&clusters, make_plan<ROUNDS>, &launch.config) == cudaSuccess && clusters > 0) return blocks;
  }
  return 0;
}

// How many blocks a cluster may have: 0 where the device has none.
inline int most_blocks() {
  static const int most = [] {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (major != 9) return 0;
    int most = BLOCKS;
    for (int blocks : {most_blocks_of<4>(), most_blocks_of<8>(), most_blocks_of<MOST_ROUNDS>()}) most = blocks < most ? blocks : most;
    cudaGetLastError();  // of a size that it does not have
    return most;
  }();
  return most;
}

// Launches make_plan where a cluster can hold every set, else returns false. rows > 0; group: a multiple of 64, or `rows`
inline bool launch(int32_t* order, uint32_t* masks, const uint32_t* taps, int32_t rows, int K, int parts, int64_t group, uint64_t stream) {
  const int64_t most = group < rows ? group : rows;
  if (most > int64_t(most_blocks()) * MOST || ceil_div(rows, group) > 65535) return false;
  int blocks = 1;
  while (blocks < most_blocks() && most > int64_t(blocks) * THREADS) blocks *= 2;
  const int each = items_of(most, blocks);
  const uint32_t inverse = uint32_t((uint64_t(1) << 32) / uint64_t(each) + 1);
  Launch launch(dim3(unsigned(blocks), unsigned(ceil_div(rows, group)), unsigned(parts)), unsigned(blocks), each, stream);
  const auto kernel = each <= 4 * THREADS ? make_plan<4> : each <= 8 * THREADS ? make_plan<8> : make_plan<MOST_ROUNDS>;
  cudaLaunchKernelEx(&launch.config, kernel, order, masks, taps, rows, K, parts, group, each, inverse);
  return true;
}
}  // namespace sorter
}  // namespace sparse
