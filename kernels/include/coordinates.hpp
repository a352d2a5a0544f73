// Voxel coordinates, their codes and the limits of the sparse families, the same on every device. The including file has fail().
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define K_COORDINATES __host__ __device__ inline
#else
#define K_COORDINATES inline
#endif

namespace sparse {
struct Place {
  int batch, x, y, z;
  K_COORDINATES bool inside(int B, int side) const {
    return unsigned(batch) < unsigned(B) && unsigned(x) < unsigned(side) && unsigned(y) < unsigned(side) && unsigned(z) < unsigned(side);
  }
};

// The cells along an axis of a strided convolution's result.
inline int strided_side(int side, int kernel, int stride, int padding) {
  return side + 2 * padding < kernel ? 0 : (side + 2 * padding - kernel) / stride + 1;
}

// What tap t of a table's row reads along one axis, from coordinate `to`: a coordinate below 0 where there is none.
K_COORDINATES int reads(int to, int t, int stride, int padding, bool transposed) {
  if (!transposed) return to * stride + t - padding;
  const int q = to + padding - t;
  return q < 0 || q % stride ? -1 : q / stride;
}

// v with two zeros put before each of its 10 bits.
K_COORDINATES uint32_t spread(uint32_t v) {
  v = (v | v << 16) & 0x030000ff;
  v = (v | v << 8) & 0x0300f00f;
  v = (v | v << 4) & 0x030c30c3;
  return (v | v << 2) & 0x09249249;
}

// The code of x, y, z < 1024 on curve 0: Z-order, 1: Hilbert (Skilling 2004), 2, 3: the same with x and y exchanged.
K_COORDINATES uint32_t curve_code(int curve, uint32_t x, uint32_t y, uint32_t z) {
  uint32_t v[3] = {curve < 2 ? x : y, curve < 2 ? y : x, z};
  if (curve % 2) {
    for (uint32_t q = 512; q > 1; q /= 2) {
      for (int i = 0; i < 3; i++) {
        if (v[i] & q) {
          v[0] ^= q - 1;
        } else {
          const uint32_t t = (v[0] ^ v[i]) & (q - 1);
          v[0] ^= t;
          v[i] ^= t;
        }
      }
    }
    v[1] ^= v[0];
    v[2] ^= v[1];
    uint32_t t = 0;
    for (uint32_t q = 512; q > 1; q /= 2) t ^= v[2] & q ? q - 1 : 0;
    for (int i = 0; i < 3; i++) v[i] ^= t;
  }
  return spread(v[0]) << 2 | spread(v[1]) << 1 | spread(v[2]);
}

// Where a row stands among others by the taps it has: the masks in the order of a Gray code, so that neighbours differ little. Taps that
// about half of a surface's rows have (3^3: along two axes, then one, then three) are its upper bits; on shells this leaves the least work.
// Bit t of mask: tap t; kernels past 3 are judged by the middle taps that `mask_tap` names.
constexpr int KEY_TAPS = 27;
K_COORDINATES int key_taps(int K) { return K <= 27 ? K : K == 64 ? 8 : 27; }
K_COORDINATES int mask_tap(int K, int i) {
  if (K <= 27) return i;
  const int kernel = K == 64 ? 4 : 5, inner = kernel - 2;
  return ((i / (inner * inner) + 1) * kernel + i / inner % inner + 1) * kernel + i % inner + 1;
}
K_COORDINATES constexpr uint32_t order_key(uint32_t mask, int taps) {
  if (taps == 27) {
    constexpr uint32_t edges = 1u << 1 | 1u << 3 | 1u << 5 | 1u << 7 | 1u << 9 | 1u << 11 | 1u << 15 | 1u << 17 | 1u << 19 | 1u << 21 |
                               1u << 23 | 1u << 25,
                       faces = 1u << 4 | 1u << 10 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 16 | 1u << 22;
    uint32_t upper = 0, middle = 0, lower = 0;
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int t = 0; t < 27; t++) {
      const uint32_t bit = mask >> t & 1;
      if (edges >> t & 1)
        upper = upper * 2 + bit;
      else if (faces >> t & 1)
        middle = middle * 2 + bit;
      else
        lower = lower * 2 + bit;
    }
    mask = upper << 15 | middle << 8 | lower;
  }
  for (int s = 1; s < 32; s *= 2) mask ^= mask >> s;
  return mask;
}

// The bits of a row's key for one of `parts` parts of the taps, and the key: by order_key for all taps, for fewer by their Gray code.
// taps: ceil(K / 32) words, bit t = the row has tap t
K_COORDINATES int part_bits(int K, int parts) { return parts == 1 ? key_taps(K) : K / parts; }
K_COORDINATES uint32_t part_key(const uint32_t* taps, int K, int parts, int part) {
  uint32_t mask = 0;
  if (parts == 1) {
    if (K <= 27) return order_key(taps[0], K);
    for (int i = 0; i < key_taps(K); i++) mask |= (taps[mask_tap(K, i) / 32] >> mask_tap(K, i) % 32 & 1) << i;
    return order_key(mask, key_taps(K));
  }
  const int own = K / parts, first = part * own, word = first / 32, shift = first % 32;
  mask = taps[word] >> shift;
  if (shift + own > 32) mask |= taps[word + 1] << (32 - shift);
  mask &= (1u << own) - 1;
  for (int s = 1; s < 32; s *= 2) mask ^= mask >> s;
  return mask;
}

// The bits of word w that stand for taps in [first, last).
K_COORDINATES uint32_t word_mask(int first, int last, int64_t w) {
  const int64_t low = first - w * 32, high = last - w * 32;
  if (high <= 0 || low >= 32) return 0;
  return (high >= 32 ? 0xffffffffu : (1u << high) - 1) & (low <= 0 ? 0xffffffffu : ~((1u << low) - 1));
}

// ---- Checks of arguments. A status other than K_OK says what is wrong.

inline int32_t check_grid(const char* where, int32_t N, int32_t B, int32_t side) {
  if (N < 0) return fail(K_BAD_ARGUMENT, where, "N is %d, it must be >= 0", N);
  if (B < 0 || B > 1 << 20) return fail(K_BAD_ARGUMENT, where, "B is %d, it must be 0 to 2^20", B);
  if (side < 1 || side > 1024) return fail(K_BAD_ARGUMENT, where, "side is %d, it must be 1 to 1024", side);
  return K_OK;
}
inline int32_t check_window(const char* where, int32_t kernel, int32_t stride, int32_t padding) {
  if (kernel < 1 || kernel > 5) return fail(K_UNSUPPORTED, where, "kernel is %d, it must be 1 to 5", kernel);
  if (stride < 1 || stride > 5) return fail(K_UNSUPPORTED, where, "stride is %d, it must be 1 to 5", stride);
  if (padding < 0 || padding >= kernel) return fail(K_UNSUPPORTED, where, "padding is %d, it must be 0 to kernel - 1", padding);
  return K_OK;
}
inline int32_t check_table(const char* where, int32_t rows, int32_t K) {
  if (K < 1 || K > 125) return fail(K_UNSUPPORTED, where, "K is %d, it must be 1 to 125", K);
  if (rows < 0 || rows > INT32_MAX / K) return fail(K_UNSUPPORTED, where, "rows is %d with K = %d, rows * K must be below 2^31", rows, K);
  return K_OK;
}
inline int32_t check_parts(const char* where, int32_t rows, int32_t K, int32_t parts) {
  if (int32_t status = check_table(where, rows, K)) return status;
  if (parts < 1 || K % parts || (parts > 1 && K / parts > 27)) {
    return fail(K_UNSUPPORTED, where, "parts is %d, it must be 1 or divide K = %d into at most 27 taps each", parts, K);
  }
  return K_OK;
}
inline int32_t check_strided(const char* where, uint64_t* rows, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride,
                             int32_t padding) {
  if (int32_t status = check_grid(where, N, B, side)) return status;
  if (int32_t status = check_window(where, kernel, stride, padding)) return status;
  if (stride > kernel) return fail(K_UNSUPPORTED, where, "stride is %d, it must be at most kernel = %d", stride, kernel);
  const uint64_t each = (kernel + stride - 1) / stride, most = strided_side(side, kernel, stride, padding), places = most * most * most * B;
  const uint64_t reached = each * each * each * N;
  *rows = reached < places ? reached : places;
  return *rows > INT32_MAX ? fail(K_UNSUPPORTED, where, "N is %d, the result may have 2^31 rows or more", N) : K_OK;
}
}  // namespace sparse
