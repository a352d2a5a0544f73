// The Hopper forward pass: blocks take tiles of 192 queries of a head as they come free. Three warpgroups have 64 queries each; a further
// one has the warp that loads queries, keys and values (TMA) ahead of them. Scores are products from shared memory, probabilities stay in
// registers as operands of the products with the values. The scores of tile i + 1 are issued before the sum over tile i, whose products run
// while the probabilities of i + 1 are computed; the first scores of the next queries are issued with the last sum of these.
//
// The running maximum is looked for in the first tile of keys only. After that the probabilities are computed under the maximum that a row
// has; as long as a lane's sum of them stays below 2^14 they are as good as any, since all are divided by their sum in the end. Where it
// does not (or is not a number), the warp computes its scores once more, by mma.sync, looks for the maxima and scales its sums.
//
// At D = 64 a tile of 192 x 128 is 6.3 MFLOP: 1536 clocks of the tensor cores (4096 a clock), as many of the exponential unit (16 a clock),
// 150 KB to and from shared memory: 1220 (128 a clock). At D = 128 one of 192 x 80 takes 1920, 960 and, for 208 KB, 1660. Measured on an
// H200 (bf16, batch 8, 16 heads, 4096 x 4096): 620 TFLOP/s at D = 64, 2650 clocks a tile, 63 % of the tensor cores' 989; 750 to 780 at
// D = 128, 77 %. What stands between: while the tensor cores are busy the exponential unit runs at two thirds of its rate and max at half
// (measured alone); and above 700 TFLOP/s the power limit.
#pragma once
#include "attention_fwd_sm90_tile.cuh"

namespace attention {
struct ForwardMaps {
  CUtensorMap q, k, v;
};

// Items by number. Blocks take numbers as they come free, so the longest items come first: where sequences have one length, `whole` items of
// `full` tiles a head, then a tile that is not full a head if `items` are more; else sequence after sequence as the tiles are listed, in
// each head after head.
struct Schedule {
  Tiles tiles;
  int* next;  // counts what was taken after the first `blocks`
  unsigned blocks, full, whole, items;
};

// Item `number`; its queries are -1 behind the last.
template <int QUERIES>
__device__ inline Item find_item(const Schedule& schedule, const Problem& problem, unsigned number) {
  const unsigned H = unsigned(problem.H);
  Item item;
  item.queries = -1;
  int from;
  Span q, k;
  if (schedule.tiles.count) {
    const unsigned entry = number / H;
    if (entry >= unsigned(*schedule.tiles.count)) return item;
    const Tile tile = schedule.tiles.listed[entry];
    item.sequence = tile.sequence;
    q = span_of(problem.q, tile.sequence), k = span_of(problem.k, tile.sequence);
    const unsigned of_head = (unsigned(q.length) + QUERIES - 1) / QUERIES, in = number - (entry - unsigned(tile.from) / QUERIES) * H;
    item.head = int(in / of_head);
    from = int(in - item.head * of_head) * QUERIES;
  } else {
    if (number >= schedule.items) return item;
    const bool whole = number < schedule.whole;
    const unsigned of = whole ? number / schedule.full : number - schedule.whole;
    item.sequence = int(of / H);
    item.head = int(of - item.sequence * H);
    from = int(whole ? number - of * schedule.full : schedule.full) * QUERIES;
    q = span_of(problem.q, item.sequence), k = span_of(problem.k, item.sequence);
  }
  item.row = first_of(problem.q, q) + from;
  item.queries = q.length - from;
  item.keys = k.length;
  item.first_key = first_of(problem.k, k);
  item.stat = problem.stat(item.sequence, item.head, q.first) + from;
  return item;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// One warp loads what the others work on: of each item the queries, and tiles of keys and values in the order of their use,
// K0 K1 V0 K2 V1 .. Vn, into a ring. The next item is looked for while the last tiles before it are in use.
template <class S>
__device__ inline void produce(const ForwardMaps& maps, const Problem& problem, const Schedule& schedule, char* base) {
  const uint32_t shared = shared_address(base);
  const int lane = threadIdx.x % 32;
  Turn<2> turn;
  Turn<S::STAGES> ring;
  Item item = find_item<S::QUERIES>(schedule, problem, blockIdx.x);
  for (;;) {
    const bool more = item.queries >= 0;
    barrier_wait(shared + S::Q_FREE + turn.stage * 8, turn.parity ^ 1);
    if (lane == 0) {
      const uint32_t here = shared + S::Q_HERE + turn.stage * 8;
      reinterpret_cast<Item*>(base + S::ITEMS_AT)[turn.stage] = item;
      if (more) {
        barrier_expect(here, S::Q_BYTES);
        const RowBox box = row_box(problem.q, item.sequence, item.head, item.row, item.queries, S::QUERIES);
#pragma unroll
        for (int part = 0; part < S::PARTS; part++) {
          load_box(shared + turn.stage * S::Q_BYTES + part * S::QUERIES * S::ROW, maps.q, part * S::WIDTH, box, here);
        }
      } else {
        barrier_arrive(here);
      }
    }
    __syncwarp();
    if (!more) return;
    turn.next();
    const int loads = 2 * S::tiles(item.keys);
    Item next;
#pragma unroll 1
    for (int i = 0; i < loads; i++) {
      if (i == max(loads - S::STAGES, 0)) {
        unsigned number = 0;
        if (lane == 0) number = schedule.blocks + atomicAdd(schedule.next, 1);
        next = find_item<S::QUERIES>(schedule, problem, __shfl_sync(0xffffffffu, number, 0));
      }
      const bool value = i + 1 == loads || (i > 0 && i % 2 == 0);
      const int from = (i + 1 == loads ? i / 2 : value ? i / 2 - 1 : (i + 1) / 2) * S::KEYS;
      barrier_wait(shared + S::FREE + ring.stage * 8, ring.parity ^ 1);
      if (lane == 0) {
        const uint32_t to = shared + S::TILES_AT + ring.stage * S::KV_BYTES, here = shared + S::HERE + ring.stage * 8;
        if (item.keys) {
          const RowBox box = row_box(problem.k, item.sequence, item.head, item.first_key + from, item.keys - from, S::KEYS);
          barrier_expect(here, S::KV_BYTES);
#pragma unroll
          for (int part = 0; part < S::PARTS; part++) {
            load_box(to + part * S::KEYS * S::ROW, value ? maps.v : maps.k, part * S::WIDTH, box, here);
          }
        } else {
          barrier_arrive(here);  // of no keys all scores are masked; a box of no valid row would not be in the map
        }
      }
      ring.next();
    }
    item = next;
  }
}

// A warpgroup's share of the items: 64 queries of each.
template <class T, class S>
__device__ inline void consume(const Operand<T>& o, const Problem& problem, char* base, int group) {
  const uint32_t shared = shared_address(base);
  const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  const float c = problem.scale * LOG2_E;
  const uint64_t k0 = along_rows<S::WIDTH>(shared + S::TILES_AT), v0 = down_rows<S::WIDTH>(shared + S::TILES_AT, S::KEYS * S::ROW);
  Turn<2> turn;
  Turn<S::STAGES> ring;
  // Waits for the next tile and returns its place.
  const auto take = [&] {
    const int stage = ring.stage;
    barrier_wait(shared + S::HERE + stage * 8, ring.parity);
    ring.next();
    return stage;
  };
  const auto release = [&](int stage) {
    if (lane == 0) barrier_arrive(shared + S::FREE + stage * 8);
  };
  const auto take_item = [&] {
    barrier_wait(shared + S::Q_HERE + turn.stage * 8, turn.parity);
    return reinterpret_cast<const Item*>(base + S::ITEMS_AT)[turn.stage];
  };
  // Each warpgroup issues its products after the one before it.
  const auto my_turn = [&] {
    if constexpr (S::TURNS) named_wait(8 + group, 256);
  };
  const auto pass_turn = [&] {
    if constexpr (S::TURNS) named_arrive(8 + (group + 1) % S::WGS, 256);
  };
  // Once the warpgroup has come here, it reads the queries no more.
  const auto free_queries = [&](int stage) {
    named_wait(1 + group, 128);
    if (thread == 0) barrier_arrive(shared + S::Q_FREE + stage * 8);
  };
  if (S::TURNS && group == S::WGS - 1) named_arrive(8, 256);

  float s[S::KEYS / 2], sum[S::D / 2], keep[2];
  uint32_t p[S::KEYS / 16][4];
  int k = 0, v = 0;    // the places of the tiles in use
  bool begun = false;  // the scores of the first tile are in s
  Item item = take_item();
  while (item.queries >= 0) {
    const int count = S::tiles(item.keys), queries = item.queries - group * 64;
    const uint32_t own = turn.stage * S::Q_BYTES + group * 64 * S::ROW;
    if (queries <= 0) {
      for (int i = 0; i < count; i++) {
        my_turn();
        pass_turn();
        release(take());
        release(take());
      }
      free_queries(turn.stage);
      turn.next();
      item = take_item();
      continue;
    }
    const uint64_t q = along_rows<S::WIDTH>(shared + own);
    if (!begun) {
      k = take();
      my_turn();
      issue_scores<T, S>(s, q, k0 + units(S::KV_BYTES) * k);
      pass_turn();
      wgmma_wait<0>(s);
    }
    release(k);
    RowState rows = {{-INFINITY, -INFINITY}, {0, 0}, {0, 0}};
#pragma unroll
    for (int i = 0; i < S::D / 2; i++) sum[i] = 0;
    if (item.keys < S::KEYS) mask<S>(s, item.keys);
    careful_softmax<S>(s, rows, keep, c);
    to_operand<T, S>(p, s);
    if (count > 1) k = take();
    for (int i = 1; i < count; i++) {
      my_turn();
      issue_scores<T, S>(s, q, k0 + units(S::KV_BYTES) * k);
      v = take();
      issue_values<T, S>(sum, p, v0 + units(S::KV_BYTES) * v);
      pass_turn();
      wgmma_wait<1>(s);
      const int left = item.keys - i * S::KEYS, used = k;
      if (left < S::KEYS) mask<S>(s, left);
      float part[2];
      bool fits = false;
      const bool large = __any_sync(0xffffffffu, rows.offset[0] == -INFINITY || rows.offset[1] == -INFINITY);
      if (!large) {
        to_probabilities<S>(s, c, rows.offset, part);
        fits = __all_sync(0xffffffffu, part[0] < 16384.f && part[1] < 16384.f);
      }
      if (i + 1 < count) k = take();
      wgmma_wait<0>(sum);
      release(v);
      if (fits) {
        rows.weight[0] += part[0], rows.weight[1] += part[1];
      } else {
        if (!large) {
          scores_again<T, S>(s, shared + own + warp * 16 * S::ROW, shared + S::TILES_AT + used * S::KV_BYTES);
          if (left < S::KEYS) mask<S>(s, left);
        }
        careful_softmax<S>(s, rows, keep, c);
        rescale<S>(sum, keep);
      }
      release(used);
      to_operand<T, S>(p, s);
    }

    // The first scores of the next item are computed with the last sums of this one; unused where there is none.
    v = take();
    const int stage = turn.stage;
    turn.next();
    const Item next = take_item();
    begun = next.queries > group * 64;
    if (begun) {
      k = take();
      my_turn();
    }
    issue_scores<T, S>(s, along_rows<S::WIDTH>(shared + turn.stage * S::Q_BYTES + group * 64 * S::ROW), k0 + units(S::KV_BYTES) * k);
    issue_values<T, S>(sum, p, v0 + units(S::KV_BYTES) * v);
    if (begun) pass_turn();
    const int first = warp * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = rows.weight[half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      keep[half] = total == 0 ? 0 : 1 / total;
      if (lane % 4 == 0 && first + half * 8 < queries) {
        problem.lse[item.stat + group * 64 + first + half * 8] = fmaf(rows.top[half], problem.scale, __log2f(total) * LN_2);
      }
    }
    wgmma_wait<0>(s, sum);
    release(v);
    // Without keys what lay in the place of the values need not be finite.
#pragma unroll
    for (int i = 0; i < S::D / 2; i++) sum[i] = keep[i / 2 % 2] == 0 ? 0 : sum[i] * keep[i / 2 % 2];
    free_queries(stage);
    T* to = o.data + item.head * o.stride.head + int64_t(item.row + group * 64) * o.stride.token;
    if (!problem.q.offsets) to += item.sequence * o.stride.batch;
    store_sums<S::D>(to, o.stride.token, 1.0f, warp * 16, queries, [&](int i) { return four(sum, i); });
    item = next;
  }
}
#endif

template <class T, class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    forward_sm90_kernel(const __grid_constant__ ForwardMaps maps, const __grid_constant__ Operand<T> o,
                        const __grid_constant__ Problem problem, const __grid_constant__ Schedule schedule) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char dynamic[];
  char* base = dynamic + (0u - shared_address(dynamic)) % 1024;
  if (threadIdx.x == 0) {
    const uint32_t shared = shared_address(base);
    for (int i = 0; i < 2; i++) {
      barrier_init(shared + S::Q_HERE + i * 8, 1);
      barrier_init(shared + S::Q_FREE + i * 8, S::WGS);
    }
    for (int i = 0; i < S::STAGES; i++) {
      barrier_init(shared + S::HERE + i * 8, 1);
      barrier_init(shared + S::FREE + i * 8, S::WGS * 4);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  if (group == S::WGS) {
    registers_shrink<S::FEW>();
    if (threadIdx.x / 32 == S::WGS * 4) produce<S>(maps, problem, schedule, base);
  } else {
    registers_grow<S::MANY>();
    consume<T, S>(o, problem, base, group);
  }
#endif
}
}  // namespace attention
