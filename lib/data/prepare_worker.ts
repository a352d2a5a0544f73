/** A process of its own for preparing objects: one that crashes, hangs or runs out of memory takes only its object with it. */
import { openDevice } from "../tensor/device.ts";
import { OutputError } from "./output_error.ts";
import { type AssetOptions, type AssetResult, type AssetSource, prepareAsset } from "./prepare_asset.ts";

/** What a worker answers, a line of JSON each. */
export type WorkerAnswer = { ready: true } | { result: AssetResult } | { fatal: string };

/** The process working on an object was lost; the next object needs a new one. */
export class WorkerLost extends Error {
  override name = "WorkerLost";
}

/** Prepares one object after another. */
export interface AssetWorker {
  /** Throws {@linkcode WorkerLost} where the worker ended over it, an {@linkcode OutputError} where the dataset cannot be written. */
  run(source: AssetSource): Promise<AssetResult>;
  stop(): void;
}

const START_SECONDS = 120;

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let held = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (held + text).split("\n");
    held = lines.pop()!;
    yield* lines;
  }
}

/** Starts a worker process. `threads` bounds the kernels' threads, `seconds` the time that one object may take. Throws where it cannot start. */
export async function startWorker(options: AssetOptions, { threads, seconds }: { threads: number; seconds: number }): Promise<AssetWorker> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "--no-prompt", "--allow-read", "--allow-write", "--allow-ffi", "--allow-env", "--allow-sys", import.meta.url],
    env: { OMP_NUM_THREADS: String(threads) },
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const input = child.stdin.getWriter(), answers = linesOf(child.stdout);
  child.status.then(({ signal }) => signal && input.abort().catch(() => {}));

  const kill = (): void => {
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
  };
  const ask = async (message: unknown, limit: number): Promise<WorkerAnswer> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<"late">((resolve) => timer = setTimeout(() => resolve("late"), limit * 1000));
    try {
      await input.write(new TextEncoder().encode(JSON.stringify(message) + "\n"));
      const answer = await Promise.race([answers.next(), late]);
      if (answer === "late") {
        kill();
        throw new WorkerLost(`it took longer than ${limit} s`);
      }
      if (!answer.done) return JSON.parse(answer.value);
    } catch (error) {
      if (error instanceof WorkerLost) throw error;
    } finally {
      clearTimeout(timer);
    }
    const { code, signal } = await child.status;
    throw new WorkerLost(
      `the process working on it ended with ${signal ?? `status ${code}`}${signal === "SIGKILL" ? " (out of memory?)" : ""}`,
    );
  };

  let hello: WorkerAnswer;
  try {
    hello = await ask(options, START_SECONDS);
  } catch (error) {
    throw new Error(`Cannot start a worker: ${(error as Error).message}`, { cause: error });
  }
  if ("fatal" in hello) throw new Error(`${hello.fatal}`);
  return {
    run: async (source) => {
      const answer = await ask(source, seconds);
      if ("fatal" in answer) throw new OutputError(answer.fatal);
      if (!("result" in answer)) throw new WorkerLost("its worker gave no result");
      return answer.result;
    },
    stop: kill,
  };
}

/** What a worker process does: the first line of its input holds the options, each further one a source. */
async function serve(): Promise<void> {
  // Ctrl-C reaches the whole group: the parent decides, and its end closes the input.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => {});
  const say = (answer: WorkerAnswer): void => console.log(JSON.stringify(answer));
  let options: AssetOptions | undefined;
  for await (const line of linesOf(Deno.stdin.readable)) {
    try {
      if (options) say({ result: await prepareAsset(JSON.parse(line), options) });
      else {
        options = JSON.parse(line) as AssetOptions;
        openDevice(options.device);
        say({ ready: true });
      }
    } catch (error) {
      say({ fatal: (error as Error).message });
    }
  }
}

if (import.meta.main) await serve();
