// The backward pass within windows on Hopper, in one launch: attention of sequences of at most 96 rows to themselves. A block has one head of
// a sequence, whole in shared memory, and multiprocessors several blocks, so that some load while others compute.
//
// A warpgroup has 64 queries against all keys: P and dP in registers, whose products' row sums are delta, so that o is not read; dS, the
// register operand of dQ = dS K; P and dS, rounded, into shared memory. Then it has 64 keys: dV = P^T d_o, dK = dS^T q.
#pragma once
#include "attention_window_ring.cuh"
#include "hopper.cuh"

namespace attention {
constexpr int WINDOW_ROWS = 96;  // the most rows of a sequence

// Shared memory of a block, in bytes from a multiple of 1024: q, k, v, d_o as wgmma takes them; P and dS of 16 queries each: the first 64
// keys in rows of 128 bytes, the others in rows of 64, swizzled too; for each row -log2(e) lse, and where it lies.
struct WindowLayout {
  static constexpr int TILE = WINDOW_ROWS * 128, Q = 0, K = TILE, V = 2 * TILE, D_O = 3 * TILE, SCORES = 4 * TILE;
  static constexpr int WIDE = 16 * 128, HALF = WIDE + 16 * 64, EACH = 2 * HALF;  // the first keys of 16 queries, their P, P and dS
  static constexpr int STATS = SCORES + 4 * EACH, ROWS = STATS + WINDOW_ROWS * 4, END = ROWS + WINDOW_ROWS * 4;
  static_assert(2 * EACH <= TILE);
  // Those of queries from the 64th on take the place of v.
  static __device__ int scores(int tile) { return tile < 4 ? SCORES + tile * EACH : V + (tile - 4) * EACH; }
};
constexpr int WHOLE_BWD_THREADS = 128, WHOLE_BWD_BLOCKS = 3;  // threads of a block; blocks a multiprocessor
constexpr int WHOLE_BWD_SHARED = WindowLayout::END + 1024;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// P and dS of the 64 queries from `own` on of a sequence of L rows, with the N keys that it has with zeros; dQ, which goes to the rows of `to`
// that `index` says (write_rows).
template <class T, int N>
__device__ inline void query_products(const Operand<T>& dq, const Problem& p, uint32_t shared, const float* stats, int own, int end, int L, T* to,
                                      int index) {
  constexpr int TILES = N / 16;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = own + warp * 16;
  float s[N / 2], dp[N / 2];
  const uint64_t q = along_rows<64>(shared + WindowLayout::Q + own * 128), k = along_rows<64>(shared + WindowLayout::K),
                 v = along_rows<64>(shared + WindowLayout::V), d_o = along_rows<64>(shared + WindowLayout::D_O + own * 128);
  pin(s), pin(dp);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; step++) wgmma<T, 0, 0>(s, q + units(32 * step), k + units(32 * step), step != 0);
  wgmma_commit();
#pragma unroll
  for (int step = 0; step < 4; step++) wgmma<T, 0, 0>(dp, d_o + units(32 * step), v + units(32 * step), step != 0);
  wgmma_commit();
  wgmma_wait<1>(s);
  const bool busy = row < end;
  const float c = p.scale * LOG2_E;
  if (busy) {
    const float l[2] = {stats[row + lane / 4], stats[row + lane / 4 + 8]};
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float w = exp2_fast(fmaf(s[n * 4 + e], c, l[e / 2]));
        const int key = n * 8 + e % 2 + lane % 4 * 2;
        if ((N <= 64 || n / 2 >= TILES - 2) && key >= L) w = 0;
        s[n * 4 + e] = w;
      }
    }
  }
  wgmma_wait<0>(dp);
  uint32_t a_p[TILES][4], a_ds[TILES][4];
  if (busy) {
    float delta[2] = {0, 0};
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) delta[e / 2] = fmaf(s[n * 4 + e], dp[n * 4 + e], delta[e / 2]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      delta[i] += __shfl_xor_sync(~0u, delta[i], 1);
      delta[i] += __shfl_xor_sync(~0u, delta[i], 2);
    }
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float *w = s + n * 4 + half * 2, *x = dp + n * 4 + half * 2;
        a_p[n / 2][n % 2 * 2 + half] = pack(T{}, w[0], w[1]);
        a_ds[n / 2][n % 2 * 2 + half] = pack(T{}, w[0] * (x[0] - delta[half]), w[1] * (x[1] - delta[half]));
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < TILES; j++) {
#pragma unroll
      for (int i = 0; i < 4; i++) a_p[j][i] = a_ds[j][i] = 0;
    }
  }
  float sum[8][4];
  float(&flat)[32] = reinterpret_cast<float(&)[32]>(sum);
  const uint64_t right = down_rows<64>(shared + WindowLayout::K, 0);
  pin(flat);
  wgmma_fence();
#pragma unroll
  for (int j = 0; j < TILES; j++) wgmma<T, 1>(flat, a_ds[j], right + units(j * 16 * 128), j != 0);
  wgmma_commit();
  if (own >= 64) __syncthreads();  // v is not read any more
  if (busy) {
    const uint32_t block = shared + WindowLayout::scores(row / 16);
    const int r = lane % 16, high = lane / 16;
#pragma unroll
    for (int j = 0; j < TILES; j++) {
      const uint32_t line = j < 4 ? block + r * 128 + ((j * 2 + high) ^ (r & 7)) * 16
                                  : block + WindowLayout::WIDE + r * 64 + ((((j - 4) * 2 + high) ^ (r >> 1)) & 3) * 16;
      stmatrix(line, a_p[j][0], a_p[j][1], a_p[j][2], a_p[j][3]);
      stmatrix(line + WindowLayout::HALF, a_ds[j][0], a_ds[j][1], a_ds[j][2], a_ds[j][3]);
    }
  }
  async_fence();
  wgmma_wait<0>(flat);
  if (dq.data && busy) write_rows(to, int(dq.stride.token), index, sum, p.scale, p.D);
}

// Begins dV or, from dS, dK (without the scale) of the first 64 keys (part 0) or of the others. Those are 32, which stand for the next 32 too.
template <class T, int PART>
__device__ inline void key_products(float (&sum)[32], uint32_t shared, bool from_ds, int tiles) {
  const uint32_t scores = shared + (from_ds ? WindowLayout::HALF : 0);
  const uint64_t right = down_rows<64>(shared + (from_ds ? WindowLayout::Q : WindowLayout::D_O), 0);
#pragma unroll 1
  for (int i = 0; i < tiles; i++) {
    const uint32_t at = scores + WindowLayout::scores(i);
    const uint64_t left = PART ? down_rows<32>(at + WindowLayout::WIDE, 0) : down_rows<64>(at, 0);
    wgmma<T, 1, 1>(sum, left, right + units(i * 16 * 128), i != 0);
  }
}
#endif

template <class T>
__global__ void __launch_bounds__(WHOLE_BWD_THREADS, WHOLE_BWD_BLOCKS)
    backward_window_sm90(Operand<T> dq, Operand<T> dk, Operand<T> dv, Operand<const T> d_o, Operand<const T> q, Operand<const T> k,
                         Operand<const T> v, const __grid_constant__ Problem p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint4 memory[];
  char* base = reinterpret_cast<char*>(memory) + (1024 - shared_address(memory) % 1024) % 1024;
  const uint32_t shared = shared_address(base);
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int sequence = blockIdx.x / unsigned(p.H), head = blockIdx.x % unsigned(p.H);
  int first = 0, L = p.q.longest;
  if (p.q.offsets) first = p.q.offsets[sequence], L = p.q.offsets[sequence + 1] - first;
  if (L <= 0) return;
  if (L > WINDOW_ROWS) __trap();  // p.q.longest is no bound of the lengths
  const int tiles = (L + 15) / 16, rows = max(tiles, 2) * 16;
  float* stats = reinterpret_cast<float*>(base + WindowLayout::STATS);
  int* list = reinterpret_cast<int*>(base + WindowLayout::ROWS);
  {
    constexpr int STEP = WHOLE_BWD_THREADS / 8, STEPS = WINDOW_ROWS / STEP;
    const int from = threadIdx.x / 8, unit = threadIdx.x % 8, column = unit * 8;
    const int64_t batch = p.q.offsets ? 0 : sequence;
    const T *qs = q.data + head * q.stride.head + batch * q.stride.batch + column, *ks = k.data + head * k.stride.head + batch * k.stride.batch + column,
            *vs = v.data + head * v.stride.head + batch * v.stride.batch + column,
            *d_os = d_o.data + head * d_o.stride.head + batch * d_o.stride.batch + column;
    int row[STEPS];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int r = i * STEP + from;
      row[i] = -1;
      if (r < L) row[i] = p.q.rows ? p.q.rows[first + r] : p.q.offsets ? first + r : r;
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int r = i * STEP + from;
      const bool inside = row[i] >= 0 && column < p.D;
      if (r < rows) {
        const uint32_t to = shared + r * 128 + (unit ^ (r & 7)) * 16;
        cp_async16(to + WindowLayout::Q, qs + max(row[i], 0) * q.stride.token, inside);
        cp_async16(to + WindowLayout::K, ks + max(row[i], 0) * k.stride.token, inside);
        cp_async16(to + WindowLayout::V, vs + max(row[i], 0) * v.stride.token, inside);
        cp_async16(to + WindowLayout::D_O, d_os + max(row[i], 0) * d_o.stride.token, inside);
        if (unit == 0) list[r] = row[i];
      }
    }
    for (int r = threadIdx.x; r < rows; r += WHOLE_BWD_THREADS) {
      stats[r] = r < L ? -LOG2_E * p.lse[p.stat(sequence, head, first) + r] : -INFINITY;
    }
    cp_async_wait();
    async_fence();
  }
  __syncthreads();
  const auto at = [&](const Operand<T>& x) { return x.data + head * x.stride.head + (p.q.offsets ? 0 : sequence * x.stride.batch); };
  const auto index_of = [&](int from) { return lane < 16 && from < rows ? list[from + lane] : -1; };
#pragma unroll 1
  for (int own = 0; own < tiles * 16; own += 64) {
    const auto run = [&](auto n) {
      query_products<T, decltype(n)::value>(dq, p, shared, stats, own, tiles * 16, L, at(dq), index_of(own + warp * 16));
    };
    switch (rows / 16) {
      case 2: run(std::integral_constant<int, 32>{}); break;
      case 3: run(std::integral_constant<int, 48>{}); break;
      case 4: run(std::integral_constant<int, 64>{}); break;
      case 5: run(std::integral_constant<int, 80>{}); break;
      default: run(std::integral_constant<int, 96>{});
    }
  }
  __syncthreads();
  float sum_v[8][4], sum_k[8][4];
  float(&flat_v)[32] = reinterpret_cast<float(&)[32]>(sum_v);
  float(&flat_k)[32] = reinterpret_cast<float(&)[32]>(sum_k);
  const auto keys = [&](auto part) {
    constexpr int PART = decltype(part)::value;
    pin(flat_v), pin(flat_k);
    wgmma_fence();
    key_products<T, PART>(flat_v, shared, false, tiles);
    wgmma_commit();
    key_products<T, PART>(flat_k, shared, true, tiles);
    wgmma_commit();
    const int row = PART * 64 + warp * 16, index = index_of(row);
    wgmma_wait<1>(flat_v);
    if (dv.data && row < tiles * 16) write_rows(at(dv), int(dv.stride.token), index, sum_v, 1.0f, p.D);
    wgmma_wait<0>(flat_k);
    if (dk.data && row < tiles * 16) write_rows(at(dk), int(dk.stride.token), index, sum_k, p.scale, p.D);
  };
  keys(std::integral_constant<int, 0>{});
  if (tiles > 4) keys(std::integral_constant<int, 1>{});
#endif
}
}  // namespace attention
