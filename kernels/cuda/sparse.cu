// Coordinates and resampling of sparse tensors on CUDA. Every pass is bound by memory or, for small sets, by its launches; pooling reads
// and writes whole rows, 16 bytes a thread.
#include "../include/sparse.h"

#include "coordinates_index.cuh"

namespace {
using namespace sparse;

__global__ void write_places(Place* out, Index index, Reach reach, const Place* from, int32_t* parent, int32_t N) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N) return;
  int64_t last = -1;
  reach.visit(from[n], [&](const Place& q) {
    last = Index::rank(*index.find_run(q), q.z);
    out[last] = q;
  });
  if (parent) parent[n] = int32_t(last);
}

__global__ void subdivide(Place* out, const Place* coords, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Place p = coords[i / 8];
  const int m = int(i % 8);
  out[i] = {p.batch, 2 * p.x + m / 4, 2 * p.y + m / 2 % 2, 2 * p.z + m % 2};
}

__device__ inline float divisor(const int32_t* children, int taps, int mode) {
  if (mode == 0) return 1;
  int n = mode - 1;
  for (int t = 0; t < taps; t++) n += children[t] >= 0;
  return n > 1 ? float(n) : 1.f;
}

// A thread has V channels at a time; `chunks`: C / V. Threads along x share a row, those along y have the next rows.
template <class T, int V>
__global__ void __launch_bounds__(256) pool(T* y, const T* x, const int32_t* children, int64_t M, int chunks, int taps, int mode) {
  const int64_t m = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, C = int64_t(chunks) * V;
  if (m >= M) return;
  const int32_t* const rows = children + m * taps;
  const float scale = 1 / divisor(rows, taps, mode);
  for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    float sum[V] = {};
    for (int t = 0; t < taps; t++) {
      if (rows[t] < 0) continue;
      const auto values = *reinterpret_cast<const Pack<T, V>*>(x + rows[t] * C + chunk * V);
#pragma unroll
      for (int e = 0; e < V; e++) sum[e] += to_f32(values.v[e]);
    }
    Pack<T, V> result;
#pragma unroll
    for (int e = 0; e < V; e++) result.v[e] = from_f32<T>(sum[e] * scale);
    *reinterpret_cast<Pack<T, V>*>(y + m * C + chunk * V) = result;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    unpool(T* dx, const T* dy, const int32_t* parent, const int32_t* children, int64_t N, int chunks, int taps, int mode) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, C = int64_t(chunks) * V;
  if (n >= N) return;
  const int64_t m = parent[n];
  const float scale = m < 0 ? 0 : 1 / divisor(children + m * taps, taps, mode);
  for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    Pack<T, V> values{};
    if (m >= 0) values = *reinterpret_cast<const Pack<T, V>*>(dy + m * C + chunk * V);
#pragma unroll
    for (int e = 0; e < V; e++) values.v[e] = from_f32<T>(to_f32(values.v[e]) * scale);
    *reinterpret_cast<Pack<T, V>*>(dx + n * C + chunk * V) = values;
  }
}

int32_t check_pool(const char* where, int32_t M, int32_t N, int32_t C, int32_t taps, int32_t mode) {
  if (M < 0 || N < 0 || C < 1) return fail(K_BAD_ARGUMENT, where, "M = %d, N = %d, C = %d, C must be > 0 and the others >= 0", M, N, C);
  if (taps < 1 || taps > 125) return fail(K_BAD_ARGUMENT, where, "taps is %d, it must be 1 to 125", taps);
  return mode < 0 || mode > 2 ? fail(K_BAD_ARGUMENT, where, "mode is %d, it must be 0, 1 or 2", mode) : K_OK;
}

// The launch that covers rows of so many chunks.
struct Shape {
  dim3 threads, blocks;
  Shape(int64_t rows, int chunks) {
    unsigned x = 1;
    while (x < 256 && x < unsigned(chunks)) x *= 2;
    threads = dim3(x, 256 / x);
    blocks = dim3(unsigned(ceil_div(rows, threads.y)));
  }
};

// Calls run(T{}, V, C / V), with V channels of 16 bytes where they and both addresses allow it, else 1.
template <class F>
int32_t with_channels(const char* where, int32_t dtype, int32_t C, uint64_t a, uint64_t b, F run) {
  return with_float_type(where, dtype, [&](auto t) {
    constexpr int V = 16 / sizeof(t);
    if (C % V == 0 && (a | b) % 16 == 0) return run(t, std::integral_constant<int, V>{}, C / V);
    return run(t, std::integral_constant<int, 1>{}, C);
  });
}

__global__ void window_keys(int64_t* keys, const Place* coords, int32_t N, int window, int shift, int bits) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N) return;
  const Place p = coords[n];
  keys[n] = ((int64_t(p.batch) << bits | (p.x + shift) / window) << bits | (p.y + shift) / window) << bits | (p.z + shift) / window;
}

__global__ void curve_keys(int64_t* keys, const Place* coords, int32_t N, int curve, int shift) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N) return;
  const Place p = coords[n];
  keys[n] = int64_t(p.batch) << 30 | curve_code(curve, p.x + shift, p.y + shift, p.z + shift);
}

__global__ void invert(int32_t* inverse, const int32_t* order, int32_t N) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < N) inverse[order[i]] = int32_t(i);
}

// starts[i]: whether a run of equal keys begins at place i; for scan::run
struct Starts {
  const int64_t* keys;
  const int32_t* order;
  int32_t *offsets, *total;
  __device__ int get(int64_t i) const { return i == 0 || keys[order[i]] != keys[order[i - 1]]; }
  __device__ void set(int64_t i, int before) const {
    if (get(i)) offsets[before] = int32_t(i);
  }
};

__global__ void end_segments(int32_t* offsets, const int32_t* count, int32_t N) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i <= N && i >= *count) offsets[i] = N;
}

unsigned blocks_of(int64_t threads) { return unsigned(ceil_div(threads, 256)); }
}  // namespace

int32_t k_sparse_strided_rows(uint64_t* rows, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding) {
  return check_strided("k_sparse_strided_rows", rows, N, B, side, kernel, stride, padding);
}

int32_t k_sparse_strided_coords_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t side, int32_t kernel, int32_t stride,
                                          int32_t padding) {
  uint64_t rows;
  if (int32_t status = check_strided("k_sparse_strided_coords_workspace", &rows, N, B, side, kernel, stride, padding)) return status;
  *bytes = IndexLayout(int64_t(rows), B, strided_side(side, kernel, stride, padding)).bytes();
  return K_OK;
}

int32_t k_sparse_strided_coords(uint64_t out, uint64_t count, uint64_t parent, uint64_t coords, uint64_t scratch, int32_t N, int32_t B,
                                int32_t side, int32_t kernel, int32_t stride, int32_t padding, uint64_t stream) {
  const char* where = "k_sparse_strided_coords";
  uint64_t rows;
  if (int32_t status = check_strided(where, &rows, N, B, side, kernel, stride, padding)) return status;
  if (parent && kernel != stride) return fail(K_BAD_ARGUMENT, where, "parent must be 0 where kernel is not stride");
  const int most = strided_side(side, kernel, stride, padding);
  const cudaStream_t s = stream_of(stream);
  cudaError_t e = cudaMemsetAsync(at<void>(count), 0, sizeof(int32_t), s);
  if (e == cudaSuccess && rows) e = cudaMemsetAsync(at<void>(out), 0xff, rows * sizeof(Place), s);
  if (e == cudaSuccess && parent && N) e = cudaMemsetAsync(at<void>(parent), 0xff, N * sizeof(int32_t), s);
  if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  if (rows == 0) return K_OK;
  const IndexLayout layout(int64_t(rows), B, most);
  const Index index = layout.at_address(scratch, B, most);
  const Reach reach{B, side, kernel, stride, padding, most};
  const Place* const from = at<const Place>(coords);
  if (int32_t status = build_ranks(where, index, layout, scratch, reach, from, N, nullptr, at<int32_t>(count), stream)) return status;
  write_places<<<blocks_of(N), 256, 0, s>>>(at<Place>(out), index, reach, from, at<int32_t>(parent), N);
  return launched(where);
}

int32_t k_sparse_subdivide_coords(uint64_t out, uint64_t coords, int32_t N, uint64_t stream) {
  if (N < 0 || N > INT32_MAX / 8) return fail(K_BAD_ARGUMENT, "k_sparse_subdivide_coords", "N is %d, it must be 0 to 2^28 - 1", N);
  if (N) subdivide<<<blocks_of(8 * int64_t(N)), 256, 0, stream_of(stream)>>>(at<Place>(out), at<const Place>(coords), 8 * int64_t(N));
  return launched("k_sparse_subdivide_coords");
}

int32_t k_sparse_pool_fwd(uint64_t y, uint64_t x, uint64_t children, int32_t M, int32_t N, int32_t C, int32_t taps, int32_t mode,
                          int32_t dtype, uint64_t stream) {
  if (int32_t status = check_pool("k_sparse_pool_fwd", M, N, C, taps, mode)) return status;
  return with_channels("k_sparse_pool_fwd", dtype, C, y, x, [&](auto t, auto v, int chunks) {
    using T = decltype(t);
    if (M == 0) return int32_t(K_OK);
    const Shape shape(M, chunks);
    pool<T, decltype(v)::value><<<shape.blocks, shape.threads, 0, stream_of(stream)>>>(at<T>(y), at<const T>(x),
                                                                                       at<const int32_t>(children), M, chunks, taps, mode);
    return launched("k_sparse_pool_fwd");
  });
}

int32_t k_sparse_pool_bwd(uint64_t dx, uint64_t dy, uint64_t parent, uint64_t children, int32_t M, int32_t N, int32_t C, int32_t taps,
                          int32_t mode, int32_t dtype, uint64_t stream) {
  if (int32_t status = check_pool("k_sparse_pool_bwd", M, N, C, taps, mode)) return status;
  return with_channels("k_sparse_pool_bwd", dtype, C, dx, dy, [&](auto t, auto v, int chunks) {
    using T = decltype(t);
    if (N == 0) return int32_t(K_OK);
    const Shape shape(N, chunks);
    unpool<T, decltype(v)::value><<<shape.blocks, shape.threads, 0, stream_of(stream)>>>(
        at<T>(dx), at<const T>(dy), at<const int32_t>(parent), at<const int32_t>(children), N, chunks, taps, mode);
    return launched("k_sparse_pool_bwd");
  });
}

int32_t k_sparse_window_keys(uint64_t keys, uint64_t coords, int32_t N, int32_t window, int32_t shift, int32_t bits, uint64_t stream) {
  const char* where = "k_sparse_window_keys";
  if (N < 0 || window < 1 || shift < 0 || bits < 1 || bits > 11) {
    return fail(K_BAD_ARGUMENT, where, "N, window, shift, bits are %d, %d, %d, %d: N and shift must be >= 0, window >= 1, bits 1 to 11", N,
                window, shift, bits);
  }
  if (N) window_keys<<<blocks_of(N), 256, 0, stream_of(stream)>>>(at<int64_t>(keys), at<const Place>(coords), N, window, shift, bits);
  return launched(where);
}

int32_t k_sparse_curve_keys(uint64_t keys, uint64_t coords, int32_t N, int32_t curve, int32_t shift, uint64_t stream) {
  const char* where = "k_sparse_curve_keys";
  if (N < 0 || curve < 0 || curve > 3 || shift < 0) {
    return fail(K_BAD_ARGUMENT, where, "N, curve, shift are %d, %d, %d: N and shift must be >= 0, curve 0 to 3", N, curve, shift);
  }
  if (N) curve_keys<<<blocks_of(N), 256, 0, stream_of(stream)>>>(at<int64_t>(keys), at<const Place>(coords), N, curve, shift);
  return launched(where);
}

int32_t k_sparse_argsort_workspace(uint64_t* bytes, int32_t N) {
  if (N < 0) return fail(K_BAD_ARGUMENT, "k_sparse_argsort_workspace", "N is %d, it must be >= 0", N);
  *bytes = radix::Sizes(N).bytes();
  return K_OK;
}

int32_t k_sparse_argsort(uint64_t order, uint64_t inverse, uint64_t keys, uint64_t scratch, int32_t N, int32_t bits, uint64_t stream) {
  const char* where = "k_sparse_argsort";
  if (N < 0 || bits < 0 || bits > 63) return fail(K_BAD_ARGUMENT, where, "N = %d, bits = %d, it must be >= 0 and 0 to 63", N, bits);
  if (N == 0) return K_OK;
  if (int32_t status = radix::sort(where, at<int32_t>(order), radix::Array{at<const uint64_t>(keys), N}, scratch, N, 1, bits, stream)) return status;
  if (inverse) invert<<<blocks_of(N), 256, 0, stream_of(stream)>>>(at<int32_t>(inverse), at<const int32_t>(order), N);
  return launched(where);
}

int32_t k_sparse_segments_workspace(uint64_t* bytes, int32_t N) {
  if (N < 0) return fail(K_BAD_ARGUMENT, "k_sparse_segments_workspace", "N is %d, it must be >= 0", N);
  *bytes = scan::bytes(N);
  return K_OK;
}

int32_t k_sparse_segments(uint64_t offsets, uint64_t count, uint64_t keys, uint64_t order, uint64_t scratch, int32_t N, uint64_t stream) {
  const char* where = "k_sparse_segments";
  if (N < 0) return fail(K_BAD_ARGUMENT, where, "N is %d, it must be >= 0", N);
  if (N == 0) {
    const cudaError_t e = cudaMemsetAsync(at<void>(count), 0, sizeof(int32_t), stream_of(stream));
    if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  } else {
    const Starts starts{at<const int64_t>(keys), at<const int32_t>(order), at<int32_t>(offsets), at<int32_t>(count)};
    if (int32_t status = scan::run(where, starts, at<int32_t>(scratch), N, stream)) return status;
  }
  end_segments<<<blocks_of(int64_t(N) + 1), 256, 0, stream_of(stream)>>>(at<int32_t>(offsets), at<const int32_t>(count), N);
  return launched(where);
}
