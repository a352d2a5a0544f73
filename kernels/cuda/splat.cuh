// What the passes of Gaussian splatting on CUDA share: a problem's arrays, and how a splat's alpha in a pixel is found, equal to the bit.
#pragma once
#include "../include/splat.h"
#include "../include/splat_math.hpp"
#include "chain.cuh"

#include "../include/splat_check.hpp"

namespace splat {
constexpr int CHANNELS = 5;
// A warp draws a patch of 8 x 4 pixels, one a lane, and a block the eight patches of a tile.
constexpr int EACH = 1, ACROSS = 8, DOWN = 4 * EACH, PIXELS = ACROSS * DOWN;
constexpr int DRAW_THREADS = TILE * TILE / EACH, DRAW_WARPS = DRAW_THREADS / 32;
constexpr float LOG2_E = 1.4426950408889634f;

// Lists are cut into segments. One block draws the first START pairs of a tile; if then there are pixels that go on, a block a segment draws
// the rest.
constexpr int SEGMENT = 512, START = 1024, BEFORE = 5 * TILE * TILE;

struct Pair {
  int32_t splat, slot;  // slot: where the pair's gradient goes; those of a splat lie together
};
static_assert(sizeof(Splat) == 48 && sizeof(Pair) == 8);

inline uint64_t aligned(uint64_t bytes) { return (bytes + 15) / 16 * 16; }

constexpr int RUN = 256;  // splats that a block counts together

// The tiles of a splat in 64 bits: within 4 x 4 tiles a mask of 16 bits from bit 20 on, row by row; else bit 63 and how many there are.
struct Touched {
  uint64_t bits;

  __device__ static Touched of(const Cover& cover) {
    uint64_t mask = 0, count = 0;
    int x0 = cover.x1;
    const bool small = cover.y1 - cover.y0 <= 4;
    int first, end;
    for (int row = cover.y0; row < cover.y1; row++) {
      cover.row(row, first, end);
      if (end > first && first < x0) x0 = first;
      count += end - first;
    }
    bool fits = small;
    for (int row = cover.y0; row < cover.y1 && fits; row++) {
      cover.row(row, first, end);
      if (end <= first) continue;
      fits = end - x0 <= 4;
      mask |= uint64_t((1 << (end - x0)) - (1 << (first - x0)) & 15) << 4 * (row - cover.y0);
    }
    if (count == 0) return {0};
    if (fits) return {uint64_t(x0) | uint64_t(cover.y0) << 10 | mask << 20};
    return {uint64_t(1) << 63 | count << 20};
  }
  __device__ bool large() const { return bits >> 63; }
  __device__ uint32_t mask() const { return uint32_t(bits >> 20) & 0xffff; }
  __device__ int count() const { return large() ? int(bits >> 20 & 0x7fffffff) : __popc(mask()); }
  __device__ uint32_t x() const { return uint32_t(bits) & 1023; }
  __device__ uint32_t y() const { return uint32_t(bits >> 10) & 1023; }
};

// A struct k_splat, opened.
struct Problem {
  int64_t I, V, H, W, N, capacity, pixels;
  int across, down;
  int64_t tiles, segments;  // segments: as many as there may be behind the first of their list
  float near, blur;
  const int32_t* scenes;
  const float *cameras, *backgrounds;
  Gaussians gaussians;
  int64_t* status;
  Splat* splats;         // [I]
  uint64_t* tiles_of;    // [I]: see Touched
  int32_t* slots;        // [I]: a splat's first slot, counted from the first of its RUN
  int32_t* slots_of;     // [runs]
  uint32_t* keys;        // [I]: depths as integers, 0 where nothing is drawn
  uint32_t* least_most;  // [2]: of the depths that are drawn
  Pair* pairs;         // [capacity]
  float* before;       // [segments, 5, 256]: of a segment's pixels, T and the sums of colour and depth before it
  int32_t* starts;     // [tiles + 1]
  int32_t* part_tile;  // [segments]: the tile of what is kept of a segment, -1 for none
  int32_t* last;       // [V, H, W]: how far into its tile's list a pixel goes
  float* y;
  const float* d_y;

  explicit Problem(const k_splat& p)
      : I(p.instances),
        V(p.V),
        H(p.height),
        W(p.width),
        N(p.N),
        capacity(p.capacity),
        pixels(p.V * p.height * p.width),
        across(int(tiles_across(p))),
        down(int(tiles_down(p))),
        tiles(splat::tiles(p)),
        segments(capacity / SEGMENT),
        near(float(p.near)),
        blur(float(p.blur)),
        scenes(at<const int32_t>(p.scenes)),
        cameras(at<const float>(p.cameras)),
        backgrounds(at<const float>(p.backgrounds)),
        gaussians{at<const float>(p.means),     at<const float>(p.colors),    at<const float>(p.opacities),
                  at<const float>(p.scales),    at<const float>(p.rotations), int(p.coefficients)},
        status(at<int64_t>(p.status)),
        splats(at<Splat>(p.projected)),
        tiles_of(reinterpret_cast<uint64_t*>(splats + I)),
        slots(reinterpret_cast<int32_t*>(tiles_of + I)),
        slots_of(slots + I),
        keys(reinterpret_cast<uint32_t*>(slots_of + runs())),
        least_most(keys + I),
        pairs(at<Pair>(p.lists)),
        before(reinterpret_cast<float*>(pairs + capacity)),
        starts(reinterpret_cast<int32_t*>(before + segments * BEFORE)),
        part_tile(starts + tiles + 1),
        last(part_tile + segments),
        y(at<float>(p.y)),
        d_y(at<const float>(p.d_y)) {}

  uint64_t projected_bytes() const { return aligned(I * (sizeof(Splat) + 16) + (runs() + 2) * 4); }
  int64_t runs() const { return (I + RUN - 1) / RUN; }
  __device__ int slot_of(int64_t i) const { return slots[i] + slots_of[i / RUN]; }

  uint64_t lists_bytes() const { return aligned(capacity * sizeof(Pair) + (segments * (BEFORE + 1) + tiles + 1 + pixels) * 4); }

  __device__ bool valid() const { return status[0] <= capacity && status[1] == 0; }
  // The scene that has the `item`th Gaussian (column 0), view (1) or splat (2).
  __device__ const int32_t* scene_of(int64_t item, int column) const {
    const int32_t* scene = scenes;
    while (scene[3 + column] <= item) scene += 3;
    return scene;
  }
  // Where segment s > 0 of a tile has its place among all. There are (pairs - 1) / SEGMENT of a tile, so those of two tiles never meet.
  __device__ int64_t part(int64_t tile, int s) const { return starts[tile] / SEGMENT + s - 1; }
  __device__ int segments_of(int64_t tile) const { return max(starts[tile + 1] - starts[tile] - 1, 0) / SEGMENT; }
  // What is kept of segment s > 0 of a tile.
  __device__ float* before_of(int64_t tile, int s) const { return before + part(tile, s) * BEFORE; }
  // View and Gaussian of a splat.
  __device__ int view_of(int64_t i, int64_t& gaussian) const {
    const int32_t* scene = scene_of(i, 2);
    const uint32_t count = scene[3] - scene[0], at = uint32_t(i - scene[2]), view = at / count;
    gaussian = scene[0] + (at - view * count);
    return scene[1] + int(view);
  }
  __device__ Camera camera(int64_t view) const {
    Camera c;
    c.load(cameras + 16 * view, int(W), int(H), near, blur);
    return c;
  }
};

// What is sorted: the pairs, by tile. There are 0 where they are not drawn.
struct PairCount {
  const int64_t* status;
  int64_t capacity, tiles;
  __device__ static uint32_t key(uint32_t tile) { return tile; }
  __device__ uint32_t most() const { return uint32_t(tiles - 1); }
  __device__ int64_t get() const { return status[0] <= capacity && status[1] == 0 ? status[0] : 0; }
};

// A splat in shared memory.
struct Staged {
  float4 place;  // x, y, opacity, reach
  float4 conic;  // of the exponent of 2: a, b, c; depth
  float4 color;  // red, green, blue

  __device__ void load(const Splat& s) {
    const float4* from = reinterpret_cast<const float4*>(&s);
    place = from[0], conic = from[1], color = from[2];  // not __ldg: what kernels of a chain read is written while they wait
  }
  __device__ void scale() {
    conic.x = __fmul_rn(conic.x, -0.5f * LOG2_E), conic.y = __fmul_rn(conic.y, -LOG2_E), conic.z = __fmul_rn(conic.z, -0.5f * LOG2_E);
  }
  // Whether it may be seen in the patch from (left, top) on; after scale(). Its exponent is largest, of a box without its middle, on a side
  // that faces the middle.
  __device__ bool touches(float left, float top) const {
    const float x0 = left - place.x, x1 = x0 + (ACROSS - 1), y0 = top - place.y, y1 = y0 + (DOWN - 1);
    const float ex = fmaxf(x0, fminf(x1, 0.0f)), ey = fmaxf(y0, fminf(y1, 0.0f));  // 0 within
    const float dy = fmaxf(y0, fminf(y1, -0.5f * conic.y * ex / conic.z)), dx = fmaxf(x0, fminf(x1, -0.5f * conic.y * ey / conic.x));
    const float by_x = conic.x * ex * ex + conic.y * ex * dy + conic.z * dy * dy;
    const float by_y = conic.x * dx * dx + conic.y * dx * ey + conic.z * ey * ey;
    const float most = ex == 0 && ey == 0 ? 0 : ex == 0 ? by_y : ey == 0 ? by_x : fmaxf(by_x, by_y);
    return !(most < place.w * (-0.5f * LOG2_E * 1.0002f) - 0.002f);
  }
};

// The pixels of a thread.
struct Pixels {
  int left, top, x, y;  // of the warp's patch; the thread's first pixel, the others are 4 rows below each
  int64_t view, plane, width, height;

  __device__ Pixels(const Problem& q, int64_t tile) : plane(q.H * q.W), width(q.W), height(q.H) {
    view = tile / (q.across * q.down);
    left = int(tile % q.across) * TILE + int(threadIdx.x / 32 % 2) * ACROSS;
    top = int(tile / q.across % q.down) * TILE + int(threadIdx.x / 64) * DOWN;
    x = left + int(threadIdx.x % 8), y = top + int(threadIdx.x % 32 / 8);
  }
  __device__ bool inside(int k) const { return x < width && y + 4 * k < height; }
  __device__ int64_t at(int k) const { return (y + 4 * k) * width + x; }
  // Of EACH * DRAW_THREADS places, the k-th of this thread.
  __device__ static int place(int k) { return k * DRAW_THREADS + int(threadIdx.x); }
};

// Alpha in the pixel (px, py), 0 where it is skipped. The same instructions in every pass: what is skipped in one is in the other.
__device__ __forceinline__ float alpha_of(const float4& place, const float4& conic, float px, float py) {
  const float dx = __fsub_rn(px, place.x), dy = __fsub_rn(py, place.y);
  const float power = __fmaf_rn(dx, __fmaf_rn(conic.x, dx, __fmul_rn(conic.y, dy)), __fmul_rn(conic.z, __fmul_rn(dy, dy)));
  float falloff;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(falloff) : "f"(power));
  const float alpha = fminf(MAX_ALPHA, __fmul_rn(place.z, falloff));
  return power <= 0 && alpha >= MIN_ALPHA ? alpha : 0;
}
}  // namespace splat
