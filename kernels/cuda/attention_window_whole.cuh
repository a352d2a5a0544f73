// Attention within sequences of at most 96 rows, such as shifted windows, forward: a block has one head of a sequence, or as many heads as fit in
// 96 rows. All rows of their queries, keys and values lie in shared memory; a warp takes 16 queries at a time, and all of their scores at once.
//
// Bound by memory: q, k, v and o once. 15,192 voxels in shifted windows of 2 to 95 rows, 12 heads of 64, packed, in bf16: 93 MB, 22 us at an
// H200's 4.3 TB/s; 3.5 GFLOP, 4.9 in tiles. Measured: 34.6 us, of which 3 are a launch's; loading and writing alone 26, computing alone 26.
#pragma once
#include <type_traits>

#include "attention_fwd.cuh"
#include "attention_window_ring.cuh"

namespace attention {
constexpr int WHOLE_ROWS = 96, WHOLE_WARPS = 4, WHOLE_BLOCKS = 6;            // rows and warps of a block; blocks a multiprocessor
constexpr int WHOLE_TILE = WHOLE_ROWS * 128, WHOLE_SHARED = 3 * WHOLE_TILE;  // bytes: keys, then values, then queries

// Where 16 bytes of a tile's row lie: equal pieces of any 8 rows in different banks.
__device__ inline uint32_t piece_at(int row, int piece) { return uint32_t(row * 128 + (piece ^ ((row & 1) << 2 | (row >> 1 & 3))) * 16); }

// Writes two C tiles side by side, rounded as an A tile; `row` is the address of this lane's 16 bytes, as for ldmatrix of an A tile.
__device__ inline void store_matrices(uint32_t row, const uint32_t (&x)[4]) {
#if __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
#else
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint32_t at = __shfl_sync(~0u, row, i * 8 + threadIdx.x % 32 / 4) + threadIdx.x % 4 * 4;
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(x[i]) : "memory");
  }
#endif
}
__device__ inline uint4 load_shared(uint32_t at) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(at) : "memory");
  return x;
}
__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// An operand, its strides in bytes, those of rows and heads less than 2^31; `batch` is 0 where sequences are of variable length.
struct Lines {
  char* data;
  int64_t batch;
  int token, head;
  template <class T>
  Lines(const Operand<T>& x, const Sequences& s)
      : data(const_cast<char*>(reinterpret_cast<const char*>(x.data))),
        batch(s.offsets ? 0 : x.stride.batch * 2),
        token(int(x.stride.token * 2)),
        head(int(x.stride.head * 2)) {}
  __device__ char* at(int sequence, int h) const { return wide(h, head, data) + sequence * batch; }
  // y + a b, in one instruction.
  __device__ static char* wide(int a, int b, char* y) {
    asm("mad.wide.s32 %0, %1, %2, %0;" : "+l"(y) : "r"(a), "r"(b));
    return y;
  }
};

// A block's heads of a sequence, each with `unit` times 16 rows of the tiles.
struct WholeHeads {
  int q0, L, k0, M;
  int sequence, first, heads, unit;
};

// Begins to copy them: queries and keys as one group, values as another. Of each 16 rows a warp has 4: lane 4 i + r knows where the i-th
// four's row r lies.
__device__ inline void load_heads(const WholeHeads& x, uint32_t tiles, const Lines& q, const Lines& k, const Lines& v, const Problem& p, int warp) {
  constexpr int STEP = WHOLE_WARPS * 4;
  static_assert(STEP == SLOT_ROWS && WHOLE_ROWS / STEP <= 8);
  const int lane = threadIdx.x % 32, row = lane / 4 * STEP + warp * 4 + lane % 4, piece = lane % 8, part = row / SLOT_ROWS;
  const int h = x.unit > 3 ? 0 : x.unit == 3 ? part / 3 : x.unit == 2 ? part / 2 : part, r = row - h * x.unit * SLOT_ROWS;
  int k_row = x.k0 + r;
  if (p.k.rows && r < x.M) k_row = p.k.rows[k_row];
  if (r >= x.M) k_row = -1;
  int q_row = k_row;
  if (p.q.rows != p.k.rows || x.q0 != x.k0 || x.L != x.M) {
    q_row = x.q0 + r;
    if (p.q.rows && r < x.L) q_row = p.q.rows[q_row];
    if (r >= x.L) q_row = -1;
  }
  char *qs = q.at(x.sequence, x.first) + piece * 16, *ks = k.at(x.sequence, x.first) + piece * 16, *vs = v.at(x.sequence, x.first) + piece * 16;
  const bool inside = piece * 8 < p.D;
  uint32_t to = tiles + piece_at(warp * 4 + lane / 8, piece);
#pragma unroll 1
  for (int i = 0, left = x.heads * x.unit * SLOT_ROWS - warp * 4; left > 0; i += 4, left -= STEP) {
    const int at_q = __shfl_sync(~0u, q_row, i + lane / 8), at_k = __shfl_sync(~0u, k_row, i + lane / 8);
    const int which = __shfl_sync(~0u, h, i);
    cp_async16(to, Lines::wide(at_k, k.token, Lines::wide(which, k.head, ks)), at_k >= 0 && inside);
    cp_async16(to + 2 * WHOLE_TILE, Lines::wide(at_q, q.token, Lines::wide(which, q.head, qs)), at_q >= 0 && inside);
    to += STEP * 128;  // the same piece, 16 rows on
  }
  commit_copies();
  to = tiles + WHOLE_TILE + piece_at(warp * 4 + lane / 8, piece);
#pragma unroll 1
  for (int i = 0, left = x.heads * x.unit * SLOT_ROWS - warp * 4; left > 0; i += 4, left -= STEP) {
    const int at_k = __shfl_sync(~0u, k_row, i + lane / 8), which = __shfl_sync(~0u, h, i);
    cp_async16(to, Lines::wide(at_k, v.token, Lines::wide(which, v.head, vs)), at_k >= 0 && inside);
    to += STEP * 128;
  }
  commit_copies();
}

// The whole block calls it.
__device__ inline void wait_values() {
  wait_copies<0>();
  __syncthreads();
}

// 16 queries (A tiles q) and M keys, N times 16 with the last ones filled up: sums, the scaled scores' maxima, and each lane's part of the
// weights. `keys` and `values` have the lane's offset; `first`: the warp has not waited for the values yet.
template <class T, int N>
__device__ inline void attend(float (&sum)[8][4], float (&top)[2], float (&weight)[2], const uint32_t (&q)[4][4], uint32_t keys, uint32_t values,
                              int M, float c, bool first) {
  float s[N][2][4] = {};
  uint32_t a[N][4];
#pragma unroll
  for (int j = 0; j < N; j++) {
#pragma unroll
    for (int step = 0; step < 4; step++) {
      uint32_t f[4];
      ldmatrix(f, (keys ^ step * 32) + j * SLOT_ROWS * 128);
      mma(T{}, s[j][0], q[step], f[0], f[1]);
      mma(T{}, s[j][1], q[step], f[2], f[3]);
    }
    if (j == N - 1) {
      const int inside = M - j * SLOT_ROWS - int(threadIdx.x) % 4 * 2;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (i / 4 * 8 + i % 2 >= inside) s[j][i / 4][i % 4] = -INFINITY;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float high = fmaxf(fmaxf(s[j][0][half * 2], s[j][0][half * 2 + 1]), fmaxf(s[j][1][half * 2], s[j][1][half * 2 + 1]));
      top[half] = j ? fmaxf(top[half], high) : high;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 1));
    top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 2)) * c;
    weight[half] = 0;
  }
#pragma unroll
  for (int i = 0; i < 4 * N; i++) {
    const float *pair = s[i / 4][i / 2 % 2] + i % 2 * 2, offset = -top[i % 2];
    const float low = exp2_fast(fmaf(pair[0], c, offset)), high = exp2_fast(fmaf(pair[1], c, offset));
    weight[i % 2] += low + high;
    a[i / 4][i % 4] = pack(T{}, low, high);
  }
  if (first) wait_values();
#pragma unroll
  for (int i = 0; i < 32; i++) sum[i / 4][i % 4] = 0;
#pragma unroll
  for (int j = 0; j < N; j++) {
#pragma unroll
    for (int d = 0; d < 4; d++) {
      uint32_t f[4];
      ldmatrix_trans(f, (values ^ d * 32) + j * SLOT_ROWS * 128);
      mma(T{}, sum[2 * d], a[j], f[0], f[1]);
      mma(T{}, sum[2 * d + 1], a[j], f[2], f[3]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(WHOLE_WARPS * 32, WHOLE_BLOCKS)
    forward_whole(const Lines o, const Lines q, const Lines k, const Lines v, const __grid_constant__ Problem p) {
  extern __shared__ uint4 memory[];
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  WholeHeads x;
  x.sequence = blockIdx.z * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) {  // has the maps brought near, before offsets are known
    const int64_t r = (int64_t(x.sequence) * gridDim.x + blockIdx.x) * 32;
    if (p.q.rows && r < p.q.total) asm volatile("prefetch.global.L2 [%0];" ::"l"(p.q.rows + r));
  }
  if (unsigned(x.sequence) >= unsigned(p.B)) return;
  x.q0 = 0, x.L = p.q.longest, x.k0 = 0, x.M = p.k.longest;
  if (p.q.offsets) {
    x.q0 = p.q.offsets[x.sequence], x.L = p.q.offsets[x.sequence + 1] - x.q0;
    x.k0 = p.k.offsets[x.sequence], x.M = p.k.offsets[x.sequence + 1] - x.k0;
  }
  if (x.L > WHOLE_ROWS || x.M > WHOLE_ROWS) __trap();  // L or M is no bound of the lengths
  const int tiles = slots_of(x.L), chunks = slots_of(x.M);
  x.unit = max(tiles, chunks);
  const int most = x.unit > 3 ? 1 : x.unit == 3 ? 2 : x.unit == 2 ? 3 : 6;
  x.first = blockIdx.x * most;
  x.heads = min(most, p.H - x.first);
  if (x.L == 0 || x.heads <= 0) return;
  const uint32_t keys = shared_address(memory), queries = keys + 2 * WHOLE_TILE;
  load_heads(x, keys, q, k, v, p, warp);

  const float c = p.scale * LOG2_E;
  const uint32_t a_lane = piece_at(lane % 16, lane / 16), b_lane = piece_at(lane % 8 + lane / 16 * 8, lane / 8 % 2);
  const uint32_t keys_at = keys + b_lane, values_at = keys + WHOLE_TILE + a_lane;
  wait_copies<1>();
  __syncthreads();
  if (warp >= tiles * x.heads || chunks == 0) {
    wait_values();
    if (chunks) return;
  }
  bool waits = true;
#pragma unroll 1
  for (int tile = warp, h = 0;; tile += WHOLE_WARPS) {
    for (; tile >= tiles; h++) tile -= tiles;
    if (h >= x.heads) return;
    const int from = tile * SLOT_ROWS, head = x.first + h;
    const uint32_t base = h * x.unit * SLOT_ROWS * 128, own = queries + base + from * 128;
    float sum[8][4], top[2], weight[2];
    uint32_t a[4][4];
#pragma unroll
    for (int step = 0; step < 4; step++) ldmatrix(a[step], (own + a_lane) ^ step * 32);
    const auto run = [&](auto n) { attend<T, decltype(n)::value>(sum, top, weight, a, keys_at + base, values_at + base, x.M, c, waits); };
    switch (chunks) {
      case 1: run(std::integral_constant<int, 1>{}); break;
      case 2: run(std::integral_constant<int, 2>{}); break;
      case 3: run(std::integral_constant<int, 3>{}); break;
      case 4: run(std::integral_constant<int, 4>{}); break;
      case 5: run(std::integral_constant<int, 5>{}); break;
      case 6: run(std::integral_constant<int, 6>{}); break;
      default:
#pragma unroll
        for (int i = 0; i < 32; i++) sum[i / 4][i % 4] = 0;
        weight[0] = weight[1] = 0, top[0] = top[1] = -INFINITY;
    }
    waits = false;

    const int piece = lane % 8, left = x.L - from;
    int rows[4];
#pragma unroll
    for (int i = 0; i < 4; i++) rows[i] = x.q0 + from + min(i * 4 + lane / 8, left - 1);
    if (p.q.rows) {
#pragma unroll
      for (int i = 0; i < 4; i++) rows[i] = p.q.rows[rows[i]];
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
      weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
    }
    if (lane % 4 < 2) {
      const bool half = lane % 4;
      const int row = half * 8 + lane / 4;
      const int64_t at = p.q.offsets ? int64_t(head) * int(p.q.total) + x.q0 : (int64_t(x.sequence) * p.H + head) * p.q.longest;
      if (row < left) p.lse[at + from + row] = ((half ? top[1] : top[0]) + __log2f(half ? weight[1] : weight[0])) * LN_2;
    }
    weight[0] = weight[0] == 0 ? 0 : reciprocal(weight[0]);
    weight[1] = weight[1] == 0 ? 0 : reciprocal(weight[1]);
    __syncwarp();  // the queries were read, the outputs take their place
#pragma unroll
    for (int d = 0; d < 8; d += 2) {
      uint32_t y[4];
#pragma unroll
      for (int i = 0; i < 4; i++) y[i] = pack(T{}, sum[d + i / 2][i % 2 * 2] * weight[i % 2], sum[d + i / 2][i % 2 * 2 + 1] * weight[i % 2]);
      store_matrices((own + a_lane) ^ d * 16, y);
    }
    __syncwarp();
    char* out = o.at(x.sequence, head) + piece * 16;
    const int inside = piece * 8 < p.D ? left : 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint4 y = load_shared(own + piece_at(i * 4 + lane / 8, piece));
      if (i * 4 + lane / 8 < inside) *reinterpret_cast<uint4*>(Lines::wide(rows[i], o.token, out)) = y;
    }
  }
}
}  // namespace attention
