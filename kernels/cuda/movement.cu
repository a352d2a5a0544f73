// Copies read and write each byte once: 10^8 f16 are 400 MB, 0.13 ms at 3 TB/s. Where x and y share their fastest axis, accesses are as
// wide as extents, strides and addresses allow (16 bytes at most); where not, tiles go through shared memory and both sides stay coalesced.
#include "../include/movement.h"
#include "vector.cuh"

namespace {
constexpr int THREADS = 256;

struct Wide {
  alignas(16) uint32_t v[4];
};

template <class F>
int32_t with_element(const char* where, int32_t bytes, F run) {
  if (bytes == 1) return run(uint8_t{});
  if (bytes == 2) return run(uint16_t{});
  if (bytes == 4) return run(uint32_t{});
  if (bytes == 8) return run(uint64_t{});
  if (bytes == 16) return run(Wide{});
  return fail(K_UNSUPPORTED, where, "element_bytes is %d, it must be 1, 2, 4 or 8", bytes);
}

struct Layout {
  int rank = 0;
  int64_t n[8], y[8], x[8];
};

template <class I>
struct Strided {
  int rank;
  I n[8], y[8], x[8];
  // The places in y and x of the index with this number, axes in order, the last one fastest.
  __device__ void offsets(I i, I& at_y, I& at_x) const {
    at_y = at_x = 0;
#pragma unroll
    for (int d = 7; d >= 0; d--) {
      if (d >= rank) continue;
      const I q = d ? i / n[d] : 0, r = i - q * n[d];
      at_y += r * y[d];
      at_x += r * x[d];
      i = q;
    }
  }
};

template <class T, class I>
__global__ void __launch_bounds__(THREADS) copy_kernel(T* y, const T* x, int64_t size, Strided<I> layout) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= size) return;
  I at_y, at_x;
  layout.offsets(I(i), at_y, at_x);
  y[at_y] = x[at_x];
}

// y[p y_p + q] = x[p + q x_q] for p < P, q < Q, and every index of the remaining axes: a TILE x TILE square a block.
template <class T, int TILE>
__global__ void __launch_bounds__(THREADS)
    transpose_kernel(T* y, const T* x, int64_t P, int64_t Q, int64_t y_p, int64_t x_q, Strided<int64_t> batch) {
  __shared__ T tile[TILE][TILE + 1];
  const int64_t tiles_p = (P + TILE - 1) / TILE, tiles_q = (Q + TILE - 1) / TILE, block = blockIdx.x;
  int64_t at_y, at_x;
  batch.offsets(block / (tiles_p * tiles_q), at_y, at_x);
  const int64_t p0 = block / tiles_q % tiles_p * TILE, q0 = block % tiles_q * TILE;
  const int lane = threadIdx.x % TILE, row = threadIdx.x / TILE;
  x += at_x + p0 + q0 * x_q;
  y += at_y + p0 * y_p + q0;
#pragma unroll
  for (int k = row; k < TILE; k += THREADS / TILE) {
    if (p0 + lane < P && q0 + k < Q) tile[k][lane] = x[lane + k * x_q];
  }
  __syncthreads();
#pragma unroll
  for (int k = row; k < TILE; k += THREADS / TILE) {
    if (q0 + lane < Q && p0 + k < P) y[k * y_p + lane] = tile[lane][k];
  }
}

// The widest element, in bytes, that divides the rows of a shared fastest axis, the strides and the addresses.
int widest(const Layout& l, int bytes, uint64_t y, uint64_t x) {
  const int last = l.rank - 1;
  if (l.rank == 0 || l.y[last] != 1 || l.x[last] != 1) return bytes;
  uint64_t bits = y | x | uint64_t(l.n[last]) * bytes;
  for (int d = 0; d < last; d++) bits |= uint64_t(l.y[d] | l.x[d]) * bytes;
  int wide = 16;
  while (wide > bytes && bits % wide) wide /= 2;
  return wide;
}

template <class I>
Strided<I> narrow(const Layout& l) {
  Strided<I> s{};
  s.rank = l.rank;
  for (int d = 0; d < l.rank; d++) s.n[d] = I(l.n[d]), s.y[d] = I(l.y[d]), s.x[d] = I(l.x[d]);
  return s;
}

template <class T>
int32_t copy(T* y, const T* x, const Layout& l, cudaStream_t s) {
  int64_t size = 1, furthest = 0;
  for (int d = 0; d < l.rank; d++) size *= l.n[d], furthest += l.n[d] * (l.y[d] > l.x[d] ? l.y[d] : l.x[d]);
  const unsigned blocks = unsigned(ceil_div(size, THREADS));
  if (size < int64_t(1) << 31 && furthest < int64_t(1) << 31) copy_kernel<<<blocks, THREADS, 0, s>>>(y, x, size, narrow<uint32_t>(l));
  else copy_kernel<<<blocks, THREADS, 0, s>>>(y, x, size, narrow<int64_t>(l));
  return launched("k_copy_fwd");
}

// The axis that is fastest in x, where it is not the one that is fastest in y and both are long enough for tiles; -1 otherwise.
int transposed_axis(const Layout& l) {
  const int last = l.rank - 1;
  if (l.rank < 2 || l.y[last] != 1 || l.x[last] <= 1 || l.n[last] < 8) return -1;
  for (int d = 0; d < last; d++) {
    if (l.x[d] == 1 && l.n[d] >= 8) return d;
  }
  return -1;
}

template <class T>
int32_t transpose(T* y, const T* x, const Layout& l, int axis, cudaStream_t s) {
  constexpr int TILE = sizeof(T) <= 2 ? 64 : 32;
  const int last = l.rank - 1;
  Layout batch;
  int64_t count = 1;
  for (int d = 0; d < last; d++) {
    if (d == axis) continue;
    batch.n[batch.rank] = l.n[d], batch.y[batch.rank] = l.y[d], batch.x[batch.rank++] = l.x[d];
    count *= l.n[d];
  }
  const int64_t blocks = count * ceil_div(l.n[axis], TILE) * ceil_div(l.n[last], TILE);
  transpose_kernel<T, TILE><<<unsigned(blocks), THREADS, 0, s>>>(y, x, l.n[axis], l.n[last], l.y[axis], l.x[last], narrow<int64_t>(batch));
  return launched("k_copy_fwd");
}

template <class T>
__global__ void __launch_bounds__(THREADS) gather_kernel(T* y, const T* x, const int32_t* index, int64_t M, int64_t N, int64_t C) {
  const int64_t k = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (k >= M * C) return;
  const int64_t m = k / C, n = index[m];
  y[k] = n < 0 || n >= N ? T{} : x[n * C + k % C];
}

template <int V, class T>
__global__ void __launch_bounds__(THREADS)
    gather_bwd_kernel(T* dx, const T* dy, const int32_t* offsets, const int32_t* order, int64_t N, int64_t C) {
  const int64_t k = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * V;
  if (k >= N * C) return;
  const int64_t n = k / C, c = k % C;
  const int32_t last = offsets[n + 1];
  float sum[V] = {};
  for (int32_t j = offsets[n]; j < last; j++) {
    float v[V];
    load_lanes(v, dy + order[j] * C + c);
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] += v[i];
  }
  store_lanes(dx + k, sum);
}
}  // namespace

int32_t k_copy_fwd(uint64_t y, uint64_t x, uint64_t* extents, uint64_t* y_strides, uint64_t* x_strides, int32_t rank, int32_t element_bytes,
                   uint64_t stream) {
  if (rank < 0 || rank > 8) return fail(K_BAD_ARGUMENT, "k_copy_fwd", "rank is %d, it must be 0 to 8", rank);
  if (element_bytes > 8) return fail(K_UNSUPPORTED, "k_copy_fwd", "element_bytes is %d, it must be 1, 2, 4 or 8", element_bytes);
  Layout l;
  l.rank = rank;
  for (int d = 0; d < rank; d++) {
    l.n[d] = int64_t(extents[d]), l.y[d] = int64_t(y_strides[d]), l.x[d] = int64_t(x_strides[d]);
    if (l.n[d] == 0) return K_OK;
  }
  const int wide = widest(l, element_bytes, y, x), factor = wide / element_bytes;
  if (factor > 1) {
    l.n[rank - 1] /= factor;
    for (int d = 0; d < rank - 1; d++) l.y[d] /= factor, l.x[d] /= factor;
  }
  const int axis = transposed_axis(l);
  return with_element("k_copy_fwd", wide, [&](auto element) {
    using T = decltype(element);
    if constexpr (sizeof(T) <= 8) {
      if (axis >= 0) return transpose(at<T>(y), at<const T>(x), l, axis, stream_of(stream));
    }
    return copy(at<T>(y), at<const T>(x), l, stream_of(stream));
  });
}

int32_t k_gather_rows_fwd(uint64_t y, uint64_t x, uint64_t index, int64_t M, int64_t N, int64_t C, int32_t element_bytes, uint64_t stream) {
  if (M < 0 || N < 0 || C < 0) return fail(K_BAD_ARGUMENT, "k_gather_rows_fwd", "M, N or C is negative, it must be at least 0");
  if (element_bytes > 8) return fail(K_UNSUPPORTED, "k_gather_rows_fwd", "element_bytes is %d, it must be 1, 2, 4 or 8", element_bytes);
  if (M * C == 0) return K_OK;
  int wide = 16;
  while (wide > element_bytes && (y | x | uint64_t(C * element_bytes)) % wide) wide /= 2;
  const int64_t units = C * element_bytes / wide;
  return with_element("k_gather_rows_fwd", wide, [&](auto element) {
    using T = decltype(element);
    const unsigned blocks = unsigned(ceil_div(M * units, THREADS));
    gather_kernel<<<blocks, THREADS, 0, stream_of(stream)>>>(at<T>(y), at<const T>(x), at<const int32_t>(index), M, N, units);
    return launched("k_gather_rows_fwd");
  });
}

int32_t k_gather_rows_bwd(uint64_t dx, uint64_t dy, uint64_t offsets, uint64_t order, int64_t N, int64_t C, int32_t dtype,
                          uint64_t stream) {
  if (N < 0 || C < 0) return fail(K_BAD_ARGUMENT, "k_gather_rows_bwd", "N or C is negative, it must be at least 0");
  if (N * C == 0) return K_OK;
  return with_float_type("k_gather_rows_bwd", dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = 16 / sizeof(T);
    const int32_t *first = at<const int32_t>(offsets), *places = at<const int32_t>(order);
    const cudaStream_t s = stream_of(stream);
    if (C % V == 0 && aligned16(dx, dy)) {
      gather_bwd_kernel<V><<<unsigned(ceil_div(N * C, THREADS * V)), THREADS, 0, s>>>(at<T>(dx), at<const T>(dy), first, places, N, C);
    } else {
      gather_bwd_kernel<1><<<unsigned(ceil_div(N * C, THREADS)), THREADS, 0, s>>>(at<T>(dx), at<const T>(dy), first, places, N, C);
    }
    return launched("k_gather_rows_bwd");
  });
}
