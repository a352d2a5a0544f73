/** The processes of a job joined by sockets: the collectives of CPU runs, and on every device what the hosts must agree on. */
import { addressOf } from "../../ffi/host.ts";
import { type Kernels, openKernels } from "../../ffi/kernels.ts";
import { jobToken, type Place } from "./place.ts";

/** A joined set of processes. */
export interface Sockets {
  readonly kernels: Kernels;
  /** The handle that the `k_*` collectives take. */
  readonly handle: bigint;
  close(): void;
}

const POLL_MS = 50;

/** Where rank 0 says in the file that it listens; waits for it up to `timeout` seconds. A file of another job is not it. */
function readRendezvous(file: string, token: string, timeout: number): { address: string; port: number } {
  const end = Date.now() + 1000 * timeout, pause = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    try {
      const [written, address, port] = Deno.readTextFileSync(file).trim().split(" ");
      if (written === token && Number(port) > 0) return { address, port: Number(port) };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    if (Date.now() > end) {
      throw new Error(
        `Cannot join the job: ${file} does not say where rank 0 listens after ${timeout} s, all ranks must see one file system and rank 0 must run`,
      );
    }
    Atomics.wait(pause, 0, 0, POLL_MS);
  }
}

/** Joins all processes of the job: returns once all have come, or throws after `timeout` seconds, which later calls wait at most too. */
export function joinSockets(place: Place, timeout: number): Sockets {
  const kernels = openKernels("cpu"), out = new BigUint64Array(2), token = jobToken(place.job), { rank, world, file } = place;
  const named = (host: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(host + "\0");
  if (rank === 0) {
    const host = named(file ? Deno.hostname() : place.address);
    kernels.k_collective_listen(out, addressOf(host), file ? 0 : place.port, world, token, timeout);
    const handle = out[0];
    if (file) {
      Deno.writeTextFileSync(`${file}.new`, `${token} ${Deno.hostname()} ${out[1]}\n`);
      Deno.renameSync(`${file}.new`, file);
    }
    try {
      kernels.k_collective_accept(handle);
    } finally {
      if (file) Deno.removeSync(file);
    }
    return { kernels, handle, close: () => kernels.k_collective_close(handle) };
  }
  const { address, port } = file ? readRendezvous(file, `${token}`, timeout) : place, host = named(address);
  kernels.k_collective_connect(out, addressOf(host), port, rank, world, token, timeout);
  const handle = out[0];
  return { kernels, handle, close: () => kernels.k_collective_close(handle) };
}
