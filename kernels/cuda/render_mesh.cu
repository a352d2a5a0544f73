// The rasterizer on CUDA. A thread a small triangle, a warp a large one, writes (depth, triangle) as one 64-bit integer with atomicMin, so their
// order does not matter; then a thread a pixel shades.
#include "../include/render_mesh.h"

#include "../include/raster.hpp"
#include "device.cuh"

namespace {
using namespace raster;
using Key = unsigned long long;  // the larger 1 / w, then the lower triangle, is the smaller key

constexpr Key EMPTY = ~Key(0);
constexpr int DRAW = 128, FEW = 32, PIXELS = 256;
constexpr int64_t WARPS = 65536;  // so many keep a device busy

__device__ Key key_of(float depth, int t) { return Key(0x7fffffffu - __float_as_uint(fmaxf(depth, 1e-38f))) << 32 | uint32_t(t); }
__device__ float depth_of(Key key) { return __uint_as_float(0x7fffffffu - uint32_t(key >> 32)); }

// The linear values of the 256 bytes, in shared memory.
__device__ void fill_linear(float* linear) {
  for (int i = threadIdx.x; i < 256; i += blockDim.x) linear[i] = to_linear(i / 255.0f);
  __syncthreads();
}

__global__ void project_vertices(Scene s, Clip* clip, Key* keys, int64_t vertices, int64_t samples) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x, stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t v = i; v < vertices; v += stride) clip[v] = project(s.cameras + v / s.V * CAMERA, s.positions + v % s.V * 3);
  for (int64_t k = i; k < samples; k += stride) keys[k] = EMPTY;
}

// Writes sample (i, j) of a view if triangle t is the nearest there so far and has no hole.
__device__ void draw_sample(const Scene& s, const Clip* clip, Key* sample, float depth, int t, int i, int j) {
  const Key key = key_of(depth, t);
  if (key >= *sample) return;
  if (s.materials[int64_t(s.material(t)) * MATERIAL + 4] > 0) {
    Surface surface;
    surface.load(s, clip, t);
    if (surface.albedo(s, nullptr, surface.weights(i, j, s.side())).a < surface.cutoff) return;
  }
  atomicMin(sample, key);
}

// A warp takes `each` items, a triangle in a view. A thread draws one where few samples are in its box; the others are drawn by the whole warp, one
// after another.
__global__ void __launch_bounds__(DRAW) draw_triangles(Scene s, const Clip* clip, Key* keys, int64_t items, int each) {
  const int side = s.side(), lane = threadIdx.x % 32;
  const int64_t item = (blockIdx.x * int64_t(DRAW / 32) + threadIdx.x / 32) * each + lane;
  const auto load = [&](int t, const Clip* corners) {
    const int32_t* corner = s.triangles + int64_t(t) * 3;
    return Triangle{{corners[corner[0]], corners[corner[1]], corners[corner[2]]}};
  };
  bool many = false;
  if (lane < each && item < items) {
    const int64_t view = item / s.T;
    const int t = int(item - view * s.T);
    const Clip* corners = clip + view * s.V;
    const Triangle triangle = load(t, corners);
    Piece piece;
    if (!whole(triangle, side)) {
      many = true;
    } else if (piece.load(triangle.v[0], triangle.v[1], triangle.v[2], side)) {
      many = int64_t(piece.x1 - piece.x0) * (piece.y1 - piece.y0) > FEW;
      for (int j = piece.y0; !many && j < piece.y1; j++) {
        const double row = piece.row_depth(j);
        Key* const samples = keys + (view * side + j) * side;
        for (int i = piece.x0; i < piece.x1; i++)
          if (piece.covers(i, j)) draw_sample(s, corners, samples + i, piece.at(i, row), t, i, j);
      }
    }
  }
  for (uint32_t left = __ballot_sync(0xffffffffu, many); left; left &= left - 1) {
    const int64_t at = item - lane + __ffs(left) - 1, view = at / s.T;
    const int t = int(at - view * s.T);
    const Clip* corners = clip + view * s.V;
    each_piece(load(t, corners), side, [&](const Piece& piece) {
      for (int j = piece.y0 + lane / 8; j < piece.y1; j += 4) {
        const double row = piece.row_depth(j);
        Key* const samples = keys + (view * side + j) * side;
        for (int i = piece.x0 + lane % 8; i < piece.x1; i += 8)
          if (piece.covers(i, j)) draw_sample(s, corners, samples + i, piece.at(i, row), t, i, j);
      }
    });
  }
}

__global__ void __launch_bounds__(PIXELS)
    shade_pixels(Scene s, const Clip* clip, const Key* keys, uint8_t* rgba, float* depth, int32_t* ids, int64_t pixels) {
  __shared__ float linear[256];
  fill_linear(linear);
  const int64_t pixel = blockIdx.x * int64_t(PIXELS) + threadIdx.x, area = int64_t(s.S) * s.S;
  if (pixel >= pixels) return;
  const int64_t view = pixel / area;
  const int x = int(pixel % area % s.S), y = int(pixel % area / s.S), side = s.side(), n = s.samples;
  const float* camera = s.cameras + view * CAMERA;
  Vec3 rgb = {0, 0, 0};
  Surface surface;
  int covered = 0;
  Key nearest = EMPTY;
  for (int k = 0; k < n * n; k++) {
    const int i = x * n + k % n, j = y * n + k / n;
    const Key key = keys[(view * side + j) * side + i];
    if (key == EMPTY) continue;
    const int t = int(uint32_t(key));
    if (t != surface.id) surface.load(s, clip + view * s.V, t);
    rgb = rgb + surface.shade(s, linear, vec3(camera + 16), surface.weights(i, j, side));
    covered++;
    if (key < nearest) nearest = key;
  }
  uchar4 out = {0, 0, 0, uint8_t((covered * 255 + n * n / 2) / (n * n))};
  if (covered) {
    const auto encode = [&](float v) { return uint8_t(to_srgb(fminf(fmaxf(v / covered, 0.0f), 1.0f)) * 255 + 0.5f); };
    out.x = encode(rgb.x), out.y = encode(rgb.y), out.z = encode(rgb.z);
  }
  reinterpret_cast<uchar4*>(rgba)[pixel] = out;
  if (depth) depth[pixel] = covered ? 1 / depth_of(nearest) : 0;
  if (ids) ids[pixel] = covered ? int32_t(uint32_t(nearest)) : -1;
}

int32_t check(const char* where, int views, int V, int S, int samples) {
  if (views < 0 || V < 0) return fail(K_BAD_ARGUMENT, where, "views = %d and V = %d, they must be >= 0", views, V);
  if (samples < 1 || samples > 4) return fail(K_BAD_ARGUMENT, where, "samples = %d, it must be 1 to 4", samples);
  if (S < 1 || S > 8192 / samples) return fail(K_BAD_ARGUMENT, where, "S = %d, it must be 1 to %d", S, 8192 / samples);
  return K_OK;
}
}  // namespace

int32_t k_render_mesh_fwd_workspace(uint64_t* bytes, int32_t views, int32_t V, int32_t S, int32_t samples) {
  const uint64_t side = uint64_t(S) * samples;
  *bytes = uint64_t(views) * (V * sizeof(Clip) + side * side * sizeof(Key));
  return check("k_render_mesh_fwd_workspace", views, V, S, samples);
}

int32_t k_render_mesh_fwd(uint64_t rgba, uint64_t depth, uint64_t ids, uint64_t positions, uint64_t normals, uint64_t uvs, uint64_t colors,
                          uint64_t materials, uint64_t texels, uint64_t lights, uint64_t cameras, uint64_t triangles, uint64_t material_of,
                          uint64_t images, uint64_t workspace, int32_t views, int32_t V, int32_t T, int32_t M, int32_t L, int32_t S,
                          int32_t samples, uint64_t stream) {
  const char* where = "k_render_mesh_fwd";
  if (const int32_t status = check(where, views, V, S, samples)) return status;
  if (T < 0 || L < 0) return fail(K_BAD_ARGUMENT, where, "T = %d and L = %d, they must be >= 0", T, L);
  if (T > 0 && M < 1) return fail(K_BAD_ARGUMENT, where, "M = %d, it must be >= 1", M);
  const int64_t items = int64_t(views) * T, vertices = int64_t(views) * V;
  const int64_t pixels = int64_t(views) * S * S, samples_all = pixels * samples * samples;
  const int each = items >= 32 * WARPS ? 32 : items >= 8 * WARPS ? 8 : 1;
  const int64_t blocks = ceil_div(items, int64_t(DRAW / 32) * each);
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "views * T = %lld, it must be below 2^38", (long long)items);
  if (views == 0) return K_OK;
  const Scene s = {at<const float>(positions), at<const float>(normals), at<const float>(uvs), at<const float>(colors),
                   at<const float>(materials), at<const uint32_t>(texels), at<const float>(lights), at<const float>(cameras),
                   at<const int32_t>(triangles), at<const int32_t>(material_of), at<const int32_t>(images), V, T, M, L, S, samples};
  Clip* clip = at<Clip>(workspace);
  Key* keys = reinterpret_cast<Key*>(clip + vertices);
  const cudaStream_t on = stream_of(stream);
  const int64_t work = vertices > samples_all ? vertices : samples_all;
  project_vertices<<<unsigned(work / 1024 + 1), 256, 0, on>>>(s, clip, keys, vertices, samples_all);
  if (const int32_t status = launched(where)) return status;
  if (items) draw_triangles<<<unsigned(blocks), DRAW, 0, on>>>(s, clip, keys, items, each);
  if (const int32_t status = launched(where)) return status;
  shade_pixels<<<unsigned(ceil_div(pixels, PIXELS)), PIXELS, 0, on>>>(s, clip, keys, at<uint8_t>(rgba), at<float>(depth), at<int32_t>(ids),
                                                                      pixels);
  return launched(where);
}
