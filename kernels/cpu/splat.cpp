// Gaussian splatting on the CPU: splats in parallel, then tiles, then Gaussians. What is added up is added in the order of the lists, so that
// the number of threads does not matter.
#include "../include/splat.h"

#include <algorithm>
#include <limits>

#include "../include/splat_math.hpp"
#include "host.hpp"

#include "../include/splat_check.hpp"

namespace {
using namespace splat;

constexpr int CHANNELS = 5, AREA = TILE * TILE;

struct Pair {
  int32_t splat, slot;  // slot: where the pair's gradient goes; those of a splat lie together
};

// A struct k_splat, opened.
struct Problem {
  const k_splat& p;
  int64_t I, V, H, W, across, down, tiles;
  const int32_t* scenes;
  Gaussians gaussians;
  int64_t* status;
  Splat* splats;     // [I]
  int32_t* slots;    // [I + 1]
  Pair* pairs;       // [capacity]
  int32_t* starts;   // [tiles + 1]
  int32_t* last;     // [V, H, W]: how far into its tile's list a pixel goes
  int32_t* order;    // [I]
  int32_t* cursors;  // [tiles]

  explicit Problem(const k_splat& problem)
      : p(problem),
        I(p.instances),
        V(p.V),
        H(p.height),
        W(p.width),
        across(tiles_across(p)),
        down(tiles_down(p)),
        tiles(splat::tiles(p)),
        scenes(at<const int32_t>(p.scenes)),
        gaussians{at<const float>(p.means),     at<const float>(p.colors),    at<const float>(p.opacities),
                  at<const float>(p.scales),    at<const float>(p.rotations), int(p.coefficients)},
        status(at<int64_t>(p.status)),
        splats(at<Splat>(p.projected)),
        slots(at<int32_t>(p.projected + I * sizeof(Splat))),
        pairs(at<Pair>(p.lists)),
        starts(at<int32_t>(p.lists + p.capacity * sizeof(Pair))),
        last(starts + tiles + 1),
        order(at<int32_t>(p.scratch)),
        cursors(order + I) {}

  bool valid() const { return status[0] <= p.capacity && status[1] == 0; }
  const int32_t* scene_of(int64_t item, int column) const {
    const int32_t* scene = scenes;
    while (scene[3 + column] <= item) scene += 3;
    return scene;
  }
  Camera camera(int64_t view) const {
    Camera c;
    c.load(at<const float>(p.cameras) + 16 * view, int(W), int(H), float(p.near), float(p.blur));
    return c;
  }
  // The first splat of a view, and how many it has.
  int64_t first_of(int64_t view, int64_t& count) const {
    const int32_t* scene = scene_of(view, 1);
    count = scene[3] - scene[0];
    return scene[2] + (view - scene[1]) * count;
  }
  // Calls take(tile of all views) for the tiles of a splat, row by row.
  template <class Take>
  void each_tile(const Splat& s, int64_t view, Take take) const {
    Cover cover;
    cover.load(s, int(across), int(down));
    for (int y = cover.y0; y < cover.y1; y++) {
      int first, end;
      cover.row(y, first, end);
      for (int x = first; x < end; x++) take((view * down + y) * across + x);
    }
  }
};

float* floats(uint64_t address) { return at<float>(address); }
uint64_t aligned(uint64_t bytes) { return (bytes + 15) / 16 * 16; }

void project_view(const Problem& q, int64_t view) {
  int64_t count;
  const int64_t first = q.first_of(view, count), gaussian = q.scene_of(view, 1)[0];
  const Camera camera = q.camera(view);
#pragma omp parallel for schedule(static) if (count > 1024)
  for (int64_t i = 0; i < count; i++) {
    int32_t tiles = 0;
    Splat& s = q.splats[first + i];
    const int seen = project(s, camera, q.gaussians, gaussian + i);
    if (seen > 0) q.each_tile(s, view, [&](int64_t) { tiles++; });
    q.slots[first + i] = seen < 0 ? -1 : tiles;
  }
}

// The part of a tile where a splat may be seen, and how its alpha is found there.
struct Box {
  int x0, x1, y0, y1;

  Box(const Splat& s, int left, int top, int right, int bottom) : x0(left), x1(right), y0(top), y1(bottom) {
    const float det = s.a * s.c - s.b * s.b, reach = s.reach * 1.001f + 0.01f;
    if (!(det > 1e-6f * s.a * s.c)) return;
    const float wide = std::sqrt(reach * s.c / det) + 0.01f, high = std::sqrt(reach * s.a / det) + 0.01f;
    x0 = int(std::max(float(left), std::ceil(s.x - wide))), x1 = int(std::min(float(right), std::floor(s.x + wide) + 1));
    y0 = int(std::max(float(top), std::ceil(s.y - high))), y1 = int(std::min(float(bottom), std::floor(s.y + high) + 1));
  }
};

// 0 where the pixel at (dx, dy) from the splat's middle is skipped.
float alpha_of(const Splat& s, float dx, float dy, float& falloff) {
  const float power = -0.5f * (s.a * dx * dx + s.c * dy * dy) - s.b * dx * dy;
  if (power > 0 || power < -0.5f * s.reach - 0.01f) return 0;
  falloff = std::exp(power);
  const float alpha = std::min(MAX_ALPHA, s.opacity * falloff);
  return alpha < MIN_ALPHA ? 0 : alpha;
}

void draw_tile(const Problem& q, int64_t tile) {
  const int64_t view = tile / (q.across * q.down), plane = q.H * q.W;
  const int left = int(tile % q.across) * TILE, top = int(tile / q.across % q.down) * TILE;
  const int right = int(std::min<int64_t>(q.W, left + TILE)), bottom = int(std::min<int64_t>(q.H, top + TILE));
  float sums[4][AREA] = {}, T[AREA];
  int32_t last[AREA] = {};
  bool ended[AREA] = {};
  std::fill(T, T + AREA, 1.0f);
  int left_over = (right - left) * (bottom - top);
  for (int32_t k = q.starts[tile]; k < q.starts[tile + 1] && left_over; k++) {
    const Splat& s = q.splats[q.pairs[k].splat];
    const Box box(s, left, top, right, bottom);
    for (int y = box.y0; y < box.y1; y++) {
      for (int x = box.x0; x < box.x1; x++) {
        const int at = (y - top) * TILE + x - left;
        float falloff;
        const float alpha = ended[at] ? 0 : alpha_of(s, x - s.x, y - s.y, falloff), after = T[at] * (1 - alpha);
        if (alpha == 0) continue;
        if (after < MIN_T) {
          ended[at] = true, left_over--;
          continue;
        }
        const float w = alpha * T[at];
        for (int c = 0; c < 3; c++) sums[c][at] += w * s.rgb[c];
        sums[3][at] += w * s.depth;
        T[at] = after, last[at] = k + 1 - q.starts[tile];
      }
    }
  }
  const float* background = floats(q.p.backgrounds) + 3 * view;
  float* out = floats(q.p.y) + view * CHANNELS * plane;
  for (int y = top; y < bottom; y++) {
    for (int x = left; x < right; x++) {
      const int at = (y - top) * TILE + x - left;
      const int64_t pixel = y * q.W + x;
      for (int c = 0; c < 3; c++) out[c * plane + pixel] = sums[c][at] + T[at] * background[c];
      out[3 * plane + pixel] = 1 - T[at];
      out[4 * plane + pixel] = sums[3][at];
      q.last[view * plane + pixel] = last[at];
    }
  }
}

// The gradients of a tile's pairs. With g = rgb . d_rgb + depth d_depth of a splat in a pixel, and rest what the splats behind it and the
// background give, d alpha = T g - rest / (1 - alpha).
void draw_tile_back(const Problem& q, int64_t tile, SplatGradient* gradients) {
  const int64_t view = tile / (q.across * q.down), plane = q.H * q.W;
  const int left = int(tile % q.across) * TILE, top = int(tile / q.across % q.down) * TILE;
  const int right = int(std::min<int64_t>(q.W, left + TILE)), bottom = int(std::min<int64_t>(q.H, top + TILE));
  const float *y_of = floats(q.p.y) + view * CHANNELS * plane, *dy_of = floats(q.p.d_y) + view * CHANNELS * plane;
  float rest[AREA], d[4][AREA], T[AREA];
  int32_t last[AREA] = {};
  for (int y = top; y < bottom; y++) {
    for (int x = left; x < right; x++) {
      const int at = (y - top) * TILE + x - left;
      const int64_t pixel = y * q.W + x;
      const auto value = [&](const float* of, int c) { return of[c * plane + pixel]; };
      for (int c = 0; c < 3; c++) d[c][at] = value(dy_of, c);
      d[3][at] = value(dy_of, 4);
      rest[at] = value(y_of, 4) * d[3][at] - (1 - value(y_of, 3)) * value(dy_of, 3);
      for (int c = 0; c < 3; c++) rest[at] += value(y_of, c) * d[c][at];
      T[at] = 1, last[at] = q.last[view * plane + pixel];
    }
  }
  for (int32_t k = q.starts[tile]; k < q.starts[tile + 1]; k++) {
    const Splat& s = q.splats[q.pairs[k].splat];
    const Box box(s, left, top, right, bottom);
    SplatGradient sum = {};
    for (int y = box.y0; y < box.y1; y++) {
      for (int x = box.x0; x < box.x1; x++) {
        const int at = (y - top) * TILE + x - left;
        const float dx = x - s.x, dy = y - s.y;
        float falloff;
        const float alpha = last[at] > k - q.starts[tile] ? alpha_of(s, dx, dy, falloff) : 0;
        if (alpha == 0) continue;
        const float w = alpha * T[at], g = s.rgb[0] * d[0][at] + s.rgb[1] * d[1][at] + s.rgb[2] * d[2][at] + s.depth * d[3][at];
        rest[at] -= w * g;
        const float d_alpha = T[at] * g - rest[at] / (1 - alpha);
        T[at] *= 1 - alpha;
        for (int c = 0; c < 3; c++) sum.rgb[c] += w * d[c][at];
        sum.depth += w * d[3][at];
        if (s.opacity * falloff > MAX_ALPHA) continue;
        const float power = d_alpha * alpha;
        sum.opacity += d_alpha * falloff;
        sum.x += power * (s.a * dx + s.b * dy);
        sum.y += power * (s.c * dy + s.b * dx);
        sum.a -= 0.5f * power * dx * dx;
        sum.b -= power * dx * dy;
        sum.c -= 0.5f * power * dy * dy;
      }
    }
    gradients[q.pairs[k].slot] = sum;
  }
}

void gaussian_back(const Problem& q, int64_t n, const SplatGradient* gradients) {
  const int32_t* scene = q.scene_of(n, 0);
  const int64_t count = scene[3] - scene[0];
  const int colors = q.gaussians.color_size();
  GaussianGradient sum = {};
  float* d_colors = q.p.d_colors ? floats(q.p.d_colors) + n * colors : nullptr;
  if (d_colors) std::fill(d_colors, d_colors + colors, 0.0f);
  for (int64_t view = scene[1]; view < scene[4]; view++) {
    const int64_t i = scene[2] + (view - scene[1]) * count + n - scene[0];
    if (q.slots[i] == q.slots[i + 1]) continue;
    SplatGradient d = {};
    for (int32_t k = q.slots[i]; k < q.slots[i + 1]; k++) {
      const SplatGradient& part = gradients[k];
      d.x += part.x, d.y += part.y, d.opacity += part.opacity, d.a += part.a, d.b += part.b, d.c += part.c, d.depth += part.depth;
      for (int c = 0; c < 3; c++) d.rgb[c] += part.rgb[c];
    }
    project_back(sum, d_colors, d, q.splats[i], q.camera(view), q.gaussians, n);
  }
  const auto write = [&](uint64_t address, int width, const float* values) {
    if (address) std::copy(values, values + width, floats(address) + n * width);
  };
  write(q.p.d_means, 3, &sum.mean.x);
  write(q.p.d_scales, 3, &sum.scale.x);
  write(q.p.d_opacities, 1, &sum.opacity);
  write(q.p.d_rotations, 4, sum.rotation);
}

void fill_nan(uint64_t address, int64_t count) {
  if (address) std::fill(floats(address), floats(address) + count, std::numeric_limits<float>::quiet_NaN());
}
}  // namespace

int32_t k_splat_sizes(uint64_t* bytes, const k_splat* problem) {
  if (int32_t status = check_sizes("k_splat_sizes", problem)) return status;
  const uint64_t I = problem->instances, tiles = splat::tiles(*problem), pixels = problem->V * problem->height * problem->width;
  bytes[0] = aligned(I * sizeof(Splat) + (I + 1) * 4);
  bytes[1] = aligned(problem->capacity * sizeof(Pair) + (tiles + 1 + pixels) * 4);
  bytes[2] = aligned((I + tiles) * 4);
  bytes[3] = aligned(problem->capacity * sizeof(SplatGradient));
  return K_OK;
}

int32_t k_splat_project(const k_splat* problem, uint64_t) {
  if (int32_t status = check_problem("k_splat_project", problem, 0)) return status;
  const Problem q(*problem);
  int64_t pairs = 0, faulty = 0, first = q.I;
  for (int64_t view = 0; view < q.V && q.I; view++) project_view(q, view);
  for (int64_t i = 0; i < q.I; i++) {
    const int32_t count = q.slots[i];
    if (count < 0 && faulty++ == 0) first = i;
    q.slots[i] = int32_t(std::min<int64_t>(pairs, INT32_MAX));
    pairs += std::max(0, count);
  }
  if (q.I) q.slots[q.I] = int32_t(std::min<int64_t>(pairs, INT32_MAX));
  q.status[0] = pairs, q.status[1] = faulty, q.status[2] = first, q.status[3] = 0;
  return K_OK;
}

int32_t k_splat_fwd(const k_splat* problem, uint64_t) {
  if (int32_t status = check_problem("k_splat_fwd", problem, 1)) return status;
  const Problem q(*problem);
  if (!q.valid()) {
    fill_nan(problem->y, q.V * CHANNELS * q.H * q.W);
    return K_OK;
  }
  std::fill(q.starts, q.starts + q.tiles + 1, 0);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t view = 0; view < q.V; view++) {
    int64_t count = 0, first = q.I ? q.first_of(view, count) : 0;
    for (int64_t i = first; i < first + count; i++) {
      q.order[i] = int32_t(i);
      q.each_tile(q.splats[i], view, [&](int64_t tile) { q.starts[tile + 1]++; });
    }
    std::sort(q.order + first, q.order + first + count, [&](int32_t a, int32_t b) {
      return q.splats[a].depth != q.splats[b].depth ? q.splats[a].depth < q.splats[b].depth : a < b;
    });
  }
  for (int64_t tile = 0; tile < q.tiles; tile++) q.starts[tile + 1] += q.starts[tile];
  if (q.I) std::copy(q.starts, q.starts + q.tiles, q.cursors);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t view = 0; view < q.V; view++) {
    int64_t count = 0, first = q.I ? q.first_of(view, count) : 0;
    for (int64_t r = first; r < first + count; r++) {
      const int32_t i = q.order[r];
      int32_t slot = q.slots[i];
      q.each_tile(q.splats[i], view, [&](int64_t tile) { q.pairs[q.cursors[tile]++] = {i, slot++}; });
    }
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t tile = 0; tile < q.tiles; tile++) draw_tile(q, tile);
  return K_OK;
}

int32_t k_splat_bwd(const k_splat* problem, uint64_t) {
  if (int32_t status = check_problem("k_splat_bwd", problem, 2)) return status;
  const Problem q(*problem);
  if (!q.valid()) {
    const int64_t N = problem->N;
    fill_nan(problem->d_means, 3 * N), fill_nan(problem->d_scales, 3 * N), fill_nan(problem->d_rotations, 4 * N);
    fill_nan(problem->d_opacities, N), fill_nan(problem->d_colors, N * q.gaussians.color_size());
    return K_OK;
  }
  SplatGradient* const gradients = at<SplatGradient>(problem->scratch);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t tile = 0; tile < q.tiles; tile++) draw_tile_back(q, tile, gradients);
#pragma omp parallel for schedule(dynamic, 256)
  for (int64_t n = 0; n < problem->N; n++) gaussian_back(q, n, gradients);
  return K_OK;
}
