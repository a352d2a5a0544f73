/**
 * A save in a process of its own whose system calls are traced, made to fail and made to kill by strace: the same as faulty_disk.ts does to the
 * functions above them. Run as a program: FOLDER STEP.
 */
import { newestStep, restoreFolder, saveOn } from "./faulty_disk.ts";

const CALLS = ["openat", "write", "fsync", "rename", "unlink"];

/** What is done to a call. */
export const CALL_FAULTS = ["error=EIO", "error=ENOSPC", "error=EROFS", "signal=KILL"];

/** What was tried. */
export interface TracedCounts {
  /** The system calls of one save that change files or wait for the disk, in their order. */
  calls: string[];
  faults: number;
  /** Runs after which the newest whole checkpoint was older than it may be, or in which a failure was silent: none may be. */
  wrong: string[];
}

/** Whether strace is here and may trace. */
export function hasStrace(): boolean {
  try {
    return new Deno.Command("strace", { args: ["-qq", "true"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

function trace(folder: string, log: string, inject: string[] = []): { code: number; signal: string | null; said: string } {
  const program = new URL(import.meta.url).pathname;
  const { code, signal, stderr } = new Deno.Command("strace", {
    args: [
      ...["-qq", "-y", "-s", "16", "-o", log, "-e", `trace=${CALLS}`, ...inject],
      ...[Deno.execPath(), "run", "-q", "-A", "--no-check", program, folder, "3"],
    ],
    env: { DEVICE: "cpu" },
    stdin: "null",
    stdout: "null",
  }).outputSync();
  return { code, signal, said: new TextDecoder().decode(stderr) };
}

/** Saves step 3 beside 2 in `folder` with each of `faults` at every system call. */
export function sweepCalls(folder: string, faults: readonly string[] = CALL_FAULTS): TracedCounts {
  for (const step of [1, 2]) saveOn(folder, step);
  const whole = restoreFolder(folder), log = `${folder}/trace.txt`;
  trace(folder, log);
  const seen: Record<string, number> = {}, calls: { name: string; when: number }[] = [];
  for (const line of Deno.readTextFileSync(log).split("\n")) {
    const name = line.match(/^(\w+)\(/)?.[1];
    if (!name) continue;
    seen[name] = (seen[name] ?? 0) + 1;
    const writes = name !== "openat" || /O_CREAT|ckpts", O_RDONLY|ckpts\/", O_RDONLY/.test(line);
    if (line.includes(`${folder}/ckpts`) && writes) calls.push({ name, when: seen[name] });
  }
  const counts: TracedCounts = { calls: calls.map((c) => c.name), faults: 0, wrong: [] };
  for (const { name, when } of calls) {
    for (const fault of faults) {
      whole();
      const { code, signal, said } = trace(folder, log, ["-e", `inject=${name}:${fault}:when=${when}`]),
        what = `${fault} at ${name} ${when}`;
      const newest = newestStep(folder),
        loud = fault === "signal=KILL" ? signal === "SIGKILL" || code === 137 : code === 1 && /Cannot (write|remove)/.test(said);
      if (newest < 2 || !(loud || newest === 3)) {
        counts.wrong.push(`${what}: step ${newest}, ended with ${signal ?? code}: ${said.slice(0, 200)}`);
      }
      counts.faults++;
    }
  }
  return counts;
}

if (import.meta.main) saveOn(Deno.args[0], Number(Deno.args[1]));
