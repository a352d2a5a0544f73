// The rasterizer on CUDA. A warp a triangle and view writes (depth, triangle) as one 64-bit integer with atomicMin, so the order of warps
// does not matter; then a thread a pixel shades.
#include "../include/render_mesh.h"

#include "../include/raster.hpp"
#include "device.cuh"

namespace {
using namespace raster;
using Key = unsigned long long;  // the larger 1 / w, then the lower triangle, is the smaller key

constexpr Key EMPTY = ~Key(0);
constexpr int WARPS = 4, PIXELS = 128;

__device__ Key key_of(float depth, int t) { return Key(0x7fffffffu - __float_as_uint(fmaxf(depth, 1e-38f))) << 32 | uint32_t(t); }
__device__ float depth_of(Key key) { return __uint_as_float(0x7fffffffu - uint32_t(key >> 32)); }

// The linear values of the 256 bytes, in shared memory.
__device__ void fill_linear(float* linear) {
  for (int i = threadIdx.x + threadIdx.y * blockDim.x; i < 256; i += blockDim.x * blockDim.y) linear[i] = to_linear(i / 255.0f);
  __syncthreads();
}

__global__ void project_vertices(Scene s, Clip* clip, Key* keys, int64_t vertices, int64_t samples) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x, stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t v = i; v < vertices; v += stride) clip[v] = project(s.cameras + v / s.V * CAMERA, s.positions + v % s.V * 3);
  for (int64_t k = i; k < samples; k += stride) keys[k] = EMPTY;
}

__global__ void __launch_bounds__(32 * WARPS) draw_triangles(Scene s, const Clip* clip, Key* keys, int64_t items) {
  __shared__ float linear[256];
  fill_linear(linear);
  const int64_t item = blockIdx.x * int64_t(WARPS) + threadIdx.y;
  if (item >= items) return;
  const int t = int(item % s.T), side = s.side();
  const int64_t view = item / s.T;
  Surface surface;
  surface.load(s, clip + view * s.V, t);
  Key* image = keys + view * side * side;
  each_piece(surface.clip, side, [&](const Piece& piece) {
    const int x = piece.x0 + threadIdx.x % 8, y = piece.y0 + threadIdx.x / 8;
    for (int j = y; j < piece.y1; j += 4) {
      const double row = piece.row_depth(j);
      for (int i = x; i < piece.x1; i += 8) {
        if (!piece.covers(i, j)) continue;
        const Key key = key_of(piece.at(i, row), t);
        Key* sample = image + int64_t(j) * side + i;
        if (key >= *sample) continue;
        if (surface.cutoff > 0 && surface.albedo(s, linear, surface.weights(i, j, side)).a < surface.cutoff) continue;
        atomicMin(sample, key);
      }
    }
  });
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
  if (ceil_div(items, WARPS) > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "views * T = %lld, it must be below 2^33", (long long)items);
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
  if (items) draw_triangles<<<unsigned(ceil_div(items, WARPS)), dim3(32, WARPS), 0, on>>>(s, clip, keys, items);
  if (const int32_t status = launched(where)) return status;
  shade_pixels<<<unsigned(ceil_div(pixels, PIXELS)), PIXELS, 0, on>>>(s, clip, keys, at<uint8_t>(rgba), at<float>(depth), at<int32_t>(ids),
                                                                      pixels);
  return launched(where);
}
