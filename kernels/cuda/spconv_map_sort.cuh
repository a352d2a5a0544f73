// The order of a table's rows by their taps, and its tile masks, in one launch on Hopper. A cluster of up to 16 blocks has a set (a part of the
// taps and a group of rows) in its shared memory, and sorts it by 9 bits a pass, lowest first: a block ranks its items, tells every block of the
// cluster how many of each digit it has, and writes them where they belong in whichever block. Two barriers of the cluster a pass, no global
// memory but for the taps read and the results written. Bound by the latency of some 100 instructions an item and pass: a multiprocessor issues
// one a clock.
#pragma once
#include <cooperative_groups.h>

#include "chain.cuh"

#include "../include/coordinates.hpp"

namespace sparse {
namespace sorter {
constexpr int THREADS = 512, WARPS = THREADS / 32, MOST_ROUNDS = 24, MOST = THREADS * MOST_ROUNDS, BITS = 9, DIGITS = 1 << BITS,
              PAIRS = DIGITS / 2, BLOCKS = 16;
constexpr int ROW_BITS = 18;  // of a row within a set, and of its rank within a warp what is left of 32
static_assert(DIGITS == THREADS && BLOCKS * MOST <= 1 << ROW_BITS && 32 * MOST_ROUNDS <= 1 << (32 - ROW_BITS));

struct alignas(8) Item {
  uint32_t key, row;  // row: within the set
};

// Counts lie in pairs, the lower digit in the lower 16 bits: a block has at most MOST items.
struct alignas(16) Shared {
  uint32_t counts[WARPS][PAIRS + 4];  // of each warp's items, then those of the warps before; DIGITS stands for no item
  uint32_t halves[2][PAIRS];       // of half of the warps
  uint32_t blocks[BLOCKS][PAIRS];  // of each block of the cluster
  int starts[DIGITS], sums[WARPS];
  uint32_t keys[3][DIGITS];  // what 9 bits of the taps, one plane, add to a key of all 27
  Item items[2];
};
inline size_t bytes(int items) { return sizeof(Shared) + sizeof(Item) * size_t(items); }

// The rows of a block of `blocks` that share a set of n.
inline int items_of(int64_t n, int blocks) { return int(ceil_div(ceil_div(n, blocks), 64) * 64); }

// The keys of single taps of 27.
struct TapKeys27 {
  uint32_t of[27];
};
K_COORDINATES constexpr TapKeys27 tap_keys() {
  TapKeys27 keys{};
  for (int t = 0; t < 27; t++) keys.of[t] = order_key(1u << t, 27);
  return keys;
}

// Writes to the same place of another block's shared memory as `here` is in this one's; a block that the cluster lacks must not be named.
__device__ inline uint32_t place_in(uint32_t block, const void* here) {
  uint32_t there = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(uint32_t(__cvta_generic_to_shared(here))), "r"(block));
#endif
  return there;
}
__device__ inline void write_in(uint32_t block, uint4* here, uint4 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(place_in(block, here)), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}
__device__ inline void write_in(uint32_t block, Item* here, Item v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v2.b32 [%0], {%1, %2};" ::"r"(place_in(block, here)), "r"(v.key), "r"(v.row) : "memory");
#endif
}

static __device__ __noinline__ uint32_t key_of(const uint32_t* taps, int K, int parts, int part) { return part_key(taps, K, parts, part); }

// Up to ROUNDS rows a thread. each: rows of a block; inverse: of it, 2^32 / each and a bit more
template <int ROUNDS>
__global__ void __launch_bounds__(THREADS, ROUNDS <= 16 ? 2 : 1)
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
    constexpr TapKeys27 single = tap_keys();
#pragma unroll
    for (int p = 0; p < 3; p++) {
      uint32_t key = 0;
#pragma unroll
      for (int b = 0; b < 9; b++) key ^= t >> b & 1 ? single.of[9 * p + b] : 0;
      s.keys[p][t] = key;
    }
  }
  cluster.sync();
  wait_for_previous();
  const int64_t first = blockIdx.y * group;
  const int n = int(rows - first < group ? rows - first : group), begin = me * each, left = n - begin, own = left < each ? left : each;
  const int rounds = (each + THREADS - 1) / THREADS, bits = part_bits(K, parts), base = warp * rounds * 32 + lane;
  uint32_t key[ROUNDS], row[ROUNDS];  // row: and from bit ROW_BITS on its rank
  if (planes) {
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      row[i] = uint32_t(begin + base + i * 32);
      key[i] = i < rounds && base + i * 32 < own ? taps[first + row[i]] : 0;
    }
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if (i < rounds) key[i] = s.keys[0][key[i] & (DIGITS - 1)] ^ s.keys[1][key[i] >> 9 & (DIGITS - 1)] ^ s.keys[2][key[i] >> 18 & (DIGITS - 1)];
    }
  } else {
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      row[i] = uint32_t(begin + base + i * 32);
      key[i] = i < rounds && base + i * 32 < own ? key_of(taps + (first + row[i]) * words, K, parts, part) : 0;
    }
  }
  for (int shift = 0; shift < bits; shift += BITS) {
    uint4* const all_counts = reinterpret_cast<uint4*>(s.counts);
#pragma unroll
    for (int i = t; i < WARPS * (PAIRS + 4) / 4; i += THREADS) all_counts[i] = {0, 0, 0, 0};
    __syncthreads();
    uint16_t* const count = reinterpret_cast<uint16_t*>(s.counts[warp]);
    const uint32_t below = (1u << lane) - 1;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if (i >= rounds) break;
      const bool some = base + i * 32 < own;
      if (shift) {
        const Item item = s.items[base + i * 32];
        key[i] = item.key;
        row[i] = item.row;
      }
      const int digit = some ? int(key[i] >> shift & (DIGITS - 1)) : DIGITS;
      const uint32_t same = __match_any_sync(0xffffffffu, digit), before = count[digit], lower = __popc(same & below);
      row[i] |= (before + lower) << ROW_BITS;
      __syncwarp();
      if (lower == 0) count[digit] = uint16_t(before + __popc(same));
      __syncwarp();
    }
    __syncthreads();
    constexpr int HALF = WARPS / 2;
    const int pair = t % PAIRS, half = t / PAIRS;
    uint32_t of[HALF], sum = 0;
#pragma unroll
    for (int w = 0; w < HALF; w++) of[w] = s.counts[half * HALF + w][pair];
#pragma unroll
    for (int w = 0; w < HALF; w++) sum += of[w];
    s.halves[half][pair] = sum;
    __syncthreads();
    uint32_t before = half ? s.halves[0][pair] : 0;
#pragma unroll
    for (int w = 0; w < HALF; w++) {
      s.counts[half * HALF + w][pair] = before;
      before += of[w];
    }
    constexpr int QUADS = PAIRS / 4;
    const uint4 a = reinterpret_cast<const uint4*>(s.halves[0])[t % QUADS], b = reinterpret_cast<const uint4*>(s.halves[1])[t % QUADS];
    for (int to = t / QUADS; to < blocks; to += THREADS / QUADS) {
      write_in(uint32_t(to), reinterpret_cast<uint4*>(s.blocks[me]) + t % QUADS, {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w});
    }
    cluster.sync();  // every block has its items in registers, and the others' counts
    const uint16_t* const of_block = reinterpret_cast<const uint16_t*>(s.blocks[0]) + t;
    int earlier = 0, all = 0;  // of the digit t: in the blocks before, and in all
#pragma unroll 4
    for (int b = 0; b < blocks; b++) {
      const int c = of_block[b * DIGITS];
      earlier += b < me ? c : 0;
      all += c;
    }
    int up = all;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, up, o);
      up += lane >= o ? other : 0;
    }
    if (lane == 31) s.sums[warp] = up;
    __syncthreads();
    s.starts[t] = __reduce_add_sync(0xffffffffu, lane < warp ? s.sums[lane] : 0) + up - all + earlier;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
      if (i >= rounds || base + i * 32 >= own) break;
      const int digit = int(key[i] >> shift & (DIGITS - 1)), to = s.starts[digit] + count[digit] + int(row[i] >> ROW_BITS),
                block = int(__umulhi(uint32_t(to), inverse));  // to / each, since each to is below 2^32
      write_in(uint32_t(block), &s.items[to - block * each], Item{key[i], row[i] & ((1u << ROW_BITS) - 1)});
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
    config.dynamicSmemBytes = bytes(int(ceil_div(items, THREADS) * THREADS));  // what lies past the last is read too, and not used
    config.stream = stream_of(stream);
    config.attrs = attributes;
    config.numAttrs = 2;
  }
};

// Shared memory that no two blocks have on one multiprocessor: it keeps a few clusters with much to do apart.
constexpr size_t ALONE = 120 * 1024;
constexpr int FEW = 6, MUCH = 4 * THREADS;

template <int ROUNDS>
int most_blocks_of() {
  const size_t most = bytes(THREADS * ROUNDS);
  cudaFuncSetAttribute(make_plan<ROUNDS>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(most > ALONE ? most : ALONE));
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
    for (int blocks : {most_blocks_of<8>(), most_blocks_of<16>(), most_blocks_of<MOST_ROUNDS>()}) most = blocks < most ? blocks : most;
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
  while (blocks < most_blocks() && most > int64_t(blocks) * 2 * THREADS) blocks *= 2;
  const int each = items_of(most, blocks);
  const uint32_t inverse = uint32_t((uint64_t(1) << 32) / uint64_t(each) + 1);
  Launch launch(dim3(unsigned(blocks), unsigned(ceil_div(rows, group)), unsigned(parts)), unsigned(blocks), each, stream);
  const int64_t sets = ceil_div(rows, group) * parts;
  if (sets > 1 && sets <= FEW && each >= MUCH && launch.config.dynamicSmemBytes < ALONE) launch.config.dynamicSmemBytes = ALONE;
  const auto kernel = each <= 8 * THREADS ? make_plan<8> : each <= 16 * THREADS ? make_plan<16> : make_plan<MOST_ROUNDS>;
  cudaLaunchKernelEx(&launch.config, kernel, order, masks, taps, rows, K, parts, group, each, inverse);
  return true;
}
}  // namespace sorter
}  // namespace sparse
