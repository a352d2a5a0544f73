// Coordinates and resampling of sparse tensors: the definition.
#include "../include/sparse.h"

#include "coordinates_index.hpp"

using namespace sparse;

int32_t k_sparse_strided_rows(uint64_t* rows, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding) {
  return check_strided("k_sparse_strided_rows", rows, N, B, side, kernel, stride, padding);
}

int32_t k_sparse_strided_coords_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride,
                                          int32_t padding) {
  const int64_t each = (kernel + stride - 1) / std::max(stride, 1);
  *bytes = sizeof(int64_t) * uint64_t(each * each * each * N);
  uint64_t rows;
  return check_strided("k_sparse_strided_coords_workspace", &rows, N, B, side, kernel, stride, padding);
}

int32_t k_sparse_strided_coords(uint64_t out, uint64_t count, uint64_t parent, uint64_t coords, uint64_t scratch, int32_t N, int32_t B,
                                int32_t side, int32_t kernel, int32_t stride, int32_t padding, uint64_t) {
  uint64_t bound;
  if (int32_t status = check_strided("k_sparse_strided_coords", &bound, N, B, side, kernel, stride, padding)) return status;
  if (parent && kernel != stride) return fail(K_BAD_ARGUMENT, "k_sparse_strided_coords", "parent must be 0 where kernel is not stride");
  const int most = strided_side(side, kernel, stride, padding);
  int64_t *const keys = at<int64_t>(scratch), *end = keys;
  const auto visit = [&](const Place& p, auto found) {
    if (!p.inside(B, side)) return;
    for (int t = 0; t < kernel * kernel * kernel; t++) {
      const Place q{p.batch, reads(p.x, t / (kernel * kernel), stride, padding, true),
                    reads(p.y, t / kernel % kernel, stride, padding, true), reads(p.z, t % kernel, stride, padding, true)};
      if (q.inside(B, most)) found(key_of(q));
    }
  };
  for (int64_t n = 0; n < N; n++) visit(at<const Place>(coords)[n], [&](int64_t key) { *end++ = key; });
  std::sort(keys, end);
  end = std::unique(keys, end);
  Place* const to = at<Place>(out);
  for (int64_t r = 0; r < int64_t(bound); r++) {
    const int64_t key = r < end - keys ? keys[r] : 0;
    to[r] = r < end - keys ? Place{int(key >> 30), int(key >> 20 & 1023), int(key >> 10 & 1023), int(key & 1023)} : Place{-1, -1, -1, -1};
  }
  *at<int32_t>(count) = int32_t(end - keys);
  for (int64_t n = 0; parent && n < N; n++) {
    at<int32_t>(parent)[n] = -1;
    visit(at<const Place>(coords)[n], [&](int64_t key) { at<int32_t>(parent)[n] = int32_t(std::lower_bound(keys, end, key) - keys); });
  }
  return K_OK;
}

int32_t k_sparse_subdivide_coords(uint64_t out, uint64_t coords, int32_t N, uint64_t) {
  if (N < 0 || N > INT32_MAX / 8) return fail(K_BAD_ARGUMENT, "k_sparse_subdivide_coords", "N is %d, it must be 0 to 2^28 - 1", N);
#pragma omp parallel for
  for (int64_t i = 0; i < 8 * int64_t(N); i++) {
    const Place p = at<const Place>(coords)[i / 8];
    at<Place>(out)[i] = {p.batch, 2 * p.x + int(i / 4 % 2), 2 * p.y + int(i / 2 % 2), 2 * p.z + int(i % 2)};
  }
  return K_OK;
}

namespace {
int32_t check_pool(const char* where, int32_t M, int32_t N, int32_t C, int32_t taps, int32_t mode, int32_t dtype) {
  if (int32_t status = expect_f32(where, dtype)) return status;
  if (M < 0 || N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "M = %d, N = %d, C = %d, C must be > 0 and the others >= 0", M, N, C);
  if (taps < 1 || taps > 125) return fail(K_BAD_ARGUMENT, where, "taps is %d, it must be 1 to 125", taps);
  return mode < 0 || mode > 2 ? fail(K_BAD_ARGUMENT, where, "mode is %d, it must be 0, 1 or 2", mode) : K_OK;
}

float divisor(const int32_t* children, int taps, int mode) {
  if (mode == 0) return 1;
  int n = mode - 1;
  for (int t = 0; t < taps; t++) n += children[t] >= 0;
  return float(std::max(n, 1));
}
}  // namespace

int32_t k_sparse_pool_fwd(uint64_t y, uint64_t x, uint64_t children, int32_t M, int32_t N, int32_t C, int32_t taps, int32_t mode,
                          int32_t dtype, uint64_t) {
  if (int32_t status = check_pool("k_sparse_pool_fwd", M, N, C, taps, mode, dtype)) return status;
#pragma omp parallel for
  for (int64_t m = 0; m < M; m++) {
    const int32_t* const rows = at<const int32_t>(children) + m * taps;
    const float by = divisor(rows, taps, mode);
    for (int64_t c = 0; c < C; c++) {
      double sum = 0;
      for (int t = 0; t < taps; t++) sum += rows[t] >= 0 ? at<const float>(x)[int64_t(rows[t]) * C + c] : 0;
      at<float>(y)[m * C + c] = float(sum / by);
    }
  }
  return K_OK;
}

int32_t k_sparse_pool_bwd(uint64_t dx, uint64_t dy, uint64_t parent, uint64_t children, int32_t M, int32_t N, int32_t C, int32_t taps,
                          int32_t mode, int32_t dtype, uint64_t) {
  if (int32_t status = check_pool("k_sparse_pool_bwd", M, N, C, taps, mode, dtype)) return status;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const int64_t m = at<const int32_t>(parent)[n];
    const float by = m < 0 ? 1 : divisor(at<const int32_t>(children) + m * taps, taps, mode);
    for (int64_t c = 0; c < C; c++) at<float>(dx)[n * C + c] = m < 0 ? 0 : at<const float>(dy)[m * C + c] / by;
  }
  return K_OK;
}

int32_t k_sparse_window_keys(uint64_t keys, uint64_t coords, int32_t N, int32_t window, int32_t shift, int32_t bits, uint64_t) {
  if (N < 0 || window < 1 || shift < 0 || bits < 1 || bits > 11) {
    return fail(K_BAD_ARGUMENT, "k_sparse_window_keys",
                "N, window, shift, bits are %d, %d, %d, %d: N and shift must be >= 0, window >= 1, bits 1 to 11", N, window, shift, bits);
  }
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const Place p = at<const Place>(coords)[n];
    int64_t key = p.batch;
    for (int v : {p.x, p.y, p.z}) key = key << bits | (v + shift) / window;
    at<int64_t>(keys)[n] = key;
  }
  return K_OK;
}

int32_t k_sparse_curve_keys(uint64_t keys, uint64_t coords, int32_t N, int32_t curve, int32_t shift, uint64_t) {
  if (N < 0 || curve < 0 || curve > 3 || shift < 0) {
    return fail(K_BAD_ARGUMENT, "k_sparse_curve_keys", "N, curve, shift are %d, %d, %d: N and shift must be >= 0, curve 0 to 3", N, curve,
                shift);
  }
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const Place p = at<const Place>(coords)[n];
    at<int64_t>(keys)[n] = int64_t(p.batch) << 30 | curve_code(curve, p.x + shift, p.y + shift, p.z + shift);
  }
  return K_OK;
}

int32_t k_sparse_argsort_workspace(uint64_t* bytes, int32_t N) {
  *bytes = sizeof(Entry) * uint64_t(std::max(N, 0));
  return N < 0 ? fail(K_BAD_ARGUMENT, "k_sparse_argsort_workspace", "N is %d, it must be >= 0", N) : K_OK;
}

int32_t k_sparse_argsort(uint64_t order, uint64_t inverse, uint64_t keys, uint64_t scratch, int32_t N, int32_t bits, uint64_t) {
  if (N < 0 || bits < 0 || bits > 63)
    return fail(K_BAD_ARGUMENT, "k_sparse_argsort", "N = %d, bits = %d, it must be >= 0 and 0 to 63", N, bits);
  Entry* const entries = at<Entry>(scratch);
  for (int32_t n = 0; n < N; n++) entries[n] = {at<const int64_t>(keys)[n], n};
  std::sort(entries, entries + N);
  for (int32_t i = 0; i < N; i++) {
    at<int32_t>(order)[i] = entries[i].row;
    if (inverse) at<int32_t>(inverse)[entries[i].row] = i;
  }
  return K_OK;
}

int32_t k_sparse_segments_workspace(uint64_t* bytes, int32_t N) {
  *bytes = 0;
  return N < 0 ? fail(K_BAD_ARGUMENT, "k_sparse_segments_workspace", "N is %d, it must be >= 0", N) : K_OK;
}

int32_t k_sparse_segments(uint64_t offsets, uint64_t count, uint64_t keys, uint64_t order, uint64_t, int32_t N, uint64_t) {
  if (N < 0) return fail(K_BAD_ARGUMENT, "k_sparse_segments", "N is %d, it must be >= 0", N);
  const int64_t* const key = at<const int64_t>(keys);
  const int32_t* const rows = at<const int32_t>(order);
  int32_t* const first = at<int32_t>(offsets);
  int32_t runs = 0;
  for (int32_t i = 0; i < N; i++) {
    if (i == 0 || key[rows[i]] != key[rows[i - 1]]) first[runs++] = i;
  }
  std::fill(first + runs, first + N + 1, N);
  *at<int32_t>(count) = runs;
  return K_OK;
}
