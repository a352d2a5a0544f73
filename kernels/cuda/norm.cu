// Layer norm, plain and modulated, on CUDA. A row is read once and stays in registers. Forward: a warp (or a part of one) a row of up to
// 1024 elements, a block a longer one. Backward: 8 columns a thread, which keeps their sums over the rows of its block in registers too.
#include "../include/norm.h"

#include "sums.cuh"

namespace {
// How a row lies over a group of threads: P packs of V elements a thread, pack p of thread t at (p * lanes + t) * V. A group is `lanes`
// threads of a warp (a power of two), or the whole block where THREADS > 128.
template <int V_, int P_, int THREADS_ = 128>
struct Layout {
  static constexpr int V = V_, P = P_, THREADS = THREADS_;
  static constexpr bool WHOLE = THREADS > 128;
  int lanes = THREADS;
  int groups() const { return THREADS / lanes; }
};

// Calls run(Layout) with the layout for rows of C elements of T; `packed` where all rows may be moved in accesses of 16 bytes.
template <class T, class F>
int32_t with_layout(const char* where, int C, bool packed, F run) {
  constexpr int V = 16 / sizeof(T);
  if (C > 8192) return fail(K_UNSUPPORTED, where, "C = %d, it must be at most 8192", C);
  if (!packed || C % V) {
    if (C <= 256) return run(Layout<1, 8>{32});
    if (C <= 2048) return run(Layout<1, 8, 256>{});
    return run(Layout<1, 16, 512>{});
  }
  if (C <= 256) return run(Layout<V, 8 / V>{power_of_two(ceil_div(C, 8))});
  if (C <= 1024) return run(Layout<V, 32 / V>{32});
  if (C <= 2048) return run(Layout<V, 8 / V, 256>{});
  return run(Layout<V, 32 / V, 256>{});
}

// One row in registers; what lies past its end is 0.
template <class T, class At>
struct Row {
  Pack<T, At::V> pack[At::P];

  __device__ void load(const T* from, int C, int lane, int lanes) {
#pragma unroll
    for (int p = 0; p < At::P; p++) {
      const int c = (p * lanes + lane) * At::V;
      if (c < C)
        pack[p] = *reinterpret_cast<const Pack<T, At::V>*>(from + c);
      else
        pack[p] = {};
    }
  }
};

template <class At>
__device__ inline float group_sum(float v, int lanes) {
  if constexpr (At::WHOLE)
    return block_sum<At::THREADS>(v);
  else
    return lanes_sum(v, lanes);
}

// y = xhat * (one + w) + s, with the w and s of the row's sample; either may be absent. RAGGED: samples have offsets.
template <class T, class W, class At, bool RAGGED>
__global__ void __launch_bounds__(At::THREADS, RAGGED && !At::WHOLE ? 7 : 0)
    norm_fwd(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd, const T* __restrict__ x, const W* __restrict__ w,
             const W* __restrict__ s, float one, Samples samples, int C, int lanes, float eps) {
  constexpr int V = At::V;
  const int lane = threadIdx.x & (lanes - 1);
  const unsigned n = blockIdx.x * (At::THREADS / lanes) + threadIdx.x / lanes;
  const bool live = n < samples.N;
  const int ragged = RAGGED && live ? samples.of(n) : 0;  // before the row takes the registers
  Row<T, At> row;
  row.load(x + int64_t(n) * C, live ? C : 0, lane, lanes);
  float sum = 0, squares = 0;
#pragma unroll
  for (int p = 0; p < At::P; p++) {
#pragma unroll
    for (int i = 0; i < V; i++) sum += to_f32(row.pack[p].v[i]);
  }
  const float m = group_sum<At>(sum, lanes) / C;
#pragma unroll
  for (int p = 0; p < At::P; p++) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float d = to_f32(row.pack[p].v[i]) - m;
      if ((p * lanes + lane) * V < C) squares += d * d;
    }
  }
  const float r = rsqrtf(group_sum<At>(squares, lanes) / C + eps);
  if (!live) return;
  if (lane == 0) mean[n] = m, rstd[n] = r;
  const int64_t affine = int64_t(RAGGED ? ragged : n / samples.each) * C;
#pragma unroll
  for (int p = 0; p < At::P; p++) {
    const int c = (p * lanes + lane) * V;
    if (c >= C) continue;
    float gain[V] = {}, shift[V] = {}, out[V];
    if (w) load_lanes(gain, w + affine + c);
    if (s) load_lanes(shift, s + affine + c);
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = (to_f32(row.pack[p].v[i]) - m) * r * (one + gain[i]) + shift[i];
    store_lanes(y + int64_t(n) * C + c, out);
  }
}

constexpr int COLUMNS = 8;  // of a thread in the backward pass: its packs lie side by side

// Sums each value over the X threads of a group: X <= 32, a power of two, or the whole block where WIDE. Calls take turns with two buffers.
template <int COUNT, bool WIDE>
__device__ inline void group_sums(float (&values)[COUNT], float (*buffer)[COUNT], int X) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    if constexpr (WIDE)
      values[i] = warp_sum(values[i]);
    else
      values[i] = lanes_sum(values[i], X);
  }
  if constexpr (WIDE) {
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) buffer[threadIdx.x / 32][i] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; i++) values[i] = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) values[i] += buffer[warp][i];
    }
  }
}

// Block b * S + s takes the rows of sample b that come to it when S blocks take turns, R rows a group of X threads at a time. It
// writes dx and, where partial is not null, partial[b, s, 0, :] = sum(dy * xhat) and partial[b, s, 1, :] = sum(dy).
template <class T, class W, int V, int R, bool WIDE, bool RAGGED>
__global__ void __launch_bounds__(WIDE ? R > 1 ? 512 : 1024 : 128, WIDE ? 1 : 5)
    norm_bwd(T* __restrict__ dx, float* __restrict__ partial, const T* __restrict__ dy, const T* __restrict__ x, const W* __restrict__ w,
             float one, const float* __restrict__ mean, const float* __restrict__ rstd, Samples samples, int C, int X, int S) {
  constexpr int P = COLUMNS / V;
  alignas(16) __shared__ float shared[WIDE ? 2 * 32 * 2 * R : 128 * 2 * COLUMNS];
  const int lane = WIDE ? threadIdx.x : threadIdx.x & (X - 1), group = WIDE ? 0 : threadIdx.x / X, groups = WIDE ? 1 : 128 / X;
  const int b = blockIdx.x / S, c = lane * COLUMNS;
  const int64_t start = RAGGED ? samples.offsets[b] : int64_t(b) * samples.each, step = int64_t(S) * groups * R;
  const int L = RAGGED ? int(samples.offsets[b + 1] - start) : int(samples.each);
  float gain[COLUMNS], sums[2][COLUMNS] = {};
#pragma unroll
  for (int i = 0; i < COLUMNS; i++) gain[i] = one + (w && c + i < C ? to_f32(w[int64_t(b) * C + c + i]) : 0);
  bool second = false;
  for (int64_t base = int64_t(blockIdx.x % S) * groups * R + group; base - group < L; base += step, second = !second) {
    Pack<T, V> xs[R][P], dys[R][P];
    float m[R], r[R], dots[2 * R] = {};
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int64_t l = base + j * groups, n = start + l;
      const bool live = l < L;
      m[j] = live ? mean[n] : 0;
      r[j] = live ? rstd[n] : 0;
#pragma unroll
      for (int p = 0; p < P; p++) {
        if (live && c + p * V < C) {
          xs[j][p] = *reinterpret_cast<const Pack<T, V>*>(x + n * C + c + p * V);
          dys[j][p] = *reinterpret_cast<const Pack<T, V>*>(dy + n * C + c + p * V);
        } else {
          xs[j][p] = dys[j][p] = {};
        }
      }
    }
#pragma unroll
    for (int j = 0; j < R; j++) {
#pragma unroll
      for (int i = 0; i < COLUMNS; i++) {
        const float d = to_f32(dys[j][i / V].v[i % V]), xhat = (to_f32(xs[j][i / V].v[i % V]) - m[j]) * r[j];
        dots[2 * j] += d * gain[i];
        dots[2 * j + 1] += d * gain[i] * xhat;
        sums[0][i] += d * xhat;
        sums[1][i] += d;
      }
    }
    group_sums<2 * R, WIDE>(dots, reinterpret_cast<float(*)[2 * R]>(shared) + (second ? 32 : 0), X);
#pragma unroll
    for (int j = 0; j < R; j++) {
      const int64_t l = base + j * groups, n = start + l;
      if (!dx || l >= L) continue;
      const float mean_g = dots[2 * j] / C, mean_gx = dots[2 * j + 1] / C;
#pragma unroll
      for (int p = 0; p < P; p++) {
        float out[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
          const float xhat = (to_f32(xs[j][p].v[i]) - m[j]) * r[j];
          out[i] = r[j] * (to_f32(dys[j][p].v[i]) * gain[p * V + i] - mean_g - xhat * mean_gx);
        }
        if (c + p * V < C) store_lanes(dx + n * C + c + p * V, out);
      }
    }
  }
  if (!partial) return;
  float* const to = partial + int64_t(blockIdx.x) * 2 * C;
  if constexpr (!WIDE)
    store_column_sums(to, sums, shared, C, 0, X, groups, lane, group);
  else {
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      if (c + i < C) to[c + i] = sums[0][i], to[C + c + i] = sums[1][i];
    }
  }
}

// Threads a row in the backward pass: a power of two, or whole warps.
int row_threads(int C) {
  const int64_t threads = ceil_div(C, COLUMNS);
  return threads <= 32 ? power_of_two(threads) : int(ceil_div(threads, 32) * 32);
}

// Blocks a sample in the backward pass: what fits 132 multiprocessors at a time, or, where samples differ in length, four times as many, so
// that those of short ones make room: 9 % slower if all are equal, 2.3 times as fast if one has half of the rows. Fixed, so that every GPU
// gives the same bits.
int64_t backward_blocks(int64_t B, int64_t L, int C, bool ragged) {
  const int X = row_threads(C), wanted = 132 * (X <= 32 ? 5 : std::max(1, 512 / X)) * (ragged ? 4 : 1);
  return std::max<int64_t>(1, std::min(wanted / std::max<int64_t>(1, B), ceil_div(L, 4)));
}

template <class T, class W>
int32_t forward(const char* where, uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t s, float one,
                const Samples& samples, int C, float eps, uint64_t stream) {
  if (samples.N == 0) return K_OK;
  return with_layout<T>(where, C, aligned16(y, x, w, s), [&](auto layout) {
    using At = decltype(layout);
    auto kernel = norm_fwd<T, W, At, false>;
    if constexpr (std::is_same_v<T, W>) {
      if (samples.offsets) kernel = norm_fwd<T, W, At, true>;
    }
    kernel<<<unsigned(ceil_div(samples.N, layout.groups())), At::THREADS, 0, stream_of(stream)>>>(
        at<T>(y), at<float>(mean), at<float>(rstd), at<const T>(x), at<const W>(w), at<const W>(s), one, samples, C, layout.lanes, eps);
    return launched(where);
  });
}

template <class T, class W>
int32_t backward(const char* where, uint64_t dx, uint64_t dw, uint64_t ds, uint64_t dy, uint64_t x, uint64_t w, float one, uint64_t mean,
                 uint64_t rstd, uint64_t scratch, const Samples& samples, int C, uint64_t stream) {
  const int B = samples.B;
  if (B == 0) return K_OK;
  const bool sums = dw || ds, none = samples.N == 0;
  const int64_t S = backward_blocks(B, samples.mean(), C, samples.offsets);
  if (C > 8192) return fail(K_UNSUPPORTED, where, "C = %d, it must be at most 8192", C);
  if (B * S > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "B = %d, it must be smaller", B);
  constexpr int V = 16 / sizeof(T);
  const int X = row_threads(C);
  const auto run = [&](auto kernel) {
    kernel<<<unsigned(B * S), X <= 32 ? 128 : X, 0, stream_of(stream)>>>(at<T>(dx), sums ? at<float>(scratch) : nullptr, at<const T>(dy),
                                                                         at<const T>(x), at<const W>(w), one, at<const float>(mean),
                                                                         at<const float>(rstd), samples, C, X, int(S));
    return launched(where);
  };
  const auto choose = [&](auto v, auto ragged) {
    constexpr int R = sizeof(T) == 4 ? 2 : 4;
    if (X <= 32) return run(norm_bwd<T, W, v, 2, false, ragged>);
    return X <= 512 ? run(norm_bwd<T, W, v, R, true, ragged>) : run(norm_bwd<T, W, v, 1, true, ragged>);
  };
  const auto with_samples = [&](auto v) {
    if constexpr (std::is_same_v<T, W>) {
      if (samples.offsets) return choose(v, std::true_type{});
    }
    return choose(v, std::false_type{});
  };
  const bool packed = C % V == 0 && aligned16(dx, dy, x);
  const int32_t status = none     ? K_OK
                         : packed ? with_samples(std::integral_constant<int, V>{})
                                  : with_samples(std::integral_constant<int, 1>{});
  if (status || !sums) return status;
  return launch_sum_partials(where, Sums<W>{{at<W>(dw), at<W>(ds)}}, scratch, B, none ? 0 : S, C, 2, stream);
}
}  // namespace

int32_t k_layer_norm_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t w, uint64_t b, int32_t N, int32_t C, float eps,
                         int32_t dtype, uint64_t stream) {
  const char* where = "k_layer_norm_fwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, 0, N, 1, C)) return status;
  return with_float_type(
      where, dtype, [&](auto t) { return forward<decltype(t), float>(where, y, mean, rstd, x, w, b, w ? 0 : 1, samples, C, eps, stream); });
}

int32_t k_layer_norm_bwd_workspace(uint64_t* bytes, int32_t N, int32_t C) { return k_layer_norm_modulate_bwd_workspace(bytes, N, 1, C); }

int32_t k_layer_norm_bwd(uint64_t dx, uint64_t dw, uint64_t db, uint64_t dy, uint64_t x, uint64_t w, uint64_t mean, uint64_t rstd,
                         uint64_t scratch, int32_t N, int32_t C, int32_t dtype, uint64_t stream) {
  const char* where = "k_layer_norm_bwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, 0, N, 1, C)) return status;
  return with_float_type(where, dtype, [&](auto t) {
    return backward<decltype(t), float>(where, dx, dw, db, dy, x, w, w ? 0 : 1, mean, rstd, scratch, samples, C, stream);
  });
}

int32_t k_layer_norm_modulate_fwd(uint64_t y, uint64_t mean, uint64_t rstd, uint64_t x, uint64_t shift, uint64_t scale, uint64_t offsets,
                                  int32_t N, int32_t B, int32_t C, float eps, int32_t dtype, uint64_t stream) {
  const char* where = "k_layer_norm_modulate_fwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  return with_float_type(where, dtype, [&](auto t) {
    return forward<decltype(t), decltype(t)>(where, y, mean, rstd, x, scale, shift, 1, samples, C, eps, stream);
  });
}

int32_t k_layer_norm_modulate_bwd_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t C) {
  *bytes = B * backward_blocks(B, ceil_div(N, std::max(1, B)), C, true) * 2 * C * sizeof(float);
  return K_OK;
}

int32_t k_layer_norm_modulate_bwd(uint64_t dx, uint64_t dshift, uint64_t dscale, uint64_t dy, uint64_t x, uint64_t scale, uint64_t mean,
                                  uint64_t rstd, uint64_t offsets, uint64_t scratch, int32_t N, int32_t B, int32_t C, int32_t dtype,
                                  uint64_t stream) {
  const char* where = "k_layer_norm_modulate_bwd";
  Samples samples;
  if (const int32_t status = samples_of(samples, where, offsets, N, B, C)) return status;
  return with_float_type(where, dtype, [&](auto t) {
    return backward<decltype(t), decltype(t)>(where, dx, dscale, dshift, dy, x, scale, 1, mean, rstd, scratch, samples, C, stream);
  });
}
