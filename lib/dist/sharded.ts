/** Values of which each process holds a part: those of an optimizer that is spread over the ranks. */
import { device } from "../tensor/device.ts";
import { type DType, DTYPE_BYTES } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import type { Kept, Piece } from "../tensor/snapshot.ts";
import { empty, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Communicator } from "./communicator.ts";

/** A run of values: [world, n], of which the first `count` are values and the rest fill it up, and this rank's row. */
export interface ShardedRun {
  count: number;
  mine: Tensor;
}

/** Queues all ranks' rows of a run into `whole` [world * n]. The device's later work waits for them after a {@linkcode Communicator.join}. */
export function gatherRun(whole: Tensor, mine: Tensor, ranks: Communicator): void {
  const row = persist(() => whole.view([mine.size], { offset: ranks.rank * mine.size }));
  if (row.addr !== mine.addr) device().memory.copy(row.addr, mine.addr, mine.bytes);
  ranks.allGather(whole, row);
  row.free();
}

/**
 * The values of `runs`, one after the other, as one tensor [shape] of a checkpoint. All ranks must go through its pieces together, the same number of
 * them; filling it is each rank's own doing.
 */
export function shardedTensor(shape: readonly number[], dtype: DType, runs: ShardedRun[], ranks: Communicator): Kept {
  const item = DTYPE_BYTES[dtype];
  return {
    ...{ shape, dtype, bytes: sizeOf(shape) * item, together: true },
    *pieces(): Generator<Piece> {
      const most = runs.reduce((a, { mine }) => Math.max(a, mine.size), 0), staging = persist(() => empty([ranks.world * most], dtype));
      try {
        let offset = 0;
        for (const { count, mine } of runs) {
          const whole = persist(() => staging.view([ranks.world * mine.size]));
          gatherRun(whole, mine, ranks);
          ranks.join();
          whole.free();
          yield { offset, address: staging.addr, bytes: count * item };
          offset += count * item;
        }
      } finally {
        staging.free();
      }
    },
    fill(bytes) {
      let at = 0;
      for (const { count, mine } of runs) {
        const begin = Math.min(ranks.rank * mine.size, count), end = Math.min(begin + mine.size, count);
        if (end > begin) device().memory.upload(mine.addr, bytes.subarray((at + begin) * item, (at + end) * item));
        at += count;
      }
    },
  };
}
