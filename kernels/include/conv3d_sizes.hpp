// The sizes of one dense convolution, checked the same way on every device. The including file has fail().
#pragma once
#include <stdint.h>

struct Conv3dSizes {
  int64_t B, in[3], out[3], Cin, Cout, taps, cells_in, cells_out;  // cells: B times the product of the extents
  int kernel, stride, padding;
  bool empty() const { return cells_in == 0 || cells_out == 0; }
  bool overlaps() const { return stride == 1; }  // else each cell of x lies in one window at most
};

// Fills `s`; a status other than K_OK says what is wrong.
inline int32_t conv3d_sizes(Conv3dSizes& s, const char* where, int32_t B, int32_t X, int32_t Y, int32_t Z, int32_t Cin, int32_t Cout,
                            int32_t kernel, int32_t stride, int32_t padding) {
  if (B < 0 || X < 0 || Y < 0 || Z < 0) {
    return fail(K_BAD_ARGUMENT, where, "x is [%d, %d, %d, %d, C], its extents must be >= 0", B, X, Y, Z);
  }
  if (Cin < 1 || Cout < 1 || Cin > 65535 || Cout > 65535 || int64_t(Cin) * Cout > INT32_MAX / 27) {
    return fail(K_BAD_ARGUMENT, where, "Cin = %d and Cout = %d, they must be 1 to 65535 and their product at most 2^31 / 27", Cin, Cout);
  }
  if (kernel < 1 || kernel > 3) return fail(K_UNSUPPORTED, where, "kernel = %d, it must be 1, 2 or 3", kernel);
  const bool apart = stride == kernel && padding == 0, dense = stride == 1 && padding >= 0 && padding < kernel;
  if (!apart && !dense) {
    return fail(K_UNSUPPORTED, where,
                "kernel, stride, padding are %d, %d, %d: it must be stride 1, padding < kernel or stride = kernel, padding 0",
                kernel, stride, padding);
  }
  s = {B, {X, Y, Z}, {}, Cin, Cout, int64_t(kernel) * kernel * kernel, B, B, kernel, stride, padding};
  for (int a = 0; a < 3; a++) {
    const int64_t span = s.in[a] + 2 * padding - kernel;
    s.out[a] = span < 0 ? 0 : span / stride + 1;
    if (s.cells_in > INT32_MAX / (s.in[a] + 1) || s.cells_out > INT32_MAX / (s.out[a] + 1)) {
      return fail(K_UNSUPPORTED, where, "x is [%d, %d, %d, %d, C], its cells must be fewer than 2^31", B, X, Y, Z);
    }
    s.cells_in *= s.in[a];
    s.cells_out *= s.out[a];
  }
  return K_OK;
}
