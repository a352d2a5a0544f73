// From Gaussians to splats and back, the same way on every device.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define SPLAT_BOTH __host__ __device__ inline
#else
#define SPLAT_BOTH inline
#endif

namespace splat {
constexpr float MAX_ALPHA = 0.99f, MIN_ALPHA = 1.0f / 255, MIN_T = 1e-4f, MIN_DET = 1e-6f;

struct Vec {
  float x, y, z;
};
SPLAT_BOTH Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
SPLAT_BOTH Vec operator-(Vec a, Vec b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
SPLAT_BOTH Vec operator*(float k, Vec a) { return {k * a.x, k * a.y, k * a.z}; }
SPLAT_BOTH float dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
SPLAT_BOTH Vec vec(const float* v) { return {v[0], v[1], v[2]}; }

struct Camera {
  Vec w[3], shift;  // t = W p + T
  float fx, fy, cx, cy, limit_x, limit_y, near, blur;

  // row: 16 floats of `cameras`
  SPLAT_BOTH void load(const float* row, int width, int height, float near_plane, float filter) {
    for (int i = 0; i < 3; i++) w[i] = vec(row + 4 * i);
    shift = {row[3], row[7], row[11]};
    fx = row[12], fy = row[13], cx = row[14], cy = row[15];
    limit_x = 0.65f * width / fx, limit_y = 0.65f * height / fy;
    near = near_plane, blur = filter;
  }
  // By fma, so that no compiler chooses: all devices order splats alike.
  SPLAT_BOTH Vec place(Vec p) const {
    const auto along = [&](Vec axis, float from) { return fmaf(axis.x, p.x, fmaf(axis.y, p.y, fmaf(axis.z, p.z, from))); };
    return {along(w[0], shift.x), along(w[1], shift.y), along(w[2], shift.z)};
  }
  SPLAT_BOTH Vec eye() const { return -1.0f * (shift.x * w[0] + shift.y * w[1] + shift.z * w[2]); }
};

// What a pixel needs of a splat. A splat that is left out has radius 0.
struct Splat {
  float x, y, opacity, reach;  // alpha >= 1/255 where a dx^2 + 2 b dx dy + c dy^2 <= reach
  float a, b, c, depth;
  float rgb[3], radius;
};
struct SplatGradient {
  float x, y, opacity, a, b, c, depth, rgb[3];
};

// Real spherical harmonics and their derivatives by the direction d: calls take(k, Y_k, dY_k) for k below `coefficients`.
template <class Take>
SPLAT_BOTH void harmonics(Vec d, int coefficients, Take take) {
  const float x = d.x, y = d.y, z = d.z;
  take(0, 0.28209479177387814f, Vec{0, 0, 0});
  if (coefficients < 4) return;
  const float C1 = 0.4886025119029199f;
  take(1, -C1 * y, Vec{0, -C1, 0});
  take(2, C1 * z, Vec{0, 0, C1});
  take(3, -C1 * x, Vec{-C1, 0, 0});
  if (coefficients < 9) return;
  const float xx = x * x, yy = y * y, zz = z * z, A = 1.0925484305920792f, B = 0.31539156525252005f, C = 0.5462742152960396f;
  take(4, A * x * y, Vec{A * y, A * x, 0});
  take(5, -A * y * z, Vec{0, -A * z, -A * y});
  take(6, B * (2 * zz - xx - yy), Vec{-2 * B * x, -2 * B * y, 4 * B * z});
  take(7, -A * x * z, Vec{-A * z, 0, -A * x});
  take(8, C * (xx - yy), Vec{2 * C * x, -2 * C * y, 0});
  if (coefficients < 16) return;
  const float D = 0.5900435899266435f, E = 2.890611442640554f, F = 0.4570457994644658f, G = 0.3731763325901154f, H = 1.445305721320277f;
  take(9, -D * y * (3 * xx - yy), Vec{-6 * D * x * y, -3 * D * (xx - yy), 0});
  take(10, E * x * y * z, Vec{E * y * z, E * x * z, E * x * y});
  take(11, -F * y * (4 * zz - xx - yy), Vec{2 * F * x * y, -F * (4 * zz - xx - 3 * yy), -8 * F * y * z});
  take(12, G * z * (2 * zz - 3 * xx - 3 * yy), Vec{-6 * G * x * z, -6 * G * y * z, G * (6 * zz - 3 * xx - 3 * yy)});
  take(13, -F * x * (4 * zz - xx - yy), Vec{-F * (4 * zz - 3 * xx - yy), 2 * F * x * y, -8 * F * x * z});
  take(14, H * z * (xx - yy), Vec{2 * H * x * z, -2 * H * y * z, H * (xx - yy)});
  take(15, -D * x * (xx - 3 * yy), Vec{-3 * D * (xx - yy), 6 * D * x * y, 0});
}

// The Gaussians of a call.
struct Gaussians {
  const float *means, *colors, *opacities, *scales, *rotations;
  int coefficients;

  SPLAT_BOTH int color_size() const { return 3 * (coefficients ? coefficients : 1); }
};

// The covariance of a splat and what it is made of: S = L L^T, L = P R diag(s), P = J W.
struct Shape {
  Vec t, P[2], R[3], scale;
  float q[4], length;  // the rotation is q / length
  float u, v;
  bool held_u, held_v;
  Vec Q[2], L[2];  // Q = P R
  float xx, xy, yy, det, blurred;  // S, |S|, |S + blur 1|

  SPLAT_BOTH bool load(const Camera& c, const Gaussians& g, int64_t n) {
    const Vec p = vec(g.means + 3 * n);
    t = c.place(p);
    if (!(t.z > c.near)) return false;
    const float inverse = 1 / t.z;
    u = t.x * inverse, v = t.y * inverse;
    held_u = fabsf(u) > c.limit_x, held_v = fabsf(v) > c.limit_y;
    if (held_u) u = copysignf(c.limit_x, u);
    if (held_v) v = copysignf(c.limit_y, v);
    P[0] = c.fx * inverse * (c.w[0] - u * c.w[2]);
    P[1] = c.fy * inverse * (c.w[1] - v * c.w[2]);
    scale = vec(g.scales + 3 * n);
    for (int i = 0; i < 4; i++) q[i] = g.rotations[4 * n + i];
    length = sqrtf(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (int i = 0; i < 4; i++) q[i] /= length;
    const float w = q[0], x = q[1], y = q[2], z = q[3];
    R[0] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)};
    R[1] = {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)};
    R[2] = {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
    for (int i = 0; i < 2; i++) {
      Q[i] = P[i].x * R[0] + P[i].y * R[1] + P[i].z * R[2];
      L[i] = {Q[i].x * scale.x, Q[i].y * scale.y, Q[i].z * scale.z};
    }
    xx = dot(L[0], L[0]), xy = dot(L[0], L[1]), yy = dot(L[1], L[1]);
    const Vec cross = {L[0].y * L[1].z - L[0].z * L[1].y, L[0].z * L[1].x - L[0].x * L[1].z, L[0].x * L[1].y - L[0].y * L[1].x};
    det = dot(cross, cross);
    blurred = det + c.blur * (xx + yy) + c.blur * c.blur;
    return true;
  }
  // Of the opacity.
  SPLAT_BOTH float factor() const { return sqrtf(det / (blurred + 1e-6f) + 1e-6f); }
};

// The view of Gaussian n: 0 where it is left out, 1 where it may be seen, -1 where it is faulty.
SPLAT_BOTH int project(Splat& out, const Camera& c, const Gaussians& g, int64_t n) {
  out = Splat{};
  float zero = g.opacities[n] * 0;
  for (int i = 0; i < 3; i++) zero += g.means[3 * n + i] * 0 + g.scales[3 * n + i] * 0;
  float squares = 0;
  for (int i = 0; i < 4; i++) squares += g.rotations[4 * n + i] * g.rotations[4 * n + i];
  const float* colors = g.colors + n * g.color_size();
  for (int i = 0; i < g.color_size(); i++) zero += colors[i] * 0;
  if (!(zero + squares * 0 == 0 && squares > 0)) return -1;
  Shape shape;
  if (!shape.load(c, g, n)) return 0;
  const float xx = shape.xx + c.blur, yy = shape.yy + c.blur, xy = shape.xy, middle = 0.5f * (xx + yy), half = 0.5f * (xx - yy);
  const float radius = ceilf(3 * sqrtf(middle + sqrtf(fmaxf(0.1f, half * half + xy * xy))));
  const float x = c.fx * shape.t.x / shape.t.z + c.cx, y = c.fy * shape.t.y / shape.t.z + c.cy;
  if (!((radius + x + y + shape.det + shape.blurred) * 0 == 0)) return -1;
  if (shape.det <= MIN_DET || shape.blurred <= MIN_DET) return 0;
  const float opacity = g.opacities[n] * shape.factor();
  if (!(opacity >= MIN_ALPHA)) return 0;
  const float inverse = 1 / shape.blurred;
  out = {x, y, opacity, 2 * logf(255 * opacity), yy * inverse, -xy * inverse, xx * inverse, shape.t.z, {}, radius};
  if (!g.coefficients) {
    for (int i = 0; i < 3; i++) out.rgb[i] = colors[i];
    return 1;
  }
  const Vec from = vec(g.means + 3 * n) - c.eye();
  float rgb[3] = {0.5f, 0.5f, 0.5f};
  harmonics(1 / sqrtf(dot(from, from)) * from, g.coefficients, [&](int k, float Y, Vec) {
    for (int i = 0; i < 3; i++) rgb[i] += Y * colors[3 * k + i];
  });
  for (int i = 0; i < 3; i++) out.rgb[i] = fmaxf(0.0f, rgb[i]);
  return 1;
}

// Gradients of a Gaussian but for its colours.
struct GaussianGradient {
  Vec mean, scale;
  float opacity, rotation[4];
};

// Adds the gradients of Gaussian n in one view to `out` and d_colors (null: not wanted).
SPLAT_BOTH void project_back(GaussianGradient& out, float* d_colors, const SplatGradient& d, const Splat& s, const Camera& c,
                               const Gaussians& g, int64_t n) {
  Shape shape;
  shape.load(c, g, n);
  // the conic: dS = -K dK K
  const float hb = 0.5f * d.b;
  const float r0 = s.a * d.a + s.b * hb, r1 = s.a * hb + s.b * d.c, r2 = s.b * d.a + s.c * hb, r3 = s.b * hb + s.c * d.c;
  float dxx = -(r0 * s.a + r1 * s.b), dxy = -((r0 + r3) * s.b + r1 * s.c + r2 * s.a), dyy = -(r2 * s.b + r3 * s.c);
  // the opacity's factor, by |S| and the trace of S
  const float factor = shape.factor(), over = 1 / (shape.blurred + 1e-6f), by = d.opacity * g.opacities[n] * 0.5f / factor * over;
  const float d_det = by * (1 - shape.det * over), d_trace = -by * shape.det * over * c.blur;
  out.opacity += d.opacity * factor;
  dxx += d_det * shape.yy + d_trace;
  dyy += d_det * shape.xx + d_trace;
  dxy -= 2 * d_det * shape.xy;
  // S = L L^T, L = Q diag(scale), Q = P R
  const Vec dL[2] = {2 * dxx * shape.L[0] + dxy * shape.L[1], 2 * dyy * shape.L[1] + dxy * shape.L[0]};
  Vec dQ[2], dP[2], dR[3];
  for (int i = 0; i < 2; i++) {
    out.scale = out.scale + Vec{dL[i].x * shape.Q[i].x, dL[i].y * shape.Q[i].y, dL[i].z * shape.Q[i].z};
    dQ[i] = {dL[i].x * shape.scale.x, dL[i].y * shape.scale.y, dL[i].z * shape.scale.z};
    dP[i] = {dot(dQ[i], shape.R[0]), dot(dQ[i], shape.R[1]), dot(dQ[i], shape.R[2])};
  }
  dR[0] = shape.P[0].x * dQ[0] + shape.P[1].x * dQ[1];
  dR[1] = shape.P[0].y * dQ[0] + shape.P[1].y * dQ[1];
  dR[2] = shape.P[0].z * dQ[0] + shape.P[1].z * dQ[1];
  const float w = shape.q[0], x = shape.q[1], y = shape.q[2], z = shape.q[3];
  const float dq[4] = {
      2 * (x * (dR[2].y - dR[1].z) + y * (dR[0].z - dR[2].x) + z * (dR[1].x - dR[0].y)),
      2 * (w * (dR[2].y - dR[1].z) + y * (dR[0].y + dR[1].x) + z * (dR[0].z + dR[2].x) - 2 * x * (dR[1].y + dR[2].z)),
      2 * (w * (dR[0].z - dR[2].x) + x * (dR[0].y + dR[1].x) + z * (dR[1].z + dR[2].y) - 2 * y * (dR[0].x + dR[2].z)),
      2 * (w * (dR[1].x - dR[0].y) + x * (dR[0].z + dR[2].x) + y * (dR[1].z + dR[2].y) - 2 * z * (dR[0].x + dR[1].y))};
  const float along = dq[0] * w + dq[1] * x + dq[2] * y + dq[3] * z;
  for (int i = 0; i < 4; i++) out.rotation[i] += (dq[i] - shape.q[i] * along) / shape.length;
  // P = (fx / t.z) (W_0 - u W_2), (fy / t.z) (W_1 - v W_2); m = f t / t.z + c
  const float inverse = 1 / shape.t.z, kx = c.fx * inverse, ky = c.fy * inverse;
  const float du = -kx * dot(dP[0], c.w[2]), dv = -ky * dot(dP[1], c.w[2]);
  Vec dt = {kx * d.x, ky * d.y, d.depth - inverse * (dot(dP[0], shape.P[0]) + dot(dP[1], shape.P[1]))};
  dt.z -= inverse * (kx * d.x * shape.t.x + ky * d.y * shape.t.y);
  if (!shape.held_u) dt.x += du * inverse, dt.z -= du * shape.u * inverse;
  if (!shape.held_v) dt.y += dv * inverse, dt.z -= dv * shape.v * inverse;
  out.mean = out.mean + dt.x * c.w[0] + dt.y * c.w[1] + dt.z * c.w[2];
  // colours
  if (!g.coefficients) {
    for (int i = 0; i < 3 && d_colors; i++) d_colors[i] += d.rgb[i];
    return;
  }
  const float* h = g.colors + n * g.color_size();
  const Vec from = vec(g.means + 3 * n) - c.eye();
  const float near_by = 1 / sqrtf(dot(from, from));
  const Vec direction = near_by * from, rgb = {s.rgb[0] > 0 ? d.rgb[0] : 0, s.rgb[1] > 0 ? d.rgb[1] : 0, s.rgb[2] > 0 ? d.rgb[2] : 0};
  Vec turn = {0, 0, 0};
  harmonics(direction, g.coefficients, [&](int k, float Y, Vec dY) {
    if (d_colors) d_colors[3 * k] += Y * rgb.x, d_colors[3 * k + 1] += Y * rgb.y, d_colors[3 * k + 2] += Y * rgb.z;
    turn = turn + dot(vec(h + 3 * k), rgb) * dY;
  });
  out.mean = out.mean + near_by * (turn - dot(turn, direction) * direction);
}

// Which tiles of `side` pixels a splat touches: first row and its end, then of each row the first tile and the end. Rather one too many than
// one too few.
struct Cover {
  float x, y, reach, a, b, c, det, right, at_right;
  int x0, x1, y0, y1;  // tiles, ends excluded

  SPLAT_BOTH static int within(float v, int most) { return v <= 0 ? 0 : v >= most ? most : int(v); }

  SPLAT_BOTH void load(const Splat& s, int across, int down) {
    x = s.x, y = s.y, a = s.a, b = s.b, c = s.c;
    reach = s.reach * 1.0001f + 0.001f, det = a * c - b * b;
    const bool needle = !(det > 1e-6f * a * c);
    const float half = needle ? s.radius : sqrtf(reach * a / det), wide = needle ? s.radius : sqrtf(reach * c / det);
    const float up = fminf(s.radius, half * 1.001f + 0.01f), side = fminf(s.radius, wide * 1.001f + 0.01f);
    y0 = within(floorf((y - up) / 16), down), y1 = within(floorf((y + up) / 16) + 1, down);
    x0 = within(floorf((x - side) / 16), across), x1 = within(floorf((x + side) / 16) + 1, across);
    if (!(s.radius > 0) || x0 >= x1) y1 = y0;
    right = wide, at_right = -s.b / s.c * wide;
  }
  // The tiles of row ty, [first, end). The ellipse's furthest point to the right lies at dy = at_right, to the left at -at_right.
  SPLAT_BOTH void row(int ty, int& first, int& end) const {
    const float top = 16 * ty - y, bottom = top + 15;
    if (!(det > 1e-6f * a * c)) {  // a needle: the determinant has no digits left
      first = x0, end = x1;
      return;
    }
    const float high = furthest(top, bottom, at_right, 1), low = furthest(top, bottom, -at_right, -1);
    first = x0, end = x1;
    if (!(low <= high)) {
      end = first;
      return;
    }
    const float slack = 0.02f + 1e-4f * right;
    const float from = ceilf((x + low - slack - 15) / 16), to = floorf((x + high + slack) / 16) + 1;
    if (from > first) first = from >= end ? end : int(from);
    if (to < end) end = to <= first ? first : int(to);
  }
  // The ellipse's end in direction `sign` within dy in [top, bottom]; turned around where there is none.
  SPLAT_BOTH float furthest(float top, float bottom, float best, float sign) const {
    if (best >= top && best <= bottom) return sign * right;
    const float dy = best < top ? top : bottom, under = a * reach - det * dy * dy;
    if (under >= 0) return (-b * dy + sign * sqrtf(under)) / a;
    const float limit = sqrtf(a * reach / det);  // the nearest row that it reaches, where the slack of load() has let in one more
    return fabsf(dy) <= limit * 1.002f + 0.02f ? -b * dy / a : -sign * INFINITY;
  }
};
}  // namespace splat
