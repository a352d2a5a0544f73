// library: spconv
// Sparse convolution. A table says which rows meet: table[r, t] is the row of x that tap t of row r of y reads, -1 for none, and
//   y[r, o] = bias[o] + sum over taps t with table[r, t] >= 0 and channels i of w[o, t, i] x[table[r, t], i]
// A submanifold, a strided and an inverse (transposed) convolution differ in their table alone. Tables come from coordinates: [N, 4] i32
// rows of batch in [0, B) and x, y, z in [0, side), side <= 1024, in any order. Tap t of a kernel of side k is (t / k^2, t / k % k, t % k)
// along x, y, z; K = k^3. Nothing waits for the device.
//
//   x: [N, Cin] dtype    y: [rows, Cout] dtype    w: [Cout, K, Cin] weight_dtype    weight_dtype, bias_dtype: f32 or dtype
//   kernel: 1 to 5    K: 1 to 125    rows * K, N: at most 2^31 - 1    scratch: as many bytes as the _workspace says, aligned to 16
#pragma once
#include "k.h"

K_API int32_t k_spconv_table_workspace(uint64_t* bytes, int32_t rows, int32_t N, int32_t B, int32_t side);

// table[r, t] = the row of `from` with the same batch as to[r] at
//   to[r] * stride + t - padding                          (transposed = 0: convolution from `from` to `to`), or at
//   the q for which q * stride + t - padding = to[r]      (transposed = 1: its inverse, and its gradient's table), -1 where there is none.
// Submanifold: to = from, stride 1, padding (kernel - 1) / 2; its transposed table is its own with the taps in the opposite order. A row of
// `to` with a batch outside of [0, B) gets -1. Of rows of `from` at one place the first stands for it; rows of `from` outside are left out.
//   table: [rows, kernel^3] i32, aligned to 16    taps: [rows, ceil(kernel^3 / 32)] i32, bit t of a row's words = table[r, t] >= 0
//   to: [rows, 4] i32    from: [N, 4] i32, within B and side    stride: 1 to 5    padding: 0 to kernel - 1
//   faults: [3] i32 = rows of `from` that are outside; that repeat a place; that have a smaller batch than the row before. 0 where all is
//   well
K_API int32_t k_spconv_table(uint64_t table, uint64_t taps, uint64_t faults, uint64_t to, uint64_t from, uint64_t scratch, int32_t rows,
                             int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding, int32_t transposed,
                             uint64_t stream);

K_API int32_t k_spconv_plan_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t parts);

// How k_spconv_fwd and k_spconv_bwd_input walk a table: rows with the same taps stand together, so that whole tiles can leave taps out. The
// taps can be walked in `parts`, K / parts consecutive ones each, for which the rows stand in an order of their own: fewer rows of a tile then
// lack a tap that others have, but the parts' sums are added in a pass of their own.
//   order: [parts, rows] i32, the rows in the order of the part's taps, equal ones in their own order
//   masks: [parts, ceil(rows / 64), ceil(K / 32)] i32, bit t = tap t, of this part, is present in one of the tile's 64 rows of `order`
//   taps: of the table    parts: a divisor of K    group: rows are only put in order within runs of this many; a multiple of 64, 0 for all
K_API int32_t k_spconv_plan(uint64_t order, uint64_t masks, uint64_t taps, uint64_t scratch, int32_t rows, int32_t K, int32_t parts,
                            int32_t group, uint64_t stream);

K_API int32_t k_spconv_pairs_workspace(uint64_t* bytes, int32_t rows, int32_t K);

// The entries of a table by tap, what k_spconv_bwd_weight walks: tap t has pairs[0, j] = r and pairs[1, j] = table[r, t] >= 0 for
// offsets[t] <= j < offsets[t + 1], with r ascending. Places from offsets[K] on are not written.
//   pairs: [2, rows * K] i32    offsets: [K + 1] i32
K_API int32_t k_spconv_pairs(uint64_t pairs, uint64_t offsets, uint64_t table, uint64_t taps, uint64_t scratch, int32_t rows, int32_t K,
                             uint64_t stream);

K_API int32_t k_spconv_fwd_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t dtype);

// The formula above.
//   bias: [Cout] bias_dtype, or 0 for none    order, masks: of this table, in `parts`
K_API int32_t k_spconv_fwd(uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t table, uint64_t order, uint64_t masks,
                           uint64_t scratch, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t dtype,
                           int32_t weight_dtype, int32_t bias_dtype, uint64_t stream);

K_API int32_t k_spconv_bwd_input_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts,
                                           int32_t dtype);

// dx[n, i] = sum over taps t with table[n, t] >= 0 and channels o of w[o, t, i] dy[table[n, t], o], where `table` is the transposed one;
// with mirror = 1 the weight of tap K - 1 - t is taken, and a submanifold convolution's own table, order and masks serve.
//   dx: [rows, Cin] dtype    dy: as y
K_API int32_t k_spconv_bwd_input(uint64_t dx, uint64_t dy, uint64_t w, uint64_t table, uint64_t order, uint64_t masks, uint64_t scratch,
                                 int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t mirror, int32_t dtype,
                                 int32_t weight_dtype, uint64_t stream);

K_API int32_t k_spconv_bwd_weight_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t dtype);

// dw[o, t, i] = sum over the pairs (r, n) of tap t of dy[r, o] x[n, i]    (the gradient of bias is the sum of dy: k_sum_fwd)
//   dw: [Cout, K, Cin] f32    dy: [rows, Cout]    pairs, offsets: k_spconv_pairs of the forward pass's table of `rows` rows
K_API int32_t k_spconv_bwd_weight(uint64_t dw, uint64_t dy, uint64_t x, uint64_t pairs, uint64_t offsets, uint64_t scratch, int32_t rows,
                                  int32_t K, int32_t Cin, int32_t Cout, int32_t dtype, uint64_t stream);
