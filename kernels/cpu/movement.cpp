#include "../include/movement.h"

#include <algorithm>
#include <cstring>

#include "host.hpp"

namespace {
constexpr int64_t PARALLEL = 1 << 16;  // bytes

template <class F>
int32_t with_element(const char* where, int32_t bytes, F run) {
  if (bytes == 1) return run(uint8_t{});
  if (bytes == 2) return run(uint16_t{});
  if (bytes == 4) return run(uint32_t{});
  if (bytes == 8) return run(uint64_t{});
  return fail(K_UNSUPPORTED, where, "element_bytes is %d, it must be 1, 2, 4 or 8", bytes);
}
}  // namespace

int32_t k_copy_fwd(uint64_t y, uint64_t x, uint64_t* extents, uint64_t* y_strides, uint64_t* x_strides, int32_t rank, int32_t element_bytes,
                   uint64_t) {
  if (rank < 0 || rank > 8) return fail(K_BAD_ARGUMENT, "k_copy_fwd", "rank is %d, it must be 0 to 8", rank);
  int64_t n[8], ys[8], xs[8], planes = 1;
  for (int d = 0; d < 8; d++) {  // aligned to the last axis, missing axes in front
    const int from = d - (8 - rank);
    n[d] = from < 0 ? 1 : int64_t(extents[from]);
    ys[d] = from < 0 ? 0 : int64_t(y_strides[from]);
    xs[d] = from < 0 ? 0 : int64_t(x_strides[from]);
  }
  for (int d = 0; d < 6; d++) {  // the fastest axis of x next to the last, for tiles
    if (xs[d] == 1 && xs[7] != 1) std::swap(n[d], n[6]), std::swap(ys[d], ys[6]), std::swap(xs[d], xs[6]);
  }
  for (int d = 0; d < 6; d++) planes *= n[d];
  const int64_t tile = xs[7] == 1 ? n[7] : 16, tiles = n[7] ? (n[7] + tile - 1) / tile : 0;
  return with_element("k_copy_fwd", element_bytes, [&](auto element) {
    using T = decltype(element);
#pragma omp parallel for collapse(2) schedule(static) if (planes * n[6] * n[7] * int64_t(sizeof(T)) > PARALLEL)
    for (int64_t plane = 0; plane < planes; plane++) {
      for (int64_t k = 0; k < tiles; k++) {
        int64_t at_y = 0, at_x = 0, rest = plane;
        for (int d = 5; d >= 0; d--) {
          at_y += rest % n[d] * ys[d];
          at_x += rest % n[d] * xs[d];
          rest /= n[d];
        }
        const int64_t first = k * tile, last = std::min(first + tile, n[7]);
        for (int64_t p = 0; p < n[6]; p++) {
          T* to = at<T>(y) + at_y + p * ys[6];
          const T* from = at<const T>(x) + at_x + p * xs[6];
          if (ys[7] == 1 && xs[7] == 1) std::memcpy(to + first, from + first, (last - first) * sizeof(T));
          else {
            for (int64_t i = first; i < last; i++) to[i * ys[7]] = from[i * xs[7]];
          }
        }
      }
    }
    return int32_t(K_OK);
  });
}

int32_t k_gather_rows_fwd(uint64_t y, uint64_t x, uint64_t index, int64_t M, int64_t N, int64_t C, int32_t element_bytes, uint64_t) {
  if (M < 0 || N < 0 || C < 0) return fail(K_BAD_ARGUMENT, "k_gather_rows_fwd", "M, N or C is negative, it must be at least 0");
  return with_element("k_gather_rows_fwd", element_bytes, [&](auto element) {
    const int64_t bytes = C * int64_t(sizeof element);
#pragma omp parallel for schedule(static) if (M * bytes > PARALLEL)
    for (int64_t m = 0; m < M; m++) {
      const int64_t n = at<const int32_t>(index)[m];
      char* to = at<char>(y) + m * bytes;
      if (n < 0 || n >= N) std::memset(to, 0, bytes);
      else std::memcpy(to, at<const char>(x) + n * bytes, bytes);
    }
    return int32_t(K_OK);
  });
}

int32_t k_gather_rows_bwd(uint64_t dx, uint64_t dy, uint64_t offsets, uint64_t order, int64_t N, int64_t C, int32_t dtype, uint64_t) {
  if (N < 0 || C < 0) return fail(K_BAD_ARGUMENT, "k_gather_rows_bwd", "N or C is negative, it must be at least 0");
  if (int32_t status = expect_f32("k_gather_rows_bwd", dtype)) return status;
  const int32_t *first = at<const int32_t>(offsets), *places = at<const int32_t>(order);
#pragma omp parallel for schedule(static) if (N * C * 4 > PARALLEL)
  for (int64_t n = 0; n < N; n++) {
    float* row = at<float>(dx) + n * C;
    for (int64_t c = 0; c < C; c++) row[c] = 0;
    for (int32_t j = first[n]; j < first[n + 1]; j++) {
      const float* from = at<const float>(dy) + int64_t(places[j]) * C;
      for (int64_t c = 0; c < C; c++) row[c] += from[c];
    }
  }
  return K_OK;
}
