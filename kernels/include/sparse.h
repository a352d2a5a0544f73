// library: spconv
// Work on the coordinates of sparse tensors, and resampling. Coordinates: [N, 4] i32 rows of batch in [0, B) and x, y, z in [0, side),
// side <= 1024. Where the device alone knows how many rows there are, buffers have a bound and the number is left in an i32 on the device.
//   scratch: as many bytes as the _workspace says, aligned to 16
#pragma once
#include "k.h"

// The most rows that k_sparse_strided_coords can give: N times the places that one row can reach, at most all places.
K_API int32_t k_sparse_strided_rows(uint64_t* rows, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding);

K_API int32_t k_sparse_strided_coords_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride,
                                                int32_t padding);

// The places q of a strided convolution's result: those in [0, side') with side' = (side + 2 padding - kernel) / stride + 1, rounded down,
// for which some tap t in [0, kernel)^3 has a coordinate q * stride + t - padding; each once, in the order of (batch, x, y, z). Coarse
// cells of a downsampling by f, coordinate / f, are kernel = stride = f, padding 0, side a multiple of f.
//   out: [k_sparse_strided_rows, 4] i32, -1 from `count` on    count: [1] i32
//   parent: [N] i32, the row of `out` that each coordinate is in, -1 for none; kernel = stride alone, else 0
//   coordinates outside of [0, side) or [0, B) are left out    kernel, stride: 1 to 5, stride <= kernel    padding: 0 to kernel - 1
K_API int32_t k_sparse_strided_coords(uint64_t out, uint64_t count, uint64_t parent, uint64_t coords, uint64_t scratch, int32_t N,
                                      int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding, uint64_t stream);

// out[8 n + m] = (batch, 2 x + m / 4, 2 y + m / 2 % 2, 2 z + m % 2) of row n.    out: [8 N, 4] i32
K_API int32_t k_sparse_subdivide_coords(uint64_t out, uint64_t coords, int32_t N, uint64_t stream);

// y[m, c] = sum over t with children[m, t] >= 0 of x[children[m, t], c] / d, where there are n such t, in the order of t, and
//   mode 0: d = 1    mode 1: d = n, the mean (0 where n = 0)    mode 2: d = n + 1, as SparseDownsample has it
// The sum is f32, rounded once. mode 0 is the gradient of an upsampling by `parent`.
//   y: [M, C]    x: [N, C]    taps: 1 to 125
//   children: [M, taps] i32, k_spconv_table to the coarse places with kernel = stride, padding 0
K_API int32_t k_sparse_pool_fwd(uint64_t y, uint64_t x, uint64_t children, int32_t M, int32_t N, int32_t C, int32_t taps, int32_t mode,
                                int32_t dtype, uint64_t stream);

// dx[n, c] = dy[parent[n], c] / d with d of the row parent[n], 0 where parent[n] is -1. mode 0 is nearest-neighbour upsampling.
//   dx: [N, C]    dy: [M, C]    parent: [N] i32, below M    children: as above, 0 with mode 0
K_API int32_t k_sparse_pool_bwd(uint64_t dx, uint64_t dy, uint64_t parent, uint64_t children, int32_t M, int32_t N, int32_t C, int32_t taps,
                                int32_t mode, int32_t dtype, uint64_t stream);

// keys[n] = the number of the window that coordinate n is in: batch, (x + shift) / window, (y + shift) / window, (z + shift) / window, the
// later ones in `bits` bits each; the order of keys is that of the windows' linear numbers.
//   keys: [N] i64    bits: 1 to 11, (side - 1 + shift) / window < 2^bits    shift >= 0    window >= 1
K_API int32_t k_sparse_window_keys(uint64_t keys, uint64_t coords, int32_t N, int32_t window, int32_t shift, int32_t bits, uint64_t stream);

// keys[n] = batch * 2^30 + the code of (x + shift, y + shift, z + shift), each below 1024.
//   curve 0: Z-order, bit k of x, y, z at bits 3k + 2, 3k + 1, 3k    1: Hilbert (Skilling 2004, from 2^9 down)
//   curve 2, 3: the same with x and y exchanged    keys: [N] i64
K_API int32_t k_sparse_curve_keys(uint64_t keys, uint64_t coords, int32_t N, int32_t curve, int32_t shift, uint64_t stream);

K_API int32_t k_sparse_argsort_workspace(uint64_t* bytes, int32_t N);

// order = the rows by ascending key, equal keys in their own order; order[inverse[n]] = n.
//   order, inverse: [N] i32, inverse may be 0    keys: [N] i64, in [0, 2^bits)    bits: 0 to 63
K_API int32_t k_sparse_argsort(uint64_t order, uint64_t inverse, uint64_t keys, uint64_t scratch, int32_t N, int32_t bits, uint64_t stream);

K_API int32_t k_sparse_segments_workspace(uint64_t* bytes, int32_t N);

// Where the runs of equal keys lie in `order`: run s is order[offsets[s] .. offsets[s + 1]).
//   offsets: [N + 1] i32, ascending; N from offsets[count] on, so that the runs past the last are empty    count: [1] i32, how many runs
K_API int32_t k_sparse_segments(uint64_t offsets, uint64_t count, uint64_t keys, uint64_t order, uint64_t scratch, int32_t N,
                                uint64_t stream);
