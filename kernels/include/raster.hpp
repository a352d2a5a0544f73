// Which samples a triangle covers, and how a sample is shaded: shared by render_mesh.cpp and render_mesh.cu. Whatever decides coverage or
// depth is integer arithmetic or written with fma where a compiler could choose, so that both devices see the same picture.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define K_BOTH __host__ __device__ inline
#else
#define K_BOTH inline
#endif

namespace raster {

constexpr int CAMERA = 19, MATERIAL = 5, LIGHT = 6;  // floats a row

// The inputs of k_render_mesh_fwd.
struct Scene {
  const float *positions, *normals, *uvs, *colors, *materials;
  const uint32_t* texels;
  const float *lights, *cameras;
  const int32_t *triangles, *material_of, *images;
  int V, T, M, L, S, samples;

  K_BOTH int side() const { return S * samples; }
  K_BOTH int material(int t) const { return material_of ? material_of[t] : 0; }
};

struct Clip {
  float x, y, z, w;
};

struct Triangle {
  Clip v[3];
};

struct Vec3 {
  float x, y, z;
};
K_BOTH Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
K_BOTH Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
K_BOTH Vec3 operator*(Vec3 a, Vec3 b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
K_BOTH Vec3 operator*(float s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
K_BOTH float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
K_BOTH Vec3 cross(Vec3 a, Vec3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
K_BOTH Vec3 vec3(const float* p) { return {p[0], p[1], p[2]}; }

// The smaller and the larger, without fminf's care for NaN, which costs a call on the CPU.
template <class T>
K_BOTH T least(T a, T b) { return a < b ? a : b; }
template <class T>
K_BOTH T most(T a, T b) { return a > b ? a : b; }

K_BOTH Clip project(const float* m, const float* p) {
  float c[4];
  for (int i = 0; i < 4; i++) c[i] = fmaf(m[4 * i], p[0], fmaf(m[4 * i + 1], p[1], fmaf(m[4 * i + 2], p[2], m[4 * i + 3])));
  return {c[0], c[1], c[2], c[3]};
}

// A triangle on the sample grid: sample (i, j) is inside where a i + b j + c >= 0 for all edges. Corners are on 1/256 of a sample and at
// most 2^17 samples away, so this is exact; of two triangles sharing an edge, exactly one owns a sample on it.
struct Piece {
  int64_t a[3], b[3], c[3];
  double depth, depth_x, depth_y;  // 1 / w as a plane over (i, j)
  int x0, x1, y0, y1;              // the bounding box, ends excluded

  K_BOTH bool load(const Clip& p, const Clip& q, const Clip& r, int side) {
    const Clip* v[3] = {&p, &q, &r};
    int64_t X[3], Y[3];
    double d[3];
    const float half = side * 128.0f;
    for (int i = 0; i < 3; i++) {
      const float x = v[i]->x / v[i]->w, y = v[i]->y / v[i]->w;
      if (!(v[i]->w > 0 && fabsf(x) <= 262144.0f / side && fabsf(y) <= 262144.0f / side)) return false;
      X[i] = int64_t(rintf(fmaf(x, half, half)));
      Y[i] = int64_t(rintf(fmaf(y, half, half)));
      d[i] = 1.0f / v[i]->w;
    }
    int64_t area = (X[1] - X[0]) * (Y[2] - Y[0]) - (X[2] - X[0]) * (Y[1] - Y[0]);
    if (area == 0) return false;
    if (area < 0) {
      const int64_t x = X[1], y = Y[1];
      const double e = d[1];
      X[1] = X[2], Y[1] = Y[2], d[1] = d[2];
      X[2] = x, Y[2] = y, d[2] = e;
      area = -area;
    }
    const auto first = [&](const int64_t* u) { return int(most<int64_t>(0, (least(u[0], least(u[1], u[2])) + 127) >> 8)); };
    const auto end = [&](const int64_t* u) { return int(least<int64_t>(side, ((most(u[0], most(u[1], u[2])) - 128) >> 8) + 1)); };
    x0 = first(X), x1 = end(X), y0 = first(Y), y1 = end(Y);
    if (x0 >= x1 || y0 >= y1) return false;
    for (int i = 0; i < 3; i++) {
      const int j = (i + 1) % 3;
      const int64_t dx = X[j] - X[i], dy = Y[j] - Y[i];
      const bool owner = dy < 0 || (dy == 0 && dx > 0);
      a[i] = -dy * 256;
      b[i] = dx * 256;
      c[i] = dx * (128 - Y[i]) - dy * (128 - X[i]) - (owner ? 0 : 1);
    }
    const double d1 = d[1] - d[0], d2 = d[2] - d[0], x1_ = double(X[1] - X[0]), y1_ = double(Y[1] - Y[0]), x2_ = double(X[2] - X[0]),
                 y2_ = double(Y[2] - Y[0]);
    const double gx = fma(d1, y2_, -(d2 * y1_)) / double(area), gy = fma(d2, x1_, -(d1 * x2_)) / double(area);
    depth = fma(gx, double(128 - X[0]), fma(gy, double(128 - Y[0]), d[0]));
    depth_x = gx * 256;
    depth_y = gy * 256;
    return true;
  }

  K_BOTH bool covers(int64_t i, int64_t j) const {
    return (a[0] * i + b[0] * j + c[0]) >= 0 && (a[1] * i + b[1] * j + c[1]) >= 0 && (a[2] * i + b[2] * j + c[2]) >= 0;
  }
  K_BOTH double row_depth(int j) const { return fma(depth_y, double(j), depth); }
  K_BOTH float at(int i, double row) const { return float(fma(depth_x, double(i), row)); }
};

K_BOTH float distance(const Clip& v, int plane, float guard) {
  return plane == 0 ? v.z : fmaf(guard, v.w, plane == 1 ? v.x : plane == 2 ? -v.x : plane == 3 ? v.y : -v.y);
}

// Whether no corner is cut away by each_piece.
K_BOTH bool whole(const Triangle& t, int side) {
  const float guard = 262144.0f / side - 2;
  bool all = true;
  for (int plane = 0; plane < 5; plane++)
    for (int i = 0; i < 3; i++) all = all && distance(t.v[i], plane, guard) >= 0;
  return all;
}

// Calls draw(piece) for the convex pieces of a triangle after cutting away what is in front of the near plane or too far beside the image.
template <class Draw>
K_BOTH void each_piece(const Triangle& t, int side, Draw draw) {
  const float guard = 262144.0f / side - 2;
  Clip polygon[9], cut[9];
  int n = 3;
  for (int i = 0; i < 3; i++) polygon[i] = t.v[i];
  for (int plane = 0; plane < 5 && n; plane++) {
    bool all = true;
    for (int i = 0; i < n; i++) all = all && distance(polygon[i], plane, guard) >= 0;
    if (all) continue;
    int m = 0;
    for (int i = 0; i < n; i++) {
      const Clip &from = polygon[i], &to = polygon[(i + 1) % n];
      const float d = distance(from, plane, guard), e = distance(to, plane, guard);
      if (d >= 0) cut[m++] = from;
      if ((d >= 0) == (e >= 0)) continue;
      // From the inner to the outer end whichever comes first: neighbours that share the edge get the same point.
      const Clip &in = d >= 0 ? from : to, &out = d >= 0 ? to : from;
      const float s = d >= 0 ? d / (d - e) : e / (e - d);
      cut[m++] = {fmaf(s, out.x - in.x, in.x), fmaf(s, out.y - in.y, in.y), fmaf(s, out.z - in.z, in.z), fmaf(s, out.w - in.w, in.w)};
    }
    for (int i = 0; i < m; i++) polygon[i] = cut[i];
    n = m;
  }
  for (int i = 2; i < n; i++) {
    Piece piece;
    if (piece.load(polygon[0], polygon[i - 1], polygon[i], side)) draw(piece);
  }
}

K_BOTH float to_linear(float v) { return v <= 0.04045f ? v / 12.92f : powf((v + 0.055f) / 1.055f, 2.4f); }
K_BOTH float to_srgb(float v) { return v <= 0.0031308f ? v * 12.92f : 1.055f * powf(v, 1 / 2.4f) - 0.055f; }

struct Color {
  Vec3 rgb;
  float a;
};

// The bilinear texel at (u, v): linear rgb and alpha. `linear` holds to_linear(0/255 .. 255/255); without it alpha alone.
K_BOTH Color texture_at(const int32_t* image, const uint32_t* texels, const float* linear, float u, float v) {
  const int W = image[1], H = image[2];
  const bool repeat = image[3] == 0;
  if (repeat) u -= floorf(u), v -= floorf(v);
  const float x = least(most(u, 0.0f), 1.0f) * W - 0.5f, y = least(most(v, 0.0f), 1.0f) * H - 0.5f;
  const float left = floorf(x), top = floorf(y), fx = x - left, fy = y - top;
  const auto wrap = [&](int i, int n) { return repeat ? (i < 0 ? i + n : i >= n ? i - n : i) : least(most(i, 0), n - 1); };
  const int x0 = wrap(int(left), W), x1 = wrap(int(left) + 1, W);
  const uint32_t* image_texels = texels + image[0];
  const uint32_t *row0 = image_texels + int64_t(wrap(int(top), H)) * W, *row1 = image_texels + int64_t(wrap(int(top) + 1, H)) * W;
  const auto texel = [&](uint32_t t, float weight) {
    const Vec3 rgb = linear ? Vec3{linear[t & 255], linear[t >> 8 & 255], linear[t >> 16 & 255]} : Vec3{0, 0, 0};
    return Color{weight * rgb, weight * (t >> 24)};
  };
  const Color a = texel(row0[x0], (1 - fx) * (1 - fy)), b = texel(row0[x1], fx * (1 - fy)), c = texel(row1[x0], (1 - fx) * fy),
              d = texel(row1[x1], fx * fy);
  return {a.rgb + b.rgb + c.rgb + d.rgb, (a.a + b.a + c.a + d.a) * (1.0f / 255)};
}

// A triangle with all that shading its samples takes.
struct Surface {
  Triangle clip;
  int id = -1, corner[3];
  const int32_t* image;  // or null
  Vec3 base, p[3], n[3];
  float alpha, cutoff, u[3], v[3];

  K_BOTH void load(const Scene& s, const Clip* vertices, int t) {
    id = t;
    const float* material = s.materials + int64_t(s.material(t)) * MATERIAL;
    base = vec3(material), alpha = material[3], cutoff = material[4];
    image = s.images + int64_t(s.material(t)) * 4;
    if (!s.uvs || !s.texels || image[0] < 0) image = nullptr;
    for (int k = 0; k < 3; k++) {
      corner[k] = s.triangles[int64_t(t) * 3 + k];
      clip.v[k] = vertices[corner[k]];
      p[k] = vec3(s.positions + int64_t(corner[k]) * 3);
      if (s.normals) n[k] = vec3(s.normals + int64_t(corner[k]) * 3);
      if (image) u[k] = s.uvs[int64_t(corner[k]) * 2], v[k] = s.uvs[int64_t(corner[k]) * 2 + 1];
    }
  }

  // The corner weights at sample (i, j), perspective-correct. From the uncut corners, so that the near plane changes nothing.
  K_BOTH Vec3 weights(int i, int j, int side) const {
    const float scale = 2.0f / side, X = fmaf(i + 0.5f, scale, -1.0f), Y = fmaf(j + 0.5f, scale, -1.0f);
    float x[3], y[3], b[3];
    for (int k = 0; k < 3; k++) x[k] = fmaf(-X, clip.v[k].w, clip.v[k].x), y[k] = fmaf(-Y, clip.v[k].w, clip.v[k].y);
    for (int k = 0; k < 3; k++) b[k] = fmaf(x[(k + 1) % 3], y[(k + 2) % 3], -(x[(k + 2) % 3] * y[(k + 1) % 3]));
    const float sign = b[0] + b[1] + b[2] < 0 ? -1.0f : 1.0f;
    const Vec3 w = {most(b[0] * sign, 0.0f), most(b[1] * sign, 0.0f), most(b[2] * sign, 0.0f)};
    const float sum = w.x + w.y + w.z;
    return sum > 0 ? 1 / sum * w : Vec3{1.0f / 3, 1.0f / 3, 1.0f / 3};
  }

  // Base colour * texture * vertex colour; without `linear` its alpha alone.
  K_BOTH Color albedo(const Scene& s, const float* linear, Vec3 w) const {
    Color out = {base, alpha};
    if (image) {
      const Color texel = texture_at(image, s.texels, linear, w.x * u[0] + w.y * u[1] + w.z * u[2], w.x * v[0] + w.y * v[1] + w.z * v[2]);
      out = {out.rgb * texel.rgb, out.a * texel.a};
    }
    if (s.colors) {
      const float *a = s.colors + int64_t(corner[0]) * 4, *b = s.colors + int64_t(corner[1]) * 4, *c = s.colors + int64_t(corner[2]) * 4;
      out = {out.rgb * (w.x * vec3(a) + w.y * vec3(b) + w.z * vec3(c)), out.a * (w.x * a[3] + w.y * b[3] + w.z * c[3])};
    }
    return out;
  }

  // The light that the sample sends to the eye.
  K_BOTH Vec3 shade(const Scene& s, const float* linear, Vec3 eye, Vec3 w) const {
    const Vec3 at = w.x * p[0] + w.y * p[1] + w.z * p[2], face = cross(p[1] - p[0], p[2] - p[0]);
    Vec3 normal = face;
    if (s.normals) {
      normal = w.x * n[0] + w.y * n[1] + w.z * n[2];
      if (!(dot(normal, normal) > 1e-12f)) normal = face;
    }
    const bool turned = (dot(normal, face) < 0) != (dot(face, eye - p[0]) < 0);
    const float length = sqrtf(dot(normal, normal));
    normal = ((turned ? -1.0f : 1.0f) / (length > 0 ? length : 1.0f)) * normal;
    const Vec3 above = vec3(s.lights), below = vec3(s.lights + 3);
    Vec3 light = below + (normal.z + 1) * 0.5f * (above - below);
    for (int l = 1; l <= s.L; l++) {
      const Vec3 to = vec3(s.lights + l * LIGHT) - at;
      const float facing = dot(normal, to) / sqrtf(most(dot(to, to), 1e-12f));
      light = light + most(facing, 0.0f) * vec3(s.lights + l * LIGHT + 3);
    }
    return light * albedo(s, linear, w).rgb;
  }
};

}  // namespace raster
