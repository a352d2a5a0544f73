// library: render
// Gaussian splatting, forward and backward: V views of B scenes a call. Scene b has some of the N Gaussians and some of the views; every one
// of its Gaussians meets every one of its views, which makes I = sum over scenes of (Gaussians * views) splats, view by view. Two runs agree
// to the bit. Elliptical weighted average with the screen filter of Mip-Splatting.
//
// A Gaussian: mean p, scales s (of either sign), rotation q = (w, x, y, z) of any length > 0, opacity o, colours. With E = [W | T] world to
// camera (x right, y down, z forward) and t = W p + T a splat has
//   m = (fx t.x / t.z + cx, fy t.y / t.z + cy), on pixels whose centres are whole numbers, and depth t.z; it is left out where t.z <= near
//   S = J W R diag(s)^2 R^T W^T J^T, J = [fx / t.z, 0, -fx u / t.z; 0, fy / t.z, -fy v / t.z], R the rotation of q / |q|,
//       u = t.x / t.z within +-0.65 width / fx, v = t.y / t.z within +-0.65 height / fy
//   conic (a b; b c) = (S + blur 1)^-1, opacity o' = o sqrt(|S| / (|S + blur 1| + 1e-6) + 1e-6); left out where a determinant is <= 1e-6
//   colour: [N, 3] as it is, or max(0, 0.5 + sum over k of Y_k((p - eye) / |p - eye|) h_k) with the real spherical harmonics Y up to
//       degree 3: coefficients = (degree + 1)^2 of them
// It is drawn on the 16 x 16 tiles that the square around m with half side r = ceil(3 sqrt(l)) touches, l = M + sqrt(max(0.1, M^2 -
// |S + blur 1|)), M = trace(S + blur 1) / 2. A pixel at d = pixel - m goes through its splats by depth, then by number, with T = 1 at first:
//   alpha = min(0.99, o' exp(-(a d.x^2 + 2 b d.x d.y + c d.y^2) / 2)); skipped where < 1/255 or where the exponent is > 0;
//   ends before T (1 - alpha) would be < 1e-4; w = alpha T; colour += w rgb; depth += w t.z; T *= 1 - alpha
//   y = (colour + T background, 1 - T, depth)
#pragma once
#include "k.h"

// How to use it: k_splat_sizes, then k_splat_project, which says how many pairs of splat and tile there are; then k_splat_sizes again and
// k_splat_fwd, with room for `capacity` pairs. Nothing waits for the device: who does not want to wait for status either gives a capacity
// that is large enough. Where it is not, or where a Gaussian is faulty, all of y (and of the gradients) is NaN.
typedef struct k_splat {
  int64_t struct_size;  // sizeof(k_splat): the version
  int64_t B, V, N;
  int64_t instances;     // I
  int64_t height, width;  // 1 to 8192
  int64_t coefficients;  // spherical harmonics: 1, 4, 9 or 16; 0: plain colours
  int64_t capacity;      // pairs
  double near, blur;     // > 0, >= 0; usually 0.2 and 0.1
  uint64_t scenes;       // [B + 1, 3] i32: a scene's first Gaussian, first view, first splat; then N, V, I
  uint64_t cameras;      // [V, 16] f32: E row by row, fx, fy, cx, cy in pixels
  uint64_t backgrounds;  // [V, 3] f32
  uint64_t means;        // [N, 3] f32
  uint64_t colors;       // [N, coefficients, 3] f32, or [N, 3]
  uint64_t opacities;    // [N] f32
  uint64_t scales;       // [N, 3] f32
  uint64_t rotations;    // [N, 4] f32
  uint64_t y;            // [V, 5, height, width] f32: red, green, blue, alpha, depth
  uint64_t status;       // [4] i64: pairs, faulty splats, the first of them or I, 0. Faulty: not finite, a rotation of length 0, too large
  uint64_t projected;    // bytes[0]: written by k_splat_project
  uint64_t lists;        // bytes[1]: written by k_splat_fwd
  uint64_t scratch;      // bytes[2] of k_splat_fwd, bytes[3] of k_splat_bwd
  uint64_t d_y;          // as y
  uint64_t d_means, d_colors, d_opacities, d_scales, d_rotations;  // as what they are the gradients of; each or 0
} k_splat;

// bytes [4] of projected, lists, scratch of k_splat_fwd, scratch of k_splat_bwd, each at a multiple of 16. Reads sizes alone.
K_API int32_t k_splat_sizes(uint64_t* bytes, const k_splat* problem);

// status and projected, from scenes, cameras and Gaussians.
K_API int32_t k_splat_project(const k_splat* problem, uint64_t stream);

// y and lists, from what k_splat_project was given and wrote.
K_API int32_t k_splat_fwd(const k_splat* problem, uint64_t stream);

// The gradients, from d_y, y, status, projected and lists. Through colour, alpha and depth, the means' part in J, u, v (where they are not
// held) and the direction of view, and |S|; what is skipped or held has none.
K_API int32_t k_splat_bwd(const k_splat* problem, uint64_t stream);
