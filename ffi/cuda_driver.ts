/** The NVIDIA driver: which GPUs there are, without opening any of them, and streams that wait for values in memory. */
import { openCudaLibrary } from "./shared_library.ts";

const SYMBOLS = {
  cuInit: { parameters: ["u32"], result: "i32" },
  cuDriverGetVersion: { parameters: ["buffer"], result: "i32" },
  cuDeviceGetCount: { parameters: ["buffer"], result: "i32" },
  cuDeviceGet: { parameters: ["buffer", "i32"], result: "i32" },
  cuDeviceGetName: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cuDeviceGetAttribute: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cuDeviceTotalMem_v2: { parameters: ["buffer", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;
/** Of drivers since CUDA 11.7. */
const STREAM_SYMBOLS = {
  cuStreamWriteValue32_v2: { parameters: ["u64", "u64", "u32", "u32"], result: "i32" },
  cuStreamWaitValue32_v2: { parameters: ["u64", "u64", "u32", "u32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const ATTRIBUTE = { major: 75, minor: 76 }, NO_DEVICE = 100;

/** One GPU. */
export interface Gpu {
  name: string;
  /** Its compute capability, such as [9, 0]. */
  capability: [major: number, minor: number];
  /** Bytes of its memory. */
  memory: number;
}

/** What the driver says of itself and its GPUs. */
export interface Driver {
  /** The newest CUDA that it runs, such as 13000. */
  version: number;
  gpus: Gpu[];
}

const NAMES = ["libcuda.so.1"], WHAT = "the NVIDIA driver";

function check(call: string, status: number): void {
  if (status !== 0) throw new Error(`Cannot run ${call}: the driver's status is ${status}, it must be 0`);
}

/** Values that streams write to device memory, also another GPU's, and wait for. Neither takes a multiprocessor. */
export interface StreamValues {
  /** Writes the 32-bit `value` once the stream's work so far is done and seen by all GPUs. */
  write(stream: bigint, address: bigint, value: number): void;
  /** The stream's later work waits until the value at `address` is `value` or up to 2^31 - 1 past it, modulo 2^32. */
  wait(stream: bigint, address: bigint, value: number): void;
}

/** Opens the driver's calls on streams. Throws where there is no driver, or one older than they are. */
export function openStreamValues(): StreamValues {
  const cuda = openCudaLibrary(NAMES, STREAM_SYMBOLS, { what: WHAT, purpose: "lets streams wait for each other" });
  return {
    write: (stream, address, value) => check("cuStreamWriteValue32", cuda.cuStreamWriteValue32_v2(stream, address, value, 0)),
    wait: (stream, address, value) => check("cuStreamWaitValue32", cuda.cuStreamWaitValue32_v2(stream, address, value, 0)),
  };
}

/** Asks the driver (libcuda.so.1). Throws where there is none, or where it fails. */
export function readDriver(): Driver {
  const cuda = openCudaLibrary(NAMES, SYMBOLS, { what: WHAT, purpose: "lists the GPUs" });
  const out = new Int32Array(1), size = new BigUint64Array(1), name = new Uint8Array(256);
  const ask = (call: string, status: number): number => {
    check(call, status);
    return out[0];
  };
  const version = ask("cuDriverGetVersion", cuda.cuDriverGetVersion(out)), started = cuda.cuInit(0);
  if (started === NO_DEVICE) return { version, gpus: [] };
  check("cuInit", started);
  const gpus = Array.from({ length: ask("cuDeviceGetCount", cuda.cuDeviceGetCount(out)) }, (_, i): Gpu => {
    const device = ask("cuDeviceGet", cuda.cuDeviceGet(out, i));
    const attribute = (which: number): number => ask("cuDeviceGetAttribute", cuda.cuDeviceGetAttribute(out, which, device));
    check("cuDeviceGetName", cuda.cuDeviceGetName(name, name.length, device));
    check("cuDeviceTotalMem", cuda.cuDeviceTotalMem_v2(size, device));
    const text = new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
    return { name: text, capability: [attribute(ATTRIBUTE.major), attribute(ATTRIBUTE.minor)], memory: Number(size[0]) };
  });
  return { version, gpus };
}
