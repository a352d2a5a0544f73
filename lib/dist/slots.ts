/** Device memory of several processes of one machine that each of them copies into, by copy engines, and tells the others' streams so. */
import { openStreamValues } from "../../ffi/cuda_driver.ts";
import { createEvent, IPC_HANDLE_BYTES, openCudart, orderStreams } from "../../ffi/cudart.ts";

/** What rows are multiples of, in bytes: kernels then read whole packs. */
export const ROW_BYTES = 256;
/** Turns whose rows are there at a time: one that is used, one that is there, one on its way. */
const TURNS = 3;
const NON_BLOCKING = 1, COPY_ANY = 4, ENABLE_PEER_ACCESS = 1;

/** A rank's memory for rows from all others, and theirs for its own. */
export interface Slots {
  /** Bytes of a row. */
  readonly row: number;
  /** The stream of the copies to others. Nothing else is behind it. */
  readonly sends: bigint;
  /** The stream of what is done with what others sent. */
  readonly uses: bigint;
  /** What opens this rank's memory in another process. */
  handle(): Uint8Array<ArrayBuffer>;
  /** Opens the others', given the handles of all ranks. */
  open(handles: Uint8Array<ArrayBuffer>[]): void;
  /**
   * Queues a turn, which all ranks take: on `sends` the copies of `send(r)`, at most a row, to each other rank r; on `uses`, when what they send is there,
   * what `use` queues, which is given where that lies, by rank. The next turn's copies go on beside that: who sends what it makes orders `sends` behind it.
   */
  turn(send: (rank: number) => { from: bigint; bytes: number }, use: (rows: bigint[]) => void): void;
  /** Waits for nothing any more: what was to come will not. */
  abandon(): void;
  /** Waits for the turns, and closes the others' memory. */
  leave(): void;
  /** Gives this rank's memory back, which the others must have closed. */
  free(): void;
}

/**
 * Makes this rank's slots, of rows of `turnBytes` over the number of ranks: for each of three turns a row from each other rank, then a number of each
 * rank, the last turn that its row is there of. A rank writes that once it has used what came two turns before. So where it is written, what was sent two
 * turns before may be written over in the next turn: three are enough, and links do not wait for a number that is on its way.
 */
export function makeSlots(rank: number, world: number, turnBytes: number): Slots {
  const cuda = openCudart(), values = openStreamValues(), word = new BigUint64Array(1), others = world - 1;
  const row = Math.floor(turnBytes / world / ROW_BYTES) * ROW_BYTES,
    numbers = TURNS * others * row,
    bytes = numbers + Math.ceil(4 * world / ROW_BYTES) * ROW_BYTES;
  const bases: bigint[] = Array(world).fill(0n), least = new Int32Array(1), most = new Int32Array(1);
  const peers = Array.from({ length: others }, (_, i) => (rank + 1 + i) % world); // each rank begins with another
  cuda.cudaDeviceGetStreamPriorityRange(least, most);
  const [sends, uses] = [0, 0].map(() => {
    cuda.cudaStreamCreateWithPriority(word, NON_BLOCKING, most[0]);
    return word[0];
  });
  const event = createEvent(cuda), used = [createEvent(cuda), createEvent(cuda)]; // of even turns, and of odd ones
  cuda.cudaMalloc(word, BigInt(bytes));
  bases[rank] = word[0];
  cuda.cudaMemsetAsync(bases[rank], 0, BigInt(bytes), sends);
  cuda.cudaStreamSynchronize(sends);
  let turns = 0, slot = 0;
  /** Where rank `to` has the row of rank `from` in this turn, and the number of its last turn. */
  const place = (to: number, from: number): bigint => bases[to] + BigInt((slot * others + (from < to ? from : from - 1)) * row);
  const number = (to: number, from: number): bigint => bases[to] + BigInt(numbers + 4 * from);
  return {
    ...{ row, sends, uses },
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
    turn(send, use) {
      for (const r of peers) values.wait(sends, number(rank, r), turns);
      turns = (turns + 1) >>> 0;
      slot = (slot + 1) % TURNS;
      for (const r of peers) {
        const { from, bytes } = send(r);
        if (bytes) cuda.cudaMemcpyAsync(place(r, rank), from, BigInt(bytes), COPY_ANY, sends);
      }
      cuda.cudaStreamWaitEvent(sends, used[turns % 2], 0);
      for (const r of peers) values.write(sends, number(r, rank), turns);
      orderStreams(cuda, event, sends, uses);
      for (const r of peers) values.wait(uses, number(rank, r), turns);
      use(bases.map((_, r) => r === rank ? 0n : place(rank, r)));
      cuda.cudaEventRecord(used[turns % 2], uses);
    },
    abandon() {
      cuda.cudaStreamCreateWithFlags(word, NON_BLOCKING);
      const [escape] = word;
      for (const r of peers) values.write(escape, number(rank, r), turns);
      cuda.cudaStreamSynchronize(escape);
      cuda.cudaStreamDestroy(escape);
    },
    leave() {
      for (const queue of [sends, uses]) cuda.cudaStreamSynchronize(queue);
      for (const r of peers) if (bases[r]) cuda.cudaIpcCloseMemHandle(bases[r]);
    },
    free() {
      cuda.cudaFree(bases[rank]);
      for (const queue of [sends, uses]) cuda.cudaStreamDestroy(queue);
      for (const e of [event, ...used]) cuda.cudaEventDestroy(e);
    },
  };
}
