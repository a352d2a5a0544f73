/**
 * Profiles: when each kernel, product, copy and memset ran on the device and how long, by CUDA events around every call (on the CPU by the
 * clock), beside what it must move and compute. As a table and as a trace for chrome://tracing or ui.perfetto.dev.
 */
import { openCudart } from "../../ffi/cudart.ts";
import { observe } from "../../ffi/observer.ts";
import { device } from "./device.ts";
import { type KernelCost, kernelCost } from "./kernel_cost.ts";

/** One call; times are milliseconds since the profile began. */
export interface ProfiledCall extends KernelCost {
  name: string;
  /** When it ran on the device, and how long. */
  start: number;
  ms: number;
  /** When the host asked for it, and how long that took. */
  hostStart: number;
  hostMs: number;
}

/** What the device can do, for fractions of its limit. */
export interface DeviceLimits {
  /** Bytes a second that a large copy reads and writes; measured. */
  bandwidth: number;
  /** Floating-point operations a second of 16-bit products, by the maker's sheet; absent where unknown. */
  flops?: number;
}

/** A finished profile. */
export interface Profile {
  calls: ProfiledCall[];
  /** Milliseconds from the first call's start to the last one's end on the device, and of the host until it had asked for all. */
  ms: number;
  hostMs: number;
  /** How often device memory was taken and given back. */
  allocations: number;
  limits: DeviceLimits;
}

/** Runtime calls that work on the device. */
const TIMED = ["cudaMemsetAsync", "cudaMemcpyAsync"];

interface Pending extends Omit<ProfiledCall, "start" | "ms"> {
  events?: [bigint, bigint];
  start?: number;
  ms?: number;
}

/** Starts a profile; what it returns ends it. One at a time. Keeps the host from waiting for the device, as without it. */
export function startProfile(): () => Profile {
  const cuda = device().name === "cuda" ? openCudart() : undefined, out = new BigUint64Array(1), calls: Pending[] = [];
  const limits = measureLimits();
  device().memory.synchronize();
  const event = (): bigint => {
    cuda!.cudaEventCreate(out);
    cuda!.cudaEventRecord(out[0], device().stream);
    return out[0];
  };
  let allocations = 0;
  const origin = cuda && event(), began = performance.now();
  const before = observe((name, args, call) => {
    if (name === "cudaMallocFromPoolAsync") allocations++;
    if (name.startsWith("cuda") && !TIMED.includes(name)) return call();
    const { what, bytes, flops, type } = kernelCost(name, args);
    const first = cuda && event(), hostStart = performance.now() - began;
    call();
    const hostMs = performance.now() - began - hostStart, cost = { name, what, bytes, flops, type, hostStart, hostMs };
    calls.push(cuda ? { ...cost, events: [first!, event()] } : { ...cost, start: hostStart, ms: hostMs });
  });
  return () => {
    const hostMs = performance.now() - began, elapsed = new Float32Array(1);
    observe(before);
    device().memory.synchronize();
    const between = (a: bigint, b: bigint): number => {
      cuda!.cudaEventElapsedTime(elapsed, a, b);
      return elapsed[0];
    };
    const done = calls.map(({ events, ...call }): ProfiledCall => {
      if (!events) return call as ProfiledCall;
      const start = between(origin!, events[0]), ms = between(events[0], events[1]);
      for (const e of events) cuda!.cudaEventDestroy(e);
      return { ...call, start, ms };
    });
    if (cuda) cuda.cudaEventDestroy(origin!);
    const end = done.reduce((latest, c) => Math.max(latest, c.start + c.ms), 0);
    return { calls: done, ms: end - (done[0]?.start ?? 0), hostMs, allocations, limits };
  };
}

/** Dense 16-bit products a second with f32 sums, by compute capability. */
const TENSOR_CORES: Record<string, number> = { "8.0": 312e12, "8.6": 142e12, "8.9": 165e12, "9.0": 989e12, "10.0": 2250e12 };

function measureLimits(): DeviceLimits {
  const { memory, name } = device(), bytes = name === "cuda" ? 2 ** 28 : 2 ** 24;
  if (memory.use().used + 2 * bytes > memory.limit) return { bandwidth: NaN };
  const a = memory.alloc(bytes), b = memory.alloc(bytes), times: number[] = [];
  for (let i = 0; i < 5; i++) {
    memory.synchronize();
    const began = performance.now(), repeats = name === "cuda" ? 20 : 1; // many, so that the host's part does not show
    for (let k = 0; k < repeats; k++) memory.copy(b, a, bytes);
    memory.synchronize();
    times.push((performance.now() - began) / repeats);
  }
  memory.free(a, bytes);
  memory.free(b, bytes);
  const bandwidth = 2 * bytes / Math.min(...times) * 1e3;
  return { bandwidth, flops: peakFlops() };
}

/** Dense 16-bit operations a second of the open device, by the maker's sheet; undefined where unknown. */
export function peakFlops(): number | undefined {
  if (device().name !== "cuda") return undefined;
  const cuda = openCudart(),
    out = new Int32Array(1),
    version = [75, 76].map((attribute) => {
      cuda.cudaDeviceGetAttribute(out, attribute, 0);
      return out[0];
    });
  return TENSOR_CORES[version.join(".")];
}

/** The calls of one kernel with equal extents, summed. */
export interface ProfileRow {
  name: string;
  what: string;
  calls: number;
  ms: number;
  /** Bytes a second and operations a second that it reached. */
  bandwidth?: number;
  flops?: number;
  /** The time that the limit allows over the time taken. */
  fraction?: number;
}

/** Sums by kernel and extents, the longest first. */
export function profileRows({ calls, limits }: Profile): ProfileRow[] {
  const groups = Map.groupBy(calls, (c) => `${c.name} ${c.what}`);
  const sum = (list: ProfiledCall[], of: (c: ProfiledCall) => number): number => list.reduce((total, c) => total + of(c), 0);
  return [...groups.values()].map((list): ProfileRow => {
    const [{ name, what, bytes, flops, type }] = list, ms = sum(list, (c) => c.ms), least = list.length * leastMs(list[0], limits);
    return {
      name,
      what,
      calls: list.length,
      ms,
      bandwidth: bytes === undefined ? undefined : bytes * list.length / ms * 1e3,
      flops: flops === undefined || type === "f32" ? undefined : flops * list.length / ms * 1e3,
      fraction: least > 0 ? least / ms : undefined,
    };
  }).sort((a, b) => b.ms - a.ms);
}

/** Milliseconds that the device's limits allow for a call; 0 where nothing is known. */
function leastMs({ bytes = 0, flops = 0, type }: KernelCost, limits: DeviceLimits): number {
  const rate = type === "e4m3" ? 2 : 1; // 8-bit products run at twice the rate of 16-bit ones
  const products = limits.flops && type && type !== "f32" ? flops / (rate * limits.flops) : 0;
  return 1e3 * Math.max(bytes / limits.bandwidth || 0, products);
}

/** A table of op, calls, time, share, rate and fraction of the limit, the longest first, for `steps` training steps. */
export function profileTable(profile: Profile, steps = 1, most = 60): string {
  const rows = profileRows(profile), { ms, hostMs, calls, allocations, limits } = profile;
  const busy = rows.reduce((total, r) => total + r.ms, 0),
    text = (v: number | undefined, digits: number): string => v === undefined ? "-" : v.toFixed(digits);
  const lines = rows.slice(0, most).map((r) =>
    [
      `${r.name} ${r.what}`.slice(0, 76).padEnd(76),
      String(Math.round(r.calls / steps * 10) / 10).padStart(6),
      text(r.ms / steps, 3).padStart(9),
      text(100 * r.ms / busy, 1).padStart(6),
      text(r.bandwidth && r.bandwidth / 1e9, 0).padStart(6),
      text(r.flops && r.flops / 1e12, 0).padStart(6),
      text(r.fraction && 100 * r.fraction, 0).padStart(6),
    ].join(" ")
  );
  return [
    `device ${(ms / steps).toFixed(2)} ms a step, ${(busy / steps).toFixed(2)} ms of it busy; host ${(hostMs / steps).toFixed(2)} ms; ` +
    `${Math.round(calls.length / steps)} calls, ${
      Math.round(allocations / steps)
    } allocations (events around every call cost time themselves)`,
    `limits: ${(limits.bandwidth / 1e9).toFixed(0)} GB/s (a copy, measured), ${
      limits.flops ? limits.flops / 1e12 : "-"
    } TFLOP/s in 16 bits`,
    `${"kernel".padEnd(76)}  calls    ms     share   GB/s TFLOPS %limit`,
    ...lines,
    ...(rows.length > most ? [`... and ${rows.length - most} more`] : []),
  ].join("\n");
}

/** The profile as a Chrome trace (JSON): one row for the device, one for the host. */
export function chromeTrace({ calls }: Profile): string {
  const of = (tid: number, start: number, ms: number, { name, what, bytes, flops }: ProfiledCall): unknown => {
    return { name, ph: "X", pid: 0, tid, ts: start * 1e3, dur: ms * 1e3, args: { what, bytes, flops } };
  };
  const named = (tid: number, name: string): unknown => ({ name: "thread_name", ph: "M", pid: 0, tid, args: { name } });
  return JSON.stringify({
    traceEvents: [
      named(0, "device"),
      named(1, "host"),
      ...calls.map((c) => of(0, c.start, c.ms, c)),
      ...calls.map((c) => of(1, c.hostStart, c.hostMs, c)),
    ],
  });
}
