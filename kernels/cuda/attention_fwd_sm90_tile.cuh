// What the Hopper forward pass does with a tile: its shape, products of a warpgroup's 64 queries, the softmax.
#pragma once
#include "attention_store_sm90.cuh"

namespace attention {
// What a block works on: 64 WGS queries of a head, and all keys.
struct Item {
  int sequence, head, row;  // where the queries begin, as row_box counts
  int queries, keys;        // from there to the end of the sequence; queries < 0: there is no more work
  int first_key;
  int64_t stat;  // of the first query's lse
};

// A place in a ring of STAGES, and the parity of the phase that fills it.
template <int STAGES>
struct Turn {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// WGS warpgroups of 64 queries, KEYS keys a tile, STAGES tiles of keys or values in shared memory. With TURNS the warpgroups issue their
// products one after the other.
template <int D_, int WGS_, int KEYS_, int STAGES_, bool TURNS_>
struct ForwardShape {
  static constexpr int D = D_, WGS = WGS_, KEYS = KEYS_, STAGES = STAGES_;
  static constexpr bool TURNS = TURNS_;
  static constexpr int WIDTH = D % 64 ? 32 : 64, PARTS = (D + WIDTH - 1) / WIDTH, ROW = WIDTH * 2;
  static constexpr int QUERIES = WGS * 64, Q_BYTES = PARTS * QUERIES * ROW, KV_BYTES = PARTS * KEYS * ROW;
  static constexpr int TILES_AT = 2 * Q_BYTES, BARRIERS_AT = TILES_AT + STAGES * KV_BYTES;
  // Barriers, each with that of when its place is free again: of queries [2], of keys and values [STAGES].
  static constexpr int Q_HERE = BARRIERS_AT, Q_FREE = Q_HERE + 16, HERE = Q_FREE + 16, FREE = HERE + 8 * STAGES;
  static constexpr int ITEMS_AT = FREE + 8 * STAGES, SHARED = ITEMS_AT + 2 * int(sizeof(Item)) + 1024, THREADS = (WGS + 1) * 128;
  // Registers a thread: of a warpgroup that computes, of the one that loads.
  static constexpr int MANY = 160, FEW = 32;
  static_assert(KEYS % 16 == 0 && KV_BYTES % 1024 == 0 && ITEMS_AT % 8 == 0 && SHARED <= 227 * 1024 && STAGES >= 4 && WGS == 3);

  __host__ __device__ static int tiles(int keys) { return keys < 1 ? 1 : (keys + KEYS - 1) / KEYS; }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Where unit `unit` (8 elements) of row `row` lies in an operand of `rows` rows.
template <class S>
__device__ inline uint32_t unit_at(int row, int unit, int rows) {
  constexpr int UNITS = S::WIDTH / 8;
  return (unit / UNITS * rows + row) * S::ROW + (unit % UNITS ^ (UNITS == 8 ? row % 8 : row / 2 % 4)) * 16;
}

// The two rows that a thread has a part of, lane / 4 and lane / 4 + 8 of its warp's 16.
struct RowState {
  float top[2];     // the maximum of the scores when it was last looked for: what exponents are taken from
  float offset[2];  // the same in units of log2; -inf where only careful_softmax can do
  float weight[2];  // the thread's part of the sum of the probabilities
};

template <class S>
__device__ inline void mask(float (&s)[S::KEYS / 2], int left) {
  left -= threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < S::KEYS / 2; i++) {
    if (i / 4 * 8 + i % 2 >= left) s[i] = -INFINITY;
  }
}

// Scores become probabilities, under the maxima that the rows have.
template <class S>
__device__ inline void to_probabilities(float (&s)[S::KEYS / 2], float c, const float (&offset)[2], float (&part)[2]) {
#pragma unroll
  for (int i = 0; i < S::KEYS / 2; i++) {
    s[i] = exp2_fast(fmaf(s[i], c, -offset[i / 2 % 2]));
    part[i / 2 % 2] = i < 4 && i % 2 == 0 ? s[i] : part[i / 2 % 2] + s[i];
  }
}

// Looks for the maxima first. Sums so far are then to be scaled by `keep`.
template <class S>
__device__ inline void careful_softmax(float (&s)[S::KEYS / 2], RowState& rows, float (&keep)[2], float c) {
  float offset[2], base[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float a = s[half * 2], b = s[half * 2 + 1];
#pragma unroll
    for (int i = 4; i < S::KEYS / 2; i += 4) a = fmaxf(a, s[i + half * 2]), b = fmaxf(b, s[i + half * 2 + 1]);
    a = fmaxf(a, b);
    a = fmaxf(a, __shfl_xor_sync(0xffffffffu, a, 1));
    a = fmaxf(rows.top[half], fmaxf(a, __shfl_xor_sync(0xffffffffu, a, 2)));
    const bool none = a == -INFINITY;
    keep[half] = none ? 1 : exp2_fast((rows.top[half] - a) * c);
    rows.top[half] = a;
    base[half] = none ? 0 : a;
    offset[half] = base[half] * c;
    rows.offset[half] = none || fabsf(offset[half]) > LARGE ? -INFINITY : offset[half];
  }
  if (__any_sync(0xffffffffu, fmaxf(fabsf(offset[0]), fabsf(offset[1])) > LARGE)) {
#pragma unroll
    for (int i = 0; i < S::KEYS / 2; i++) s[i] -= base[i / 2 % 2];
    offset[0] = offset[1] = 0;
  }
  float part[2];
  to_probabilities<S>(s, c, offset, part);
#pragma unroll
  for (int half = 0; half < 2; half++) rows.weight[half] = fmaf(rows.weight[half], keep[half], part[half]);
}

template <class T, class S>
__device__ inline void to_operand(uint32_t (&p)[S::KEYS / 16][4], const float (&s)[S::KEYS / 2]) {
#pragma unroll
  for (int i = 0; i < S::KEYS / 4; i++) p[i / 4][i % 4] = pack(T{}, s[2 * i], s[2 * i + 1]);
}

template <class S>
__device__ inline void rescale(float (&sum)[S::D / 2], const float (&keep)[2]) {
#pragma unroll
  for (int i = 0; i < S::D / 2; i++) sum[i] *= keep[i / 2 % 2];
}

// s = q k^T
template <class T, class S>
__device__ inline void issue_scores(float (&s)[S::KEYS / 2], uint64_t q, uint64_t k) {
  pin(s);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < S::D / 16; step++) {
    const int part = step / (S::WIDTH / 16), in = step % (S::WIDTH / 16) * 32;
    wgmma<T, 0, 0>(s, q + units(part * S::QUERIES * S::ROW + in), k + units(part * S::KEYS * S::ROW + in), step != 0);
  }
  wgmma_commit();
}
// The same of a warp's 16 rows by the warp alone, where the scores were overwritten.
template <class T, class S>
__device__ inline void scores_again(float (&s)[S::KEYS / 2], uint32_t q, uint32_t k) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < S::KEYS / 2; i++) s[i] = 0;
#pragma unroll 1
  for (int step = 0; step < S::D / 16; step++) {
    uint32_t a[4], b[4];
    ldmatrix(a, q + unit_at<S>(lane % 16, step * 2 + lane / 16, S::QUERIES));
    const uint32_t at = k + unit_at<S>(lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2, S::KEYS);
#pragma unroll
    for (int n = 0; n < S::KEYS / 8; n += 2) {
      ldmatrix(b, at + n * 8 * S::ROW);
      float c[2][4];
#pragma unroll
      for (int i = 0; i < 8; i++) c[i / 4][i % 4] = s[n * 4 + i];
      mma(T{}, c[0], a, b[0], b[1]);
      mma(T{}, c[1], a, b[2], b[3]);
#pragma unroll
      for (int i = 0; i < 8; i++) s[n * 4 + i] = c[i / 4][i % 4];
    }
  }
}
// sum += p v
template <class T, class S>
__device__ inline void issue_values(float (&sum)[S::D / 2], const uint32_t (&p)[S::KEYS / 16][4], uint64_t v) {
  pin(sum);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < S::KEYS / 16; step++) wgmma<T, 1>(sum, p[step], v + units(step * 16 * S::ROW), 1);
  wgmma_commit();
}
#endif
}  // namespace attention
