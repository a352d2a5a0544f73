/** Runs a kernel of librender on host arrays: as they are on the CPU, through device memory on CUDA. */
import { addressOf } from "../../ffi/host.ts";
import { type Device, type Kernels, openKernels } from "../../ffi/kernels.ts";
import { device, openDevice } from "../tensor/device.ts";

type Bytes = ArrayBufferView<ArrayBuffer>;

/** Where a kernel runs, and the addresses of its arguments there. */
export interface Call {
  kernels: Kernels;
  stream: bigint;
  /** The address of an input; 0 for none or an empty array. */
  input(array: Bytes | undefined): bigint;
  /** The address of an output, whose values are in `array` once {@linkcode runOn} returns; 0 for none. */
  output(array: Bytes | undefined): bigint;
  /** The address of uninitialised memory. */
  scratch(bytes: number): bigint;
}

/** Runs `body` on `choice` (by default the open device) and fetches the outputs. Device memory is given back, whatever happens. */
export function runOn(choice: Device | undefined, body: (call: Call) => void): void {
  if ((choice ?? device().name) === "cpu") return runOnHost(body);
  const { kernels, stream, memory } = openDevice("cuda");
  const held: { address: bigint; bytes: number; array?: Bytes }[] = [];
  const take = (bytes: number, array?: Bytes): bigint => {
    if (bytes === 0) return 0n;
    const address = memory.alloc(bytes);
    held.push({ address, bytes, array });
    return address;
  };
  try {
    body({
      kernels,
      stream,
      input: (array) => {
        const address = take(array?.byteLength ?? 0);
        if (array && address) memory.upload(address, array);
        return address;
      },
      output: (array) => take(array?.byteLength ?? 0, array),
      scratch: (bytes) => take(bytes),
    });
    for (const { address, array } of held) if (array) memory.download(array, address);
  } finally {
    for (const { address, bytes } of held) memory.free(address, bytes);
  }
}

function runOnHost(body: (call: Call) => void): void {
  const held: Bytes[] = []; // an address does not keep its array alive
  const hold = (array: Bytes | undefined): bigint => {
    if (!array) return 0n;
    held.push(array);
    return addressOf(array);
  };
  body({ kernels: openKernels("cpu"), stream: 0n, input: hold, output: hold, scratch: (bytes) => hold(new Uint8Array(bytes)) });
  held.length = 0;
}
