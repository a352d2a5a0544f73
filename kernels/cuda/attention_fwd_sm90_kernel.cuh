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
  CUtensorMap q, k, v, o;
};

// Items by number. Blocks take numbers as they come free: so tiles that are not full, which take less time, are the last where sequences
// have one length: `whole` items of `full` tiles a head, then a tile a head if `items` are more.
struct Schedule {
  Tiles tiles;
  int* next;  // counts what was taken after the first `blocks`
  unsigned blocks, full, whole, items;
};

// The tile and head of item `number`, false behind the last.
__device__ inline bool find_tile(Tile& tile, int& head, const Schedule& schedule, unsigned number, int H, int size) {
  if (schedule.tiles.count) {
    const unsigned count = *schedule.tiles.count;
    head = number / max(count, 1u);
    if (count == 0 || head >= H) return false;
    tile = schedule.tiles.listed[number - head * count];
    return true;
  }
  if (number >= schedule.items) return false;
  const bool whole = number < schedule.whole;
  const unsigned of = whole ? number / schedule.full : number - schedule.whole, sequence = of / unsigned(H);
  tile = {int(sequence), int(whole ? number - of * schedule.full : schedule.full) * size};
  head = of - sequence * H;
  return true;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// One warp loads what the others work on: of each item the queries, and tiles of keys and values in the order of their use,
// K0 K1 V0 K2 V1 .. Vn, into a ring.
template <class S>
__device__ inline void produce(const ForwardMaps& maps, const Problem& problem, const Schedule& schedule, char* base) {
  const uint32_t shared = shared_address(base);
  const int lane = threadIdx.x % 32;
  Turn<2> turn;
  Turn<S::STAGES> ring;
  uint32_t tail_parity = 0;
  for (unsigned number = blockIdx.x;;) {
    Tile tile;
    int head;
    const bool more = find_tile(tile, head, schedule, number, problem.H, S::QUERIES);
    barrier_wait(shared + S::Q_FREE + turn.stage * 8, turn.parity ^ 1);
    if (lane == 0) {
      const uint32_t here = shared + S::Q_HERE + turn.stage * 8;
      Item& item = reinterpret_cast<Item*>(base + S::ITEMS_AT)[turn.stage];
      if (more) {
        const Span q = span_of(problem.q, tile.sequence);
        item.row = tile.from + (problem.q.offsets ? int(q.first) : 0);
        item.head = head;
        item.batch = problem.q.offsets ? 0 : tile.sequence;
        item.queries = q.length - tile.from;
        item.keys = span_of(problem.k, tile.sequence).length;
        item.stat = problem.stat(tile.sequence, head, q.first) + tile.from;
        barrier_expect(here, S::Q_BYTES);
#pragma unroll
        for (int part = 0; part < S::PARTS; part++) {
          const uint32_t to = shared + turn.stage * S::Q_BYTES + part * S::QUERIES * S::ROW;
          map_load(to, maps.q, part * S::WIDTH, item.row, head, item.batch, here);
        }
      } else {
        item.queries = -1;
        barrier_arrive(here);
      }
    }
    __syncwarp();
    if (!more) return;
    turn.next();
    const Span keys = span_of(problem.k, tile.sequence);
    const int first_key = problem.k.offsets ? int(keys.first) : 0, batch = problem.k.offsets ? 0 : tile.sequence;
    const int loads = 2 * S::tiles(keys.length);
#pragma unroll 1
    for (int i = 0; i < loads; i++) {
      const bool value = i + 1 == loads || (i > 0 && i % 2 == 0);
      const int from = (i + 1 == loads ? i / 2 : value ? i / 2 - 1 : (i + 1) / 2) * S::KEYS;
      const uint32_t to = S::TILES_AT + ring.stage * S::KV_BYTES, here = shared + S::HERE + ring.stage * 8;
      // Rows that are not the sequence's may come along: p is 0 there, but they might not be finite.
      const bool clean = value && keys.length - from < S::KEYS && (problem.k.offsets || keys.length == 0);
      barrier_wait(shared + S::FREE + ring.stage * 8, ring.parity ^ 1);
      if (lane == 0) {
        const uint32_t arrival = clean ? shared + S::TAIL : here;
        barrier_expect(arrival, S::KV_BYTES);
#pragma unroll
        for (int part = 0; part < S::PARTS; part++) {
          map_load(shared + to + part * S::KEYS * S::ROW, value ? maps.v : maps.k, part * S::WIDTH, first_key + from, head, batch, arrival);
        }
      }
      if (clean) {
        barrier_wait(shared + S::TAIL, tail_parity);
        tail_parity ^= 1;
#pragma unroll 1
        for (int part = 0; part < S::PARTS; part++) {
#pragma unroll 1
          for (int at = (keys.length - from) * S::ROW + lane * 16; at < S::KEYS * S::ROW; at += 32 * 16) {
            *reinterpret_cast<uint4*>(base + to + part * S::KEYS * S::ROW + at) = uint4{0, 0, 0, 0};
          }
        }
        async_fence();
        __syncwarp();
        if (lane == 0) barrier_arrive(here);
      }
      ring.next();
    }
    if (lane == 0) number = schedule.blocks + atomicAdd(schedule.next, 1);
    number = __shfl_sync(0xffffffffu, number, 0);
  }
}

// A warpgroup's share of the items: 64 queries of each.
template <class T, class S>
__device__ inline void consume(const ForwardMaps& maps, const Operand<T>& o, const Problem& problem, char* base, int group) {
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
  // Once the output was read from where it lay the place is free for queries.
  int stored = -1;
  const auto free_stored = [&] {
    if (stored >= 0 && thread == 0) {
      store_wait_read<0>();
      barrier_arrive(shared + S::Q_FREE + stored * 8);
    }
    stored = -1;
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
      free_stored();
      for (int i = 0; i < count; i++) {
        my_turn();
        pass_turn();
        release(take());
        release(take());
      }
      named_wait(1 + group, 128);
      if (thread == 0) barrier_arrive(shared + S::Q_FREE + turn.stage * 8);
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
    free_stored();
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
      to_probabilities<S>(s, c, rows.offset, part);
      const bool fits = __all_sync(0xffffffffu, part[0] < 16384.f && part[1] < 16384.f);
      if (i + 1 < count) k = take();
      wgmma_wait<0>(sum);
      release(v);
      if (fits) {
        rows.weight[0] += part[0], rows.weight[1] += part[1];
      } else {
        scores_again<T, S>(s, shared + own + warp * 16 * S::ROW, shared + S::TILES_AT + used * S::KV_BYTES);
        if (left < S::KEYS) mask<S>(s, left);
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
    rescale<S>(sum, keep);
    // The output takes the place of the queries.
#pragma unroll
    for (int n = 0; n < S::D / 8; n += 2) {
      const float* x = sum + 4 * n;
      stmatrix(shared + own + unit_at<S>(warp * 16 + lane % 16, n + lane / 16, S::QUERIES), pack(T{}, x[0], x[1]), pack(T{}, x[2], x[3]),
               pack(T{}, x[4], x[5]), pack(T{}, x[6], x[7]));
    }
    async_fence();
    named_wait(1 + group, 128);
    const int row = item.row + group * 64;
    if (!problem.q.offsets || queries >= 64) {
      if (thread == 0) {
#pragma unroll
        for (int part = 0; part < S::PARTS; part++) {
          map_store(maps.o, shared + own + part * S::QUERIES * S::ROW, part * S::WIDTH, row, item.head, item.batch);
        }
        store_commit();
      }
    } else {
      constexpr int UNITS = S::D / 8;
#pragma unroll 1
      for (int i = thread; i < queries * UNITS; i += 128) {
        T* to = o.data + (row + i / UNITS) * o.stride.token + item.head * o.stride.head + i % UNITS * 8;
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(base + own + unit_at<S>(i / UNITS, i % UNITS, S::QUERIES));
      }
      named_wait(1 + group, 128);
    }
    stored = stage;
    item = next;
  }
  free_stored();
}
#endif

template <class T, class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    forward_sm90_kernel(const __grid_constant__ ForwardMaps maps, Operand<T> o, Problem problem, Schedule schedule) {
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
    barrier_init(shared + S::TAIL, 1);
    barrier_init_fence();
  }
  __syncthreads();
  const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  if (group == S::WGS) {
    registers_shrink<S::FEW>();
    if (threadIdx.x / 32 == S::WGS * 4) produce<S>(maps, problem, schedule, base);
  } else {
    registers_grow<S::MANY>();
    consume<T, S>(maps, o, problem, base, group);
  }
#endif
}
}  // namespace attention
