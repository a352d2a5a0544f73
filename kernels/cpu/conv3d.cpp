// Dense convolution by blocks of cells: the windows of a block are copied side by side (K = taps * C numbers a cell) and multiplied with
// the weights by Eigen. Blocks and their order are fixed by the sizes alone, so the sums do not depend on the number of threads.
#include "../include/conv3d.h"

#include <omp.h>

#include <algorithm>

#include "eigen.hpp"
#include "host.hpp"

#include "../include/conv3d_sizes.hpp"

namespace {
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<Matrix>;
using ConstRows = Eigen::Map<const Matrix>;

// A volume [B, size, C] seen through windows of kernel^3 taps that stand on the cells of a grid [B, grid].
struct Windows {
  const float* x;
  const int64_t *size, *grid;
  int64_t C;
  int kernel, stride, padding;
  int64_t line() const { return kernel * C; }
  int64_t K() const { return kernel * kernel * line(); }

  // to [count, lines, kernel, C] = the lines from `line0` on of the windows of the cells from `first` on
  void copy(float* to, int64_t first, int64_t count, int line0, int lines) const {
    for (int64_t cell = first; cell < first + count; cell++) {
      const int64_t l = cell % grid[2], j = cell / grid[2] % grid[1], bi = cell / grid[2] / grid[1], b = bi / grid[0], i = bi % grid[0];
      const int64_t z = l * stride - padding, low = std::max<int64_t>(0, -z) * C, high = std::min<int64_t>(kernel, size[2] - z) * C;
      for (int t = line0; t < line0 + lines; t++, to += line()) {
        const int64_t X = i * stride - padding + t / kernel, Y = j * stride - padding + t % kernel;
        const bool inside = X >= 0 && X < size[0] && Y >= 0 && Y < size[1];
        const float* from = x + (((b * size[0] + X) * size[1] + Y) * size[2] + z) * C;
        for (int64_t k = 0; k < line(); k++) to[k] = inside && k >= low && k < high ? from[k] : 0;
      }
    }
  }
};

int64_t block_cells(int64_t K) { return std::clamp<int64_t>(131072 / K / 16 * 16, 64, 512); }

// y [cells, N] = windows [cells, K] w^T [K, N] + bias
void multiply(float* y, const Windows& windows, const float* w, const float* bias, int64_t N, int64_t cells, float* scratch) {
  const int64_t K = windows.K(), rows = block_cells(K), blocks = (cells + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * rows, count = std::min(rows, cells - first);
    float* const window = scratch + omp_get_thread_num() * rows * K;
    windows.copy(window, first, count, 0, windows.kernel * windows.kernel);
    Rows tile(y + first * N, count, N);
    tile.noalias() = ConstRows(window, count, K) * ConstRows(w, N, K).transpose();
    if (bias) tile.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(bias, N);
  }
}

// to [Cout, taps, Cin] = w [Cout, Cin, taps], or with `mirror` to [Cin, taps, Cout] with the taps in the opposite order
void pack(float* to, const float* w, const Conv3dSizes& s, bool mirror) {
  const int64_t rows = mirror ? s.Cin : s.Cout, columns = mirror ? s.Cout : s.Cin;
#pragma omp parallel for
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t t = 0; t < s.taps; t++) {
      for (int64_t c = 0; c < columns; c++) {
        to[(r * s.taps + t) * columns + c] = mirror ? w[(c * s.Cin + r) * s.taps + s.taps - 1 - t] : w[(r * s.Cin + c) * s.taps + t];
      }
    }
  }
}

// How the sum over the cells of y is cut for the weight gradient: runs of cells whose sums are added in order, and groups of window lines.
struct Parts {
  int64_t cells, count;
  int groups, lines;
  explicit Parts(const Conv3dSizes& s) {
    const int64_t weights = s.taps * s.Cin * s.Cout, most = std::clamp<int64_t>((int64_t(16) << 20) / weights, 1, 16);
    cells = std::max<int64_t>(2048, (s.cells_out + most - 1) / most);
    count = (s.cells_out + cells - 1) / cells;
    groups = weights > (1 << 18) ? s.kernel * s.kernel : 1;
    lines = s.kernel * s.kernel / groups;
  }
};

int32_t workspace(uint64_t* bytes, int64_t floats) {
  *bytes = uint64_t(floats) * sizeof(float);
  return K_OK;
}
}  // namespace

int32_t k_conv3d_fwd_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout, int32_t kernel,
                               int32_t stride, int32_t padding, int32_t) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_fwd_workspace", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  const int64_t K = s.taps * Cin;
  return workspace(bytes, K * Cout + omp_get_max_threads() * block_cells(K) * K);
}

int32_t k_conv3d_fwd(uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z,
                     int32_t Cin, int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, int32_t weight_dtype,
                     int32_t bias_dtype, uint64_t) {
  Conv3dSizes s;
  if (int32_t status = expect_f32("k_conv3d_fwd", dtype | weight_dtype | bias_dtype)) return status;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_fwd", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  float* const packed = at<float>(scratch);
  pack(packed, at<const float>(w), s, false);
  const Windows windows{at<const float>(x), s.in, s.out, s.Cin, kernel, stride, padding};
  multiply(at<float>(y), windows, packed, at<const float>(bias), s.Cout, s.cells_out, packed + s.taps * s.Cin * s.Cout);
  return K_OK;
}

int32_t k_conv3d_bwd_input_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout, int32_t kernel,
                                     int32_t stride, int32_t padding, int32_t) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_bwd_input_workspace", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  const int64_t K = s.taps * (s.overlaps() ? Cout : Cin);
  return workspace(bytes, s.taps * Cin * Cout + omp_get_max_threads() * block_cells(K) * K);
}

int32_t k_conv3d_bwd_input(uint64_t dx, uint64_t dy, uint64_t w, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin,
                           int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, int32_t weight_dtype, uint64_t) {
  Conv3dSizes s;
  if (int32_t status = expect_f32("k_conv3d_bwd_input", dtype | weight_dtype)) return status;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_bwd_input", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  float *const packed = at<float>(scratch), *const spare = packed + s.taps * s.Cin * s.Cout;
  pack(packed, at<const float>(w), s, s.overlaps());
  if (s.overlaps()) {  // a convolution of dy with the mirrored window
    const Windows windows{at<const float>(dy), s.out, s.in, s.Cout, kernel, 1, kernel - 1 - padding};
    multiply(at<float>(dx), windows, packed, nullptr, s.Cin, s.cells_in, spare);
    return K_OK;
  }
  std::fill_n(at<float>(dx), s.cells_in * s.Cin, 0.f);  // cells past the last window stay 0
  const int64_t line = kernel * s.Cin, K = s.taps * s.Cin, rows = block_cells(K), blocks = (s.cells_out + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * rows, count = std::min(rows, s.cells_out - first);
    float* window = spare + omp_get_thread_num() * rows * K;
    Rows(window, count, K).noalias() = ConstRows(at<const float>(dy) + first * s.Cout, count, s.Cout) * ConstRows(packed, s.Cout, K);
    for (int64_t cell = first; cell < first + count; cell++) {
      const int64_t l = cell % s.out[2], j = cell / s.out[2] % s.out[1], bi = cell / s.out[2] / s.out[1], b = bi / s.out[0],
                    i = bi % s.out[0];
      for (int t = 0; t < kernel * kernel; t++, window += line) {
        const int64_t row = (b * s.in[0] + i * kernel + t / kernel) * s.in[1] + j * kernel + t % kernel;
        std::copy(window, window + line, at<float>(dx) + (row * s.in[2] + l * kernel) * s.Cin);
      }
    }
  }
  return K_OK;
}

int32_t k_conv3d_bwd_weight_workspace(uint64_t* bytes, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout,
                                      int32_t kernel, int32_t stride, int32_t padding, int32_t) {
  Conv3dSizes s;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_bwd_weight_workspace", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  const Parts parts(s);
  const int64_t K = s.taps * Cin, part = K / parts.groups;
  return workspace(bytes, parts.count * Cout * K + omp_get_max_threads() * block_cells(part) * part);
}

int32_t k_conv3d_bwd_weight(uint64_t dw, uint64_t dy, uint64_t x, uint64_t scratch, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin,
                            int32_t Cout, int32_t kernel, int32_t stride, int32_t padding, int32_t dtype, uint64_t) {
  Conv3dSizes s;
  if (int32_t status = expect_f32("k_conv3d_bwd_weight", dtype)) return status;
  if (int32_t status = conv3d_sizes(s, "k_conv3d_bwd_weight", B, X, Y, Z, Cin, Cout, kernel, stride, padding)) return status;
  const float* const rows = at<const float>(dy);
  const Windows windows{at<const float>(x), s.in, s.out, s.Cin, kernel, stride, padding};
  const Parts parts(s);
  const int64_t K = windows.K(), columns = parts.lines * windows.line(), step = block_cells(columns);
  float *const partial = at<float>(scratch), *const spare = partial + parts.count * s.Cout * K;  // partial [parts, Cout, taps, Cin]
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < parts.count * parts.groups; task++) {
    const int64_t part = task / parts.groups, group = task % parts.groups, end = std::min(s.cells_out, (part + 1) * parts.cells);
    float* const window = spare + omp_get_thread_num() * step * columns;
    Eigen::Map<Matrix, 0, Eigen::OuterStride<>> sum(partial + part * s.Cout * K + group * columns, s.Cout, columns,
                                                    Eigen::OuterStride<>(K));
    sum.setZero();
    for (int64_t first = part * parts.cells; first < end; first += step) {
      const int64_t count = std::min(step, end - first);
      windows.copy(window, first, count, int(group) * parts.lines, parts.lines);
      sum.noalias() += ConstRows(rows + first * s.Cout, count, s.Cout).transpose() * ConstRows(window, count, columns);
    }
  }
#pragma omp parallel for
  for (int64_t o = 0; o < s.Cout; o++) {
    for (int64_t i = 0; i < s.Cin; i++) {
      for (int64_t t = 0; t < s.taps; t++) {
        double sum = 0;
        for (int64_t part = 0; part < parts.count; part++) sum += partial[(part * s.Cout + o) * K + t * s.Cin + i];
        at<float>(dw)[(o * s.Cin + i) * s.taps + t] = float(sum);
      }
    }
  }
  return K_OK;
}
