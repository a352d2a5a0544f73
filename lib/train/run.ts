/** The folder of a training run: its config and command, its log, its checkpoints, and stopping on a signal. */
import { writeFileAtomic } from "../io/atomic.ts";
import { firstNonFinite } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkpointPath, listCheckpoints, resume, saveCheckpoint } from "./checkpoint.ts";
import { openRunLog, type RunLog } from "./metrics.ts";
import { profileRun } from "./run_profile.ts";

/** How often a run writes what. */
export interface LogConfig {
  /** Steps between records of metrics.jsonl and TensorBoard. */
  every: number;
  /** Steps between sample pictures; 0 for none. */
  sampleEvery: number;
  /** Steps between checkpoints; 0 for the last one alone. */
  saveEvery: number;
  /** Checkpoints to keep. */
  keep: number;
}

/** What a run needs from its recipe. */
export interface RunOptions {
  label: string;
  config: unknown;
  steps: number;
  log: LogConfig;
  /** "latest", "none" or a step. */
  ckpt: string;
  /** The tensors of a checkpoint; they are filled when the run resumes. */
  tensors: Record<string, Tensor>;
  /** The rest of a checkpoint, as JSON. */
  state: () => unknown;
  restore: (state: unknown) => void;
  /** Whether some of the first steps are profiled: see {@linkcode profileRun}. */
  profile?: boolean;
}

/** An open run. */
export interface Run {
  /** Steps that are done. */
  first: number;
  log: RunLog;
  /** Whether a sample is due after `done` steps; the first step and the last one count. */
  sampleDue(done: number): boolean;
  /** Writes a checkpoint if one is due after `done` steps. True where the run was asked to stop (SIGINT or SIGTERM): a checkpoint is written then too. */
  saveOrStop(done: number): boolean;
  /** Stops the run on a loss that is not finite, naming the op where it began in `again`, the same pass once more. The last good checkpoint stays. */
  expectFinite(step: number, values: Record<string, number>, again: () => unknown): void;
  close(): void;
}

/** The top-level settings of a run that differ from those in its config.json. */
function changedSettings(path: string, config: unknown): string[] {
  let before: Record<string, unknown>;
  try {
    before = JSON.parse(Deno.readTextFileSync(path));
  } catch {
    return []; // none was written, or it was cut off: it is written anew
  }
  const now = config as Record<string, unknown>;
  return Object.keys(now).filter((key) => JSON.stringify(now[key]) !== JSON.stringify(before[key]));
}

/** Opens or resumes the run in `folder`. */
export function openRun(folder: string, options: RunOptions): Run {
  Deno.mkdirSync(folder, { recursive: true });
  const say = (text: string): void => console.error(text), found = resume(folder, { ckpt: options.ckpt, tensors: options.tensors, say });
  const first = found?.step ?? 0, { steps, log: { every, sampleEvery, saveEvery, keep } } = options;
  if (found) options.restore(found.state);
  const changed = found ? changedSettings(`${folder}/config.json`, options.config) : [];
  if (changed.length) say(`going on with other settings than before: ${changed.join(", ")}`);
  if (first >= steps) {
    say(`${folder} is at step ${first} of ${steps}: nothing is left to train (--ckpt none starts anew, a larger --steps goes on)`);
  }
  const later = listCheckpoints(folder).filter((step) => step > first);
  if (later.length) say(`starting after step ${first}: what ${folder} has of later steps (checkpoints of ${later.join(", ")}) is replaced`);
  writeFileAtomic(`${folder}/config.json`, new TextEncoder().encode(JSON.stringify(options.config, null, 4) + "\n"));
  writeFileAtomic(`${folder}/command.txt`, new TextEncoder().encode(`deno run ${Deno.mainModule} ${Deno.args.join(" ")}\n`));
  const log = openRunLog(folder, { steps, first, every, label: options.label });
  const stop = new Int32Array(new SharedArrayBuffer(4)); // set to 1 by the listener, since this thread's event loop waits for the loop's end
  const listener = new Worker(new URL("./stop_worker.ts", import.meta.url), { type: "module" });
  listener.postMessage(stop);
  const profile = options.profile ? profileRun(folder, (text) => log.say(text)) : undefined;
  const save = (done: number): void => saveCheckpoint(folder, done, { tensors: options.tensors, state: options.state(), keep });
  return {
    first,
    log,
    sampleDue: (done) => sampleEvery > 0 && (done % sampleEvery === 0 || done === steps || done === 1),
    saveOrStop(done) {
      const asked = Atomics.load(stop, 0) === 1;
      if (done === steps || asked || (saveEvery > 0 && done % saveEvery === 0)) save(done);
      profile?.stepDone(done - first);
      if (asked) log.say(`stopped after step ${done}; the same command goes on from ${checkpointPath(folder, done)}`);
      return asked;
    },
    expectFinite(step, values, again) {
      const wrong = Object.entries(values).find(([, v]) => !Number.isFinite(v));
      if (!wrong) return;
      const op = firstNonFinite(again), [newest] = listCheckpoints(folder);
      const kept = newest === undefined
        ? "No checkpoint was written yet"
        : `The checkpoint of step ${newest} in ${folder}/ckpts is from before`;
      throw new RangeError(
        `Cannot go on: ${wrong[0]} is ${wrong[1]} at step ${step + 1}, it must be finite${
          op ? ` (the first op that is not: ${op})` : ""
        }. ${kept}; ` +
          "try a smaller --optimizer.lr, or --precision=f32",
      );
    },
    close() {
      listener.terminate();
      log.close();
    },
  };
}
