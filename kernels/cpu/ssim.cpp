// SSIM on the CPU: a plane at a time, the window applied along x, then along y, in f64.
#include "../include/ssim.h"

#include <algorithm>
#include <vector>

#include "../include/ssim_window.hpp"
#include "host.hpp"

namespace {
int32_t check(const char* where, int32_t B, int32_t H, int32_t W, int32_t C) {
  if (B < 0 || H < 0 || W < 0 || C < 0) {
    return fail(K_BAD_ARGUMENT, where, "B = %d, H = %d, W = %d, C = %d, they must be >= 0", B, H, W, C);
  }
  return K_OK;
}

using Plane = std::vector<double>;

// The windowed sum of values(pixel), [H, W].
template <class F>
Plane blur(int64_t H, int64_t W, F values) {
  const SsimWindow<double> window;
  Plane across(H * W), out(H * W);
  for (int64_t h = 0; h < H; h++) {
    for (int64_t w = 0; w < W; w++) {
      double sum = 0;
      for (int64_t k = std::max<int64_t>(0, w - SSIM_REACH); k <= std::min(W - 1, w + SSIM_REACH); k++) {
        sum += window.weight[k - w + SSIM_REACH] * values(h * W + k);
      }
      across[h * W + w] = sum;
    }
  }
  for (int64_t h = 0; h < H; h++) {
    for (int64_t k = std::max<int64_t>(0, h - SSIM_REACH); k <= std::min(H - 1, h + SSIM_REACH); k++) {
      const double weight = window.weight[k - h + SSIM_REACH];
      for (int64_t w = 0; w < W; w++) out[h * W + w] += weight * across[k * W + w];
    }
  }
  return out;
}
}  // namespace

int32_t k_ssim_fwd(uint64_t map, uint64_t partials, uint64_t x, uint64_t y, int32_t B, int32_t H, int32_t W, int32_t C, uint64_t) {
  if (const int32_t status = check("k_ssim_fwd", B, H, W, C)) return status;
  const int64_t area = int64_t(H) * W, all = B * area * C;
#pragma omp parallel for
  for (int64_t plane = 0; plane < int64_t(B) * C; plane++) {
    const int64_t first = plane / C * area * C + plane % C;
    const auto of = [&](uint64_t image, int64_t i) { return double(at<const float>(image)[first + i * C]); };
    const Plane moments[5] = {
        blur(H, W, [&](int64_t i) { return of(x, i); }),
        blur(H, W, [&](int64_t i) { return of(y, i); }),
        blur(H, W, [&](int64_t i) { return of(x, i) * of(x, i); }),
        blur(H, W, [&](int64_t i) { return of(y, i) * of(y, i); }),
        blur(H, W, [&](int64_t i) { return of(x, i) * of(y, i); }),
    };
    for (int64_t i = 0; i < area; i++) {
      const double mx = moments[0][i], my = moments[1][i];
      const Ssim<double> s(mx, my, moments[2][i] - mx * mx + moments[3][i] - my * my, moments[4][i] - mx * my);
      const int64_t to = first + i * C;
      at<float>(map)[to] = float(s.map);
      if (!partials) continue;
      float* p = at<float>(partials);
      p[to] = float(s.after_x), p[all + to] = float(s.after_xx), p[2 * all + to] = float(s.after_xy);
    }
  }
  return K_OK;
}

int32_t k_ssim_bwd(uint64_t dx, uint64_t dmap, uint64_t partials, uint64_t x, uint64_t y, int32_t B, int32_t H, int32_t W, int32_t C,
                   uint64_t) {
  if (const int32_t status = check("k_ssim_bwd", B, H, W, C)) return status;
  const int64_t area = int64_t(H) * W, all = B * area * C;
#pragma omp parallel for
  for (int64_t plane = 0; plane < int64_t(B) * C; plane++) {
    const int64_t first = plane / C * area * C + plane % C;
    const auto term = [&](int k) {
      return blur(H, W, [&](int64_t i) {
        const int64_t from = first + i * C;
        return double(at<const float>(dmap)[from]) * at<const float>(partials)[k * all + from];
      });
    };
    const Plane a = term(0), b = term(1), c = term(2);
    for (int64_t i = 0; i < area; i++) {
      const int64_t to = first + i * C;
      at<float>(dx)[to] = float(a[i] + 2 * at<const float>(x)[to] * b[i] + at<const float>(y)[to] * c[i]);
    }
  }
  return K_OK;
}
