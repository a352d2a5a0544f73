// Tables of neighbours, the order of their rows and their pairs on CUDA. Bounds for N rows of 27 taps: the table is 108 bytes a row,
// written once and read once more (pairs); pairs are about 104 bytes a row, coordinates, taps and order some 40: 0.36 KB a row, 0.09 ms for a
// million rows at 4.3 TB/s. Up to 20,000 rows a map is bound by its six launches, about 2.5 us each though each is started while the one before
// runs; then by the sort, whose clusters have 16 multiprocessors a set; from half a million rows on by memory and by lookups in the L2 cache.
#include "../include/spconv.h"

#include "spconv_map_pairs.cuh"
#include "spconv_map_places.cuh"
#include "spconv_map_sort.cuh"

namespace {
using namespace sparse;

// A block has 32 rows, one a lane. With KERNEL 3 and stride 1 a warp has the nine taps of one x, all asked for before the first is used; else
// (KERNEL 0: any) those of one x and y.
template <class Places, int KERNEL>
__global__ void fill_table(int32_t* table, uint32_t* taps, Places places, const Place* to, int32_t rows, int B, int side, int kernel, int stride,
                           int padding, bool transposed) {
  extern __shared__ __align__(16) int32_t found[];  // [32, K]
  after_previous();
  if (KERNEL) kernel = KERNEL;
  const int K = kernel * kernel * kernel, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = int64_t(blockIdx.x) * 32;
  const Place center = first + lane < rows ? to[first + lane] : Place{-1, 0, 0, 0};
  if constexpr (KERNEL == 3) {
    const Place p{center.batch, center.x + warp - padding, center.y - padding, center.z - padding};
    const bool some = unsigned(p.batch) < unsigned(B) && unsigned(p.x) < unsigned(side);
    int row[3][3];
#pragma unroll
    for (int l = 0; l < 3; l++) {
      const bool here = some && unsigned(p.y + l) < unsigned(side);
      auto line = places.line(here ? Place{p.batch, p.x, p.y + l, 0} : Place{0, 0, 0, 0});
#pragma unroll
      for (int t = 0; t < 3; t++) row[l][t] = here && unsigned(p.z + t) < unsigned(side) ? line.at(p.z + t) : -1;
    }
#pragma unroll
    for (int l = 0; l < 3; l++) {
#pragma unroll
      for (int t = 0; t < 3; t++) found[lane * 27 + warp * 9 + l * 3 + t] = row[l][t];
    }
  } else {
    const Place p{center.batch, reads(center.x, warp / kernel, stride, padding, transposed),
                  reads(center.y, warp % kernel, stride, padding, transposed), 0};
    const bool some = p.inside(B, side);
    auto line = places.line(some ? p : Place{0, 0, 0, 0});
    for (int t = 0; t < kernel; t++) {
      const int z = reads(center.z, t, stride, padding, transposed);
      found[lane * K + warp * kernel + t] = some && unsigned(z) < unsigned(side) ? line.at(z) : -1;
    }
  }
  __syncthreads();
  const int count = int(rows - first < 32 ? rows - first : 32) * K;
  table += first * K;  // 128 K bytes a block
  for (int i = threadIdx.x * 4; i < count; i += blockDim.x * 4) {
    if (i + 4 <= count) {
      *reinterpret_cast<int4*>(table + i) = *reinterpret_cast<const int4*>(found + i);
    } else {
      for (int j = i; j < count; j++) table[j] = found[j];
    }
  }
  const int words = (K + 31) / 32;
  if (warp < words && first + lane < rows) {
    uint32_t mask = 0;
#pragma unroll 9
    for (int t = warp * 32; t < K && t < warp * 32 + 32; t++) mask |= uint32_t(found[lane * K + t] >= 0) << t % 32;
    taps[(first + lane) * words + warp] = mask;
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
}  // namespace

int32_t k_spconv_table_workspace(uint64_t* bytes, int32_t rows, int32_t N, int32_t B, int32_t side) {
  if (int32_t status = check_grid("k_spconv_table_workspace", N, B, side)) return status;
  *bytes = TableLayout(N, B, side).bytes();
  return check_table("k_spconv_table_workspace", rows, 1);
}

int32_t k_spconv_table(uint64_t table, uint64_t taps, uint64_t faults, uint64_t to, uint64_t from, uint64_t scratch, int32_t rows, int32_t N,
                       int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding, int32_t transposed, uint64_t stream) {
  const char* where = "k_spconv_table";
  const int K = kernel * kernel * kernel;
  if (int32_t status = check_grid(where, N, B, side)) return status;
  if (int32_t status = check_window(where, kernel, stride, padding)) return status;
  if (int32_t status = check_table(where, rows, K)) return status;
  return TableLayout(N, B, side).build(scratch, at<const Place>(from), at<int32_t>(faults), stream, [&](auto places) {
    if (rows) {
      using Places = decltype(places);
      const bool plain = kernel == 3 && stride == 1 && !transposed;
      launch_next(plain ? fill_table<Places, 3> : fill_table<Places, 0>, unsigned(ceil_div(rows, 32)), 32 * (plain ? 3 : kernel * kernel),
                  32 * K * sizeof(int32_t), stream, at<int32_t>(table), at<uint32_t>(taps), places, at<const Place>(to), rows, B, side, kernel,
                  stride, padding, transposed != 0);
    }
    return launched(where);
  });
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
  if (sorter::launch(at<int32_t>(order), at<uint32_t>(masks), at<const uint32_t>(taps), rows, K, parts, grouped ? group : rows, stream)) {
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
  *bytes = pairs::Sizes(rows, K).bytes();
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
  return pairs::build(where, at<int32_t>(pairs), at<int32_t>(offsets), at<const int32_t>(table), at<const uint32_t>(taps), at<int32_t>(scratch), rows,
                      K, stream);
}
