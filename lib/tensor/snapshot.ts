/** Copies of tensors in host memory: taken at once, read later and by another thread while the tensors change. */
import { device } from "./device.ts";
import type { DType } from "./dtype.ts";
import { formatBytes, OutOfMemoryError } from "./memory.ts";
import type { Tensor } from "./tensor.ts";

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

/** Makes room on the host for `tensors`; on a GPU page-locked, so that they are copied at the bus's speed. Throws an OutOfMemoryError. */
export function snapshotBuffer(tensors: Record<string, Tensor>): SnapshotBuffer {
  const { memory } = device(), list = Object.entries(tensors);
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
        if (t.bytes) memory.copyToHost(at, t.addr, t.bytes);
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
export function* tensorBytes(t: Tensor): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < t.bytes; at += CHUNK) {
    const chunk = new Uint8Array(Math.min(CHUNK, t.bytes - at));
    device().memory.download(chunk, t.addr + BigInt(at));
    yield chunk;
  }
}
