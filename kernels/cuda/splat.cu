// Gaussian splatting on CUDA: splats, their order, the lists of the tiles, and the pictures.
#include "splat.cuh"

#include "scan.cuh"
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

// starts[tile] = the first pair whose key is not below it.
__global__ void __launch_bounds__(THREADS) find_starts(Problem q, const uint32_t* keys) {
  const int64_t tile = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (tile > q.tiles) return;
  int64_t low = 0, high = PairCount{q.status, q.capacity}.get();
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < tile) low = middle + 1;
    else high = middle;
  }
  q.starts[tile] = int32_t(low);
}

constexpr int BATCH = 128, GROUP = 4;  // GROUP: splats whose alphas are found before the first of them is drawn

// A block a tile. Its warps walk the list together, each through the splats that touch its patch.
__global__ void __launch_bounds__(DRAW_THREADS) draw_tiles(Problem q) {
  __shared__ Staged staged[BATCH + 1];
  __shared__ uint8_t hits[DRAW_WARPS][BATCH + GROUP];
  const int64_t tile = blockIdx.x, plane = q.H * q.W;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, view = int(tile / (q.across * q.down));
  const int left = patch_left(int(tile % q.across)), top = patch_top(int(tile / q.across % q.down));
  const int px = left + lane % 8;
  float* out = q.y + view * CHANNELS * plane;
  if (!q.valid()) {
    for (int k = 0; k < EACH; k++) {
      const int py = top + lane / 8 + 4 * k;
      for (int c = 0; c < CHANNELS && px < q.W && py < q.H; c++) out[c * plane + py * q.W + px] = NAN;
    }
    return;
  }
  const int first = q.starts[tile], end = q.starts[tile + 1];
  float T[EACH], seen[EACH], sums[EACH][4] = {};
  int last[EACH] = {};
#pragma unroll
  for (int k = 0; k < EACH; k++) T[k] = px < q.W && top + lane / 8 + 4 * k < q.H ? 1 : 0, seen[k] = 1;
  if (threadIdx.x == 0) staged[BATCH] = Staged{{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
  const auto over = [&] {
    bool all = true;
    for (int k = 0; k < EACH; k++) all = all && T[k] == 0;
    return all;
  };
  Staged next{};
  const bool loads = threadIdx.x < BATCH;
  if (loads && first + int(threadIdx.x) < end) next.load(q.splats[q.pairs[first + threadIdx.x].splat]);
  for (int from = first; from < end; from += BATCH) {
    const bool mine_over = over();
    if (__syncthreads_and(mine_over)) break;
    const int some = min(end - from, BATCH);
    if (int(threadIdx.x) < some) {
      next.scale();
      staged[threadIdx.x] = next;
    }
    const int ahead = from + BATCH + threadIdx.x;
    if (loads && ahead < end) next.load(q.splats[q.pairs[ahead].splat]);
    __syncthreads();
    if (__all_sync(0xffffffffu, mine_over)) continue;
    int count = 0;
#pragma unroll
    for (int base = 0; base < BATCH; base += 32) {
      const bool hit = base + lane < some && staged[base + lane].touches(float(left), float(top));
      const uint32_t mask = __ballot_sync(0xffffffffu, hit);
      if (hit) hits[warp][count + __popc(mask & ((1u << lane) - 1))] = uint8_t(base + lane);
      count += __popc(mask);
    }
    if (lane < GROUP) hits[warp][count + lane] = BATCH;
    __syncwarp();
    for (int at = 0; at < count; at += GROUP) {
      float alpha[GROUP][EACH];
#pragma unroll
      for (int g = 0; g < GROUP; g++) {
        const Staged& s = staged[hits[warp][at + g]];
        const float4 place = s.place, conic = s.conic;
#pragma unroll
        for (int k = 0; k < EACH; k++) alpha[g][k] = alpha_of(place, conic, float(px), float(top + lane / 8 + 4 * k));
      }
#pragma unroll
      for (int g = 0; g < GROUP; g++) {
        const int which = hits[warp][at + g];
        const float4 color = staged[which].color;
        const float depth = staged[which].conic.w;
#pragma unroll
        for (int k = 0; k < EACH; k++) {
          const float after = T[k] * (1 - alpha[g][k]);
          const bool live = after >= MIN_T;
          const float w = live ? alpha[g][k] * T[k] : 0;
          sums[k][0] += w * color.x, sums[k][1] += w * color.y, sums[k][2] += w * color.z, sums[k][3] += w * depth;
          seen[k] = live ? after : seen[k];
          T[k] = live ? after : 0;
          last[k] = w > 0 ? from - first + which + 1 : last[k];
        }
      }
      if (__all_sync(0xffffffffu, over())) break;
    }
  }
  const float* background = q.backgrounds + 3 * view;
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    const int py = top + lane / 8 + 4 * k;
    if (px >= q.W || py >= q.H) continue;
    const int64_t pixel = py * q.W + px;
    for (int c = 0; c < 3; c++) out[c * plane + pixel] = sums[k][c] + seen[k] * background[c];
    out[3 * plane + pixel] = 1 - seen[k];
    out[4 * plane + pixel] = sums[k][3];
    q.last[view * plane + pixel] = last[k];
  }
}

// The scratch of k_splat_fwd.
struct Scratch {
  uint64_t bytes = 0;
  uint64_t base;
  int32_t *order, *firsts, *sums;
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
    sums = take<int32_t>(int64_t(scan::bytes(I)) / 4);
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
  find_starts<<<grid(q.tiles + 1), THREADS, 0, on>>>(q, keys);
  draw_tiles<<<unsigned(q.tiles), DRAW_THREADS, 0, on>>>(q);
  return launched(where);
}
