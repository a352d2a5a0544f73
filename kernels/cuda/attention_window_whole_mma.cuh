// What the forward pass within sequences of at most 96 rows has in shared memory, how its outputs are written, and its products for any card: a
// warp takes 16 queries at a time, and all of their scores at once.
#pragma once
#include <type_traits>

#include "attention_window_ring.cuh"
#include "hopper.cuh"

namespace attention {
constexpr int WHOLE_ROWS = 96, WHOLE_WARPS = 4;  // of a block
constexpr int WHOLE_SLOTS = WHOLE_ROWS / SLOT_ROWS, SLOT_BYTES = SLOT_ROWS * 128, WHOLE_TILE = WHOLE_ROWS * 128;
constexpr int NOWHERE = INT32_MIN;

// A block's tiles, rows of 128 bytes whose 16-byte pieces are swizzled as hopper.cuh has them, and for each row of the queries where it goes. Each
// head has as many slots of 16 rows as its queries or its keys need.
struct alignas(1024) WholeMemory {
  char queries[WHOLE_TILE], keys[WHOLE_TILE], values[WHOLE_TILE];
  int out[WHOLE_ROWS];              // Lines::from of o; NOWHERE: there is no such row
  float* lse[WHOLE_SLOTS];          // of the slot's first row
  uint32_t first_key[WHOLE_SLOTS];  // of the head that the slot's queries belong to; 0: it has no queries
};

// Where 16 bytes of a tile's row lie.
__device__ inline uint32_t piece_at(int row, int piece) { return uint32_t(row * 128 + ((piece ^ row) & 7) * 16); }

// cp_async16 with a policy for L2: that of reading_policy.
__device__ inline void cp_async16(uint32_t to, const void* from, bool inside, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0), "l"(policy)
               : "memory");
}
// A policy for what is read once: where others should `keep` their place in L2, it is the first to go.
__device__ inline uint64_t reading_policy(bool keep) {
  uint64_t first, normal;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(first));
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(normal));
  return keep ? first : normal;
}
// Writes two C tiles side by side, rounded as an A tile; `row` is the address of this lane's 16 bytes, as for ldmatrix of an A tile.
__device__ inline void store_matrices(uint32_t row, const uint32_t (&x)[4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  stmatrix(row, x[0], x[1], x[2], x[3]);
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
__device__ inline void store_global(char* to, const uint4& x) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}
__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// An operand. Its strides count 16 bytes, and so does where a row of a head lies, which is less than 2^31; `batch` counts bytes, and is 0 where
// sequences are of variable length.
struct Lines {
  char* data;
  int64_t batch;
  int token, head;
  template <class T>
  Lines(const Operand<T>& x, const Sequences& s)
      : data(const_cast<char*>(reinterpret_cast<const char*>(x.data))),
        batch(s.offsets ? 0 : x.stride.batch * 2),
        token(int(x.stride.token / 8)),
        head(int(x.stride.head / 8)) {}
  // NOWHERE for row -1.
  __device__ int from(int row, int h) const { return row < 0 ? NOWHERE : row * token + h * head; }
  // This lane's piece of what lies `from` the first row of a sequence.
  __device__ char* piece(int sequence, int piece) const { return data + sequence * batch + piece * 16; }
  __device__ static char* at(int from, char* piece) {
    asm("mad.wide.s32 %0, %1, 16, %0;" : "+l"(piece) : "r"(from));
    return piece;
  }
};

// Waits until the block's copies are complete but for the last `pending` groups of each thread, and wgmma may read them.
template <int pending, bool WGMMA = false>
__device__ inline void wait_tiles() {
  wait_copies<pending>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if (WGMMA) async_fence();
#endif
  __syncthreads();
}

// Adds up the four lanes' parts of the weights of a slot's rows, writes lse, and leaves one over the weights, or 0.
__device__ inline void finish_weights(const WholeMemory& memory, int slot, const float (&top)[2], float (&weight)[2]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
    weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
  }
  const int lane = threadIdx.x % 32, row = lane % 4 * 8 + lane / 4;
  if (lane % 4 < 2 && memory.out[slot * SLOT_ROWS + row] != NOWHERE) {
    memory.lse[slot][row] = ((lane % 4 ? top[1] : top[0]) + __log2f(lane % 4 ? weight[1] : weight[0])) * LN_2;
  }
#pragma unroll
  for (int half = 0; half < 2; half++) weight[half] = weight[half] == 0 ? 0 : reciprocal(weight[half]);
}

// Rounds 16 columns of a slot's sums, divided by the weights, into the place of its queries; `row` as for store_matrices.
template <class T>
__device__ inline void place(T, uint32_t row, const float* low, const float* high, const float (&factor)[2]) {
  uint32_t y[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float* c = (i < 2 ? low : high) + i % 2 * 2;
    y[i] = pack(T{}, c[0] * factor[i % 2], c[1] * factor[i % 2]);
  }
  store_matrices(row, y);
}
// Writes a slot's outputs, which lie in the place of its queries, to memory; the warp that placed them calls it.
__device__ inline void write_slot(const WholeMemory& memory, int slot, const Lines& o, int sequence, int D) {
  __syncwarp();
  const int lane = thread_again() % 32, piece = lane % 8;
  const uint32_t own = shared_address(memory.queries) + slot * SLOT_BYTES;
  char* to = o.piece(sequence, piece);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int row = i * 4 + lane / 8, from = memory.out[slot * SLOT_ROWS + row];
    const uint4 y = load_shared(own + piece_at(row, piece));
    if (from != NOWHERE && piece * 8 < D) store_global(Lines::at(from, to), y);
  }
}

// A slot's queries (A tiles q) and M keys, N times 16 with the last ones filled up: sums, the scaled scores' maxima, and each lane's part of the
// weights. `keys` and `values` have the lane's offset.
template <class T, int N>
__device__ inline void attend(float (&sum)[8][4], float (&top)[2], float (&weight)[2], const uint32_t (&q)[4][4], uint32_t keys, uint32_t values,
                              int M, float c) {
  float s[N][2][4] = {};
  uint32_t a[N][4];
#pragma unroll
  for (int j = 0; j < N; j++) {
#pragma unroll
    for (int step = 0; step < 4; step++) {
      uint32_t f[4];
      ldmatrix(f, (keys ^ step * 32) + j * SLOT_BYTES);
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
#pragma unroll
  for (int i = 0; i < 32; i++) sum[i / 4][i % 4] = 0;
#pragma unroll
  for (int j = 0; j < N; j++) {
#pragma unroll
    for (int d = 0; d < 4; d++) {
      uint32_t f[4];
      ldmatrix_trans(f, (values ^ d * 32) + j * SLOT_BYTES);
      mma(T{}, sum[2 * d], a[j], f[0], f[1]);
      mma(T{}, sum[2 * d + 1], a[j], f[2], f[3]);
    }
  }
}

// A warp's slots, every fourth of `slots`, by m16n8k16 products, from tiles that are there.
template <class T, int MOST>
__device__ inline void attend_slots(const WholeMemory& memory, int warp, int slots, int chunks, int M, const Lines& o, const Problem& p,
                                    int sequence) {
  const int lane = threadIdx.x % 32;
  const float c = p.scale * LOG2_E;
#pragma unroll 1
  for (int slot = warp; slot < slots; slot += WHOLE_WARPS) {
    const uint32_t first_key = memory.first_key[slot];
    if (first_key == 0) continue;
    const uint32_t a_lane = piece_at(lane % 16, lane / 16), b_lane = piece_at(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    const uint32_t own = shared_address(memory.queries) + slot * SLOT_BYTES + a_lane;
    float sum[8][4], top[2], weight[2];
    uint32_t q[4][4];
#pragma unroll
    for (int step = 0; step < 4; step++) ldmatrix(q[step], own ^ step * 32);
    const auto run = [&](auto n) {
      constexpr int N = decltype(n)::value;
      if constexpr (N <= MOST) attend<T, N>(sum, top, weight, q, first_key + b_lane, first_key + WHOLE_TILE + a_lane, M, c);
    };
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
    finish_weights(memory, slot, top, weight);
    __syncwarp();  // the queries were read, the outputs take their place
    const int again = thread_again() % 32;  // what attend() was given does not have to stay in registers
    const uint32_t row = shared_address(memory.queries) + slot * SLOT_BYTES + piece_at(again % 16, again / 16);
#pragma unroll
    for (int d = 0; d < 8; d += 2) place(T{}, row ^ d * 16, sum[d], sum[d + 1], weight);
    write_slot(memory, slot, o, sequence, p.D);
  }
}
}  // namespace attention
