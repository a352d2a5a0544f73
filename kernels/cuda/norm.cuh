// What the kernels of layer norms are given.
#pragma once
#include "sums.cuh"
#include "../include/norm_check.hpp"

namespace {
// y = xhat * (one + w) + s: w and s are [C] f32 with stride 0 and one 0, or the scale and shift of samples with one 1; either may be absent.
template <class T, class W>
struct Norm {
  T *sum, *y, *dx, *dh;
  float *mean, *rstd, *partial;
  const T *x, *h, *gate, *dy, *dsum;
  const W *w, *s;
  int64_t stride, gate_stride;
  Samples samples;
  int C;
  float one, eps;
  bool bias;  // whether the column sums of dh, or of dx without a gate, are wanted
};
}  // namespace
