// The product over a table on Hopper. A block has 64 or 128 rows and up to 256 columns: producers gather rows of x by 16-byte asynchronous
// copies into swizzled shared memory, one of their threads has the copy engine bring the weights, and one or two warpgroups of consumers
// multiply 64 rows each by wgmma, leaving out the taps that their rows lack.
#pragma once
#include "hopper.cuh"
#include "spconv.cuh"

namespace spconv {
// How weights lie in memory: packed into tiles by pack_weights, or as the ABI has them, forward and for the input's gradient. Packing is a
// pass of its own, but tiles come a fifth faster.
enum class Layout { PACKED, STORED, BY_INPUT };

// Has the copy engine bring `bytes` consecutive bytes.
__device__ inline void bulk_load(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}
// Arrives at the barrier when the asynchronous copies that this thread began are complete.
__device__ inline void arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// A block's tile: M rows, 64 a warpgroup of consumers, x N. PRODUCERS: threads that gather; where a block has an SM for itself they give
// registers to the consumers, and are a whole warpgroup.
template <int N_, int STAGES_, int BLOCKS_, int PRODUCERS_, int M_ = 128>
struct HopperTile {
  static constexpr int M = M_, N = N_, STAGES = STAGES_, BLOCKS = BLOCKS_, PRODUCERS = PRODUCERS_;
  static constexpr int CONSUMERS = M * 2, THREADS = CONSUMERS + PRODUCERS, A = M * 128, STAGE = A + N * 128;
  static constexpr int RING = STAGES * STAGE, BARRIERS = 16 * STAGES, BIAS = N * 4;
  static int bytes(int K, int parts) { return 1024 + RING + BARRIERS + BIAS + Rows<M>::bytes(K, parts); }
};

// w: of STORED weights [K, N, C], of BY_INPUT ones [K, C, N], in boxes of 64 of its last axis; of PACKED ones nothing.
template <class T, class Tile, Layout WEIGHTS>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    table_product_hopper(const __grid_constant__ Product p, const __grid_constant__ CUtensorMap w) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int STAGES = Tile::STAGES, BOX = 64 * 128;  // BOX: bytes of 64 rows of 64
  extern __shared__ unsigned char raw[];
  unsigned char* const shared = raw + (1024 - shared_address(raw) % 1024) % 1024;
  const uint32_t ring = shared_address(shared), full = ring + Tile::RING, empty = full + 8 * STAGES;
  const Work<Tile::M> work(p, Tile::N);
  const int n0 = work.column * Tile::N;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + 8 * s, Tile::PRODUCERS + 1);
      barrier_init(empty + 8 * s, Tile::M / 16);
    }
    barrier_init_fence();
  }
  float* const bias = reinterpret_cast<float*>(shared + Tile::RING + Tile::BARRIERS);
  for (int n = threadIdx.x; n < Tile::N; n += Tile::THREADS) bias[n] = bias_at<T>(p, n0 + n);
  const Rows<Tile::M> rows(shared + Tile::RING + Tile::BARRIERS + Tile::BIAS, p, work, std::integral_constant<int, Tile::THREADS>{});

  if (threadIdx.x >= Tile::CONSUMERS) {
    constexpr int ROWS = Tile::PRODUCERS / 8, LOADS = Tile::M / ROWS;
    if constexpr (Tile::BLOCKS == 1) registers_shrink<56>();
    const auto load_weights = [&](uint32_t at, int tap, int part, uint32_t barrier) {
      constexpr int BYTES = Tile::N * 128;
      barrier_expect(barrier, BYTES);
      if constexpr (WEIGHTS == Layout::PACKED) {
        bulk_load(at, static_cast<const unsigned char*>(p.w) + ((int64_t(work.column) * p.K + tap) * p.chunks + part) * BYTES, BYTES, barrier);
      } else if constexpr (WEIGHTS == Layout::BY_INPUT) {
#pragma unroll
        for (int box = 0; box < Tile::N / 64; box++) {
          map_load(at + box * BOX, w, n0 + box * 64, part * 64, p.mirror ? p.K - 1 - tap : tap, 0, barrier);
        }
      } else {
        map_load(at, w, part * 64, n0, tap, 0, barrier);
      }
    };
    const int thread = threadIdx.x - Tile::CONSUMERS, chunk = thread % 8, row = thread / 8;
    const uint32_t to = ring + row * 128 + ((chunk ^ (row & 7)) << 4);
    const T* const x = static_cast<const T*>(p.x) + chunk * 8;
    if (WEIGHTS == Layout::PACKED && thread == 0) wait_for_previous();  // the kernel that packs
    int stage = 0;
    uint32_t phase = 1;
    for (int at = 0; at < rows.count; at++) {
      const int tap = rows.taps[at] & 255, tiles = rows.taps[at] >> 8;
      int32_t entries[LOADS];
      rows.read(entries, row, ROWS, tap);
      const T* from[LOADS];  // null where there is none
#pragma unroll
      for (int l = 0; l < LOADS; l++) from[l] = entries[l] < 0 ? nullptr : x + int64_t(entries[l]) * p.C;
      for (int part = 0; part < p.chunks; part++) {
        barrier_wait(empty + 8 * stage, phase);
        if (thread == 0) load_weights(ring + stage * Tile::STAGE + Tile::A, tap, part, full + 8 * stage);
        const bool some = part * 64 + chunk * 8 < p.C;
#pragma unroll
        for (int l = 0; l < LOADS; l++) {
          if (!(tiles >> l * ROWS / 64 & 1)) continue;
          const bool wanted = some && from[l];
          cp_async16(to + stage * Tile::STAGE + l * ROWS * 128, wanted ? from[l] + part * 64 : p.x, wanted);
        }
        arrive_after_copies(full + 8 * stage);
        if (++stage == STAGES) stage = 0, phase ^= 1;
      }
    }
    return;
  }

  if constexpr (Tile::BLOCKS == 1) registers_grow<224>();
  float sum[Tile::N / 2] = {};
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const uint64_t left = along_rows<64>(ring + group * BOX);
  constexpr bool DOWN = WEIGHTS == Layout::BY_INPUT;
  const uint64_t right = DOWN ? down_rows<64>(ring + Tile::A, BOX) : along_rows<64>(ring + Tile::A);
  const auto release = [&](int stage) {
    if (lane == 0) barrier_arrive(empty + 8 * stage);
  };
  int stage = 0, pending = -1;  // pending: the stage that the last product still reads, if there is one
  uint32_t phase = 0;
  for (int at = 0; at < rows.count; at++) {
    const bool some = rows.taps[at] >> (8 + group) & 1;
    for (int part = 0; part < p.chunks; part++) {
      barrier_wait(full + 8 * stage, phase);
      int done = stage;
      if (some) {
        async_fence();
        wgmma_fence();
        const uint64_t step = units(stage * Tile::STAGE);
#pragma unroll
        for (int k = 0; k < 4; k++) {
          wgmma<T, 0, DOWN>(sum, left + step + units(32 * k), right + step + units(DOWN ? k * 16 * 128 : 32 * k), 1);
        }
        wgmma_commit();
        wgmma_wait<1>();
        done = pending;
        pending = stage;
      } else if (pending >= 0) {  // no later product may come before the pending stage is to be filled again
        wgmma_wait<0>();
        release(pending);
        pending = -1;
      }
      if (done >= 0) release(done);
      if (++stage == STAGES) stage = 0, phase ^= 1;
    }
  }
  wgmma_wait<0>(sum);

  if (p.parts > 1) {
    float* const partial = p.partial + int64_t(work.part) * p.rows * p.N;
#pragma unroll
    for (int upper = 0; upper < 2; upper++) {
      const int64_t id = rows.ids[group * 64 + warp * 16 + lane / 4 + 8 * upper];
      if (id < 0) continue;
#pragma unroll
      for (int j = 0; j < Tile::N / 8; j++) {
        const int n = n0 + j * 8 + lane % 4 * 2;
        if (n < p.N) *reinterpret_cast<float2*>(partial + id * p.N + n) = {sum[j * 4 + upper * 2], sum[j * 4 + upper * 2 + 1]};
      }
    }
    return;
  }
  // Four lanes share four chunks of 8 columns, two columns of each a lane; they exchange them so that each has a whole chunk.
  const int quad = lane % 4;
#pragma unroll
  for (int upper = 0; upper < 2; upper++) {
    const int64_t id = rows.ids[group * 64 + warp * 16 + lane / 4 + 8 * upper];
#pragma unroll
    for (int j = 0; j < Tile::N / 8; j += 4) {
      const int n1 = n0 + j * 8 + quad * 8;
      uint32_t mine[4], whole[4];
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const float2 add = *reinterpret_cast<const float2*>(bias + (j + c) * 8 + quad * 2);
        const float* const v = sum + (j + c) * 4 + upper * 2;
        mine[c] = pack(T{}, v[0] + add.x, v[1] + add.y);
      }
      const auto pick = [](const uint32_t(&v)[4], int c) { return c & 2 ? (c & 1 ? v[3] : v[2]) : c & 1 ? v[1] : v[0]; };
#pragma unroll
      for (int o = 0; o < 4; o++) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, pick(mine, quad ^ o), o);
#pragma unroll
        for (int c = 0; c < 4; c++) whole[c] = c == (quad ^ o) ? got : o == 0 ? 0 : whole[c];
      }
      if (id >= 0 && n1 < p.N) *reinterpret_cast<uint4*>(static_cast<T*>(p.y) + id * p.N + n1) = {whole[0], whole[1], whole[2], whole[3]};
    }
  }
#endif
}

// p.w: PACKED, or as they are stored, of T and aligned to 16 bytes.
template <class T, class Tile, Layout WEIGHTS>
int32_t launch_hopper(const char* where, const Product& p, uint64_t stream) {
  const auto kernel = table_product_hopper<T, Tile, WEIGHTS>;
  static const cudaError_t allowed = conv3d::allow_shared(kernel, Tile::bytes(27, 1), Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const int64_t blocks = Work<Tile::M>::count(p, Tile::N);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "%d rows are too many", p.rows);
  CUtensorMap w{};
  if constexpr (WEIGHTS != Layout::PACKED) {
    constexpr bool DOWN = WEIGHTS == Layout::BY_INPUT;
    const int64_t inner = DOWN ? p.N : p.C, outer = DOWN ? p.C : p.N;
    const int64_t sizes[4] = {inner, outer, p.K, 1}, strides[3] = {p.K * inner, inner, p.K * inner * outer};
    if (!encode_map(w, static_cast<const T*>(p.w), sizes, strides, 64, DOWN ? 64 : Tile::N)) {
      return fail(K_UNSUPPORTED, where, "the driver makes no tensor map of the weights");
    }
  }
  if constexpr (WEIGHTS == Layout::PACKED) {
    launch_next(kernel, unsigned(blocks), Tile::THREADS, Tile::bytes(p.K, p.parts), stream, p, w);
  } else {
    kernel<<<unsigned(blocks), Tile::THREADS, Tile::bytes(p.K, p.parts), stream_of(stream)>>>(p, w);
  }
  return launched(where);
}
}  // namespace spconv
