/**
 * The environment variable DEBUG, a ladder: 1 says what is opened and shows the stack of every error; 2 also a line for every training step; 3 also
 * every call of a kernel, product or copy; 4 waits for the device after each call, times it there, and names the call that the device failed in.
 */
import { observe } from "../../ffi/observer.ts";
import { device } from "./device.ts";
import { kernelCost } from "./kernel_cost.ts";
import { formatBytes } from "./memory.ts";

/** How much is said: 0 to 4. Other values of DEBUG are other programs'. */
export function debugLevel(): number {
  const level = Deno.env.get("DEBUG") ?? "";
  return /^[0-4]$/.test(level) ? Number(level) : 0;
}

/** Runtime calls that do work on the device. */
const WORK = /^(?!cuda)|^cudaMem(cpy|set)Async$/;

let calls = 0, allocations = 0, since = 0, started = false;

/** Looks on from now on, at DEBUG's level; the open device is said. Once a process. */
export function startDebug(level: number = debugLevel(), say: (text: string) => void = (text) => console.error(text)): void {
  if (level < 1 || started) return;
  started = true;
  const { name, memory } = device();
  say(`debug: device ${name}, ${formatBytes(memory.limit)} may be used; Deno ${Deno.version.deno}, process ${Deno.pid}`);
  if (level < 2) return;
  since = performance.now();
  observe((name, args, call) => {
    if (name === "cudaMallocFromPoolAsync") allocations++;
    if (!WORK.test(name)) return call();
    calls++;
    if (level < 3) return call();
    const { what, bytes } = kernelCost(name, args),
      began = performance.now(),
      text = `${name} ${what}${bytes ? ` ${formatBytes(bytes)}` : ""}`;
    try {
      call();
      if (level >= 4) memory.synchronize();
    } catch (error) {
      say(`debug: failed in ${text}`);
      throw error;
    }
    say(`debug: ${text} ${((performance.now() - began) * 1e3).toFixed(0)} µs${level >= 4 ? "" : " on the host"}`);
  });
}

/** Says, from level 2 up, what the step that ends here took; `done` is how many there were. */
export function debugStep(done: number, say: (text: string) => void): void {
  if (!started || !since) return;
  const now = performance.now(), { used, peak } = device().memory.use();
  say(
    `debug: step ${done} took ${(now - since).toFixed(1)} ms, ${calls} calls, ${allocations} allocations; ${formatBytes(used)} in use, ${
      formatBytes(peak)
    } at most`,
  );
  [calls, allocations, since] = [0, 0, now];
}
