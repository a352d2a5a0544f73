/**
 * Copies between the host and a CUDA device that the host does not wait for, through pinned memory of its own. From other host memory CUDA copies more
 * than 64 KiB only when all earlier work is done, and the device then idles while the host queues what follows.
 */
import { createEvent, type Cudart, isDone } from "../../ffi/cudart.ts";
import { addressOf, type Libc } from "../../ffi/host.ts";

/** What {@linkcode openStaging} needs of the device's memory. */
export interface StagingSpace {
  cuda: Cudart;
  libc: Libc;
  stream: bigint;
  hostAlloc(bytes: number): bigint;
  hostFree(address: bigint): void;
}

/** Copies in the stream's order. */
export interface Staging {
  /** From host memory that may be changed or collected afterwards. */
  upload(to: bigint, from: ArrayBufferView<ArrayBuffer>): void;
  /** What the device has at an address when the work queued so far is done; asking for it waits for that work alone. */
  downloadLater(to: ArrayBufferView<ArrayBuffer>, from: bigint): () => void;
  /** Gives the pinned memory back that waits. */
  trim(): void;
}

/** A piece of pinned memory, and the event after which its last copy is done. */
interface Block {
  address: bigint;
  event: bigint;
}

const COPY_ANY = 4;
/** Smaller uploads are copied at once by CUDA, larger ones are rare. */
const LEAST = 64 * 2 ** 10, MOST = 64 * 2 ** 20;
/** So many uploads of a size are under way at most. */
const DEPTH = 8;

/** Opens it on a stream. */
export function openStaging({ cuda, libc, stream, hostAlloc, hostFree }: StagingSpace): Staging {
  const uploads = new Map<number, Block[]>(), spare = new Map<number, Block[]>();
  const sizeClass = (bytes: number): number => 2 ** Math.ceil(Math.log2(Math.max(256, bytes)));
  const make = (size: number): Block => ({ address: hostAlloc(size), event: createEvent(cuda) });
  /** A block whose copy is done; the list is in the order of the copies. */
  const take = (size: number): Block => {
    const list = uploads.get(size) ?? [];
    uploads.set(size, list);
    if (list.length < DEPTH && !(list.length && isDone(cuda, list[0].event))) return make(size);
    const block = list.shift()!;
    cuda.cudaEventSynchronize(block.event);
    return block;
  };
  return {
    upload(to, from) {
      const bytes = from.byteLength, direct = bytes <= LEAST || bytes > MOST;
      if (direct) return cuda.cudaMemcpyAsync(to, addressOf(from), BigInt(bytes), COPY_ANY, stream);
      const size = sizeClass(bytes), block = take(size);
      libc.memcpy(block.address, addressOf(from), BigInt(bytes));
      cuda.cudaMemcpyAsync(to, block.address, BigInt(bytes), COPY_ANY, stream);
      cuda.cudaEventRecord(block.event, stream);
      uploads.get(size)!.push(block);
    },
    downloadLater(to, from) {
      const bytes = to.byteLength, size = sizeClass(bytes), block = spare.get(size)?.pop() ?? make(size);
      cuda.cudaMemcpyAsync(block.address, from, BigInt(bytes), COPY_ANY, stream);
      cuda.cudaEventRecord(block.event, stream);
      return () => {
        cuda.cudaEventSynchronize(block.event);
        libc.memcpy(addressOf(to), block.address, BigInt(bytes));
        if (!spare.get(size)?.push(block)) spare.set(size, [block]);
      };
    },
    trim() {
      cuda.cudaStreamSynchronize(stream);
      for (const lists of [uploads, spare]) {
        for (const { address, event } of [...lists.values()].flat()) {
          hostFree(address);
          cuda.cudaEventDestroy(event);
        }
        lists.clear();
      }
    },
  };
}
