// library: ops
// Data movement of any dtype, by the size of an element: copies between strided layouts, and rows by an index.
#pragma once
#include "k.h"

// y[sum i_d y_strides[d]] = x[sum i_d x_strides[d]] for every index i below extents: permutations, slices, concatenations, broadcasts (x
// stride 0). Different indices must be different places in y; x and y must not overlap.
//   extents, y_strides, x_strides: rank numbers each on the host, in elements    rank: 0 to 8    element_bytes: 1, 2, 4 or 8
K_API int32_t k_copy_fwd(uint64_t y, uint64_t x, uint64_t* extents, uint64_t* y_strides, uint64_t* x_strides, int32_t rank,
                         int32_t element_bytes, uint64_t stream);

// y[m] = x[index[m]], rows of C elements; an index outside [0, N) gives a row of zeros.
//   y: [M, C]    x: [N, C]    index: [M] i32    element_bytes: 1, 2, 4 or 8
K_API int32_t k_gather_rows_fwd(uint64_t y, uint64_t x, uint64_t index, int64_t M, int64_t N, int64_t C, int32_t element_bytes,
                                uint64_t stream);

// dx[n] = sum of dy[order[j]] over offsets[n] <= j < offsets[n + 1], in this order, in f32: the gradient of k_gather_rows_fwd, with order
// the places of each n in index.
//   dx: [N, C]    dy: [M, C]    offsets: [N + 1] i32    order: [offsets[N]] i32, below M    dtype: f32, f16 or bf16
K_API int32_t k_gather_rows_bwd(uint64_t dx, uint64_t dy, uint64_t offsets, uint64_t order, int64_t N, int64_t C, int32_t dtype,
                                uint64_t stream);
