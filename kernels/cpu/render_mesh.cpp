// The rasterizer on the CPU: bands of rows in parallel. A band draws all triangles into its depth buffer, then shades its samples.
#include "../include/render_mesh.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "../include/raster.hpp"
#include "host.hpp"

namespace {
using namespace raster;

constexpr int BAND = 64;  // rows of pixels

// to_linear of the 256 bytes, and the byte of a linear value by the 4096 steps of its square root.
struct Tables {
  float linear[256];
  uint8_t srgb[4096];
  Tables() {
    for (int i = 0; i < 256; i++) linear[i] = to_linear(i / 255.0f);
    for (int i = 0; i < 4096; i++) srgb[i] = uint8_t(to_srgb(i / 4095.0f * i / 4095.0f) * 255 + 0.5f);
  }
  uint8_t encode(float v) const { return srgb[int(std::sqrt(least(most(v, 0.0f), 1.0f)) * 4095 + 0.5f)]; }
};
const Tables TABLES;

// A thread's scratch memory.
struct Band {
  Clip* clip;       // [V]
  float* nearest;   // [BAND * samples, side]: the largest 1 / w so far
  int32_t* ids;     // the same shape: the triangle it belongs to
  int first, last;  // sample rows, the last excluded

  static size_t bytes(int64_t V, int64_t side, int64_t samples) { return V * sizeof(Clip) + BAND * samples * side * 8; }
};

int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The samples of row j that a piece covers: from the first to the second, which is excluded.
std::pair<int, int> span(const Piece& piece, int j) {
  int64_t from = piece.x0, to = piece.x1;
  for (int e = 0; e < 3; e++) {
    const int64_t a = piece.a[e], rest = piece.b[e] * j + piece.c[e];
    if (a > 0) from = std::max(from, ceil_div(-rest, a));
    else if (a < 0) to = std::min(to, floor_div(rest, -a) + 1);
    else if (rest < 0) to = from;
  }
  return {int(from), int(std::max(from, to))};
}

void draw(const Scene& s, const Band& band, int t, const Piece& piece) {
  const bool holes = s.materials[int64_t(s.material(t)) * MATERIAL + 4] > 0;
  const int side = s.side();
  Surface surface{};
  if (holes) surface.load(s, band.clip, t);
  for (int j = std::max(piece.y0, band.first); j < std::min(piece.y1, band.last); j++) {
    const auto [from, to] = span(piece, j);
    const double row = piece.row_depth(j);
    float* __restrict nearest = band.nearest + int64_t(j - band.first) * side;
    int32_t* __restrict ids = band.ids + int64_t(j - band.first) * side;
    for (int i = from; holes && i < to; i++) {
      const float z = piece.at(i, row);
      if (z > nearest[i] && surface.albedo(s, TABLES.linear, surface.weights(i, j, side)).a >= surface.cutoff) nearest[i] = z, ids[i] = t;
    }
    for (int i = from; !holes && i < to; i++) {
      const float z = piece.at(i, row), before = nearest[i];
      ids[i] = z > before ? t : ids[i];
      nearest[i] = z > before ? z : before;
    }
  }
}

// Whether a triangle lies wholly beside the band or in front of the near plane.
bool outside(const Triangle& t, float top, float bottom) {
  bool left = true, right = true, above = true, below = true, before = true;
  for (const Clip& v : t.v) {
    left = left && v.x < -v.w, right = right && v.x > v.w, before = before && v.z < 0;
    above = above && v.y < top * v.w, below = below && v.y > bottom * v.w;
  }
  return left || right || above || below || before;
}

void draw_band(const Scene& s, const Band& band, const float* camera) {
  const int side = s.side();
  const float top = 2.0f * (band.first - 1) / side - 1, bottom = 2.0f * (band.last + 1) / side - 1;
  for (int v = 0; v < s.V; v++) band.clip[v] = project(camera, s.positions + int64_t(v) * 3);
  std::fill_n(band.nearest, int64_t(band.last - band.first) * side, 0.0f);
  std::fill_n(band.ids, int64_t(band.last - band.first) * side, -1);
  for (int t = 0; t < s.T; t++) {
    const int32_t* corner = s.triangles + int64_t(t) * 3;
    const Triangle clip = {{band.clip[corner[0]], band.clip[corner[1]], band.clip[corner[2]]}};
    if (!outside(clip, top, bottom)) each_piece(clip, side, [&](const Piece& piece) { draw(s, band, t, piece); });
  }
}

struct Output {
  uint8_t* rgba;
  float* depth;
  int32_t* ids;
};

void shade_pixel(const Scene& s, const Band& band, Vec3 eye, int x, int y, int64_t pixel, Surface& surface, const Output& out) {
  const int side = s.side(), n = s.samples;
  Vec3 rgb = {0, 0, 0};
  float nearest = 0;
  int covered = 0, id = -1;
  for (int k = 0; k < n * n; k++) {
    const int i = x * n + k % n, j = y * n + k / n;
    const int64_t sample = int64_t(j - band.first) * side + i;
    const int t = band.ids[sample];
    if (t < 0) continue;
    if (t != surface.id) surface.load(s, band.clip, t);
    rgb = rgb + surface.shade(s, TABLES.linear, eye, surface.weights(i, j, side));
    covered++;
    if (band.nearest[sample] > nearest) nearest = band.nearest[sample], id = t;
  }
  uint8_t* rgba = out.rgba + pixel * 4;
  const float scale = covered ? 1.0f / covered : 0.0f;
  rgba[0] = TABLES.encode(rgb.x * scale), rgba[1] = TABLES.encode(rgb.y * scale), rgba[2] = TABLES.encode(rgb.z * scale);
  rgba[3] = uint8_t((covered * 255 + n * n / 2) / (n * n));
  if (out.depth) out.depth[pixel] = covered ? 1 / nearest : 0;
  if (out.ids) out.ids[pixel] = id;
}

int32_t check(const char* where, int views, int V, int S, int samples) {
  if (views < 0 || V < 0) return fail(K_BAD_ARGUMENT, where, "views = %d and V = %d, they must be >= 0", views, V);
  if (samples < 1 || samples > 4) return fail(K_BAD_ARGUMENT, where, "samples = %d, it must be 1 to 4", samples);
  if (S < 1 || S > 8192 / samples) return fail(K_BAD_ARGUMENT, where, "S = %d, it must be 1 to %d", S, 8192 / samples);
  return K_OK;
}
}  // namespace

int32_t k_render_mesh_fwd_workspace(uint64_t* bytes, int32_t views, int32_t V, int32_t S, int32_t samples) {
  *bytes = omp_get_max_threads() * Band::bytes(V, int64_t(S) * samples, samples);
  return check("k_render_mesh_fwd_workspace", views, V, S, samples);
}

int32_t k_render_mesh_fwd(uint64_t rgba, uint64_t depth, uint64_t ids, uint64_t positions, uint64_t normals, uint64_t uvs, uint64_t colors,
                          uint64_t materials, uint64_t texels, uint64_t lights, uint64_t cameras, uint64_t triangles, uint64_t material_of,
                          uint64_t images, uint64_t workspace, int32_t views, int32_t V, int32_t T, int32_t M, int32_t L, int32_t S,
                          int32_t samples, uint64_t) {
  if (const int32_t status = check("k_render_mesh_fwd", views, V, S, samples)) return status;
  if (T < 0 || L < 0) return fail(K_BAD_ARGUMENT, "k_render_mesh_fwd", "T = %d and L = %d, they must be >= 0", T, L);
  if (T > 0 && M < 1) return fail(K_BAD_ARGUMENT, "k_render_mesh_fwd", "M = %d, it must be >= 1", M);
  const Scene s = {at<const float>(positions), at<const float>(normals), at<const float>(uvs), at<const float>(colors),
                   at<const float>(materials), at<const uint32_t>(texels), at<const float>(lights), at<const float>(cameras),
                   at<const int32_t>(triangles), at<const int32_t>(material_of), at<const int32_t>(images), V, T, M, L, S, samples};
  const Output out = {at<uint8_t>(rgba), at<float>(depth), at<int32_t>(ids)};
  const int64_t bands = (S + BAND - 1) / BAND;
#pragma omp parallel for schedule(dynamic)
  for (int64_t item = 0; item < views * bands; item++) {
    const int64_t view = item / bands;
    const int top = int(item % bands) * BAND, bottom = std::min(S, top + BAND);
    char* scratch = at<char>(workspace) + omp_get_thread_num() * Band::bytes(V, s.side(), samples);
    float* nearest = reinterpret_cast<float*>(scratch + V * sizeof(Clip));
    const Band band = {reinterpret_cast<Clip*>(scratch), nearest, reinterpret_cast<int32_t*>(nearest) + int64_t(BAND) * samples * s.side(),
                       top * samples, bottom * samples};
    const float* camera = s.cameras + view * CAMERA;
    draw_band(s, band, camera);
    Surface surface{};
    for (int y = top; y < bottom; y++) {
      for (int x = 0; x < S; x++) shade_pixel(s, band, vec3(camera + 16), x, y, (view * S + y) * S + x, surface, out);
    }
  }
  return K_OK;
}
