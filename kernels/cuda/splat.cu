// Gaussian splatting on CUDA: splats, their order, the lists of the tiles, and the pictures.
#include "splat.cuh"

#include "scan.cuh"
#include "splat_draw.cuh"
#include "splat_sort.cuh"

namespace {
using namespace splat;

constexpr int THREADS = 256;
inline unsigned grid(int64_t n) { return unsigned(ceil_div(n, THREADS)); }

__global__ void start_status(int64_t* status, int64_t I) {
  status[threadIdx.x] = threadIdx.x == 2 ? I : 0;
}

__global__ void __launch_bounds__(THREADS) project_splats(Problem q) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  int seen = 0, tiles = 0;
  if (i < q.I) {
    int64_t gaussian;
    const int view = q.view_of(i, gaussian);
    Splat s;
    seen = project(s, q.camera(view), q.gaussians, gaussian);
    if (seen > 0) {
      Cover cover;
      cover.load(s, q.across, q.down);
      for (int row = cover.y0; row < cover.y1; row++) {
        int first, end;
        cover.row(row, first, end);
        tiles += end - first;
      }
    }
    float4* const to = reinterpret_cast<float4*>(q.splats + i);
    to[0] = {s.x, s.y, s.opacity, s.reach}, to[1] = {s.a, s.b, s.c, s.depth}, to[2] = {s.rgb[0], s.rgb[1], s.rgb[2], s.radius};
    q.counts[i] = tiles;
    q.keys[i] = tiles ? __float_as_uint(s.depth) : 0xffffffffu;
  }
  int sum = tiles;
#pragma unroll
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
  __shared__ int sums[THREADS / 32];
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned long long all = 0;
    for (int w = 0; w < THREADS / 32; w++) all += unsigned(sums[w]);
    if (all) atomicAdd(reinterpret_cast<unsigned long long*>(q.status), all);
  }
  if (seen < 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(q.status + 1), 1ull);
    atomicMin(reinterpret_cast<unsigned long long*>(q.status + 2), (unsigned long long)(i));
  }
}

struct Slots {
  Problem q;
  int32_t* total;
  __device__ int get(int64_t i) const { return q.counts[i]; }
  __device__ void set(int64_t i, int sum) const { q.slots[i] = sum; }
};
struct Ranked {
  const int32_t *counts, *order;
  int32_t *firsts, *total;
  __device__ int get(int64_t r) const { return counts[order[r]]; }
  __device__ void set(int64_t r, int sum) const { firsts[r] = sum; }
};
struct SplatCount {
  int64_t I;
  __device__ int64_t get() const { return I; }
};

constexpr int ALONE = 16;  // a thread lists this many pairs of a splat; more are shared by a warp

__global__ void __launch_bounds__(THREADS)
    list_pairs(Problem q, const int32_t* order, const int32_t* firsts, uint32_t* keys, uint64_t* values) {
  if (!q.valid()) return;
  const int64_t r = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  const int lane = threadIdx.x % 32;
  const int i = r < q.I ? order[r] : -1, count = i < 0 ? 0 : q.counts[i];
  const int first = count ? firsts[r] : 0;
  const auto value = [](int splat, int slot) { return uint64_t(uint32_t(slot)) << 32 | uint32_t(splat); };
  if (count && count <= ALONE) {
    int64_t gaussian;
    const uint32_t rows = uint32_t(q.view_of(i, gaussian)) * q.down;
    const int slot = q.slots[i];
    Cover cover;
    cover.load(q.splats[i], q.across, q.down);
    int at = 0;
    for (int row = cover.y0; row < cover.y1; row++) {
      int from, end;
      cover.row(row, from, end);
      for (int x = from; x < end; x++, at++) {
        keys[first + at] = (rows + row) * q.across + x;
        values[first + at] = value(i, slot + at);
      }
    }
  }
  for (uint32_t left = __ballot_sync(0xffffffffu, count > ALONE); left; left &= left - 1) {
    const int source = __ffs(left) - 1, j = __shfl_sync(0xffffffffu, i, source);
    int base = __shfl_sync(0xffffffffu, first, source), slot = q.slots[j];
    int64_t gaussian;
    const uint32_t rows = uint32_t(q.view_of(j, gaussian)) * q.down;
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
      for (int x = from; x < end; x++, at++) {
        keys[base + at] = (rows + row) * q.across + x;
        values[base + at] = value(j, slot + at);
      }
      const int all = __shfl_sync(0xffffffffu, up, 31);
      base += all, slot += all;
    }
  }
}

// starts[tile] = the first pair whose key is not below it, found by a warp.
__global__ void __launch_bounds__(THREADS) find_starts(Problem q, const uint32_t* keys) {
  const int64_t tile = (int64_t(blockIdx.x) * THREADS + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (tile > q.tiles) return;
  int64_t low = 0, high = PairCount{q.status, q.capacity}.get();  // it lies from low to high
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

// Which segments a tile has behind its first.
struct Parts {
  Problem q;
  int32_t* total;
  __device__ int get(int64_t tile) const { return max(q.starts[tile + 1] - q.starts[tile] - 1, 0) / SEGMENT; }
  __device__ void set(int64_t tile, int sum) const {
    q.parts[tile] = sum;
    for (int n = get(tile), i = 0; i < n; i++) q.part_tile[sum + i] = int32_t(tile);
  }
};

// The scratch of k_splat_fwd.
struct Scratch {
  uint64_t bytes = 0;
  uint64_t base;
  int32_t *order, *firsts, *sums, *part_sums;
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
    order = take<int32_t>(I), firsts = take<int32_t>(I);
    sums = take<int32_t>(int64_t(scan::bytes(I)) / 4), part_sums = take<int32_t>(int64_t(scan::bytes(q.tiles)) / 4);
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
  bytes[0] = q.projected_bytes() + aligned(scan::bytes(q.I));
  bytes[1] = q.lists_bytes();
  bytes[2] = Scratch(q, 0).bytes;
  bytes[3] = aligned(uint64_t(q.capacity) * 40) + aligned(q.capacity);
  return K_OK;
}

int32_t k_splat_project(const k_splat* problem, uint64_t stream) {
  const char* where = "k_splat_project";
  if (int32_t status = check_problem(where, problem, 0)) return status;
  const Problem q(*problem);
  const cudaStream_t on = stream_of(stream);
  start_status<<<1, 4, 0, on>>>(q.status, q.I);
  if (int32_t status = launched(where)) return status;
  if (q.I == 0) return K_OK;
  project_splats<<<grid(q.I), THREADS, 0, on>>>(q);
  if (int32_t status = launched(where)) return status;
  return scan::run(where, Slots{q, q.slots + q.I}, at<int32_t>(problem->projected + q.projected_bytes()), q.I, stream);
}

int32_t k_splat_fwd(const k_splat* problem, uint64_t stream) {
  const char* where = "k_splat_fwd";
  if (int32_t status = check_problem(where, problem, 1)) return status;
  const Problem q(*problem);
  if (q.V == 0) return K_OK;
  const cudaStream_t on = stream_of(stream);
  const Scratch s(q, problem->scratch);
  const PairCount pairs{q.status, q.capacity};
  const uint32_t* keys = nullptr;
  if (q.I) {
    splat_sort::sort(s.splats, reinterpret_cast<uint32_t*>(s.order), SplatCount{q.I}, q.I, 32, false, on);
    if (int32_t status = scan::run(where, Ranked{q.counts, s.order, s.firsts, nullptr}, s.sums, q.I, stream)) return status;
    list_pairs<<<grid(q.I), THREADS, 0, on>>>(q, s.order, s.firsts, s.keys, s.values);
    int bits = 1;
    while ((int64_t(1) << bits) < q.tiles) bits++;
    keys = splat_sort::sort(s.pairs, reinterpret_cast<uint64_t*>(q.pairs), pairs, q.capacity, bits, true, on);
    if (int32_t status = launched(where)) return status;
  }
  find_starts<<<grid(32 * (q.tiles + 1)), THREADS, 0, on>>>(q, keys);
  if (int32_t status = scan::run(where, Parts{q, q.parts + q.tiles}, s.part_sums, q.tiles, stream)) return status;
  draw(q, s.rest, on);
  return launched(where);
}
