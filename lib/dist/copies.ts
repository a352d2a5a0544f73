/**
 * Collectives among the GPUs of one machine by their copy engines, which take no multiprocessor from the kernels beside them; what is left to compute is
 * a sum of rows that are on the device already. Sums are those of the ranks' values in the order of ranks, to the bit.
 */
import { createEvent, isDone, openCudart, orderStreams } from "../../ffi/cudart.ts";
import { device } from "../tensor/device.ts";
import { DTYPE, DTYPE_BYTES } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import { stream, type Tensor, tensor, zeros } from "../tensor/tensor.ts";
import type { OnDevice, Ranks } from "./communicator.ts";
import { makeSlots, ROW_BYTES, type Slots } from "./slots.ts";

/** How long the first sum may take. */
const TRIAL_MS = 10_000;
/**
 * Over links that are at least this fast, in bytes a second, sums go together: after seven eighths of them, shortly before the end, and at the end. GPUs
 * that compute at their power limit lose 2 to 3 % of their clock while data goes over their links every few milliseconds, however little
 * (kernels/README.md); in bursts not.
 */
const FAST = 100e9, BURSTS = [7 / 8, 14 / 15];
const COPY_ANY = 4, F32 = DTYPE_BYTES.f32;
/** Of kernels/include/elementwise.h. */
const ADD = 0;

/** Options of {@linkcode copyCollectives}. */
export interface CopyOptions {
  /** Bytes of a collective that all ranks add up or send at a time, at most; by default those of a bucket of gradients. */
  turnBytes?: number;
}

/** Which machine this is. */
function machine(): string {
  try {
    return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id");
  } catch {
    return Deno.hostname();
  }
}

/**
 * The collectives, or why there are none: ranks on several machines, GPUs that cannot reach each other's memory, or a first sum that does not come out.
 * All ranks get the same answer. `sumOnHost` adds up what is not f32, which is counts alone.
 */
export function copyCollectives(
  ranks: Ranks,
  sumOnHost: (t: Tensor) => void,
  { turnBytes = 64 * 2 ** 20 }: CopyOptions = {},
): OnDevice | { fault: string } {
  const { rank, world, exchange } = ranks;
  /** What `body` throws on the first rank where it does; null where it works on all. */
  const faultOf = (body: () => void): string | null => {
    let fault: string | null = null;
    try {
      body();
    } catch (error) {
      fault = (error as Error).message;
    }
    return exchange(fault).find((found) => found !== null) ?? null;
  };
  if (new Set(exchange(machine())).size > 1) return { fault: "the ranks are on several machines" };
  let slots: Slots | undefined, made: OnDevice | undefined, handle: number[] = [];
  let fault = faultOf(() => {
    slots = makeSlots(rank, world, turnBytes);
    handle = [...slots.handle()];
  });
  const handles = exchange(handle).map((bytes) => Uint8Array.from(bytes));
  fault ??= faultOf(() => slots!.open(handles));
  let rate = 0;
  fault ??= faultOf(() => rate = tryOut(made = collectivesOn(slots!, ranks, sumOnHost), slots!, world));
  if (fault === null) return { ...made!, bursts: Math.min(...exchange(rate)) >= FAST ? BURSTS : [] };
  slots?.abandon();
  slots?.leave();
  exchange(null);
  slots?.free();
  return { fault };
}

/** Throws where a sum over all ranks is wrong or does not come. Gives the bytes a second that a rank sends of large ones, and gets. */
function tryOut(ours: OnDevice, { sends, uses, row }: Slots, world: number): number {
  const cuda = openCudart(), word = new BigUint64Array(1), until = Date.now() + TRIAL_MS, n = 1000;
  const t = persist(() => tensor(Array.from({ length: n }, (_, i) => i), [n]));
  ours.allReduce(t);
  ours.join();
  const event = createEvent(cuda), pause = new Int32Array(new SharedArrayBuffer(4));
  cuda.cudaEventRecord(event, uses);
  while (!isDone(cuda, event)) {
    if (Date.now() > until) throw new Error(`a sum over the ranks did not come within ${TRIAL_MS / 1000} s`);
    Atomics.wait(pause, 0, 0, 1);
  }
  cuda.cudaEventDestroy(event);
  const right = t.read().every((v, i) => v === world * i);
  t.free();
  if (!right) throw new Error("a sum over the ranks is wrong");
  const large = persist(() => zeros([world * row / F32])), elapsed = new Float32Array(1);
  const [begin, end] = [0, 0].map(() => {
    cuda.cudaEventCreate(word);
    return word[0];
  });
  for (let i = 0; i < 2; i++) { // the second time all is warm
    cuda.cudaEventRecord(begin, sends);
    ours.allReduce(large);
    cuda.cudaEventRecord(end, uses);
  }
  cuda.cudaEventSynchronize(end);
  cuda.cudaEventElapsedTime(elapsed, begin, end);
  for (const e of [begin, end]) cuda.cudaEventDestroy(e);
  large.free();
  return 2 * (world - 1) * row / Math.max(elapsed[0] / 1e3, 1e-9);
}

function collectivesOn(slots: Slots, { rank, world }: Ranks, sumOnHost: (t: Tensor) => void): OnDevice {
  const cuda = openCudart(), event = createEvent(cuda), { row, sends, uses, turn } = slots, { kernels } = device();
  const order = (earlier: bigint, later: bigint): void => orderStreams(cuda, event, earlier, later);
  const begin = (): void => order(stream(), sends);
  const join = (): void => order(uses, stream());
  const copy = (to: bigint, from: bigint, bytes: number): void =>
    void (to !== from && bytes && cuda.cudaMemcpyAsync(to, from, BigInt(bytes), COPY_ANY, uses));
  const add = (y: bigint, a: bigint, b: bigint, n: number): void =>
    kernels.k_binary_fwd(y, a, b, 1n, 1n, 1n, BigInt(n), 0n, 0n, 0n, 1n, 0n, 0n, 0n, 1n, ADD, DTYPE.f32, uses);
  const at = (address: bigint, offset: number): bigint => address + BigInt(offset);
  /** Calls `part` with where each part of at most `most` begins, and its size. */
  const cut = (size: number, most: number, part: (offset: number, size: number) => void): void => {
    for (let offset = 0; offset < size; offset += most) part(offset, Math.min(most, size - offset));
  };
  /** y = the sum of `mine` and what others have sent, of `bytes` each, by rank; y may be `mine`. Sums before this rank's turn to add are left in a row. */
  const sumRows = (y: bigint, mine: bigint, rows: bigint[], bytes: number): void => {
    if (!bytes) return;
    const of = (r: number): bigint => r === rank ? mine : rows[r];
    let sum = of(0);
    for (let r = 1; r < world; r++) {
      const to = r < rank ? rows[0] : y;
      add(to, sum, of(r), bytes / F32);
      sum = to;
    }
  };
  return {
    by: "the GPUs' copy engines",
    allReduce(t) {
      if (t.dtype !== "f32") {
        join();
        return sumOnHost(t);
      }
      begin();
      cut(t.bytes, world * row, (offset, bytes) => {
        const each = Math.ceil(bytes / world / ROW_BYTES) * ROW_BYTES, base = at(t.addr, offset);
        const part = (r: number) => ({ from: at(base, r * each), bytes: Math.max(0, Math.min(each, bytes - r * each)) }), mine = part(rank);
        turn(part, (rows) => sumRows(mine.from, mine.from, rows, mine.bytes));
        order(uses, sends);
        turn(() => mine, (rows) => rows.forEach((from, r) => r !== rank && copy(part(r).from, from, part(r).bytes)));
      });
    },
    reduceScatter(y, x) {
      begin();
      cut(y.bytes, row, (offset, bytes) => {
        const part = (r: number) => ({ from: at(x.addr, r * y.bytes + offset), bytes });
        turn(part, (rows) => sumRows(at(y.addr, offset), part(rank).from, rows, bytes));
      });
    },
    allGather(y, x) {
      begin();
      order(sends, uses);
      copy(at(y.addr, rank * x.bytes), x.addr, x.bytes);
      cut(x.bytes, row, (offset, bytes) => {
        const mine = { from: at(x.addr, offset), bytes };
        turn(() => mine, (rows) => rows.forEach((from, r) => r !== rank && copy(at(y.addr, r * x.bytes + offset), from, bytes)));
      });
    },
    broadcast(t) {
      begin();
      cut(t.bytes, row, (offset, bytes) => {
        const place = at(t.addr, offset);
        turn(() => ({ from: place, bytes: rank === 0 ? bytes : 0 }), ([from]) => rank !== 0 && copy(place, from, bytes));
      });
    },
    join,
    close(meet) {
      slots.leave();
      meet(); // none gives its memory back while another has it open
      slots.free();
      cuda.cudaEventDestroy(event);
    },
  };
}
