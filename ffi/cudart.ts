/** The CUDA runtime: device properties, the memory pool, copies, streams, events, graphs. Every call throws on an error status. */
import { observer } from "./observer.ts";
import { openCudaLibrary } from "./shared_library.ts";

/** Bytes of a cudaIpcMemHandle_t, which is passed by value. */
export const IPC_HANDLE_BYTES = 64;
const IPC_HANDLE = { struct: Array(IPC_HANDLE_BYTES / 8).fill("u64") as "u64"[] };

const SYMBOLS = {
  cudaGetErrorString: { parameters: ["i32"], result: "pointer" },
  cudaGetDeviceCount: { parameters: ["buffer"], result: "i32" },
  cudaRuntimeGetVersion: { parameters: ["buffer"], result: "i32" },
  cudaDriverGetVersion: { parameters: ["buffer"], result: "i32" },
  cudaSetDevice: { parameters: ["i32"], result: "i32" },
  cudaDeviceGetAttribute: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cudaDeviceGetPCIBusId: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cudaDeviceGetStreamPriorityRange: { parameters: ["buffer", "buffer"], result: "i32" },
  cudaMalloc: { parameters: ["buffer", "u64"], result: "i32" },
  cudaFree: { parameters: ["u64"], result: "i32" },
  cudaIpcGetMemHandle: { parameters: ["buffer", "u64"], result: "i32" },
  cudaIpcOpenMemHandle: { parameters: ["buffer", IPC_HANDLE, "u32"], result: "i32" },
  cudaIpcCloseMemHandle: { parameters: ["u64"], result: "i32" },
  cudaMemGetInfo: { parameters: ["buffer", "buffer"], result: "i32" },
  cudaMemPoolCreate: { parameters: ["buffer", "buffer"], result: "i32" },
  cudaMemPoolSetAttribute: { parameters: ["u64", "i32", "buffer"], result: "i32" },
  cudaMemPoolGetAttribute: { parameters: ["u64", "i32", "buffer"], result: "i32" },
  cudaMemPoolTrimTo: { parameters: ["u64", "usize"], result: "i32" },
  cudaMallocFromPoolAsync: { parameters: ["buffer", "u64", "u64", "u64"], result: "i32" },
  cudaFreeAsync: { parameters: ["u64", "u64"], result: "i32" },
  cudaMemcpyAsync: { parameters: ["u64", "u64", "u64", "i32", "u64"], result: "i32" },
  cudaMallocHost: { parameters: ["buffer", "u64"], result: "i32" },
  cudaFreeHost: { parameters: ["u64"], result: "i32" },
  cudaMemsetAsync: { parameters: ["u64", "i32", "u64", "u64"], result: "i32" },
  cudaStreamCreateWithFlags: { parameters: ["buffer", "u32"], result: "i32" },
  cudaStreamCreateWithPriority: { parameters: ["buffer", "u32", "i32"], result: "i32" },
  cudaStreamDestroy: { parameters: ["u64"], result: "i32" },
  cudaStreamWaitEvent: { parameters: ["u64", "u64", "u32"], result: "i32" },
  cudaStreamSynchronize: { parameters: ["u64"], result: "i32" },
  cudaEventCreate: { parameters: ["buffer"], result: "i32" },
  cudaEventCreateWithFlags: { parameters: ["buffer", "u32"], result: "i32" },
  cudaEventRecord: { parameters: ["u64", "u64"], result: "i32" },
  cudaEventQuery: { parameters: ["u64"], result: "i32" },
  cudaEventSynchronize: { parameters: ["u64"], result: "i32" },
  cudaEventElapsedTime: { parameters: ["buffer", "u64", "u64"], result: "i32" },
  cudaEventDestroy: { parameters: ["u64"], result: "i32" },
  cudaStreamBeginCapture: { parameters: ["u64", "i32"], result: "i32" },
  cudaStreamEndCapture: { parameters: ["u64", "buffer"], result: "i32" },
  cudaGraphInstantiate: { parameters: ["buffer", "u64", "u64"], result: "i32" },
  cudaGraphLaunch: { parameters: ["u64", "u64"], result: "i32" },
  cudaGraphDestroy: { parameters: ["u64"], result: "i32" },
  cudaGraphExecDestroy: { parameters: ["u64"], result: "i32" },
  cudaGetLastError: { parameters: [], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type Status = Exclude<keyof typeof SYMBOLS, "cudaGetErrorString" | "cudaGetLastError">;

/** cudaErrorMemoryAllocation. */
export const CUDA_OUT_OF_MEMORY = 2;
const NOT_READY = 600, NO_TIMING = 2;

/** A CUDA runtime call failed. */
export class CudaError extends Error {
  override name = "CudaError";
  /** `status` is the cudaError_t. */
  constructor(readonly status: number, call: string, text: string) {
    super(`Cannot run ${call}: CUDA says "${text}" (error ${status})`);
  }
}

/** The CUDA runtime's functions, each throwing a {@linkcode CudaError} where the C function returns an error. */
export type Cudart = { [K in Status]: (...args: Parameters<Deno.DynamicLibrary<typeof SYMBOLS>["symbols"][K]>) => void };

let opened: Cudart | undefined;

/** Opens libcudart (CUDA 13 or 12), once. Throws where it is missing. */
export function openCudart(): Cudart {
  if (opened) return opened;
  const library = openCudaLibrary(["libcudart.so.13", "libcudart.so.12", "libcudart.so"], SYMBOLS, {
    what: "the CUDA runtime",
    purpose: "gives device memory",
  });
  const { cudaGetErrorString, cudaGetLastError, ...calls } = library;
  return opened = Object.fromEntries(
    Object.entries(calls).map(([name, call]) => {
      const done = (status: number): void => {
        if (status === 0) return;
        cudaGetLastError(); // clears it, so that the next launch is not blamed
        throw new CudaError(status, name, Deno.UnsafePointerView.getCString(cudaGetErrorString(status)!));
      };
      const make = call as (...args: unknown[]) => number, event = name.startsWith("cudaEvent"); // events are an observer's own
      const run = (...args: unknown[]): void => {
        if (observer && !event) observer(name, args, () => done(make(...args)));
        else done(make(...args));
      };
      return [name, run];
    }),
  ) as Cudart;
}

/** Makes an event that says what is done and not when. */
export function createEvent(cuda: Cudart): bigint {
  const out = new BigUint64Array(1);
  cuda.cudaEventCreateWithFlags(out, NO_TIMING);
  return out[0];
}

/** Whether the work that was queued before the event was recorded is done. */
export function isDone(cuda: Cudart, event: bigint): boolean {
  try {
    cuda.cudaEventQuery(event);
    return true;
  } catch (error) {
    if (error instanceof CudaError && error.status === NOT_READY) return false;
    throw error;
  }
}

/** What is queued on `later` from now on waits for what is queued on `earlier`; `event` carries that. */
export function orderStreams(cuda: Cudart, event: bigint, earlier: bigint, later: bigint): void {
  cuda.cudaEventRecord(event, earlier);
  cuda.cudaStreamWaitEvent(later, event, 0);
}

/** Whether a CUDA runtime and at least one device can be used; `reason` says why not. */
export function probeCuda(): { available: boolean; reason: string } {
  try {
    const count = new Int32Array(1);
    openCudart().cudaGetDeviceCount(count);
    return count[0] > 0 ? { available: true, reason: "" } : { available: false, reason: "the driver lists no CUDA device" };
  } catch (error) {
    return { available: false, reason: (error as Error).message };
  }
}
