// The window of SSIM, and what each pixel makes of its five moments; shared by the CPU and CUDA families.
#pragma once
#include <cmath>

#ifdef __CUDACC__
#define K_BOTH __host__ __device__
#else
#define K_BOTH
#endif

constexpr int SSIM_REACH = 5, SSIM_SIDE = 2 * SSIM_REACH + 1;

// exp(-(i - 5)^2 / (2 sigma^2)) with sigma = 1.5, summing to 1.
template <class F>
struct SsimWindow {
  F weight[SSIM_SIDE];
  SsimWindow() {
    double sum = 0, w[SSIM_SIDE];
    for (int i = 0; i < SSIM_SIDE; i++) sum += w[i] = std::exp(-(i - SSIM_REACH) * (i - SSIM_REACH) / 4.5);
    for (int i = 0; i < SSIM_SIDE; i++) weight[i] = F(w[i] / sum);
  }
};

// A pixel's similarity from its means, the sum of its variances and its covariance, and its derivatives after sum w x, sum w x^2, sum w x y.
template <class F>
struct Ssim {
  F map, after_x, after_xx, after_xy;
  K_BOTH Ssim(F mx, F my, F variances, F covariance) {
    const F c1 = F(0.0001), c2 = F(0.0009);
    const F n1 = 2 * mx * my + c1, n2 = 2 * covariance + c2, d1 = mx * mx + my * my + c1, d2 = variances + c2;
    map = n1 / d1 * (n2 / d2);
    after_x = 2 * my * (n2 - n1) / (d1 * d2) + 2 * mx * map * (1 / d2 - 1 / d1);
    after_xx = -map / d2;
    after_xy = 2 * n1 / (d1 * d2);
  }
};
