/** Device memory of several processes of one machine that each of them copies into, by copy engines, and tells the others' streams so. */
import { openStreamValues } from "../../ffi/cuda_driver.ts";
import { IPC_HANDLE_BYTES, openCudart } from "../../ffi/cudart.ts";

/** What rows are multiples of, in bytes: kernels then read whole packs. */
export const ROW_BYTES = 256;
const NON_BLOCKING = 1, COPY_ANY = 4, ENABLE_PEER_ACCESS = 1;

/** A rank's memory for rows from all others, and theirs for its own. */
export interface Slots {
  /** Bytes of a row. */
  readonly row: number;
  /** The stream of all copies; the others' work is never behind it. */
  readonly side: bigint;
  /** What opens this rank's memory in another process. */
  handle(): Uint8Array<ArrayBuffer>;
  /** Opens the others', given the handles of all ranks. */
  open(handles: Uint8Array<ArrayBuffer>[]): void;
  /**
   * Queues a turn, which all ranks take: copies `send(r)`, at most a row, to each other rank r and waits for what they send. Where that lies until this
   * rank's next turn is returned, by rank.
   */
  turn(send: (rank: number) => { from: bigint; bytes: number }): bigint[];
  /** Waits for nothing any more: what was to come will not. */
  abandon(): void;
  /** Waits for the turns, and closes the others' memory. */
  leave(): void;
  /** Gives this rank's memory back, which the others must have closed. */
  free(): void;
}

/**
 * Makes this rank's slots, of rows of `turnBytes` over the number of ranks: for each of two turns a row from each other rank, then a number of each rank,
 * the last turn that its row is there of. A rank gets past a turn when all others have begun it, so they have read what they got in the turn before, and
 * the next turn may write over that: two are enough.
 */
export function makeSlots(rank: number, world: number, turnBytes: number): Slots {
  const cuda = openCudart(), values = openStreamValues(), word = new BigUint64Array(1), others = world - 1;
  const row = Math.floor(turnBytes / world / ROW_BYTES) * ROW_BYTES,
    numbers = 2 * others * row,
    bytes = numbers + Math.ceil(4 * world / ROW_BYTES) * ROW_BYTES;
  const bases: bigint[] = Array(world).fill(0n), least = new Int32Array(1), most = new Int32Array(1);
  const peers = Array.from({ length: others }, (_, i) => (rank + 1 + i) % world); // each rank begins with another
  cuda.cudaDeviceGetStreamPriorityRange(least, most);
  cuda.cudaStreamCreateWithPriority(word, NON_BLOCKING, most[0]);
  const [side] = word;
  cuda.cudaMalloc(word, BigInt(bytes));
  bases[rank] = word[0];
  cuda.cudaMemsetAsync(bases[rank], 0, BigInt(bytes), side);
  cuda.cudaStreamSynchronize(side);
  let turns = 0;
  /** Where rank `to` has the row of rank `from` in this turn, and the number of its last turn. */
  const place = (to: number, from: number): bigint => bases[to] + BigInt((turns % 2 * others + (from < to ? from : from - 1)) * row);
  const number = (to: number, from: number): bigint => bases[to] + BigInt(numbers + 4 * from);
  return {
    ...{ row, side },
    handle() {
      const handle = new Uint8Array(IPC_HANDLE_BYTES);
      cuda.cudaIpcGetMemHandle(handle, bases[rank]);
      return handle;
    },
    open(handles) {
      for (const r of peers) {
        cuda.cudaIpcOpenMemHandle(word, handles[r], ENABLE_PEER_ACCESS);
        bases[r] = word[0];
      }
    },
    turn(send) {
      turns = (turns + 1) >>> 0;
      for (const r of peers) {
        const { from, bytes } = send(r);
        if (bytes) cuda.cudaMemcpyAsync(place(r, rank), from, BigInt(bytes), COPY_ANY, side);
      }
      for (const r of peers) values.write(side, number(r, rank), turns);
      for (const r of peers) values.wait(side, number(rank, r), turns);
      return bases.map((_, r) => r === rank ? 0n : place(rank, r));
    },
    abandon() {
      cuda.cudaStreamCreateWithFlags(word, NON_BLOCKING);
      const [escape] = word;
      for (const r of peers) values.write(escape, number(rank, r), turns);
      cuda.cudaStreamSynchronize(escape);
      cuda.cudaStreamDestroy(escape);
    },
    leave() {
      cuda.cudaStreamSynchronize(side);
      for (const r of peers) if (bases[r]) cuda.cudaIpcCloseMemHandle(bases[r]);
    },
    free() {
      cuda.cudaFree(bases[rank]);
      cuda.cudaStreamDestroy(side);
    },
  };
}
