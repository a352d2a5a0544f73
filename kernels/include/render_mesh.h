// library: render
// Rasterization of a textured triangle mesh, many views a call.
#pragma once
#include "k.h"

// Each view draws the mesh on a grid of (S * samples)^2 samples with a depth buffer, shades every covered sample, and averages the
// samples of a pixel. Triangles show both sides. What lies at clip z < 0 is cut away (the near plane); there is no far plane. The nearest
// surface wins; at equal depth the triangle with the lower index.
// A camera is 19 floats: the clip matrix M row by row, then the eye. clip = M (x, y, z, 1), its w must be the distance along the view axis;
// ndc = clip.xy / clip.w, (-1, -1) is the image's top left corner. The eye only decides which side of a triangle is lit.
//   rgba:  [views, S, S, 4] u8, sRGB, straight alpha = covered fraction, 0 0 0 0 where nothing is
//   depth: [views, S, S] f32 or 0: the clip w of the pixel's nearest sample, 0 where nothing is
//   ids:   [views, S, S] i32 or 0: the triangle of that sample, -1 where nothing is
//   positions [V, 3] f32, finite    normals [V, 3] f32 or 0: face normals    uvs [V, 2] f32 or 0    colors [V, 4] f32 linear or 0: white
//   materials [M, 5] f32: base colour r g b a (linear), alpha cutoff: samples of less alpha are holes, <= 0 is opaque
//   texels [*] u32: RGBA8 (sRGB, straight), all images one after another, or 0
//   lights [L + 1, 6] f32: row 0 the ambient light from above (+z) and from below; then a point light a row: position, colour
//   cameras [views, 19] f32    triangles [T, 3] i32, each in [0, V)    material_of [T] i32 or 0: all are material 0
//   images [M, 4] i32: first texel or -1 for none, width, height, wrap (0 repeat, 1 clamp); texel row 0 is at v = 0
// Shading of a sample with unit normal n turned to the eye's side of the triangle, at p:
//   rgb = base * texture(uv) * color * (below + (above - below) * (n.z + 1) / 2 + sum_L light.rgb * max(0, n . normalize(light.xyz - p)))
// S: 1 to 8192 / samples    samples: 1 to 4    workspace: k_render_mesh_fwd_workspace bytes, 16-aligned
K_API int32_t k_render_mesh_fwd(uint64_t rgba, uint64_t depth, uint64_t ids, uint64_t positions, uint64_t normals, uint64_t uvs,
                                uint64_t colors, uint64_t materials, uint64_t texels, uint64_t lights, uint64_t cameras, uint64_t triangles,
                                uint64_t material_of, uint64_t images, uint64_t workspace, int32_t views, int32_t V, int32_t T, int32_t M,
                                int32_t L, int32_t S, int32_t samples, uint64_t stream);

K_API int32_t k_render_mesh_fwd_workspace(uint64_t* bytes, int32_t views, int32_t V, int32_t S, int32_t samples);
