/**
 * Feeds a parser mutated files and counts what it does. Run as a program without permission for FFI, writing, the network or processes:
 *
 *   deno run --allow-read tests/fuzz/fuzz.ts TARGET|all COUNT SEED [FIRST]
 */
import { concat, latin1 } from "../io/corrupt.ts";
import { Dice, mutate } from "./mutate.ts";
import { type Target, TARGETS } from "./targets.ts";

/** What a target did with its inputs. */
export interface FuzzCounts {
  executions: number;
  accepted: number;
  refused: number;
  /** Inputs answered with anything but an error of ours: none may be. By their number, so that `input` makes them again. */
  crashes: { input: number; error: string }[];
  /** The slowest input, the peak of the process's memory, and by how much one input made its heap and buffers grow at most, garbage included. */
  slowestMs: number;
  peakMiB: number;
  grownMiB: number;
}

/** What is the same for all inputs of a target. */
interface Prepared {
  seeds: Uint8Array<ArrayBuffer>[][];
  whole: Uint8Array<ArrayBuffer>[];
  assemble: (parts: Uint8Array<ArrayBuffer>[]) => Uint8Array<ArrayBuffer>;
  tokens: Uint8Array[];
}

/** Makes the corpus ready. */
export function prepare({ seeds, assemble = (parts) => parts.length === 1 ? parts[0] : concat(...parts), tokens }: Target): Prepared {
  return { seeds, whole: seeds.map(assemble), assemble, tokens: tokens.map(latin1) };
}

/** Input `n` of a target. */
export function input({ seeds, whole, assemble, tokens }: Prepared, seed: number, n: number): Uint8Array<ArrayBuffer> {
  const dice = new Dice(seed * 1_000_003 + n), which = dice.below(seeds.length), other = dice.below(seeds.length);
  if (dice.below(4) === 0) return mutate(whole[which], dice, tokens, whole[other]);
  const parts = seeds[which].slice(), k = dice.below(parts.length);
  parts[k] = mutate(parts[k], dice, tokens, seeds[other][k] ?? whole[other]);
  return assemble(parts);
}

/** Whether an error is one that a person is meant to see: not the engine's own, neither itself nor as the reason of ours. */
function isOurs(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof TypeError || error instanceof ReferenceError) return false;
  if (error instanceof RangeError && !/^Cannot /.test(error.message)) return false;
  return !/^Cannot (read properties|destructure|convert|mix|set propert|access|create propert|assign)/.test(error.message);
}

/** Runs one input. */
async function timed(target: Target, bytes: Uint8Array<ArrayBuffer>): Promise<{ ms: number; failed: boolean; error: unknown }> {
  const began = performance.now();
  let failed = false, error: unknown;
  try {
    const made = target.run(bytes);
    if (made instanceof Promise) await made;
  } catch (thrown) {
    [failed, error] = [true, thrown];
  }
  return { ms: performance.now() - began, failed, error };
}

/** Runs inputs `first` to `first + count - 1`. */
export async function fuzz(target: Target, count: number, seed: number, first = 0): Promise<FuzzCounts> {
  const counts: FuzzCounts = { executions: 0, accepted: 0, refused: 0, crashes: [], slowestMs: 0, peakMiB: 0, grownMiB: 0 };
  const ready = prepare(target);
  for (let n = first; n < first + count; n++) {
    const bytes = input(ready, seed, n), before = memoryInUse(), took = await timed(target, bytes), { error, ms } = took;
    counts.grownMiB = Math.max(counts.grownMiB, (memoryInUse() - before) / 2 ** 20);
    if (!took.failed) counts.accepted++;
    else {
      if (isOurs(error)) counts.refused++;
      else if (counts.crashes.length < 20) counts.crashes.push({ input: n, error: `${error}\n${(error as Error).stack?.split("\n")[1]}` });
    }
    // a machine that does other things makes anything slow once: what counts is the quicker of two
    if (ms > counts.slowestMs && ms > 20) counts.slowestMs = Math.max(counts.slowestMs, Math.min(ms, (await timed(target, bytes)).ms));
    else if (ms > counts.slowestMs) counts.slowestMs = ms;
    counts.executions++;
  }
  counts.peakMiB = Math.round(peakMemory() / 2 ** 20);
  return counts;
}

/** Bytes of the heap and of buffers. */
function memoryInUse(): number {
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}

function peakMemory(): number {
  try {
    return 1024 * Number(Deno.readTextFileSync("/proc/self/status").match(/VmHWM:\s*(\d+)/)![1]);
  } catch {
    return Deno.memoryUsage().rss;
  }
}

if (import.meta.main) {
  const [name, count, seed, first = "0"] = Deno.args;
  if (Deno.permissions.querySync({ name: "ffi" }).state === "granted") throw new Error("this must run without permission for FFI");
  for (const target of name === "all" ? Object.keys(TARGETS) : [name]) {
    console.log(JSON.stringify({ target, ...await fuzz(TARGETS[target], Number(count), Number(seed), Number(first)) }));
  }
}
