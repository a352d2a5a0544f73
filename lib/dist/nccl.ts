/** Collectives among GPUs, of one machine or many, by NCCL. */
import { createEvent, openCudart, orderStreams } from "../../ffi/cudart.ts";
import { addressOf } from "../../ffi/host.ts";
import { NCCL_OP, NCCL_TYPE, ncclVersion, openNccl, UNIQUE_ID_BYTES } from "../../ffi/nccl.ts";
import { DTYPE } from "../tensor/dtype.ts";
import { stream } from "../tensor/tensor.ts";
import type { OnDevice } from "./communicator.ts";
import type { Place } from "./place.ts";
import type { Sockets } from "./sockets.ts";

const NON_BLOCKING = 1;

/** NCCL on a stream of its own. Rank 0's id reaches the others through the sockets. */
export function ncclCollectives({ rank, world }: Place, { kernels, handle }: Sockets): OnDevice {
  const cuda = openCudart(), nccl = openNccl(), out = new BigUint64Array(1), id = new Uint8Array(UNIQUE_ID_BYTES);
  if (rank === 0) nccl.ncclGetUniqueId(id);
  kernels.k_broadcast_fwd(addressOf(id), addressOf(id), handle, BigInt(id.length), 0, DTYPE.u8, 0n);
  nccl.ncclCommInitRank(out, world, id, rank);
  const comm = out[0];
  cuda.cudaStreamCreateWithFlags(out, NON_BLOCKING);
  const side = out[0], event = createEvent(cuda);
  const order = (earlier: bigint, later: bigint): void => orderStreams(cuda, event, earlier, later);
  const queued = (call: () => void): void => {
    order(stream(), side);
    call();
  };
  return {
    by: `NCCL ${ncclVersion()}`,
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
