/**
 * One pass recorded for another run without the host: on CUDA as a graph, on the CPU as the list of its kernels. Its memory is laid out beforehand,
 * so all addresses stay what they were.
 */
import { type Cudart, openCudart } from "../../ffi/cudart.ts";
import { observe, type Observer } from "../../ffi/observer.ts";
import { device } from "../tensor/device.ts";
import type { DType } from "../tensor/dtype.ts";
import { flopsOf } from "../tensor/flops.ts";
import { formatBytes, type Memory } from "../tensor/memory.ts";
import { persist } from "../tensor/scope.ts";
import { empty, type Tensor, tensorFromBytes } from "../tensor/tensor.ts";
import { layOut, type Lifetime } from "./layout.ts";

/** What a pass took: each allocation with its lifetime, and the bytes that it brought from the host. */
export interface PassLog {
  allocations: Lifetime[];
  uploads: Uint8Array<ArrayBuffer>[];
  /** Bytes in use on the device when it began. */
  used: number;
  /** Why it cannot be recorded. */
  refusal?: string;
}

/** A pass that can be run again. */
export interface Recording<O> {
  /** What it returned; each run writes it anew. */
  outputs: O;
  /** Floating-point operations of its products, convolutions and attention. */
  flops: number;
  /** Of the memory that it keeps. */
  bytes: number;
  /** Queues it. */
  replay(): void;
  free(): void;
}

/** A pass did something that cannot be recorded, or something else than before. */
class Unrecordable extends Error {}

type Changes = Partial<Memory>;

/** Runs `body` while the open device's memory does some things otherwise. */
function withMemory<T>(changes: Changes, body: () => T): T {
  const { memory } = device(), before = { ...memory };
  Object.assign(memory, changes);
  try {
    return body();
  } finally {
    Object.assign(memory, before);
  }
}

const bytesOf = (view: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
const waits = "it waits for what the device computes";

/** Runs `pass` as it is, and writes down what it takes. */
export function logged<T>(pass: () => T): { result: T; log: PassLog } {
  const { memory } = device(), real = { ...memory }, living = new Map<bigint, number>();
  const log: PassLog = { allocations: [], uploads: [], used: memory.use().used };
  let now = 0;
  const refuse = (why: string): void => void (log.refusal ??= why);
  const refusing = <A extends unknown[], R>(call: (...args: A) => R, why: string) => (...args: A): R => {
    refuse(why);
    return call(...args);
  };
  const result = withMemory({
    alloc(bytes) {
      const address = real.alloc(bytes);
      living.set(address, log.allocations.length);
      log.allocations.push({ bytes, from: now++, to: Infinity });
      return address;
    },
    free(address, bytes) {
      const at = living.get(address);
      if (at === undefined) refuse("it frees what it did not make");
      else log.allocations[at].to = now++;
      living.delete(address);
      real.free(address, bytes);
    },
    upload(to, from) {
      log.uploads.push(bytesOf(from));
      real.upload(to, from);
    },
    download: refusing(real.download, waits),
    downloadLater: refusing(real.downloadLater, waits),
    synchronize: refusing(real.synchronize, waits),
    trim: refusing(real.trim, "it ran out of memory"),
    park: refusing(real.park, "some of its tensors wait in the host's memory"),
    copyToHost: refusing(real.copyToHost, "it copies to the host"),
  }, pass);
  return { result, log };
}

/** Calls that are made again, in their order. */
interface Calls {
  /** Runs `body`, whose kernels, products, copies and fills are noted and not done; `seen` is shown each kernel and product. */
  note<T>(body: () => T, seen: (name: string, args: readonly unknown[]) => void): T;
  /** What the memory does meanwhile. */
  memory: Pick<Memory, "copy" | "zero">;
  run(): void;
  free(): void;
}

/** Runs `body` while each call goes to `look` alone. */
function watching<T>(look: Observer, body: () => T): T {
  const before = observe(look);
  try {
    return body();
  } finally {
    observe(before);
  }
}

/** cudaStreamCaptureModeRelaxed: the pass asks for nothing that would wait. */
const RELAXED = 2;

function cudaCalls(cuda: Cudart): Calls {
  const { memory: { copy, zero }, stream } = device(), graph = new BigUint64Array(1), executable = new BigUint64Array(1);
  return {
    note(body, seen) {
      cuda.cudaStreamBeginCapture(stream, RELAXED);
      let result;
      try {
        result = watching((name, args, call) => (seen(name, args), call()), body);
      } catch (error) {
        try {
          cuda.cudaStreamEndCapture(stream, graph);
          cuda.cudaGraphDestroy(graph[0]);
        } catch { // an invalid capture says so once more
        }
        throw error;
      }
      cuda.cudaStreamEndCapture(stream, graph);
      try {
        cuda.cudaGraphInstantiate(executable, graph[0], 0n);
      } finally {
        cuda.cudaGraphDestroy(graph[0]);
      }
      return result;
    },
    memory: { copy, zero },
    run: () => cuda.cudaGraphLaunch(executable[0], stream),
    free: () => cuda.cudaGraphExecDestroy(executable[0]),
  };
}

function hostCalls(): Calls {
  const { copy, zero } = device().memory, calls: (() => void)[] = [];
  return {
    note(body, seen) {
      return watching((name, args, call) => {
        const own = args as unknown[]; // arrays of arguments are packed into the same memory each time
        own.forEach((a, i) => a instanceof BigUint64Array && (own[i] = a.slice()));
        seen(name, args);
        calls.push(call);
      }, body);
    },
    memory: {
      copy: (...args) => void calls.push(() => copy(...args)),
      zero: (...args) => void calls.push(() => zero(...args)),
    },
    run: () => calls.forEach((call) => call()),
    free: () => {},
  };
}

/**
 * Records `pass`, which does and takes what `log` says of an earlier run of it; it is not run. It keeps all the memory that it takes, `most` bytes at
 * most. What it brings from the host is copied from memory of its own, and must be the same each time. Throws where it does something else, with the
 * device as it was.
 */
export function recorded<O extends Record<string, Tensor>>(pass: () => O, log: PassLog, most = Infinity): Recording<O> {
  if (log.refusal) throw new Unrecordable(log.refusal);
  const { name, memory } = device(), { offsets, total } = layOut(log.allocations);
  if (total > most) throw new Unrecordable(`it would keep ${formatBytes(total)} of memory, it may keep ${formatBytes(most)}`);
  const made = persist(() => [empty([total], "u8"), ...log.uploads.map((bytes) => tensorFromBytes(bytes, [bytes.length], "u8"))]);
  const [arena, ...constants] = made, base = total ? arena.addr : 0n;
  const calls = name === "cuda" ? cudaCalls(openCudart()) : hostCalls();
  let taken = 0, brought = 0, flops = 0, used = log.used, peak = used;
  const refuse = (why: string) => (): never => {
    throw new Unrecordable(why);
  };
  const changes: Changes = {
    ...calls.memory,
    alloc(bytes) {
      if (log.allocations[taken]?.bytes !== bytes) throw new Unrecordable("it takes other memory than before");
      peak = Math.max(peak, used += memory.granted(bytes));
      return base + BigInt(offsets[taken++]);
    },
    free: (_, bytes) => void (used -= memory.granted(bytes)),
    upload(to, from) {
      const before = log.uploads[brought], bytes = bytesOf(from);
      if (before?.length !== bytes.length || bytes.some((v, i) => v !== before[i])) {
        throw new Unrecordable("it brings other values from the host than before: they must be among its inputs");
      }
      calls.memory.copy(to, constants[brought++].addr, bytes.length);
    },
    use: () => ({ used, peak }),
    resetPeak: () => void (peak = used),
    download: refuse(waits),
    downloadLater: refuse(waits),
    synchronize: refuse(waits),
    trim: refuse("it ran out of memory"),
    park: refuse("some of its tensors wait in the host's memory"),
    copyToHost: refuse("it copies to the host"),
  };
  const free = (): void => made.forEach((t) => t.free());
  try {
    const places = withMemory(changes, () =>
      calls.note(() => {
        const places = Object.entries(pass()).map(([name, t]): [string, Place] => {
          const place = { offset: Number(t.addr - base), shape: t.shape, dtype: t.dtype };
          t.free();
          return [name, place];
        });
        if (taken !== log.allocations.length) throw new Unrecordable("it takes less memory than before");
        return places;
      }, (name, args) => void (flops += flopsOf(name, args))));
    const outputs = persist(() =>
      Object.fromEntries(places.map(([name, { shape, dtype, offset }]) => [name, arena.view(shape, { offset, dtype })]))
    ) as O;
    return {
      outputs,
      flops,
      bytes: total,
      replay: () => calls.run(),
      free() {
        calls.free();
        for (const t of Object.values(outputs)) t.free();
        free();
      },
    };
  } catch (error) {
    free();
    throw error;
  }
}

interface Place {
  offset: number;
  shape: readonly number[];
  dtype: DType;
}
