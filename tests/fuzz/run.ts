/** Fuzzing in processes of their own, which may read files and nothing else, with bounded memory; one that hangs is ended. */
import { fileURLToPath as fromFileUrl } from "node:url";
import type { FuzzCounts } from "./fuzz.ts";

/** MiB that the objects of a fuzzing process may take. */
const HEAP_MIB = 512;

/** Runs inputs `first` to `first + count - 1` of a target ("all": of each) and gives what each did. Throws where the process hangs or dies. */
export async function fuzzApart(
  target: string,
  { count, seed, first = 0, timeoutMs }: { count: number; seed: number; first?: number; timeoutMs: number },
): Promise<({ target: string } & FuzzCounts)[]> {
  const program = fromFileUrl(new URL("fuzz.ts", import.meta.url)), limit = AbortSignal.timeout(timeoutMs);
  const { code, signal, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-q", "--no-check", "--no-prompt", "--allow-read", "--deny-ffi", "--deny-write", "--deny-net", "--deny-run"],
      ...[`--v8-flags=--max-old-space-size=${HEAP_MIB}`, program, target, String(count), String(seed), String(first)],
    ],
    cwd: fromFileUrl(new URL("../..", import.meta.url)),
    stdin: "null",
    signal: limit,
  }).output();
  const text = new TextDecoder();
  if (limit.aborted) {
    throw new Error(
      `${target}: one of the inputs ${first} to ${first + count - 1} of seed ${seed} hangs: not done after ${timeoutMs / 1000} s`,
    );
  }
  if (code !== 0) {
    throw new Error(
      `${target}: inputs ${first} to ${first + count - 1} of seed ${seed} ended the process (${signal ?? code}): ${
        text.decode(stderr).slice(-2000)
      }`,
    );
  }
  return text.decode(stdout).trim().split("\n").map((line) => JSON.parse(line));
}
