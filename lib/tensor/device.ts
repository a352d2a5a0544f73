/** The device that tensors live on: one a process, chosen before the first tensor is made. */
import type { MatmulProblem } from "../../ffi/cublaslt.ts";
import { openCudart, probeCuda } from "../../ffi/cudart.ts";
import { type Device, type Kernels, openKernels } from "../../ffi/kernels.ts";
import { cudaMemory, hostMemory, type Memory } from "./memory.ts";

/** A device in use: its kernels, its memory and its stream. */
export interface OpenDevice {
  readonly name: Device;
  readonly kernels: Kernels;
  readonly memory: Memory;
  /** The stream that all work is put on; 0 on the CPU. */
  readonly stream: bigint;
  /** On a device that computes nothing (lib/memory/simulate.ts): what stands in for cuBLASLt, and the device in whose place it is. */
  readonly simulated?: { matmul(problem: MatmulProblem): boolean; base?: OpenDevice };
}

/** Options of {@linkcode openDevice}. */
export interface DeviceOptions {
  /** The most device memory to use, in bytes; by default all that is free less a reserve of 512 MiB (CPU: all of the machine's memory). */
  memoryLimit?: number;
  /** Which of the visible GPUs, from 0; a process that sees one alone takes that one. */
  ordinal?: number;
}

let current: OpenDevice | undefined, instead: OpenDevice | undefined;
let probed: { available: boolean; reason: string } | undefined;

/** Whether CUDA can be used here; the answer is kept. */
export function hasCuda(): boolean {
  return (probed ??= probeCuda()).available;
}

/** Opens the device `choice`: "cpu", "cuda", or "auto" (CUDA where there is a GPU). Choosing another one later is an error. */
export function openDevice(choice: string = Deno.env.get("DEVICE") || "auto", options: DeviceOptions = {}): OpenDevice {
  if (choice !== "cpu" && choice !== "cuda" && choice !== "auto") {
    throw new RangeError(`Cannot open a device: DEVICE (or --device) is "${choice}", it must be cpu, cuda or auto`);
  }
  if (instead) return instead;
  const name = choice === "auto" ? (hasCuda() ? "cuda" : "cpu") : choice;
  if (current) {
    if (current.name !== name) throw new Error(`Cannot open the device ${name}: ${current.name} is open, a process must use one device`);
    return current;
  }
  if (name === "cuda" && !hasCuda()) {
    throw new Error(
      `Cannot use the device cuda: ${
        probed!.reason
      }. A CUDA GPU must be visible; \`deno task doctor\` says more, --device cpu runs without one`,
    );
  }
  return current = name === "cpu" ? openCpu(options) : openCuda(options);
}

function openCpu({ memoryLimit }: DeviceOptions): OpenDevice {
  return { name: "cpu", kernels: openKernels("cpu"), memory: hostMemory(memoryLimit ?? Deno.systemMemoryInfo().total), stream: 0n };
}

function openCuda({ memoryLimit, ordinal = 0 }: DeviceOptions): OpenDevice {
  const cuda = openCudart(), out = new BigUint64Array(1), free = new BigUint64Array(1), total = new BigUint64Array(1);
  const count = new Int32Array(1);
  cuda.cudaGetDeviceCount(count);
  if (count[0] === 1) ordinal = 0;
  if (ordinal >= count[0]) {
    throw new RangeError(`Cannot use the GPU ${ordinal}: ${count[0]} are visible, there must be one for each process of a machine`);
  }
  cuda.cudaSetDevice(ordinal);
  const NON_BLOCKING = 1;
  cuda.cudaStreamCreateWithFlags(out, NON_BLOCKING);
  const stream = out[0];
  cuda.cudaMemGetInfo(free, total);
  const limit = Math.min(memoryLimit ?? Infinity, Number(free[0]) - 512 * 2 ** 20);
  return { name: "cuda", kernels: openKernels("cuda"), memory: cudaMemory(ordinal, stream, limit), stream };
}

/** The open device; opens `DEVICE` (by default "auto") on first use. */
export function device(): OpenDevice {
  return instead ?? current ?? openDevice();
}

/** Runs `body` with `other` in the place of the open device. A tensor's memory belongs to the device that it was made on. */
export function onDevice<T>(other: OpenDevice, body: () => T): T {
  const before = instead;
  instead = other;
  try {
    return body();
  } finally {
    instead = before;
  }
}
