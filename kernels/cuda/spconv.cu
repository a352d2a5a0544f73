// Sparse convolution on CUDA, forward and input gradient: one product over a table, spconv_hopper.cuh on Hopper and spconv_product.cuh
// elsewhere, for f32 and for channels that are no multiple of 8. On Hopper weights of few rows are read as they are stored, else they are
// packed into tiles first. Bounds: 2 pairs Cin Cout operations are asked for. Tiles of 64 rows in the order of their taps do 1.45 times as
// many (64^3 shell; 1.20 at 128^3, 1.09 at 256^3), and steps go by 128 rows: 1.60 (1.30, 1.14). With the taps in three planes, each with an
// order of its own, 1.08 and 1.15 (1.02 and 1.04 at 128^3), for 28 bytes a result more. A step of 128 rows x 256 columns x 64 channels
// multiplies for 1024 cycles at best and brings 48 KB, which alone takes 855 (57 bytes a cycle and SM, 15 TB/s of an H200's L2 cache, 1045
// where a tensor map brings the weights). Measured there in f16, asked for and done in 64-row tiles: 556 and 667 TFLOP/s for 512 channels
// on the 128^3 shell, 57 % of the L2's limit and 67 % of the tensor cores'; 567 and 612 for 1024 channels at 64^3, in planes.
#include "../include/spconv.h"

#include "spconv_hopper.cuh"
#include "spconv_product.cuh"

namespace {
using namespace spconv;

int32_t check(const char* where, int32_t rows, int32_t K, int32_t Cin, int32_t Cout) {
  if (Cin < 1 || Cout < 1 || Cin > 65535 || Cout > 65535) {
    return fail(K_BAD_ARGUMENT, where, "Cin = %d and Cout = %d, they must be 1 to 65535", Cin, Cout);
  }
  return sparse::check_table(where, rows, K);
}

// Scratch: weights, then the parts' sums.
uint64_t weight_bytes(int64_t K, int64_t C, int64_t N, int32_t dtype) {
  return uint64_t(padded(N) * K * ceil_div(C, 64) * 64) * (dtype == K_F32 ? 4 : 2);
}
int32_t workspace(const char* where, uint64_t* bytes, int32_t rows, int32_t K, int64_t C, int64_t N, int32_t parts, int32_t dtype) {
  *bytes = weight_bytes(K, C, N, dtype) + (parts > 1 ? sizeof(float) * uint64_t(parts) * rows * N : 0);
  const int32_t status = check(where, rows, K, int32_t(C), int32_t(N));
  return status ? status : sparse::check_parts(where, rows, K, parts);
}

struct Weights {
  uint64_t from, packed;
  int32_t dtype;
  bool by_input, mirror;
};

template <class T, int CHUNKS>
int32_t pack(const char* where, Product& p, const Weights& w, int tile, uint64_t stream) {
  p.chunks = int(ceil_div(p.C, CHUNKS * 16 / int64_t(sizeof(T))));
  p.w = at<const void>(w.packed);
  const dim3 blocks(unsigned(p.K), unsigned(p.chunks), unsigned(ceil_div(p.N, tile) * tile / 32));
  const cudaStream_t s = stream_of(stream);
  const auto launch = [&](auto from) {
    using W = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    const bool direct = std::is_same<T, W>::value && !w.by_input && p.C % (16 / sizeof(T)) == 0 && w.from % 16 == 0;
    pack_weights<T, W, CHUNKS><<<blocks, 256, 0, s>>>(at<T>(w.packed), from, p.N, p.C, p.K, tile, w.by_input, w.mirror, direct);
  };
  if (w.dtype == K_F32)
    launch(at<const float>(w.from));
  else
    launch(at<const T>(w.from));
  return launched(where);
}

template <class T, class Tile, bool ALIGNED>
int32_t run(const char* where, Product& p, const Weights& w, uint64_t stream) {
  const int32_t status = pack<T, 4>(where, p, w, Tile::N, stream);
  return status ? status : launch<T, Tile, ALIGNED>(where, p, stream);
}
// Packing costs 27 C N elements, what it saves goes with the rows: measured, it pays from about this many on, and never for tiles of 64 rows.
constexpr int PACKED_ROWS = 32768;

template <class T, class Tile>
int32_t run_hopper(const char* where, Product& p, const Weights& w, uint64_t stream) {
  p.chunks = int(ceil_div(p.C, 64));
  if (w.dtype == K_F32 || w.from % 16 || (Tile::M == 128 && p.rows >= PACKED_ROWS)) {
    const int32_t status = pack<T, 8>(where, p, w, Tile::N, stream);
    return status ? status : launch_hopper<T, Tile, Layout::PACKED>(where, p, stream);
  }
  p.w = at<const void>(w.from);
  p.mirror = w.mirror;
  return w.by_input ? launch_hopper<T, Tile, Layout::BY_INPUT>(where, p, stream) : launch_hopper<T, Tile, Layout::STORED>(where, p, stream);
}

bool is_hopper() {
  static const bool hopper = conv3d::device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
  return hopper;
}

using Tile64 = HopperTile<64, 2, 4, 128, 64>;
using Tile128 = HopperTile<128, 3, 2, 64>;
using Tile64x128 = HopperTile<128, 3, 2, 128, 64>;  // more blocks where each has little to do
using Tile256 = HopperTile<256, 4, 1, 128>;

template <class T>
int32_t product(const char* where, Product& p, const Weights& w, uint64_t stream) {
  using conv3d::Tile;
  constexpr int V = 16 / sizeof(T);
  p.wide = p.N % V == 0 && reinterpret_cast<uint64_t>(p.y) % 16 == 0;
  const bool aligned = p.C % V == 0 && reinterpret_cast<uint64_t>(p.x) % 16 == 0;
  if constexpr (sizeof(T) == 2) {
    if (aligned && p.wide && is_hopper()) {
      if (p.N <= 64) return run_hopper<T, Tile64>(where, p, w, stream);
      if (p.N <= 128 && (p.C <= 256 || p.rows < PACKED_ROWS)) return run_hopper<T, Tile64x128>(where, p, w, stream);
      if (p.N <= 128) return run_hopper<T, Tile128>(where, p, w, stream);
      return run_hopper<T, Tile256>(where, p, w, stream);
    }
  }
  if (!aligned || p.N <= 32) return run<T, Tile<128, 32, 16, 32, 3, 2>, false>(where, p, w, stream);
  if constexpr (sizeof(T) == 4)
    return run<T, Tile<128, 64, 32, 32, 3, 2>, true>(where, p, w, stream);
  else
    return run<T, Tile<128, 128, 64, 32, 4, 2>, true>(where, p, w, stream);
}

template <class T>
int32_t multiply(const char* where, Product p, const Weights& w, uint64_t stream) {
  const int32_t status = product<T>(where, p, w, stream);
  return status ? status : add_parts<T>(where, p, stream);
}

int32_t expect_types(const char* where, uint64_t scratch, int32_t dtype, int32_t weight_dtype, int32_t bias_dtype) {
  for (int32_t t : {weight_dtype, bias_dtype}) {
    if (t != K_F32 && t != dtype) return fail(K_UNSUPPORTED, where, "weight or bias dtype is %d, it must be f32 (0) or x's, %d", t, dtype);
  }
  return scratch % 16 ? fail(K_BAD_ARGUMENT, where, "scratch is not aligned to 16 bytes") : K_OK;
}
}  // namespace

int32_t k_spconv_fwd_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t dtype) {
  return workspace("k_spconv_fwd_workspace", bytes, rows, K, Cin, Cout, parts, dtype);
}

int32_t k_spconv_fwd(uint64_t y, uint64_t x, uint64_t w, uint64_t bias, uint64_t table, uint64_t order, uint64_t masks, uint64_t scratch,
                     int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t dtype, int32_t weight_dtype,
                     int32_t bias_dtype, uint64_t stream) {
  const char* where = "k_spconv_fwd";
  if (int32_t status = check(where, rows, K, Cin, Cout)) return status;
  if (int32_t status = expect_types(where, scratch, dtype, weight_dtype, bias_dtype)) return status;
  if (int32_t status = sparse::check_parts(where, rows, K, parts)) return status;
  if (rows == 0) return K_OK;
  const Product p{at<void>(y),
                  at<float>(scratch + weight_bytes(K, Cin, Cout, dtype)),
                  at<const void>(x),
                  nullptr,
                  at<const void>(bias),
                  at<const int32_t>(table),
                  at<const int32_t>(order),
                  at<const uint32_t>(masks),
                  rows,
                  K,
                  Cin,
                  Cout,
                  parts,
                  0,
                  bias_dtype == K_F32,
                  false,
                  false};
  const Weights weights{w, scratch, weight_dtype, false, false};
  return with_float_type(where, dtype, [&](auto t) { return multiply<decltype(t)>(where, p, weights, stream); });
}

int32_t k_spconv_bwd_input_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts,
                                     int32_t dtype) {
  return workspace("k_spconv_bwd_input_workspace", bytes, rows, K, Cout, Cin, parts, dtype);
}

int32_t k_spconv_bwd_input(uint64_t dx, uint64_t dy, uint64_t w, uint64_t table, uint64_t order, uint64_t masks, uint64_t scratch,
                           int32_t rows, int32_t K, int32_t Cin, int32_t Cout, int32_t parts, int32_t mirror, int32_t dtype,
                           int32_t weight_dtype, uint64_t stream) {
  const char* where = "k_spconv_bwd_input";
  if (int32_t status = check(where, rows, K, Cin, Cout)) return status;
  if (int32_t status = expect_types(where, scratch, dtype, weight_dtype, dtype)) return status;
  if (int32_t status = sparse::check_parts(where, rows, K, parts)) return status;
  if (rows == 0) return K_OK;
  const Product p{at<void>(dx),
                  at<float>(scratch + weight_bytes(K, Cout, Cin, dtype)),
                  at<const void>(dy),
                  nullptr,
                  nullptr,
                  at<const int32_t>(table),
                  at<const int32_t>(order),
                  at<const uint32_t>(masks),
                  rows,
                  K,
                  Cout,
                  Cin,
                  parts,
                  0,
                  false,
                  false,
                  false};
  const Weights weights{w, scratch, weight_dtype, true, mirror != 0};
  return with_float_type(where, dtype, [&](auto t) { return multiply<decltype(t)>(where, p, weights, stream); });
}
