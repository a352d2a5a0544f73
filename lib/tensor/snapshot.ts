/** Copies of tensors in host memory: taken at once, read later and by another thread while the tensors change. */
import { device } from "./device.ts";
import { type DType, DTYPE_BYTES } from "./dtype.ts";
import { formatBytes, OutOfMemoryError } from "./memory.ts";
import type { Tensor } from "./tensor.ts";

/** A run of a tensor's bytes on the device, `offset` bytes from its beginning. */
export interface Piece {
  offset: number;
  address: bigint;
  bytes: number;
}

/** What a checkpoint keeps under a name: a tensor, or values of which each of several processes holds a part. */
export interface Kept {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** Whether all processes must go through the pieces together. */
  readonly together: boolean;
  /** Its bytes from the first to the last. A piece is there until the next one is asked for, in the stream's order. */
  pieces(): Iterable<Piece>;
  /** Takes the values from the whole tensor's bytes. */
  fill(bytes: Uint8Array<ArrayBuffer>): void;
}

/** A tensor, or what stands for one, as a checkpoint keeps it. */
export function keptOf(t: Tensor | Kept): Kept {
  if ("pieces" in t) return t;
  return {
    ...{ dtype: t.dtype, shape: t.shape, bytes: t.bytes, together: false },
    pieces: () => t.bytes ? [{ offset: 0, address: t.addr, bytes: t.bytes }] : [],
    fill: (bytes) => t.bytes ? device().memory.upload(t.addr, bytes) : undefined,
  };
}

/** A tensor as it was. Plain data, which another thread can be sent. */
export interface SnapshotEntry {
  name: string;
  dtype: DType;
  shape: readonly number[];
  /** Where its bytes lie in host memory. */
  address: bigint;
  bytes: number;
}

/** Host memory for copies of the same tensors again and again. */
export interface SnapshotBuffer {
  /** Copies the tensors as they are after all work that is on the stream, and waits for that. Overwrites the copies taken before. */
  take(): SnapshotEntry[];
  free(): void;
}

/** The part of the host's free memory that a copy may take: the system ends processes where none is left. */
const MOST_OF_FREE = 0.8;

/** What a checkpoint keeps in the order in which files have it: the widest elements first, so that each tensor is aligned. */
export function inFileOrder(tensors: Record<string, Tensor | Kept>): [name: string, t: Kept][] {
  const list = Object.entries(tensors).map(([name, t]): [string, Kept] => [name, keptOf(t)]);
  return list.sort(([, a], [, b]) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
}

/** Makes room on the host for `tensors`; on a GPU page-locked, so that they are copied at the bus's speed. Throws an OutOfMemoryError. */
export function snapshotBuffer(tensors: Record<string, Tensor | Kept>): SnapshotBuffer {
  const { memory } = device(), list = inFileOrder(tensors);
  const total = list.reduce((sum, [, t]) => sum + aligned(t.bytes), 0), { available } = Deno.systemMemoryInfo();
  if (total > MOST_OF_FREE * available) {
    throw new OutOfMemoryError(
      `Cannot allocate ${formatBytes(total)} on the host: ${formatBytes(available)} are free, a copy may take ${
        100 * MOST_OF_FREE
      } % of that`,
    );
  }
  const base = memory.hostAlloc(Math.max(total, 1));
  return {
    take() {
      let at = base;
      const entries = list.map(([name, t]) => {
        const entry = { name, dtype: t.dtype, shape: t.shape, address: at, bytes: t.bytes };
        for (const { offset, address, bytes } of t.pieces()) if (bytes) memory.copyToHost(at + BigInt(offset), address, bytes);
        at += BigInt(aligned(t.bytes));
        return entry;
      });
      memory.synchronize();
      return entries;
    },
    free: () => memory.hostFree(base),
  };
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}

const CHUNK = 64 * 2 ** 20;

/** The bytes of a copy, 64 MiB at a time, without copying them again; for as long as its buffer is neither freed nor taken again. */
export function* snapshotBytes({ address, bytes }: SnapshotEntry): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < bytes; at += CHUNK) {
    const pointer = Deno.UnsafePointer.create(address + BigInt(at))!;
    yield new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, Math.min(CHUNK, bytes - at)) as ArrayBuffer);
  }
}

/** The bytes of a tensor on the device, 64 MiB at a time. */
export function* tensorBytes(t: Tensor | Kept): Generator<Uint8Array<ArrayBuffer>> {
  for (const { address, bytes } of keptOf(t).pieces()) {
    for (let at = 0; at < bytes; at += CHUNK) {
      const chunk = new Uint8Array(Math.min(CHUNK, bytes - at));
      device().memory.download(chunk, address + BigInt(at));
      yield chunk;
    }
  }
}
