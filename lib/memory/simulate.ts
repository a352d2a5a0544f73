/**
 * A device that computes nothing. A pass run on it takes and frees memory as on the real one, to the byte, and adds up how long its kernels would
 * take: its peak is known before it runs, on any machine.
 */
import type { MatmulProblem } from "../../ffi/cublaslt.ts";
import { type Device, type Kernels, openKernels } from "../../ffi/kernels.ts";
import { FLASH_ATTN, OPS, RENDER, SPCONV } from "../../ffi/symbols.ts";
import { device, onDevice, type OpenDevice } from "../tensor/device.ts";
import type { Memory } from "../tensor/memory.ts";
import { step } from "../tensor/scope.ts";
import type { Kind } from "../tensor/storage.ts";
import { type Card, CARDS } from "./cards.ts";
import { attentionWork, kernelTime, matmulTime } from "./estimate.ts";

/** Where the bytes of a simulated device are; "other" is what has no recipe: parameters, gradients, what a pass is given. */
export type Share = Kind | "other" | "scratch";

/** What a simulated device counts. */
export interface Meter {
  /** Bytes in use, and the most that were. */
  used: number;
  peak: number;
  /** What was in use at the peak. */
  atPeak: Partial<Record<Share, number>>;
  /** Seconds that the kernels would have taken. */
  seconds: number;
  /** Kernels. */
  launches: number;
  /** Bytes that were brought to the host for a while. */
  parked: number;
  /** Says what the memory at an address is. */
  label(address: bigint, share: Share): void;
  /** Runs `body` for its time alone: memory is counted no more than before. */
  secondsOf(body: () => void): number;
}

/** A device that computes nothing, and what it counted. */
export interface SimulatedDevice extends OpenDevice {
  readonly meter: Meter;
  readonly card: Card;
}

/** Functions that the host answers: sizes of scratch memory and of results. */
const isQuestion = (symbol: string): boolean => /_workspace$|^k_sparse_strided_rows$|^k_splat_sizes$/.test(symbol);

const SYMBOLS = Object.keys({ ...OPS, ...FLASH_ATTN, ...SPCONV, ...RENDER });

/** A simulated device of kind `name` with `card`'s rates; sizes of allocations are rounded as `granted` says. */
export function simulatedDevice(
  name: Device,
  card: Card = CARDS.H100,
  granted = (bytes: number): number => bytes,
  base?: OpenDevice,
): SimulatedDevice {
  const sizes = new Map<bigint, { bytes: number; share: Share }>(), shares: Partial<Record<Share, number>> = {};
  let next = 2n ** 60n, silent = false;
  const add = (share: Share, bytes: number): void => {
    shares[share] = (shares[share] ?? 0) + bytes;
  };
  const meter: Meter = {
    used: 0,
    peak: 0,
    atPeak: {},
    seconds: 0,
    launches: 0,
    parked: 0,
    label(address, share) {
      const known = sizes.get(address);
      if (!known) return;
      add(known.share, -known.bytes);
      add(known.share = share, known.bytes);
    },
    secondsOf(body) {
      const { seconds, launches } = meter;
      silent = true;
      body();
      silent = false;
      const taken = meter.seconds - seconds;
      Object.assign(meter, { seconds, launches });
      return taken;
    },
  };
  const memory: Memory = {
    limit: Infinity,
    granted,
    alloc(bytes) {
      const address = next, size = granted(bytes);
      next += BigInt(Math.ceil(bytes / 256) * 256);
      sizes.set(address, { bytes: size, share: "other" });
      if (silent) return address;
      add("other", size);
      if ((meter.used += size) > meter.peak) {
        meter.peak = meter.used;
        meter.atPeak = { ...shares };
      }
      return address;
    },
    free(address) {
      const known = sizes.get(address)!;
      sizes.delete(address);
      if (silent) return;
      add(known.share, -known.bytes);
      meter.used -= known.bytes;
    },
    upload: () => {},
    download: () => {},
    downloadLater: () => () => {},
    copy: (to, _, bytes) => void (meter.seconds += 2 * Math.min(bytes, sizes.get(to)?.bytes ?? bytes) / card.bandwidth),
    zero: (_, bytes) => void (meter.seconds += bytes / card.bandwidth),
    hostAlloc: () => 0n,
    hostFree: () => {},
    copyToHost: (_, __, bytes) => void (meter.seconds += bytes / card.host),
    synchronize: () => {},
    use: () => ({ used: meter.used, peak: meter.peak }),
    resetPeak: () => void (meter.peak = meter.used),
    park(address, bytes) {
      memory.free(address, bytes);
      meter.parked += bytes;
      let there: bigint | undefined;
      const bring = (): bigint => there ??= memory.alloc(bytes);
      return { bring, take: bring, drop: () => there === undefined || memory.free(there, bytes) };
    },
    trim: () => {},
  };
  const count = (seconds: number): void => {
    meter.seconds += seconds;
    meter.launches++;
  };
  return {
    name,
    kernels: stubs(name, card, (symbol, args) => {
      let bytes = 0;
      const addresses = args.flatMap((a) => a instanceof BigUint64Array ? [...a] : typeof a === "bigint" ? [a] : []);
      for (const a of addresses) if (a >= 2n ** 60n) bytes += sizes.get(a)?.bytes ?? 0;
      count(kernelTime(symbol, args, bytes, card));
    }),
    memory,
    stream: 0n,
    meter,
    card,
    simulated: {
      base,
      matmul(problem: MatmulProblem) {
        count(matmulTime(problem, card));
        return true;
      },
    },
  };
}

/** Kernels that do nothing but tell `launched`; what the host answers is answered by the library of the kind. */
function stubs(name: Device, card: Card, launched: (symbol: string, args: unknown[]) => void): Kernels {
  const real = openKernels(name) as unknown as Record<string, (...args: unknown[]) => void>;
  const table = Object.fromEntries(SYMBOLS.map((symbol) => [
    symbol,
    isQuestion(symbol) ? real[symbol] : (...args: unknown[]) => launched(symbol, args),
  ]));
  if (name === "cuda" && card.hopper) table.k_attention_workspace = (...args) => hopperWorkspace(real.k_attention_workspace, args);
  return table as unknown as Kernels;
}

/** The backward pass on Hopper sums dq in f32: asked on another machine, the library does not say so. */
function hopperWorkspace(ask: (...args: unknown[]) => void, args: unknown[]): void {
  ask(...args);
  const [bytes, problem] = args as [BigUint64Array, BigUint64Array], { wide, sums } = attentionWork(problem, "bwd");
  if (!wide && bytes[1] < sums) bytes[1] = BigInt(sums);
}

/** What a pass would do. */
export type Simulation = Readonly<Pick<Meter, "peak" | "atPeak" | "seconds" | "launches" | "parked">>;

/**
 * Runs `pass` on a simulated device in the place of the open one. `peak` counts what is in use on the open device now. The pass must be one that
 * can be run again: it makes what it frees, and what it reads from the device does not decide what it does.
 */
export function simulate(pass: (at: SimulatedDevice) => unknown, card?: Card): Simulation {
  const open = device(), { name, memory } = open, before = memory.use().used, at = simulatedDevice(name, card, memory.granted, open);
  onDevice(at, () => step(() => void pass(at)));
  const { peak, atPeak, seconds, launches, parked } = at.meter;
  return { peak: memory.use().used + peak, atPeak: { ...atPeak, other: before + (atPeak.other ?? 0) }, seconds, launches, parked };
}
