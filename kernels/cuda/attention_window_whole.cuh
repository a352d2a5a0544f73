// Attention within sequences of at most 96 rows, such as shifted windows, forward: a block has one head of a sequence, or as many heads as fit in
// 96 rows, all rows of their queries, keys and values in shared memory.
//
// Bound by memory: q, k, v and o once. 15,192 voxels in shifted windows of 2 to 95 rows, 12 heads of 64, packed, in bf16: 93 MB, 22 us at an
// H200's 4.3 TB/s; 3.5 GFLOP, 5.7 in tiles. Measured: 28.6 us, of which 3 are a launch's; loading and writing alone 24.4. What sets its pace is how
// long a block stays: it waits for its offsets, its rows' numbers, their queries and keys, and computes 64 queries at a time, twice at most.
#pragma once
#include "attention_window_whole_sm90.cuh"

namespace attention {
template <class T, bool WGMMA>
__global__ void __launch_bounds__(WHOLE_WARPS * 32, WGMMA ? 6 : 4)
    forward_whole(const Lines o, const Lines q, const Lines k, const Lines v, const __grid_constant__ Problem p, const bool keep) {
#ifndef __CUDA_ARCH_FEAT_SM90_ALL
  if (WGMMA) return;  // never asked for
#endif
  __shared__ WholeMemory memory;
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int sequence = blockIdx.z * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) {  // has the maps brought near, before offsets are known
    const int64_t r = (int64_t(sequence) * gridDim.x + blockIdx.x) * 32;
    if (p.q.rows && r < p.q.total) asm volatile("prefetch.global.L2 [%0];" ::"l"(p.q.rows + r));
  }
  if (unsigned(sequence) >= unsigned(p.B)) return;
  const bool same = p.q.offsets == p.k.offsets && p.q.rows == p.k.rows && p.q.longest == p.k.longest;
  int q0 = 0, L = p.q.longest;
  if (p.q.offsets) q0 = p.q.offsets[sequence], L = p.q.offsets[sequence + 1] - q0;
  int k0 = q0, M = L;
  if (!same) {
    k0 = 0, M = p.k.longest;
    if (p.k.offsets) k0 = p.k.offsets[sequence], M = p.k.offsets[sequence + 1] - k0;
  }
  if (L > WHOLE_ROWS || M > WHOLE_ROWS) __trap();  // L or M is no bound of the lengths
  // Of each slot a warp loads 4 rows: lane 4 s + i knows where the i-th of slot s lies.
  const int in_slot = warp * 4 + lane % 4, r = lane / 4 * SLOT_ROWS + in_slot;
  int q_row = r < L ? q0 + r : -1, k_row = r < M ? k0 + r : -1;
  if (p.q.rows && r < L) q_row = p.q.rows[q_row];
  if (same) {
    k_row = q_row;
  } else if (p.k.rows && r < M) {
    k_row = p.k.rows[k_row];
  }
  const int tiles = slots_of(L), chunks = slots_of(M), unit = max(tiles, chunks);
  const int most = unit > 3 ? 1 : unit == 3 ? 2 : unit == 2 ? 3 : 6, first_head = blockIdx.x * most, heads = min(most, p.H - first_head);
  if (L == 0 || heads <= 0) return;
  const int slots = heads * unit, slot = lane / 4, h = unit > 3 ? 0 : unit == 3 ? slot / 3 : unit == 2 ? slot / 2 : slot;
  if (unit <= 3) {
    q_row = __shfl_sync(~0u, q_row, (slot - h * unit) * 4 + lane % 4);
    k_row = __shfl_sync(~0u, k_row, (slot - h * unit) * 4 + lane % 4);
  }
  const int head = first_head + h, piece = lane % 8, source = lane / 8;
  const uint32_t queries = shared_address(memory.queries);
  {
    const int q_from = q.from(q_row, head), k_from = k.from(k_row, head), v_from = v.from(k_row, head);
    char *q_piece = q.piece(sequence, piece), *k_piece = k.piece(sequence, piece), *v_piece = v.piece(sequence, piece);
    const bool inside = piece * 8 < p.D;
    uint32_t to = queries + piece_at(warp * 4 + source, piece);
    asm volatile("" : "+r"(to));  // one register, not an address anew for each slot
    const uint64_t policy = reading_policy(keep);
#pragma unroll
    for (int i = 0; i < WHOLE_SLOTS; i++) {
      if (i < slots) {
        const int x = __shfl_sync(~0u, k_from, i * 4 + source), y = __shfl_sync(~0u, q_from, i * 4 + source);
        cp_async16(to + WHOLE_TILE + i * SLOT_BYTES, Lines::at(x, k_piece), x != NOWHERE && inside, policy);
        cp_async16(to + i * SLOT_BYTES, Lines::at(y, q_piece), y != NOWHERE && inside, policy);
      }
    }
    commit_copies();
#pragma unroll
    for (int i = 0; i < WHOLE_SLOTS; i++) {
      if (i < slots) {
        const int x = __shfl_sync(~0u, v_from, i * 4 + source);
        cp_async16(to + 2 * WHOLE_TILE + i * SLOT_BYTES, Lines::at(x, v_piece), x != NOWHERE && inside, policy);
      }
    }
    commit_copies();
  }
  if (slot < WHOLE_SLOTS) {
    memory.out[slot * SLOT_ROWS + in_slot] = o.from(q_row, head);
    if (in_slot == 0) {
      const int own = (slot - h * unit) * SLOT_ROWS;
      memory.first_key[slot] = own < L && h < heads ? queries + WHOLE_TILE + h * unit * SLOT_BYTES : 0;
      memory.lse[slot] = p.lse + (p.q.offsets ? int64_t(head) * int(p.q.total) + q0 : (int64_t(sequence) * p.H + head) * p.q.longest) + own;
    }
  }
  if (WGMMA && chunks > 3) {
    switch (chunks) {
      case 4: attend_group<T, 64>(memory, warp, tiles, M, o, p, sequence); break;
      case 5: attend_group<T, 80>(memory, warp, tiles, M, o, p, sequence); break;
      default: attend_group<T, 96>(memory, warp, tiles, M, o, p, sequence);
    }
  } else {
    wait_tiles<0>();
    attend_slots<T, WGMMA ? 3 : WHOLE_SLOTS>(memory, warp, slots, chunks, M, o, p, sequence);
  }
}
}  // namespace attention
