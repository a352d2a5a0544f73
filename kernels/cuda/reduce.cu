// Sums read O R I elements once: 10^8 f16 are 200 MB, 65 us at 3 TB/s. Long axes are cut into S parts whose f32 sums go to the workspace
// (at most 1 MB) and are summed by a second launch; which thread adds what depends on the extents and alignment alone.
#include "../include/reduce.h"
#include "vector.cuh"

namespace {
constexpr int THREADS = 256, BLOCKS = 8 * 132;         // blocks that fill a large GPU
constexpr int64_t PART = 1 << 14;                      // elements that a block should have at least
constexpr int64_t SERIAL_R = 32, SERIAL_OI = 1 << 19;  // a thread an output: for short axes or many outputs

struct Plan {
  int64_t S = 1, part = 0;  // parts of R, and their length
  int tile = 1;             // columns of a block, a power of 2
  bool serial = false;
};

Plan plan_of(int64_t O, int64_t R, int64_t I) {
  Plan plan;
  if (I == 1 ? R <= 4096 : R <= SERIAL_R || O * I >= SERIAL_OI) {
    plan.serial = true;
    return plan;
  }
  if (I > 1) {
    while (plan.tile < I && plan.tile < 256) plan.tile *= 2;
  }
  const int64_t blocks = O * ceil_div(I, plan.tile), most = ceil_div(R, I == 1 ? PART : PART / plan.tile);
  plan.S = ceil_div(BLOCKS, blocks < 1 ? 1 : blocks);
  if (plan.S > most) plan.S = most;
  plan.part = ceil_div(ceil_div(R, plan.S), 8) * 8;
  plan.S = ceil_div(R, plan.part);
  return plan;
}

// sum += V elements at p, p + step, ..., below end.
template <int V, class T>
__device__ inline void add_run(float (&sum)[V], const T* p, const T* end, int64_t step) {
  constexpr int AHEAD = 4;
  for (; p + (AHEAD - 1) * step < end; p += AHEAD * step) {
    float v[AHEAD][V];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) load_lanes(v[k], p + k * step);
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
#pragma unroll
      for (int j = 0; j < V; j++) sum[j] += v[k][j];
    }
  }
  for (; p < end; p += step) {
    float v[V];
    load_lanes(v, p);
#pragma unroll
    for (int j = 0; j < V; j++) sum[j] += v[j];
  }
}

template <int V>
__device__ inline float total(const float (&v)[V]) {
  float sum = v[0];
#pragma unroll
  for (int j = 1; j < V; j++) sum += v[j];
  return sum;
}

// I = 1, R short: G lanes a row.
template <int V, int G, class T, class Y>
__global__ void __launch_bounds__(THREADS) sum_short_rows(Y* y, const T* x, int64_t O, int64_t R, float scale) {
  const int64_t o = int64_t(blockIdx.x) * (THREADS / G) + threadIdx.x / G;
  float sum[V] = {};
  if (o < O) add_run(sum, x + o * R + threadIdx.x % G * V, x + (o + 1) * R, int64_t(G) * V);
  float v = total(sum);
#pragma unroll
  for (int lane = G / 2; lane; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
  if (o < O && threadIdx.x % G == 0) y[o] = from_f32<Y>(scale * v);
}

// I = 1: a block for part s of row o.  y: [O, S]
template <int V, class T, class Y>
__global__ void __launch_bounds__(THREADS) sum_long_rows(Y* y, const T* x, int64_t R, int64_t S, int64_t part, float scale) {
  const int64_t o = blockIdx.x / S, first = blockIdx.x % S * part, last = min(first + part, R);
  float sum[V] = {};
  add_run(sum, x + o * R + first + threadIdx.x * V, x + o * R + last, int64_t(THREADS) * V);
  const float v = block_sum<THREADS>(total(sum));
  if (threadIdx.x == 0) y[blockIdx.x] = from_f32<Y>(scale * v);
}

// V columns of one o a thread, over all of R.
template <int V, class T, class Y>
__global__ void __launch_bounds__(THREADS) sum_serial(Y* y, const T* x, int64_t O, int64_t R, int64_t I, float scale) {
  const int64_t k = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * V;
  if (k >= O * I) return;
  const int64_t o = k / I, i = k % I;
  float sum[V] = {};
  add_run(sum, x + o * R * I + i, x + (o + 1) * R * I, I);
#pragma unroll
  for (int j = 0; j < V; j++) sum[j] *= scale;
  store_lanes(y + k, sum);
}

// A block for part s of R and `tile` columns of o: tile / V threads across, the others down.  y: [O, S, I]
template <int V, class T, class Y>
__global__ void __launch_bounds__(THREADS)
    sum_columns(Y* y, const T* x, int64_t R, int64_t I, int64_t S, int64_t part, int tile, float scale) {
  const int64_t tiles = (I + tile - 1) / tile, block = blockIdx.x;
  const int64_t o = block / (S * tiles), s = block / tiles % S;
  const int across = tile / V, down = THREADS / across, column = threadIdx.x % across, row = threadIdx.x / across;
  const int64_t i = block % tiles * tile + column * V, first = s * part, last = min(first + part, R);
  float sum[V] = {};
  if (i < I) add_run(sum, x + (o * R + first + row) * I + i, x + (o * R + last) * I, down * I);
  __shared__ float partial[V][THREADS];
#pragma unroll
  for (int j = 0; j < V; j++) partial[j][threadIdx.x] = sum[j];
  for (int half = down / 2; half; half /= 2) {
    __syncthreads();
    if (row < half) {
#pragma unroll
      for (int j = 0; j < V; j++) partial[j][threadIdx.x] += partial[j][threadIdx.x + half * across];
    }
  }
  if (row || i >= I) return;
#pragma unroll
  for (int j = 0; j < V; j++) sum[j] = scale * partial[j][threadIdx.x];
  store_lanes(y + (o * S + s) * I + i, sum);
}

// One launch: y [O, I], or the part sums [O, S, I] where plan.S > 1.
template <int V, class Y, class T>
int32_t launch(Y* y, const T* x, int64_t O, int64_t R, int64_t I, const Plan& plan, float scale, cudaStream_t s) {
  if (I == 1 && plan.serial) {
    const int64_t packs = ceil_div(R, V);
    if (packs <= 4) sum_short_rows<V, 1><<<unsigned(ceil_div(O, THREADS)), THREADS, 0, s>>>(y, x, O, R, scale);
    else if (packs <= 32) sum_short_rows<V, 4><<<unsigned(ceil_div(O, THREADS / 4)), THREADS, 0, s>>>(y, x, O, R, scale);
    else sum_short_rows<V, 32><<<unsigned(ceil_div(O, THREADS / 32)), THREADS, 0, s>>>(y, x, O, R, scale);
  } else if (I == 1) {
    sum_long_rows<V><<<unsigned(O * plan.S), THREADS, 0, s>>>(y, x, R, plan.S, plan.part, scale);
  } else if (plan.serial) {
    sum_serial<V><<<unsigned(ceil_div(O * I, THREADS * V)), THREADS, 0, s>>>(y, x, O, R, I, scale);
  } else {
    const int64_t blocks = O * plan.S * ceil_div(I, plan.tile);
    sum_columns<V><<<unsigned(blocks), THREADS, 0, s>>>(y, x, R, I, plan.S, plan.part, plan.tile, scale);
  }
  return launched("k_sum_fwd");
}

// With whole packs where the rows (or columns) allow them and are not narrower than a pack.
template <class Y, class T>
int32_t sum(Y* y, const T* x, int64_t O, int64_t R, int64_t I, const Plan& plan, float scale, cudaStream_t s) {
  constexpr int V = 16 / sizeof(T);
  const bool vector = aligned16(reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y)) && (I == 1 ? R : I) % V == 0;
  if (vector) return launch<V>(y, x, O, R, I, plan, scale, s);
  return launch<1>(y, x, O, R, I, plan, scale, s);
}

int32_t check(const char* where, int64_t O, int64_t R, int64_t I, int32_t y_dtype, int32_t x_dtype) {
  if (O < 0 || R < 0 || I < 0) {
    return fail(K_BAD_ARGUMENT, where, "[O, R, I] is [%lld, %lld, %lld], it must be at least 0", (long long)O, (long long)R, (long long)I);
  }
  if (y_dtype == K_F32 || y_dtype == x_dtype) return K_OK;
  return fail(K_BAD_ARGUMENT, where, "y's dtype is %d, it must be f32 (0) or that of x (%d)", y_dtype, x_dtype);
}

template <class T, class Y, class I>
struct Spread {
  T* dx;
  const Y* dy;
  I R, inner;
  float scale;
  template <int V>
  __device__ void run(int64_t k) const {
    const I row = I(k) / inner, i = I(k) - row * inner, o = row / R;
    float v[V];
    if (V > 1 && inner == 1) {
      v[0] = to_f32(dy[o]);
#pragma unroll
      for (int j = 1; j < V; j++) v[j] = v[0];
    } else {
      load_lanes(v, dy + int64_t(o) * inner + i);
    }
#pragma unroll
    for (int j = 0; j < V; j++) v[j] *= scale;
    store_lanes(dx + k, v);
  }
};
}  // namespace

int32_t k_sum_workspace(uint64_t* bytes, int64_t O, int64_t R, int64_t I) {
  const Plan plan = plan_of(O, R, I);
  *bytes = plan.S > 1 ? uint64_t(O) * plan.S * I * sizeof(float) : 0;
  return K_OK;
}

int32_t k_sum_fwd(uint64_t y, uint64_t x, uint64_t workspace, int64_t O, int64_t R, int64_t I, float scale, int32_t y_dtype,
                  int32_t x_dtype, uint64_t stream) {
  if (int32_t status = check("k_sum_fwd", O, R, I, y_dtype, x_dtype)) return status;
  if (O * I == 0) return K_OK;
  const cudaStream_t s = stream_of(stream);
  const Plan plan = plan_of(O, R, I);
  return with_float_type("k_sum_fwd", x_dtype, [&](auto type) {
    using T = decltype(type);
    const auto finish = [&](auto* to) -> int32_t {
      if (plan.S == 1) return sum(to, at<const T>(x), O, R, I, plan, scale, s);
      if (int32_t status = sum(at<float>(workspace), at<const T>(x), O, R, I, plan, 1.0f, s)) return status;
      const Plan last{1, plan.S, plan.tile < 32 ? plan.tile : 32, I == 1 || plan.S <= SERIAL_R};
      return sum(to, at<const float>(workspace), O, plan.S, I, last, scale, s);
    };
    return y_dtype == K_F32 ? finish(at<float>(y)) : finish(at<T>(y));
  });
}

int32_t k_sum_bwd(uint64_t dx, uint64_t dy, int64_t O, int64_t R, int64_t I, float scale, int32_t y_dtype, int32_t x_dtype,
                  uint64_t stream) {
  if (int32_t status = check("k_sum_bwd", O, R, I, y_dtype, x_dtype)) return status;
  return with_float_type("k_sum_bwd", x_dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = 16 / sizeof(T);
    const int64_t n = O * R * I;
    const bool vector = aligned16(dx, dy) && (I == 1 ? R : I) % V == 0;
    const auto spread = [&](auto* from, auto index) {
      using Index = decltype(index);
      const Spread<T, std::remove_pointer_t<decltype(from)>, Index> work{at<T>(dx), from, Index(R), Index(I), scale};
      return each<V>("k_sum_bwd", n, vector, work, stream);
    };
    const auto sized = [&](auto* from) { return n < int64_t(1) << 31 ? spread(from, uint32_t{}) : spread(from, uint64_t{}); };
    return y_dtype == K_F32 ? sized(at<float>(dy)) : sized(at<T>(dy));
  });
}
