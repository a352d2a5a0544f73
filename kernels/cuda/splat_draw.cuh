// The pictures of splats: a block walks a part of a tile's list, its warps each through the splats that touch their patch.
#pragma once
#include "splat.cuh"

namespace splat {
constexpr int BATCH = 128, GROUP = 4;  // GROUP: splats whose alphas are found before the first of them is drawn

// The pixels of a thread on their way. T is 0 once a pixel has ended or where there is none; seen is T before that.
struct Drawn {
  float T[EACH], seen[EACH], sums[EACH][4];  // red, green, blue, depth
  int last[EACH];

  __device__ bool over() const {
    bool all = true;
#pragma unroll
    for (int k = 0; k < EACH; k++) all = all && T[k] == 0;
    return all;
  }
};

// What is known of a segment before that what lies in front of it is: of a pixel T, red, green, blue, depth and the last splat, all as if it
// were the first segment. Where a pixel ends in it, all but T are then found again as they are, and T behind it beside.
struct Rest {
  static constexpr int SIZE = 7 * TILE * TILE;
  int32_t* goes_on;  // [tiles]: whether pixels go on after START pairs
  float* parts;      // [segments, 7, 256]

  __device__ float* of(const Problem& q, int64_t tile, int s) const { return parts + q.part(tile, s) * SIZE; }
};

// Walks the pairs from `from` to `end`; first is the list's. at_segment(s) is called where segment s of the list begins, except in the middle.
template <class AtSegment>
__device__ void walk(Drawn& d, const Problem& q, const Pixels& p, int first, int from, int end, AtSegment at_segment) {
  __shared__ Staged staged[BATCH + 1];
  __shared__ uint8_t hits[DRAW_WARPS][BATCH + GROUP];
  static_assert(SEGMENT % BATCH == 0);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool loads = threadIdx.x < BATCH;
  if (threadIdx.x == 0) staged[BATCH] = Staged{{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
  Staged next{};
  if (loads && from + int(threadIdx.x) < end) next.load(q.splats[q.pairs[from + threadIdx.x].splat]);
  for (; from < end; from += BATCH) {
    const bool over = d.over();
    if (__syncthreads_and(over)) break;
    if ((from - first) % SEGMENT == 0) at_segment((from - first) / SEGMENT);
    const int some = min(end - from, BATCH);
    if (int(threadIdx.x) < some) {
      next.scale();
      staged[threadIdx.x] = next;
    }
    const int ahead = from + BATCH + threadIdx.x;
    if (loads && ahead < end) next.load(q.splats[q.pairs[ahead].splat]);
    __syncthreads();
    if (__all_sync(0xffffffffu, over)) continue;
    int count = 0;
#pragma unroll
    for (int base = 0; base < BATCH; base += 32) {
      const bool hit = base + lane < some && staged[base + lane].touches(float(p.left), float(p.top));
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
        for (int k = 0; k < EACH; k++) alpha[g][k] = alpha_of(place, conic, float(p.x), float(p.y + 4 * k));
      }
#pragma unroll
      for (int g = 0; g < GROUP; g++) {
        const int which = hits[warp][at + g];
        const float4 color = staged[which].color;
        const float depth = staged[which].conic.w;
#pragma unroll
        for (int k = 0; k < EACH; k++) {
          const float after = d.T[k] * (1 - alpha[g][k]);
          const bool live = after >= MIN_T;
          const float w = live ? alpha[g][k] * d.T[k] : 0;
          d.sums[k][0] += w * color.x, d.sums[k][1] += w * color.y, d.sums[k][2] += w * color.z, d.sums[k][3] += w * depth;
          d.seen[k] = live ? after : d.seen[k];
          d.T[k] = live ? after : 0;
          d.last[k] = w > 0 ? from - first + which + 1 : d.last[k];
        }
      }
      if (__all_sync(0xffffffffu, d.over())) break;
    }
  }
}

__device__ inline void write_pixel(const Problem& q, const Pixels& p, int k, const float* sums, float seen, int last) {
  const float* background = q.backgrounds + 3 * p.view;
  float* out = q.y + p.view * CHANNELS * p.plane + p.at(k);
  for (int c = 0; c < 3; c++) out[c * p.plane] = sums[c] + seen * background[c];
  out[3 * p.plane] = 1 - seen;
  out[4 * p.plane] = sums[3];
  q.last[p.view * p.plane + p.at(k)] = last;
}

// A block a tile: its first START pairs.
static __global__ void __launch_bounds__(DRAW_THREADS) draw_starts(Problem q, Rest rest) {
  after_previous();
  const int64_t tile = blockIdx.x;
  const Pixels p(q, tile);
  if (!q.valid()) {
    for (int k = 0; k < EACH; k++) {
      for (int c = 0; c < CHANNELS && p.inside(k); c++) q.y[(p.view * CHANNELS + c) * p.plane + p.at(k)] = NAN;
    }
    return;
  }
  const int first = q.starts[tile], end = q.starts[tile + 1];
  Drawn d = {};
  for (int k = 0; k < EACH; k++) d.T[k] = p.inside(k) ? 1 : 0, d.seen[k] = 1;
  const auto keep = [&](int segment) {
    if (segment == 0) return;
    float* const to = q.before_of(tile, segment);
#pragma unroll
    for (int k = 0; k < EACH; k++) {
      to[p.place(k)] = d.T[k];
#pragma unroll
      for (int c = 0; c < 4; c++) to[(c + 1) * TILE * TILE + p.place(k)] = d.sums[k][c];
    }
  };
  walk(d, q, p, first, first, min(end, first + START), keep);
  const bool more = !__syncthreads_and(d.over()) && end - first > START;
  if (more) keep(START / SEGMENT);
  if (threadIdx.x == 0) rest.goes_on[tile] = more;
  for (int i = threadIdx.x, n = q.segments_of(tile); i < n; i += DRAW_THREADS) q.part_tile[q.part(tile, 1) + i] = int32_t(tile);
  for (int k = 0; k < EACH; k++) {
    if (p.inside(k)) write_pixel(q, p, k, d.sums[k], d.seen[k], d.last[k]);
  }
}

// The segment of a block after START pairs of a tile that goes on, or -1.
__device__ inline int segment_of(const Problem& q, const Rest& rest, int64_t& tile) {
  if (!q.valid()) return -1;
  tile = q.part_tile[blockIdx.x];
  if (tile < 0) return -1;
  const int segment = 1 + int(blockIdx.x - q.part(tile, 1));
  return segment >= START / SEGMENT && rest.goes_on[tile] ? segment : -1;
}

// A block a segment, as if it were the first.
static __global__ void __launch_bounds__(DRAW_THREADS) draw_segments(Problem q, Rest rest) {
  after_previous();
  int64_t tile;
  const int segment = segment_of(q, rest, tile);
  if (segment < 0) return;
  const Pixels p(q, tile);
  const int first = q.starts[tile], from = first + segment * SEGMENT;
  const float* const start = q.before_of(tile, START / SEGMENT);
  Drawn d = {};
  for (int k = 0; k < EACH; k++) d.T[k] = start[p.place(k)] > 0 ? 1 : 0;
  walk(d, q, p, first, from, min(q.starts[tile + 1], from + SEGMENT), [](int) {});
  float* const to = rest.of(q, tile, segment);
  for (int k = 0; k < EACH; k++) {
    to[p.place(k)] = d.T[k];
    for (int c = 0; c < 4; c++) to[(c + 1) * TILE * TILE + p.place(k)] = d.sums[k][c];
    to[5 * TILE * TILE + p.place(k)] = __uint_as_float(d.last[k]);
  }
}

// A block a segment: the pixels that end in it, now that what lies in front is known.
static __global__ void __launch_bounds__(DRAW_THREADS) draw_ends(Problem q, Rest rest) {
  after_previous();
  int64_t tile;
  const int segment = segment_of(q, rest, tile);
  if (segment < 0) return;
  const Pixels p(q, tile);
  const int first = q.starts[tile], from = first + segment * SEGMENT;
  const float* const start = q.before_of(tile, START / SEGMENT);
  Drawn d = {};
  for (int k = 0; k < EACH; k++) {
    float T = start[p.place(k)];
    for (int s = START / SEGMENT; s < segment; s++) T *= rest.of(q, tile, s)[p.place(k)];
    const bool ends = T >= MIN_T && T * rest.of(q, tile, segment)[p.place(k)] < MIN_T;
    d.T[k] = ends ? T : 0, d.seen[k] = T;
    d.last[k] = ends ? 0 : -1;
  }
  if (__syncthreads_and(d.over())) return;
  walk(d, q, p, first, from, min(q.starts[tile + 1], from + SEGMENT), [](int) {});
  float* const to = rest.of(q, tile, segment);
  for (int k = 0; k < EACH; k++) {
    if (d.last[k] < 0) continue;
    for (int c = 0; c < 4; c++) to[(c + 1) * TILE * TILE + p.place(k)] = d.sums[k][c];
    to[5 * TILE * TILE + p.place(k)] = __uint_as_float(d.last[k]);
    to[6 * TILE * TILE + p.place(k)] = d.seen[k];
  }
}

// A block a tile that goes on: the sum of its segments.
static __global__ void __launch_bounds__(DRAW_THREADS) join_segments(Problem q, Rest rest) {
  after_previous();
  const int64_t tile = blockIdx.x;
  if (!q.valid() || !rest.goes_on[tile]) return;
  const Pixels p(q, tile);
  const int count = 1 + q.segments_of(tile);
  for (int k = 0; k < EACH; k++) {
    const float* const start = q.before_of(tile, START / SEGMENT) + p.place(k);
    float T = start[0], seen = T, sums[4];
    if (T == 0) continue;  // it has ended, or there is none
    for (int c = 0; c < 4; c++) sums[c] = start[(c + 1) * TILE * TILE];
    int last = q.last[p.view * p.plane + p.at(k)];
    for (int s = START / SEGMENT; s < count; s++) {
      float* const before = q.before_of(tile, s) + p.place(k);
      const float* const of = rest.of(q, tile, s) + p.place(k);
      before[0] = T;
      for (int c = 0; c < 4; c++) before[(c + 1) * TILE * TILE] = sums[c];
      const float after = T * of[0];
      const bool ends = after < MIN_T;
      for (int c = 0; c < 4; c++) sums[c] += (ends ? 1 : T) * of[(c + 1) * TILE * TILE];
      const int drawn = int(__float_as_uint(of[5 * TILE * TILE]));
      if (drawn > 0) last = drawn;
      seen = ends ? of[6 * TILE * TILE] : after;
      if (ends) break;
      T = after;
    }
    write_pixel(q, p, k, sums, seen, last);
  }
}

inline void draw(const Problem& q, const Rest& rest, uint64_t stream) {
  launch_next(draw_starts, unsigned(q.tiles), DRAW_THREADS, 0, stream, q, rest);
  if (q.capacity <= START) return;
  launch_next(draw_segments, unsigned(q.segments), DRAW_THREADS, 0, stream, q, rest);
  launch_next(draw_ends, unsigned(q.segments), DRAW_THREADS, 0, stream, q, rest);
  launch_next(join_segments, unsigned(q.tiles), DRAW_THREADS, 0, stream, q, rest);
}
}  // namespace splat
