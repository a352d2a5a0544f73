// Gaussian splatting on CUDA: splats, their order, the lists of the tiles, and the pictures.
#include "splat.cuh"

#include "splat_draw.cuh"
#include "splat_sort.cuh"

namespace {
using namespace splat;

constexpr int THREADS = 256;
inline unsigned grid(int64_t n) { return unsigned(ceil_div(n, THREADS)); }

__global__ void start_status(int64_t* status, uint32_t* least_most, int64_t I) {
  after_previous();
  status[threadIdx.x] = threadIdx.x == 2 ? I : 0;
  if (I && threadIdx.x < 2) least_most[threadIdx.x] = threadIdx.x ? 0 : 0xffffffffu;
}

__global__ void __launch_bounds__(RUN) project_splats(Problem q) {
  after_previous();
  static_assert(RUN == splat_sort::THREADS);
  const int64_t i = int64_t(blockIdx.x) * RUN + threadIdx.x;
  int seen = 0, count = 0, all;
  uint32_t least = 0xffffffffu, most = 0;
  if (i < q.I) {
    int64_t gaussian;
    const int view = q.view_of(i, gaussian);
    Splat s;
    seen = project(s, q.camera(view), q.gaussians, gaussian);
    Touched touched{0};
    if (seen > 0) {
      Cover cover;
      cover.load(s, q.across, q.down);
      touched = Touched::of(cover);
    }
    float4* const to = reinterpret_cast<float4*>(q.splats + i);
    to[0] = {s.x, s.y, s.opacity, s.reach}, to[1] = {s.a, s.b, s.c, s.depth}, to[2] = {s.rgb[0], s.rgb[1], s.rgb[2], s.radius};
    count = touched.count();
    q.tiles_of[i] = touched.bits;
    q.keys[i] = count ? __float_as_uint(s.depth) : 0;
    if (count) least = most = __float_as_uint(s.depth);
  }
  const int before = splat_sort::block_scan(count, all);
  if (i < q.I) q.slots[i] = before;
  if (threadIdx.x == 0) q.slots_of[blockIdx.x] = all;
  least = __reduce_min_sync(0xffffffffu, least), most = __reduce_max_sync(0xffffffffu, most);
  __shared__ uint32_t leasts[RUN / 32], mosts[RUN / 32];
  if (threadIdx.x % 32 == 0) leasts[threadIdx.x / 32] = least, mosts[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x == 0 && all) {
    for (int w = 0; w < RUN / 32; w++) least = min(least, leasts[w]), most = max(most, mosts[w]);
    atomicMin(q.least_most, least), atomicMax(q.least_most + 1, most);
  }
  if (seen < 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(q.status + 1), 1ull);
    atomicMin(reinterpret_cast<unsigned long long*>(q.status + 2), (unsigned long long)(i));
  }
}

// What is sorted: the splats, by depth from the least on.
struct Depths {
  int64_t I;
  const uint32_t* least_most;
  __device__ int64_t get() const { return I; }
  __device__ uint32_t key(uint32_t depth) const { return depth ? depth - least_most[0] : 0; }
  __device__ uint32_t most() const { return least_most[1] > least_most[0] ? least_most[1] - least_most[0] : 0; }
};

// sums[run] = the pairs of a run of splats in their order by depth.
__global__ void __launch_bounds__(RUN) count_runs(Problem q, const int32_t* order, int32_t* sums) {
  after_previous();
  const int64_t r = int64_t(blockIdx.x) * RUN + threadIdx.x;
  int all;
  splat_sort::block_scan(r < q.I ? Touched{q.tiles_of[order[r]]}.count() : 0, all);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

constexpr unsigned FEW_RUNS = 4096;  // up to these each block of list_pairs sums the runs before it up on its own

// The pairs, nearest splats first. sums: of the runs, or with `summed` of all before each. A thread lists those of a splat that touches few tiles, a warp those of one that touches many.
__global__ void __launch_bounds__(RUN) list_pairs(Problem q, const int32_t* order, const int32_t* sums, bool summed, uint32_t* keys, uint64_t* values) {
  after_previous();
  if (!q.valid()) return;
  const int64_t r = int64_t(blockIdx.x) * RUN + threadIdx.x;
  const int lane = threadIdx.x % 32, i = r < q.I ? order[r] : -1;
  const Touched touched{i < 0 ? 0 : q.tiles_of[i]};
  const int count = touched.count();
  int all, before = 0;
  int first = splat_sort::block_scan(count, all), slot = count ? q.slot_of(i) : 0;
  if (summed) {
    first += sums[blockIdx.x];
  } else {
    for (unsigned run = threadIdx.x; run < blockIdx.x; run += RUN) before += sums[run];
    splat_sort::block_scan(before, all);
    first += all;
  }
  const auto list = [&](int at, uint32_t tile, int splat, int slot) {
    keys[at] = tile;
    values[at] = uint64_t(uint32_t(slot)) << 32 | uint32_t(splat);
  };
  const auto rows_of = [&](int splat) {
    int64_t gaussian;
    return uint32_t(q.view_of(splat, gaussian)) * q.down;
  };
  if (count && !touched.large()) {
    const uint32_t corner = (rows_of(i) + touched.y()) * q.across + touched.x();
    for (uint32_t left = touched.mask(); left; left &= left - 1) {
      const uint32_t bit = __ffs(left) - 1;
      list(first++, corner + bit / 4 * q.across + bit % 4, i, slot++);
    }
  }
  for (uint32_t left = __ballot_sync(0xffffffffu, touched.large()); left; left &= left - 1) {
    const int source = __ffs(left) - 1, j = __shfl_sync(0xffffffffu, i, source);
    int base = __shfl_sync(0xffffffffu, first, source), of_j = __shfl_sync(0xffffffffu, slot, source);
    const uint32_t rows = rows_of(j);
    Cover cover;
    cover.load(q.splats[j], q.across, q.down);
    for (int top = cover.y0; top < cover.y1; top += 32) {
      const int row = top + lane;
      int from = 0, end = 0;
      if (row < cover.y1) cover.row(row, from, end);
      int up = end - from;
#pragma unroll
      for (int o = 1; o < 32; o *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, up, o);
        up += lane >= o ? other : 0;
      }
      int at = up - (end - from);
      for (int x = from; x < end; x++, at++) list(base + at, (rows + row) * q.across + x, j, of_j + at);
      const int here = __shfl_sync(0xffffffffu, up, 31);
      base += here, of_j += here;
    }
  }
}

// starts[tile] = the first pair whose key is not below it, found by a warp; no segment has a tile yet.
__global__ void __launch_bounds__(THREADS) find_starts(Problem q, const uint32_t* keys) {
  after_previous();
  const int64_t thread = int64_t(blockIdx.x) * THREADS + threadIdx.x, tile = thread / 32;
  for (int64_t i = thread; i < q.segments; i += int64_t(gridDim.x) * THREADS) q.part_tile[i] = -1;
  const int lane = threadIdx.x % 32;
  if (tile > q.tiles) return;
  int64_t low = 0, high = PairCount{q.status, q.capacity, q.tiles}.get();  // it lies from low to high
  while (low < high) {
    const int64_t step = (high - low + 31) / 32, mine = low + lane * step;
    const uint32_t below = __ballot_sync(0xffffffffu, mine < high && keys[mine] < tile);
    const int count = __popc(below);
    if (count == 0) {
      high = low;
    } else {
      const int64_t end = low + count * step;
      low += (count - 1) * step + 1;
      high = end < high ? end : high;
    }
  }
  if (lane == 0) q.starts[tile] = int32_t(low);
}

// The scratch of k_splat_fwd.
struct Scratch {
  uint64_t bytes = 0;
  uint64_t base;
  int32_t *order, *sums;
  Rest rest;
  uint32_t* keys;    // of the pairs, as they are listed
  uint64_t* values;
  splat_sort::Buffers<uint32_t> splats;
  splat_sort::Buffers<uint64_t> pairs;

  template <class T>
  T* take(int64_t count) {
    T* const p = reinterpret_cast<T*>(base + bytes);
    bytes += aligned(count * sizeof(T));
    return p;
  }
  Scratch(const Problem& q, uint64_t address) : base(address) {
    const int64_t I = q.I, most = I > q.capacity ? I : q.capacity;
    order = take<int32_t>(I), sums = take<int32_t>(q.runs());
    rest = {take<int32_t>(q.tiles), take<float>(q.segments * Rest::SIZE)};
    const int64_t n = q.capacity;
    int32_t* const counts = take<int32_t>(splat_sort::count_size(most));
    splats = {q.keys, nullptr, {take<uint32_t>(I), take<uint32_t>(I)}, {take<uint32_t>(I), take<uint32_t>(I)}, counts};
    keys = take<uint32_t>(n), values = take<uint64_t>(n);
    pairs = {keys, values, {take<uint32_t>(n), keys}, {take<uint64_t>(n), values}, counts};
  }
};
}  // namespace

int32_t k_splat_sizes(uint64_t* bytes, const k_splat* problem) {
  if (int32_t status = check_sizes("k_splat_sizes", problem)) return status;
  const Problem q(*problem);
  bytes[0] = q.projected_bytes();
  bytes[1] = q.lists_bytes();
  bytes[2] = Scratch(q, 0).bytes;
  bytes[3] = aligned(uint64_t(q.capacity) * 40) + aligned(q.capacity);
  return K_OK;
}

int32_t k_splat_project(const k_splat* problem, uint64_t stream) {
  const char* where = "k_splat_project";
  if (int32_t status = check_problem(where, problem, 0)) return status;
  const Problem q(*problem);
  launch_next(start_status, 1, 4, 0, stream, q.status, q.least_most, q.I);
  if (q.I) {
    launch_next(project_splats, unsigned(q.runs()), RUN, 0, stream, q);
    launch_next(splat_sort::scan_sums, 1, splat_sort::SCAN_THREADS, 0, stream, q.slots_of, q.runs(), q.status);
  }
  return launched(where);
}

int32_t k_splat_fwd(const k_splat* problem, uint64_t stream) {
  const char* where = "k_splat_fwd";
  if (int32_t status = check_problem(where, problem, 1)) return status;
  const Problem q(*problem);
  if (q.V == 0) return K_OK;
  const Scratch s(q, problem->scratch);
  const PairCount pairs{q.status, q.capacity, q.tiles};
  const uint32_t* keys = nullptr;
  if (q.I) {
    const unsigned runs = unsigned(q.runs());
    splat_sort::sort(s.splats, reinterpret_cast<uint32_t*>(s.order), Depths{q.I, q.least_most}, q.I, 32, stream);
    launch_next(count_runs, runs, RUN, 0, stream, q, s.order, s.sums);
    const bool summed = runs > FEW_RUNS;
    if (summed) launch_next(splat_sort::scan_sums, 1, splat_sort::SCAN_THREADS, 0, stream, s.sums, q.runs(), nullptr);
    launch_next(list_pairs, runs, RUN, 0, stream, q, s.order, s.sums, summed, s.keys, s.values);
    int bits = 1;
    while ((int64_t(1) << bits) < q.tiles) bits++;
    keys = splat_sort::sort(s.pairs, reinterpret_cast<uint64_t*>(q.pairs), pairs, q.capacity, bits, stream);
    if (int32_t status = launched(where)) return status;
  }
  launch_next(find_starts, grid(32 * (q.tiles + 1)), THREADS, 0, stream, q, keys);
  draw(q, s.rest, stream);
  return launched(where);
}
