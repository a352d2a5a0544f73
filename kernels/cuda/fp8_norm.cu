// Layer norms whose result is in 8-bit floats, on CUDA. Bound by memory: a row stays in registers from its load to its rounding. Many rows of 513 to
// 1024 elements of 16 bits come from rings; of others there are as many groups of threads as rows, and others hide the time that one waits.
#include "fp8.cuh"
#include "norm_fwd_ring.cuh"

namespace {
template <int GROUP>
__device__ inline float row_sum(float v) {
  if constexpr (GROUP > 32)
    return block_sum<GROUP>(v);
  else
    return warp_sum(v);
}

// Computes to the bit what norm_fwd and quantize do.
template <class T, class W, int GROUP, bool RESIDUAL>
__global__ void __launch_bounds__(row_block(GROUP), (RESIDUAL ? 768 : 1024) / row_block(GROUP))
    norm_quantize(Norm<T, W> at, uint8_t* __restrict__ values, float* __restrict__ scale, const T* __restrict__ x, const T* __restrict__ h,
                  const T* __restrict__ gates, const W* __restrict__ w, const W* __restrict__ s) {
  constexpr int V = FP8_V, P = FP8_P;
  using Packs = Pack<T, V>;
  __shared__ float buffer[GROUP / 32][1];
  const int lane = threadIdx.x % GROUP, C = at.C;
  const unsigned n = blockIdx.x * (row_block(GROUP) / GROUP) + threadIdx.x / GROUP;
  if (n >= at.samples.N) return;  // a whole group
  const int64_t sample = at.samples.of(n), start = int64_t(n) * C;
  Pack<T, 16 / sizeof(T)> row[P * V * sizeof(T) / 16];
  T* const held = reinterpret_cast<T*>(row);
  float sum = 0, squares = 0, largest[1] = {};
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
    float v[V] = {};
    if (c < C) {
      load_lanes(v, x + start + c);
      if constexpr (RESIDUAL) {
        float other[V], gate[V];
        load_lanes(other, h + start + c);
#pragma unroll
        for (int i = 0; i < V; i++) gate[i] = 1;
        if (gates) load_lanes(gate, gates + sample * at.gate_stride + c);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += other[i] * gate[i];
      }
    }
#pragma unroll
    for (int i = 0; i < V; i++) held[p * V + i] = from_f32<T>(v[i]);
    if constexpr (RESIDUAL) {
      if (c < C) store_lanes(at.sum + start + c, v);
    }
#pragma unroll
    for (int i = 0; i < V; i++) sum += to_f32(held[p * V + i]);
  }
  const float m = row_sum<GROUP>(sum) / C;
#pragma unroll
  for (int p = 0; p < P; p++) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float d = to_f32(held[p * V + i]) - m;
      if ((p * GROUP + lane) * V < C) squares += d * d;
    }
  }
  const float r = rsqrtf(row_sum<GROUP>(squares) / C + at.eps);
  if (lane == 0) at.mean[n] = m, at.rstd[n] = r;
  const int64_t affine = sample * at.stride;
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
    if (c >= C) continue;
    float gain[V] = {}, shift[V] = {};
    if (w) load_lanes(gain, w + affine + c);
    if (s) load_lanes(shift, s + affine + c);
#pragma unroll
    for (int i = 0; i < V; i++) {
      held[p * V + i] = from_f32<T>((to_f32(held[p * V + i]) - m) * r * (at.one + gain[i]) + shift[i]);
      largest[0] = larger_size(largest[0], to_f32(held[p * V + i]));
    }
  }
  group_largest<GROUP>(largest, buffer);
  const RowScale by(largest[0]);
  if (lane == 0) scale[n] = by.scale;
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int c = (p * GROUP + lane) * V;
    if (c >= C) continue;
    float out[V];
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = to_f32(held[p * V + i]);
    if (at.y) store_lanes(at.y + start + c, out);
    store_fp8(values + start + c, out, by.inverse);
  }
}

// What becomes of a row of norm_fwd_ring: rounded as norm_quantize does.
struct EightBitRow {
  uint8_t* values;
  float* scale;
  static constexpr int slots(bool) { return 4; }
  static constexpr int resident(bool residual) { return residual ? 12 : 16; }
  template <class T, class W>
  __device__ void operator()(const Norm<T, W>& at, float (&out)[RING_PACKS][8], int n, int lane, int C) const {
    float largest = 0;
#pragma unroll
    for (int p = 0; p < RING_PACKS; p++) {
      const int c = (p * 32 + lane) * 8;
      Pack<T, 8> wide;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        wide.v[i] = from_f32<T>(out[p][i]);
        out[p][i] = to_f32(wide.v[i]);
        if (c < C) largest = larger_size(largest, out[p][i]);
      }
      if (at.y && c < C) *reinterpret_cast<Pack<T, 8>*>(at.y + int64_t(n) * C + c) = wide;
    }
    const RowScale by(warp_largest(largest));
    if (lane == 0) scale[n] = by.scale;
#pragma unroll
    for (int p = 0; p < RING_PACKS; p++) {
      const int c = (p * 32 + lane) * 8;
      if (c < C) store_fp8(values + int64_t(n) * C + c, out[p], by.inverse);
    }
  }
};
}  // namespace

int32_t k_fp8_norm_fwd(uint64_t values, uint64_t scale, const k_norm* problem, uint64_t stream) {
  const char* where = "k_fp8_norm_fwd";
  Samples samples;
  if (const int32_t status = check_norm(samples, where, problem)) return status;
  const k_norm& p = *problem;
  if (const int32_t status = check_fp8(where, p.N, p.C)) return status;
  if (samples.N == 0) return K_OK;
  return with_float_type(where, int32_t(p.dtype), [&](auto type) {
    using T = decltype(type);
    const auto fill = [&](auto weight, uint64_t w, uint64_t s, int64_t stride, float one) {
      using W = decltype(weight);
      Norm<T, W> norm{};
      norm.sum = at<T>(p.sum), norm.y = at<T>(p.y), norm.mean = at<float>(p.mean), norm.rstd = at<float>(p.rstd);
      norm.stride = stride, norm.gate_stride = p.gate_stride, norm.samples = samples, norm.C = int(p.C), norm.one = one;
      norm.eps = float(p.eps);
      if (!aligned16(p.x, p.h, p.sum, p.y, p.gate, w, s) || (values & 7) || (p.gate && p.gate_stride % FP8_V) || stride % FP8_V) {
        return unaligned(where);
      }
      if constexpr (sizeof(T) == 2) {
        if (takes_ring<T, EightBitRow>(samples, norm.C, true, p.h != 0)) {
          norm.x = at<const T>(p.x), norm.h = at<const T>(p.h), norm.gate = at<const T>(p.gate), norm.w = at<const W>(w), norm.s = at<const W>(s);
          const EightBitRow finish{at<uint8_t>(values), at<float>(scale)};
          return p.h ? launch_ring<T, W, true>(where, norm, finish, stream) : launch_ring<T, W, false>(where, norm, finish, stream);
        }
      }
      return with_row_threads(norm.C, [&](auto group) {
        const auto kernel = p.h ? norm_quantize<T, W, group, true> : norm_quantize<T, W, group, false>;
        const int64_t blocks = ceil_div(samples.N, row_block(group) / group);
        kernel<<<unsigned(blocks), row_block(group), 0, stream_of(stream)>>>(norm, at<uint8_t>(values), at<float>(scale), at<const T>(p.x),
                                                                             at<const T>(p.h), at<const T>(p.gate), at<const W>(w), at<const W>(s));
        return launched(where);
      });
    };
    return p.scale || p.shift ? fill(T{}, p.scale, p.shift, p.stride, 1) : fill(float{}, p.w, p.b, 0, p.w ? 0 : 1);
  });
}
