/** Memory brought to the host for a while: copied on streams of its own, beside the device's other work. */
import { createEvent, type Cudart } from "../../ffi/cudart.ts";

/** Bytes that were brought to the host. */
export interface Parked {
  /** Begins to bring them back, into memory that is taken now. */
  bring(): void;
  /** Where they are on the device again, for work that is queued from now on. */
  take(): bigint;
  /** Forgets them. */
  drop(): void;
}

/** What {@linkcode cudaParking} needs of the device's memory. */
export interface ParkingSpace {
  cuda: Cudart;
  /** The stream of all other work. */
  stream: bigint;
  alloc(bytes: number): bigint;
  free(address: bigint, bytes: number): void;
  /** Counts memory as free that another stream gives back once it is copied. */
  released(bytes: number): void;
  hostAlloc(bytes: number): bigint;
  hostFree(address: bigint): void;
}

/** Parks memory of a CUDA device; freed when it is copied. Host memory is kept for the next of its size. */
export interface Parking {
  park(address: bigint, bytes: number): Parked;
  /** Gives the host memory back that waits. */
  trim(): void;
}

const NON_BLOCKING = 1, COPY_ANY = 4;

/** On two streams, one for each direction. */
export function cudaParking(space: ParkingSpace): Parking {
  const { cuda, stream } = space, word = new BigUint64Array(1), spare = new Map<number, bigint[]>(), events: bigint[] = [];
  const newStream = (): bigint => {
    cuda.cudaStreamCreateWithFlags(word, NON_BLOCKING);
    return word[0];
  };
  const out = newStream(), back = newStream();
  const eventAfter = (work: bigint): bigint => {
    const event = events.pop() ?? createEvent(cuda);
    cuda.cudaEventRecord(event, work);
    return event;
  };
  const wait = (on: bigint, event: bigint): void => cuda.cudaStreamWaitEvent(on, event, 0);
  const after = (on: bigint, work: bigint): void => {
    const event = eventAfter(work);
    wait(on, event);
    events.push(event); // what waits for it waits for the work recorded now, whatever is recorded later
  };
  return {
    park(address, bytes) {
      const host = spare.get(bytes)?.pop() ?? space.hostAlloc(bytes);
      after(out, stream);
      cuda.cudaMemcpyAsync(host, address, BigInt(bytes), COPY_ANY, out);
      const copied = eventAfter(out);
      cuda.cudaFreeAsync(address, out);
      space.released(bytes);
      let there: bigint | undefined, came: bigint | undefined;
      const done = (): void => {
        events.push(copied);
        if (came !== undefined) events.push(came);
        if (!spare.get(bytes)?.push(host)) spare.set(bytes, [host]);
      };
      const bring = (): void => {
        if (there !== undefined) return;
        there = space.alloc(bytes);
        after(back, stream);
        wait(back, copied);
        cuda.cudaMemcpyAsync(there, host, BigInt(bytes), COPY_ANY, back);
        came = eventAfter(back);
      };
      const take = (): bigint => {
        bring();
        wait(stream, came!);
        done();
        return there!;
      };
      return {
        bring,
        take,
        drop() {
          if (there !== undefined) space.free(take(), bytes);
          else done();
        },
      };
    },
    trim() {
      cuda.cudaStreamSynchronize(out);
      cuda.cudaStreamSynchronize(back);
      for (const list of spare.values()) for (const host of list) space.hostFree(host);
      spare.clear();
    },
  };
}

/** The same where there is one kind of memory: a copy outside of what is counted. */
export function hostParking({ alloc, free, copy, hostAlloc, hostFree }: {
  alloc(bytes: number): bigint;
  free(address: bigint, bytes: number): void;
  copy(to: bigint, from: bigint, bytes: number): void;
  hostAlloc(bytes: number): bigint;
  hostFree(address: bigint): void;
}): Parking {
  return {
    park(address, bytes) {
      const host = hostAlloc(bytes);
      copy(host, address, bytes);
      free(address, bytes);
      let there: bigint | undefined;
      const bring = (): void => {
        if (there !== undefined) return;
        there = alloc(bytes);
        copy(there, host, bytes);
      };
      return {
        bring,
        take() {
          bring();
          hostFree(host);
          return there!;
        },
        drop() {
          if (there !== undefined) free(there, bytes);
          hostFree(host);
        },
      };
    },
    trim: () => {},
  };
}
