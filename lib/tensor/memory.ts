/** Device memory with used and peak counters and a limit: host memory on the CPU, CUDA's stream-ordered pool on a GPU. */
import { CUDA_OUT_OF_MEMORY, CudaError, openCudart } from "../../ffi/cudart.ts";
import { addressOf, openLibc } from "../../ffi/host.ts";
import { cudaParking, hostParking, type Parked, type Parking } from "./parking.ts";
import { openStaging } from "./staging.ts";

/** Bytes in use and the most that were in use since {@linkcode Memory.resetPeak}. */
export interface MemoryUse {
  /** Bytes held by living tensors. */
  used: number;
  /** The largest `used` seen. */
  peak: number;
}

/** A device's memory. Copies and frees are ordered on the device's stream; `download` waits for it, an upload does not. */
export interface Memory {
  /** The most bytes that may be in use. */
  readonly limit: number;
  /** What an allocation of `bytes` adds to the bytes in use. */
  granted(bytes: number): number;
  alloc(bytes: number): bigint;
  free(address: bigint, bytes: number): void;
  upload(to: bigint, from: ArrayBufferView<ArrayBuffer>): void;
  download(to: ArrayBufferView<ArrayBuffer>, from: bigint): void;
  /** The same in the stream's order without waiting: `to` has the bytes once what is returned was called (once), which waits for the work before it. */
  downloadLater(to: ArrayBufferView<ArrayBuffer>, from: bigint): () => void;
  copy(to: bigint, from: bigint, bytes: number): void;
  zero(address: bigint, bytes: number): void;
  /** Host memory that copies from the device reach fast; not counted in {@linkcode Memory.use}. Throws an {@linkcode OutOfMemoryError}. */
  hostAlloc(bytes: number): bigint;
  hostFree(address: bigint): void;
  /** A copy to host memory of {@linkcode Memory.hostAlloc}, in the stream's order: done after `synchronize`. */
  copyToHost(to: bigint, from: bigint, bytes: number): void;
  synchronize(): void;
  use(): MemoryUse;
  resetPeak(): void;
  /** Brings memory to the host, and frees it: see {@linkcode Parked}. */
  park(address: bigint, bytes: number): Parked;
  /** Gives what is kept for later allocations back to the system. */
  trim(): void;
}

/** An allocation did not fit the device or the limit. */
export class OutOfMemoryError extends Error {
  override name = "OutOfMemoryError";
}

const GIB = 2 ** 30;

/** `bytes` for people: "1.50 GiB". */
export function formatBytes(bytes: number): string {
  return bytes >= GIB ? `${(bytes / GIB).toFixed(2)} GiB` : bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${bytes} bytes`;
}

/** Bytes from "24GiB", "800MiB", "16GB" or a plain number. */
export function parseBytes(text: string): number {
  const match = text.trim().match(/^(\d+(?:\.\d+)?)\s*(|B|KB|MB|GB|KiB|MiB|GiB)$/);
  const units: Record<string, number> = { "": 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: GIB };
  if (!match || Number(match[1]) <= 0) {
    throw new RangeError(`Cannot read a memory size: it is "${text}", it must be a number with a unit such as 24GiB`);
  }
  return Math.floor(Number(match[1]) * units[match[2]]);
}

function outOfMemory(bytes: number, { used }: MemoryUse, limit: number): OutOfMemoryError {
  return new OutOfMemoryError(
    `Cannot allocate ${formatBytes(bytes)}: ${formatBytes(used)} of ${formatBytes(limit)} are in use, the sum must fit ` +
      "(use a smaller batch, more micro-batches, checkpointing, or a larger --memory-limit)",
  );
}

function outOfHostMemory(bytes: number): OutOfMemoryError {
  return new OutOfMemoryError(`Cannot allocate ${formatBytes(bytes)} on the host: the system refuses it, it must have that much free`);
}

/** Host memory. Freed blocks are kept by size class, up to 2 GiB, since a training step takes the same sizes again and again. */
export function hostMemory(limit: number): Memory {
  const libc = openLibc(), spare = new Map<number, bigint[]>();
  let used = 0, peak = 0, cached = 0;
  const sizeClass = (bytes: number): number => {
    if (bytes <= 256) return 256;
    const step = 2 ** Math.max(8, Math.floor(Math.log2(bytes)) - 3);
    return Math.ceil(bytes / step) * step;
  };
  const memory: Memory = {
    limit,
    granted: sizeClass,
    alloc(bytes) {
      const size = sizeClass(bytes);
      if (used + size > limit) throw outOfMemory(bytes, { used, peak }, limit);
      let address = spare.get(size)?.pop();
      if (address !== undefined) cached -= size;
      else address = libc.aligned_alloc(256n, BigInt(size));
      if (address === 0n) throw outOfMemory(bytes, { used, peak }, limit);
      used += size;
      peak = Math.max(peak, used);
      return address;
    },
    free(address, bytes) {
      const size = sizeClass(bytes);
      used -= size;
      if (cached + size > 2 * GIB) return void libc.free(address);
      cached += size;
      if (!spare.get(size)?.push(address)) spare.set(size, [address]);
    },
    upload: (to, from) => libc.memcpy(to, addressOf(from), BigInt(from.byteLength)),
    download: (to, from) => libc.memcpy(addressOf(to), from, BigInt(to.byteLength)),
    downloadLater(to, from) {
      memory.download(to, from);
      return () => {};
    },
    copy: (to, from, bytes) => libc.memcpy(to, from, BigInt(bytes)),
    zero: (address, bytes) => libc.memset(address, 0, BigInt(bytes)),
    hostAlloc(bytes) {
      const address = libc.aligned_alloc(256n, BigInt(Math.ceil(bytes / 256) * 256));
      if (address === 0n) throw outOfHostMemory(bytes);
      return address;
    },
    hostFree: (address) => libc.free(address),
    copyToHost: (to, from, bytes) => libc.memcpy(to, from, BigInt(bytes)),
    synchronize: () => {},
    use: () => ({ used, peak }),
    resetPeak: () => void (peak = used),
    park: (address, bytes) => hostParking(memory).park(address, bytes),
    trim() {
      for (const list of spare.values()) for (const address of list) libc.free(address);
      spare.clear();
      cached = 0;
    },
  };
  return memory;
}

const POOL_ATTRIBUTE = { releaseThreshold: 4, usedCurrent: 7, usedHigh: 8 };
/** The runtime sees from the addresses which of them are the host's. */
const COPY_ANY = 4;

/** CUDA's stream-ordered pool of device `ordinal`, on `stream`. The pool keeps what is freed; its own counters are the truth. */
export function cudaMemory(ordinal: number, stream: bigint, limit: number): Memory {
  const cuda = openCudart(), out = new BigUint64Array(1);
  // cudaMemPoolProps: allocType pinned (1), handleTypes 0, location {device (1), ordinal}, attributes 0, maxSize 0 (no fixed bound), usage, reserved
  const properties = new Uint32Array(22);
  properties.set([1, 0, 1, ordinal]);
  cuda.cudaMemPoolCreate(out, properties);
  const pool = out[0];
  cuda.cudaMemPoolSetAttribute(pool, POOL_ATTRIBUTE.releaseThreshold, new BigUint64Array([2n ** 64n - 1n]));
  const attribute = (which: number): number => {
    cuda.cudaMemPoolGetAttribute(pool, which, out);
    return Number(out[0]);
  };
  const use = (): MemoryUse => ({ used: attribute(POOL_ATTRIBUTE.usedCurrent), peak: attribute(POOL_ATTRIBUTE.usedHigh) });
  const hostAlloc = (bytes: number): bigint => {
    try {
      cuda.cudaMallocHost(out, BigInt(bytes));
    } catch (error) {
      if (error instanceof CudaError && error.status === CUDA_OUT_OF_MEMORY) throw outOfHostMemory(bytes);
      throw error;
    }
    return out[0];
  };
  const hostFree = (address: bigint): void => cuda.cudaFreeHost(address);
  const staging = openStaging({ cuda, libc: openLibc(), stream, hostAlloc, hostFree });
  let allocated = 0, parking: Parking | undefined;
  const memory: Memory = {
    limit,
    granted: (bytes) => bytes,
    alloc(bytes) {
      if (allocated + bytes > limit) throw outOfMemory(bytes, use(), limit);
      try {
        cuda.cudaMallocFromPoolAsync(out, BigInt(bytes), pool, stream);
      } catch (error) {
        if (error instanceof CudaError && error.status === CUDA_OUT_OF_MEMORY) throw outOfMemory(bytes, use(), limit);
        throw error;
      }
      allocated += bytes;
      return out[0];
    },
    free(address, bytes) {
      allocated -= bytes;
      cuda.cudaFreeAsync(address, stream);
    },
    upload: staging.upload,
    download(to, from) {
      cuda.cudaMemcpyAsync(addressOf(to), from, BigInt(to.byteLength), COPY_ANY, stream);
      cuda.cudaStreamSynchronize(stream);
    },
    downloadLater: staging.downloadLater,
    copy: (to, from, bytes) => cuda.cudaMemcpyAsync(to, from, BigInt(bytes), COPY_ANY, stream),
    zero: (address, bytes) => cuda.cudaMemsetAsync(address, 0, BigInt(bytes), stream),
    hostAlloc,
    hostFree,
    copyToHost: (to, from, bytes) => cuda.cudaMemcpyAsync(to, from, BigInt(bytes), COPY_ANY, stream),
    synchronize: () => cuda.cudaStreamSynchronize(stream),
    use,
    resetPeak: () => cuda.cudaMemPoolSetAttribute(pool, POOL_ATTRIBUTE.usedHigh, new BigUint64Array(1)),
    park(address, bytes) {
      parking ??= cudaParking({
        cuda,
        stream,
        alloc: (n) => memory.alloc(n),
        free: (at, n) => memory.free(at, n),
        released: (n) => void (allocated -= n),
        hostAlloc,
        hostFree,
      });
      return parking.park(address, bytes);
    },
    trim() {
      cuda.cudaStreamSynchronize(stream);
      parking?.trim();
      staging.trim();
      cuda.cudaMemPoolTrimTo(pool, 0n);
    },
  };
  return memory;
}
