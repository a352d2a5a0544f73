/** Several processes that train one model: collectives on tensors, and what their hosts agree on. */
import { openCudart } from "../../ffi/cudart.ts";
import { addressOf } from "../../ffi/host.ts";
import { K_REDUCE_SUM } from "../../ffi/symbols.ts";
import { NCCL_OP, NCCL_TYPE, openNccl, UNIQUE_ID_BYTES } from "../../ffi/nccl.ts";
import { device } from "../tensor/device.ts";
import { DTYPE } from "../tensor/dtype.ts";
import { stream, type Tensor } from "../tensor/tensor.ts";
import { ALONE, findPlace, type Place } from "./place.ts";
import { joinSockets, type Sockets } from "./sockets.ts";

/**
 * The processes of a job. Collectives on tensors are queued behind the device's work so far, beside what follows: {@linkcode Communicator.join} makes
 * the device's later work wait for them. All ranks must call the same ones in the same order. A rank that ended or stays away for the timeout makes
 * the next {@linkcode Communicator.exchange} throw on all others with its number.
 */
export interface Communicator {
  readonly rank: number;
  readonly world: number;
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
}

/** The communicator of one process: nothing to be done. */
const NO_OTHERS: Communicator = {
  rank: 0,
  world: 1,
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
export function openCommunicator({ timeout = 60 }: CommunicatorOptions = {}, place: Place = findPlace()): Communicator {
  if (current) return current;
  if (place === ALONE || place.world === 1) return current = NO_OTHERS;
  const sockets = joinSockets(place, timeout),
    onDevice = device().name === "cuda" ? ncclCollectives(place, sockets) : socketCollectives(sockets);
  return current = {
    rank: place.rank,
    world: place.world,
    ...onDevice,
    exchange: (value) => exchange(sockets, place.world, value),
    close() {
      const meet = (): unknown => exchange(sockets, place.world, null);
      meet(); // none leaves while another may still wait for it
      onDevice.close();
      meet();
      sockets.close();
      current = undefined;
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

type OnDevice = Pick<Communicator, "allReduce" | "reduceScatter" | "allGather" | "broadcast" | "join" | "close">;

/** On the CPU: at once, through rank 0. */
function socketCollectives({ kernels: k, handle }: Sockets): OnDevice {
  return {
    allReduce: (t) => k.k_all_reduce_fwd(t.addr, t.addr, handle, BigInt(t.size), K_REDUCE_SUM, DTYPE[t.dtype], 0n),
    reduceScatter: (y, x) => k.k_reduce_scatter_fwd(y.addr, x.addr, handle, BigInt(y.size), K_REDUCE_SUM, DTYPE[y.dtype], 0n),
    allGather: (y, x) => k.k_all_gather_fwd(y.addr, x.addr, handle, BigInt(x.size), DTYPE[x.dtype], 0n),
    broadcast: (t) => k.k_broadcast_fwd(t.addr, t.addr, handle, BigInt(t.size), 0, DTYPE[t.dtype], 0n),
    join: () => {},
    close: () => {},
  };
}

const NO_TIMING = 2, NON_BLOCKING = 1;

/** On CUDA: NCCL on a stream of its own. Rank 0's id reaches the others through the sockets. */
function ncclCollectives({ rank, world }: Place, { kernels, handle }: Sockets): OnDevice {
  const cuda = openCudart(), nccl = openNccl(), out = new BigUint64Array(1), id = new Uint8Array(UNIQUE_ID_BYTES);
  if (rank === 0) nccl.ncclGetUniqueId(id);
  kernels.k_broadcast_fwd(addressOf(id), addressOf(id), handle, BigInt(id.length), 0, DTYPE.u8, 0n);
  nccl.ncclCommInitRank(out, world, id, rank);
  const comm = out[0];
  cuda.cudaStreamCreateWithFlags(out, NON_BLOCKING);
  const side = out[0];
  cuda.cudaEventCreateWithFlags(out, NO_TIMING);
  const event = out[0];
  /** Work queued on `later` from now on waits for what is queued on `earlier`. */
  const order = (earlier: bigint, later: bigint): void => {
    cuda.cudaEventRecord(event, earlier);
    cuda.cudaStreamWaitEvent(later, event, 0);
  };
  const queued = (call: () => void): void => {
    order(stream(), side);
    call();
  };
  return {
    allReduce: (t) => queued(() => nccl.ncclAllReduce(t.addr, t.addr, BigInt(t.size), NCCL_TYPE[t.dtype], NCCL_OP.sum, comm, side)),
    reduceScatter: (y, x) =>
      queued(() => nccl.ncclReduceScatter(x.addr, y.addr, BigInt(y.size), NCCL_TYPE[y.dtype], NCCL_OP.sum, comm, side)),
    allGather: (y, x) => queued(() => nccl.ncclAllGather(x.addr, y.addr, BigInt(x.size), NCCL_TYPE[x.dtype], comm, side)),
    broadcast: (t) => queued(() => nccl.ncclBroadcast(t.addr, t.addr, BigInt(t.size), NCCL_TYPE[t.dtype], 0, comm, side)),
    join: () => order(side, stream()),
    close() {
      cuda.cudaStreamSynchronize(side);
      nccl.ncclCommDestroy(comm);
      cuda.cudaEventDestroy(event);
    },
  };
}
