/** Several processes that train one model: collectives on tensors, and what their hosts agree on. */
import { addressOf } from "../../ffi/host.ts";
import { K_REDUCE_SUM } from "../../ffi/symbols.ts";
import { device } from "../tensor/device.ts";
import { DTYPE } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { copyCollectives } from "./copies.ts";
import { ncclCollectives } from "./nccl.ts";
import { ALONE, findPlace, type Place } from "./place.ts";
import { joinSockets, type Sockets } from "./sockets.ts";

/**
 * The processes of a job. Collectives on tensors are queued behind the device's work so far, beside what follows: {@linkcode Communicator.join} makes
 * the device's later work wait for them, and other collectives too, which may take what they made after it alone. All ranks must call the same ones in the
 * same order. A rank that ended or stays away for the timeout makes the next {@linkcode Communicator.exchange} throw on all others with its number.
 */
export interface Communicator {
  readonly rank: number;
  readonly world: number;
  /** What does the collectives on tensors, for people. */
  readonly by: string;
  /** Where sums should go together in few bursts: which parts of all must be ready for each, such as a half; what comes after goes at the end. */
  readonly bursts?: readonly number[];
  /** t = the sum of all ranks' t: any shape, f32 or i64. */
  allReduce(t: Tensor): void;
  /** y [n] = this rank's row of the sum of all ranks' x [world, n], f32. */
  reduceScatter(y: Tensor, x: Tensor): void;
  /** y [world, n] = all ranks' x [n], which may lie in its place in y. */
  allGather(y: Tensor, x: Tensor): void;
  /** t = rank 0's t. */
  broadcast(t: Tensor): void;
  /** Work that is queued on the device from now on waits for the collectives. */
  join(): void;
  /** The JSON values of all ranks, by rank. Waits for all ranks, not for the device. */
  exchange<T>(value: T): T[];
  /** Leaves together with all other ranks, at the end of the work. */
  close(): void;
}

/** Options of {@linkcode openCommunicator}. */
export interface CommunicatorOptions {
  /** Seconds that a rank waits for the others; 60 by default. */
  timeout?: number;
  /** What does collectives on GPUs: by default ESPALIER_COLLECTIVES says, and where it does not, copies where they work and else NCCL. */
  collectives?: "auto" | "copies" | "nccl";
}

/** The communicator of one process: nothing to be done. */
const NO_OTHERS: Communicator = {
  rank: 0,
  world: 1,
  by: "nothing, it is alone",
  allReduce: () => {},
  reduceScatter: (y, x) => device().memory.copy(y.addr, x.addr, x.bytes),
  allGather: (y, x) => y.addr === x.addr ? undefined : device().memory.copy(y.addr, x.addr, x.bytes),
  broadcast: () => {},
  join: () => {},
  exchange: (value) => [value],
  close: () => {},
};

/** The first of `world` processes that are not there, for what only asks how much memory and time things take: its collectives do nothing. */
export function imaginedRanks(world: number): Communicator {
  const nothing = (): void => {};
  return { ...NO_OTHERS, world, reduceScatter: nothing, allGather: nothing };
}

let current: Communicator | undefined;

/** The open communicator; a process that opened none is alone. */
export function communicator(): Communicator {
  return current ?? NO_OTHERS;
}

/** Joins the processes of this one's job, which its launcher's environment tells; one that was started alone is the only rank. Once a process. */
export function openCommunicator(options: CommunicatorOptions = {}, place: Place = findPlace()): Communicator {
  if (current) return current;
  if (place === ALONE || place.world === 1) return current = NO_OTHERS;
  const joined = joinRanks(place, options);
  const close = (): void => {
    joined.close();
    current = undefined;
  };
  return current = { ...joined, close };
}

/** Joins the processes of a job of several, beside what else this process has joined. */
export function joinRanks(place: Place, { timeout = 60, collectives }: CommunicatorOptions = {}): Communicator {
  const { rank, world } = place, sockets = joinSockets(place, timeout);
  const ranks: Ranks = { rank, world, exchange: (value) => exchange(sockets, world, value) };
  const onDevice = device().name === "cuda" ? cudaCollectives(place, ranks, sockets, collectives) : socketCollectives(sockets);
  return {
    ...ranks,
    ...onDevice,
    close() {
      const meet = (): unknown => ranks.exchange(null);
      meet(); // none leaves while another may still wait for it
      onDevice.close(meet);
      meet();
      sockets.close();
    },
  };
}

/** Gathers the lengths of all texts, then the texts filled up to the longest. */
function exchange<T>({ kernels: k, handle }: Sockets, world: number, value: T): T[] {
  const mine = new TextEncoder().encode(JSON.stringify(value)), lengths = new Int32Array(world), length = Int32Array.of(mine.length);
  k.k_all_gather_fwd(addressOf(lengths), addressOf(length), handle, 1n, DTYPE.i32, 0n);
  const most = lengths.reduce((a, b) => Math.max(a, b), 0), padded = new Uint8Array(most), all = new Uint8Array(most * world);
  padded.set(mine);
  k.k_all_gather_fwd(addressOf(all), addressOf(padded), handle, BigInt(most), DTYPE.u8, 0n);
  return Array.from(lengths, (n, r) => JSON.parse(new TextDecoder().decode(all.subarray(r * most, r * most + n))));
}

/** What the hosts of the ranks have. */
export type Ranks = Pick<Communicator, "rank" | "world" | "exchange">;

/** The collectives of a kind of device. All ranks close them together; `meet` returns once all have called it. */
export interface OnDevice extends Pick<Communicator, "by" | "bursts" | "allReduce" | "reduceScatter" | "allGather" | "broadcast" | "join"> {
  close(meet: () => unknown): void;
}

const COLLECTIVES = ["auto", "copies", "nccl"];

/** On CUDA: copies by the GPUs' copy engines where all ranks are on one machine and reach each other's memory, else NCCL. */
function cudaCollectives(place: Place, ranks: Ranks, sockets: Sockets, collectives?: string): OnDevice {
  const wish = collectives ?? (Deno.env.get("ESPALIER_COLLECTIVES") || "auto"), wishes = ranks.exchange(wish);
  if (!wishes.every((other) => other === wish && COLLECTIVES.includes(other))) {
    throw new RangeError(
      `Cannot join GPUs: ESPALIER_COLLECTIVES is ${wishes.join(", ")} by rank, it must be the same on all and one of ${
        COLLECTIVES.join(", ")
      }`,
    );
  }
  if (wish === "nccl") return ncclCollectives(place, sockets);
  const copies = copyCollectives(ranks, (t) => sumOnHost(t, sockets));
  if (!("fault" in copies)) return copies;
  if (wish === "copies") throw new Error(`Cannot join GPUs by copies: ${copies.fault}; ESPALIER_COLLECTIVES=auto takes NCCL then`);
  const nccl = ncclCollectives(place, sockets);
  return { ...nccl, by: `${nccl.by} (copies by the GPUs' copy engines: ${copies.fault})` };
}

/** t = the sum of all ranks' t, at once, through the hosts. */
function sumOnHost(t: Tensor, { kernels: k, handle }: Sockets): void {
  const values = t.readRaw(), at = addressOf(values);
  k.k_all_reduce_fwd(at, at, handle, BigInt(t.size), K_REDUCE_SUM, DTYPE[t.dtype], 0n);
  device().memory.upload(t.addr, values);
}

/** On the CPU: at once, through rank 0. */
function socketCollectives({ kernels: k, handle }: Sockets): OnDevice {
  return {
    by: "sockets",
    allReduce: (t) => k.k_all_reduce_fwd(t.addr, t.addr, handle, BigInt(t.size), K_REDUCE_SUM, DTYPE[t.dtype], 0n),
    reduceScatter: (y, x) => k.k_reduce_scatter_fwd(y.addr, x.addr, handle, BigInt(y.size), K_REDUCE_SUM, DTYPE[y.dtype], 0n),
    allGather: (y, x) => k.k_all_gather_fwd(y.addr, x.addr, handle, BigInt(x.size), DTYPE[x.dtype], 0n),
    broadcast: (t) => k.k_broadcast_fwd(t.addr, t.addr, handle, BigInt(t.size), 0, DTYPE[t.dtype], 0n),
    join: () => {},
    close: () => {},
  };
}
