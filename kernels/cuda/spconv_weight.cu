// Sparse convolution on CUDA, gradient of the weight: for each tap the product of two gathered matrices over its pairs. Runs of pairs are
// summed by blocks, in f32, and added in order. spconv_weight_hopper.cuh on Hopper, pair_sum here elsewhere, for f32 and for channels that
// are no multiple of 8. Bounds: nothing is multiplied in vain but the last step of a run; a step of 64 pairs x 128 x 256 multiplies for 1024
// cycles and gathers 48 KB, which alone takes 1410 (34.8 bytes a cycle and SM, 9.1 TB/s of an H200's L2 cache): at most 0.73 of the tensor
// cores' rate, with 192 x 256 0.93. Measured there in f16: 600 TFLOP/s for 1024 channels on the 64^3 shell, 0.83 of that bound.
#include "../include/spconv.h"

#include <cmath>

#include "spconv_weight_hopper.cuh"

namespace {
using namespace spconv;

// K: pairs a step
template <class T, class Tile, int K, bool ALIGNED>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) pair_sum(const __grid_constant__ Sum p) {
  using namespace conv3d;
  constexpr int V = 16 / sizeof(T), A_BYTES = K * Tile::M * sizeof(T), STAGE = A_BYTES + K * Tile::N * sizeof(T);
  constexpr int A_CHUNKS = Tile::M / V, B_CHUNKS = Tile::N / V, A_LOADS = K * A_CHUNKS / Tile::THREADS,
                B_LOADS = K * B_CHUNKS / Tile::THREADS;
  static_assert(A_LOADS * Tile::THREADS == K * A_CHUNKS && B_LOADS * Tile::THREADS == K * B_CHUNKS);
  extern __shared__ __align__(128) unsigned char shared[];
  const Run run = Run::of_slot(p, blockIdx.y);
  if (run.tap < 0) return;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int columns = (p.N + Tile::N - 1) / Tile::N, m0 = blockIdx.x / columns * Tile::M, n0 = blockIdx.x % columns * Tile::N;
  const int steps = int((run.last - run.first + K - 1) / K);
  const uint32_t ring = shared_address(shared);

  int32_t l[A_LOADS], r[B_LOADS];  // rows of the next step
  const auto look = [&](int step) {
    const int64_t first = run.first + int64_t(step) * K;
#pragma unroll
    for (int i = 0; i < A_LOADS; i++) {
      const int64_t pair = first + (thread + i * Tile::THREADS) / A_CHUNKS;
      l[i] = pair < run.last ? p.pairs[pair] : -1;
    }
#pragma unroll
    for (int i = 0; i < B_LOADS; i++) {
      const int64_t pair = first + (thread + i * Tile::THREADS) / B_CHUNKS;
      r[i] = pair < run.last ? p.pairs[p.pitch + pair] : -1;
    }
  };
  const auto copy = [&](uint32_t to, const void* from, int64_t row, int column, int width) {
    const T* const element = static_cast<const T*>(from) + row * width + column;
    if constexpr (ALIGNED) {
      const bool wanted = row >= 0 && column < width;
      cp_async16(ring + to, wanted ? element : from, wanted);
    } else {
      Pack<T, V> values;
#pragma unroll
      for (int e = 0; e < V; e++) values.v[e] = row >= 0 && column + e < width ? element[e] : from_f32<T>(0);
      *reinterpret_cast<Pack<T, V>*>(shared + to) = values;
    }
  };
  const auto load = [&](int step) {
    const int stage = step % Tile::STAGES * STAGE;
#pragma unroll
    for (int i = 0; i < A_LOADS; i++) {
      const int at = thread + i * Tile::THREADS, chunk = at % A_CHUNKS;
      copy(stage + chunk_address<A_CHUNKS>(at / A_CHUNKS, chunk), p.left, l[i], m0 + chunk * V, p.M);
    }
#pragma unroll
    for (int i = 0; i < B_LOADS; i++) {
      const int at = thread + i * Tile::THREADS, chunk = at % B_CHUNKS;
      copy(stage + A_BYTES + chunk_address<B_CHUNKS>(at / B_CHUNKS, chunk), p.right, r[i], n0 + chunk * V, p.N);
    }
    look(step + 1);
  };

  WarpTile<T, Tile::WARP_M, Tile::WARP_N, false> tile;
  const int m_warp = warp / Tile::WARPS_N * Tile::WARP_M, n_warp = warp % Tile::WARPS_N * Tile::WARP_N;
  look(0);
#pragma unroll 1
  for (int step = 0; step < Tile::STAGES - 1; step++) {
    if (step < steps) load(step);
    cp_async_group();
  }
  for (int step = 0; step < steps; step++) {
    cp_async_wait_groups<Tile::STAGES - 2>();
    __syncthreads();  // the step's stage is complete, and no warp reads the stage before it
    if (step + Tile::STAGES - 1 < steps) load(step + Tile::STAGES - 1);
    cp_async_group();
    const unsigned char* const stage = shared + step % Tile::STAGES * STAGE;
    tile.template add_columns<K, Tile::M, Tile::N>(stage, m_warp, stage + A_BYTES, n_warp, lane);
  }
#pragma unroll
  for (int e = 0; e < tile.SIZE; e++) {
    const int m = m0 + m_warp + tile.row(e, lane), n = n0 + n_warp + tile.column(e, lane);
    if (m < p.M && n < p.N) *run.target(p, blockIdx.y, m, n) = tile.at(e);
  }
}

template <class T, class Tile, int K, bool ALIGNED>
int32_t launch_sum(const char* where, const Sum& p, uint64_t stream) {
  constexpr int BYTES = Tile::STAGES * K * (Tile::M + Tile::N) * sizeof(T);
  static const cudaError_t allowed = conv3d::allow_shared(pair_sum<T, Tile, K, ALIGNED>, BYTES, Tile::BLOCKS);
  if (allowed != cudaSuccess) return fail(allowed, where, "%s", cudaGetErrorString(allowed));
  const dim3 blocks(unsigned(ceil_div(p.M, Tile::M) * ceil_div(p.N, Tile::N)), unsigned(p.slots));
  pair_sum<T, Tile, K, ALIGNED><<<blocks, Tile::THREADS, BYTES, stream_of(stream)>>>(p);
  return launched(where);
}

using Sum64x64 = HopperTile<64, 4, 3, 64, 64>;
using Sum64 = HopperTile<64, 4, 2, 128>;
using Sum128 = HopperTile<128, 3, 2, 64>;
using Sum256 = HopperTile<256, 4, 1, 128>;
using Sum192x256 = HopperTile<256, 4, 1, 128, 192>;

constexpr double SPREAD = 4e8;  // bytes

// The width of a block's tile, and the slots that the runs may take: enough blocks for every SM a few times, where the pairs allow it.
struct Plan {
  bool aligned, hopper;
  int tile_m, tile_n;
  int64_t regions, slots;
  Plan(int64_t rows, int64_t K, int64_t M, int64_t N, int32_t dtype) {
    static const int sms = conv3d::device_attribute(cudaDevAttrMultiProcessorCount);
    static const bool has_wgmma = conv3d::device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
    const int V = dtype == K_F32 ? 4 : 8;
    aligned = M % V == 0 && N % V == 0;
    hopper = aligned && has_wgmma && dtype != K_F32;
    tile_n = !aligned ? 32 : hopper && N > 128 ? 256 : hopper && N > 64 ? 128 : hopper ? 64 : 64;
    tile_m = !aligned ? 32 : !hopper ? 64 : tile_n == 64 && M <= 64 ? 64 : 128;
    // 192 x 256 gathers less an operation, but fills fewer places: measured, 5 % faster where runs make up for that, 2 % slower elsewhere.
    if (tile_n == 256 && hopper && tall(M) && ceil_div(M, 128) * ceil_div(N, 256) * K < 5 * sms) tile_m = 192;
    const int64_t tiles = ceil_div(M, tile_m) * ceil_div(N, tile_n);
    // Blocks of a moment have about places / tiles runs, K of which make a region. Measured: regions pay where what these read is ten times
    // an L2 cache.
    const int64_t places = int64_t(sms) * (tile_n == 256 ? 1 : tile_m == 64 && hopper ? 3 : 2), row = (M + N) * (dtype == K_F32 ? 4 : 2);
    const double at_once = std::max(1.0, double(places) / double(tiles * K)), most = double(rows) * std::min<int64_t>(K, 12);
    regions = std::max<int64_t>(1, int64_t(std::min(at_once * double(rows * row) / SPREAD, most / double(512 * K))));
    // Blocks are to fill every place five times, smaller ones, whose sums are dear beside their products, three times, or as often as runs of
    // 1000 pairs allow (rows of a surface have about 12); and hardly more: a few blocks past that would cost a turn of their own. Taps are cut
    // into whole runs, which makes about half a run a tap more.
    const int64_t turns = std::max<int64_t>(1, std::min<int64_t>(tile_n == 256 ? 5 : 3, int64_t(most / 1024 * double(tiles) / double(places))));
    slots = regions * (K + std::max<int64_t>(8, turns * places / (tiles * regions) - K * 13 / 20));
    if (slots > 65535) regions = std::max<int64_t>(1, 65535 / (2 * K)), slots = regions * 2 * K;
  }
  // Whether tiles of 192 rows gather less than such of 128: a step of 64 R rows takes as long as R + 4 parts.
  static bool tall(int64_t M) {
    const auto steps = [M](int64_t R) { return M / (64 * R) * (R + 4) + (M % (64 * R) ? ceil_div(M % (64 * R), 64) + 4 : 0); };
    return steps(3) < steps(2);
  }
  uint64_t bytes(int64_t M, int64_t N) const { return sizeof(float) * uint64_t(slots * M * N); }
};

template <class T>
int32_t weight_gradient(const char* where, const Sum& p, const Plan& plan, uint64_t stream) {
  using conv3d::Tile;
  int32_t status;
  const bool aligned = plan.aligned && (reinterpret_cast<uint64_t>(p.left) | reinterpret_cast<uint64_t>(p.right)) % 16 == 0;
  if (!aligned) {
    status = launch_sum<T, Tile<32, 32, 16, 16, 3, 4>, 128 / int(sizeof(T)), false>(where, p, stream);
  } else if constexpr (sizeof(T) == 4) {
    status = launch_sum<T, Tile<64, 64, 32, 32, 3, 2>, 16, true>(where, p, stream);
  } else if (!plan.hopper) {
    status = launch_sum<T, Tile<64, 64, 32, 32, 4, 3>, 32, true>(where, p, stream);
  } else {
    status = plan.tile_m == 64    ? launch_sum_hopper<T, Sum64x64>(where, p, stream)
             : plan.tile_n == 64  ? launch_sum_hopper<T, Sum64>(where, p, stream)
             : plan.tile_n == 128 ? launch_sum_hopper<T, Sum128>(where, p, stream)
             : plan.tile_m == 192 ? launch_sum_hopper<T, Sum192x256>(where, p, stream)
                                  : launch_sum_hopper<T, Sum256>(where, p, stream);
  }
  return status ? status : add_runs(where, p, stream);
}

int32_t check(const char* where, int32_t rows, int32_t K, int32_t Cin, int32_t Cout) {
  if (Cin < 1 || Cout < 1 || Cin > 65535 || Cout > 65535) {
    return fail(K_BAD_ARGUMENT, where, "Cin = %d and Cout = %d, they must be 1 to 65535", Cin, Cout);
  }
  return sparse::check_table(where, rows, K);
}
}  // namespace

int32_t k_spconv_bwd_weight_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t dtype) {
  if (int32_t status = check("k_spconv_bwd_weight_workspace", rows, K, Cin, Cout)) return status;
  *bytes = Plan(rows, K, Cout, Cin, dtype).bytes(Cout, Cin);
  return K_OK;
}

int32_t k_spconv_bwd_weight(uint64_t dw, uint64_t dy, uint64_t x, uint64_t pairs, uint64_t offsets, uint64_t scratch, int32_t rows,
                            int32_t K, int32_t Cin, int32_t Cout, int32_t dtype, uint64_t stream) {
  const char* where = "k_spconv_bwd_weight";
  if (int32_t status = check(where, rows, K, Cin, Cout)) return status;
  if (rows == 0) {
    const cudaError_t e = cudaMemsetAsync(at<void>(dw), 0, sizeof(float) * size_t(K) * Cin * Cout, stream_of(stream));
    return e == cudaSuccess ? K_OK : fail(e, where, "%s", cudaGetErrorString(e));
  }
  const Plan plan(rows, K, Cout, Cin, dtype);
  const Sum p{at<float>(dw),
              at<float>(scratch),
              at<const void>(dy),
              at<const void>(x),
              at<const int32_t>(pairs),
              at<const int32_t>(offsets),
              int64_t(rows) * K,
              K,
              Cout,
              Cin,
              int(plan.regions),
              int(plan.slots)};
  return with_float_type(where, dtype, [&](auto t) { return weight_gradient<decltype(t)>(where, p, plan, stream); });
}
