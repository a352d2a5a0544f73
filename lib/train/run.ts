/** The folder of a training run: its config and command, its log, its checkpoints, and stopping on a signal. */
import { writeFileAtomic } from "../io/atomic.ts";
import { communicator } from "../dist/communicator.ts";
import type { Histogram } from "../ops/histogram.ts";
import { KEPT_BY_RECORDINGS, openReplays, type Replays } from "../memory/replay.ts";
import { MOST_SKIPPED } from "../optim/optimizer.ts";
import { device } from "../tensor/device.ts";
import { debugStep } from "../tensor/debug.ts";
import { firstNonFinite } from "../tensor/tape.ts";
import type { Kept } from "../tensor/snapshot.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Later } from "./batch.ts";
import { checkpointPath, giveParts, listCheckpoints, resume } from "./checkpoint.ts";
import { DryRun, dryRunReport } from "./dry_run.ts";
import { type LogState, openRunLog, type RunLog, secondaryLog } from "./metrics.ts";
import type { MemoryConfig } from "./memory_config.ts";
import { openProducts } from "./products.ts";
import { profileRun } from "./run_profile.ts";
import { openSaver } from "./saver.ts";

/** How often a run writes what. */
export interface LogConfig {
  /** Steps between records of metrics.jsonl and TensorBoard. */
  every: number;
  /** Steps between sample pictures; 0 for none. */
  sampleEvery: number;
  /** The most steps that a kill loses: checkpoints are of its multiples and of the steps half-way between. 0 for the last one alone. */
  saveEvery: number;
  /** The newest checkpoints to keep. */
  keep: number;
  /** Checkpoints of every so many steps are kept for good; by default none. */
  milestoneEvery?: number;
  /** Steps between histograms of parameters and gradients; by default none. */
  histogramEvery?: number;
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
  tensors: Record<string, Tensor | Kept>;
  /** The rest of a checkpoint, as JSON. */
  state: () => unknown;
  restore: (state: unknown) => void;
  /** Whether some of the first steps are profiled: see {@linkcode profileRun}. */
  profile?: boolean;
  /** Whether {@linkcode Run.tune} chooses algorithms. */
  tune?: boolean;
  /** Whether {@linkcode Run.replays} records passes; by default on a GPU, where that keeps little memory. */
  record?: boolean;
  /** Whether the run only says what it would do: {@linkcode openRun} then throws a {@linkcode DryRun} and writes nothing. */
  dryRun?: boolean;
}

/** An open run. */
export interface Run {
  /** Steps that are done. */
  first: number;
  /** Whether this process writes the run's files: the first of several. */
  writes: boolean;
  log: Omit<RunLog, "step"> & {
    /** As {@linkcode RunLog.step}; values that come later are written when the next step's passes are queued, or before a checkpoint. */
    step(step: number, values: Record<string, number> | Later<Record<string, number>>, samples: number): void;
  };
  /** Before the first step: the products of `pass` are done by the algorithms that the run keeps. See {@linkcode openProducts}. */
  tune(pass: () => unknown): void;
  /**
   * What runs the passes of a training of `params`: recorded ones, where `record` says so, this process trains alone, and what is made again is not
   * decided anew by each pass.
   */
  replays(params: unknown, memory?: MemoryConfig): Replays;
  /** For {@linkcode Optimizer.stepLater}: what writes the histograms of step `done`, where they are due. */
  histograms(done: number): ((found: Record<string, Histogram>) => void) | undefined;
  /** Whether a sample is due after `done` steps; the first step and the last one count. */
  sampleDue(done: number): boolean;
  /**
   * Writes a checkpoint if one is due after `done` steps, beside the training that goes on. True where the run, in any of its processes, was asked to stop
   * (SIGINT, SIGTERM or SIGUSR1): then one is on the disk, and the recipe ends with status 130. Throws where an earlier one could not be written.
   */
  saveOrStop(done: number): boolean;
  /**
   * Says where a loss is not finite, and names the op where it began in `again`, the same pass once more. Its gradients are not finite either, so the
   * optimizer passes the step over. The tenth loss in a row stops the run; the last good checkpoint stays. To be called when the pass is queued and
   * before the optimizer's step: values that come later are looked at when the next step's first pass is queued, so that the device has work meanwhile.
   */
  expectFinite(step: number, values: Record<string, number> | Later<Record<string, number>>, again: () => unknown): void;
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

/** The state of a checkpoint: the recipe's, and the log's means that are not written yet. */
interface RunState {
  recipe: unknown;
  log: LogState;
  nonFinite: number;
  skipped: number;
}

/** So many losses in a row that are not finite are no single bad batch. */
const MOST_NON_FINITE = 10;

/** How often several processes ask whether a checkpoint is on the disk that they wait for. */
const WRITING_POLL_MS = 50;

/**
 * Whether a checkpoint is begun after `done` steps, so that a kill loses `every` steps at most. It is written beside the training, so what counts is when
 * it is on the disk: before the next one is begun, at the latest. From the one before it to the next are always `every` steps, and a checkpoint that takes
 * less than half of them to write holds nothing up.
 */
function saveDue(done: number, every: number): boolean {
  return every > 0 && (done % every === 0 || done % every === every >> 1);
}

function replaysOf(params: unknown, record: boolean | undefined, { able, say }: { able: boolean; say: (text: string) => void }): Replays {
  const { name, memory } = device();
  if (record !== undefined) return openReplays(params, { enabled: record && able, say });
  return openReplays(params, { enabled: name === "cuda" && able, most: KEPT_BY_RECORDINGS * memory.limit });
}

/** Opens or resumes the run in `folder`. */
export function openRun(folder: string, options: RunOptions): Run {
  const ranks = communicator(), writes = ranks.rank === 0;
  if (!options.dryRun) Deno.mkdirSync(folder, { recursive: true });
  const { tensors, config, steps, log: { every, sampleEvery, saveEvery, keep, milestoneEvery = 0, histogramEvery = 0 } } = options;
  const say = (text: string): void => writes ? console.error(text) : undefined;
  if (ranks.world > 1) say(`${ranks.world} processes, joined by ${ranks.by}`);
  const found = resume(folder, { ckpt: options.ckpt, tensors, say });
  const first = found?.step ?? 0, state = found?.state as RunState | undefined;
  if (state) options.restore(state.recipe);
  const changed = found ? changedSettings(`${folder}/config.json`, config) : [];
  if (changed.length) say(`going on with other settings than before: ${changed.join(", ")}`);
  if (first >= steps) {
    say(`${folder} is at step ${first} of ${steps}: nothing is left to train (--ckpt none starts anew, a larger --steps goes on)`);
  }
  if (options.dryRun) throw new DryRun(writes ? dryRunReport(folder, first, options) : "");
  const later = listCheckpoints(folder).filter((step) => step > first);
  if (later.length) say(`starting after step ${first}: what ${folder} has of later steps (checkpoints of ${later.join(", ")}) is replaced`);
  if (writes) {
    writeFileAtomic(`${folder}/config.json`, new TextEncoder().encode(JSON.stringify(config, null, 4) + "\n"));
    writeFileAtomic(`${folder}/command.txt`, new TextEncoder().encode(`deno run ${Deno.mainModule} ${Deno.args.join(" ")}\n`));
  }
  const log = writes
    ? openRunLog(folder, { steps, first, every, label: options.label, profiled: options.profile, state: state?.log })
    : secondaryLog(ranks);
  const saver = writes ? openSaver(folder, { tensors, config, keep, milestoneEvery, say: log.say }) : undefined;
  const stop = new Int32Array(new SharedArrayBuffer(4)); // set to 1 by the listener, since this thread's event loop waits for the loop's end
  const listener = new Worker(new URL("./stop_worker.ts", import.meta.url), { type: "module" });
  listener.postMessage(stop);
  const profile = options.profile && writes ? profileRun(folder, (text) => log.say(text)) : undefined;
  let nonFinite = state?.nonFinite ?? 0, skipped = state?.skipped ?? 0, lastPass: (() => unknown) | undefined;
  const starts = ranks.exchange(first);
  if (starts.some((step) => step !== first)) {
    throw new Error(
      `Cannot start ${folder}: the ranks go on from the steps ${starts.join(", ")}, they must be equal; all must see the same folder`,
    );
  }
  const stopped = (why: string): never => {
    saver?.finish();
    const [newest] = listCheckpoints(folder);
    const kept = newest === undefined
      ? "No checkpoint was written yet"
      : `The newest checkpoint in ${folder}/ckpts is of step ${newest}; --ckpt goes on from one of before`;
    throw new RangeError(`Cannot go on: ${why}. ${kept}; try a smaller --optimizer.lr, or --precision=f32`);
  };
  /** Several processes wait for the one that writes in short turns, however long the disk takes: one that says nothing counts as gone. */
  const untilWritten = (): void => {
    if (ranks.world === 1) return;
    const pause = new Int32Array(new SharedArrayBuffer(4));
    while (ranks.exchange(saver?.busy() ?? false).some((busy) => busy)) Atomics.wait(pause, 0, 0, WRITING_POLL_MS);
    saver?.check();
  };
  log.stepBegins();
  let waiting: (() => void)[] = [], watched = -1;
  /** Looks at what earlier steps left for later. */
  const settle = (): void => {
    const list = waiting;
    waiting = [];
    for (const look of list) look();
  };
  const expectFinite = (step: number, values: Record<string, number>, again: () => unknown): void => {
    lastPass = again;
    const wrong = Object.entries(values).find(([, v]) => !Number.isFinite(v));
    if (!wrong) {
      nonFinite = 0;
      return;
    }
    const op = firstNonFinite(again), where = op ? ` (the first op that is not: ${op})` : "";
    const what = `${wrong[0]} is ${wrong[1]} at step ${step + 1}, it must be finite${where}`;
    if (++nonFinite >= MOST_NON_FINITE) stopped(`${what}, ${nonFinite} times in a row`);
    log.say(`${what}; its gradients are passed over (${nonFinite} in a row, ${MOST_NON_FINITE} stop the run)`);
  };
  const logStep = (step: number, values: Record<string, number>, samples: number): void => {
    skipped = values.skipped ? skipped + 1 : 0;
    log.step(step, values, samples);
    if (skipped < MOST_SKIPPED - 1) return;
    const op = lastPass && firstNonFinite(lastPass);
    stopped(`the gradients of the last ${skipped} steps are not finite, they must be${op ? ` (the first that is not: ${op})` : ""}`);
  };
  return {
    first,
    writes,
    log: {
      ...log,
      step(step, values, samples) {
        log.stepEnds();
        if (typeof values === "function") return void waiting.push(() => logStep(step, values(), samples));
        settle();
        logStep(step, values, samples);
      },
    },
    tune: (pass) => openProducts(folder, pass, { tune: options.tune, say: log.say }),
    replays: (params, memory) => {
      return replaysOf(params, options.record, { able: ranks.world === 1 && memory?.policy !== "linear", say: log.say });
    },
    histograms: (done) => histogramEvery > 0 && done % histogramEvery === 0 ? (found) => log.histograms(done, found) : undefined,
    sampleDue: (done) => sampleEvery > 0 && (done % sampleEvery === 0 || done === steps || done === 1),
    saveOrStop(done) {
      const asked = ranks.exchange(Atomics.load(stop, 0) === 1).some((asked) => asked), wait = asked || done === steps || saveEvery === 1;
      saver?.check();
      if (wait || saveDue(done, saveEvery)) {
        settle();
        untilWritten();
        const state = (): RunState => ({ recipe: options.state(), log: log.state(), nonFinite, skipped });
        if (saver) saver.save(done, state(), { wait: wait && ranks.world === 1 });
        else giveParts(tensors);
        if (wait) untilWritten();
      }
      profile?.stepDone(done - first);
      debugStep(done, log.say);
      log.stepBegins();
      if (asked) {
        log.say(`stopped after step ${done}; the same command goes on from ${checkpointPath(folder, done)}`);
        ranks.close();
      }
      return asked;
    },
    expectFinite(step, values, again) {
      if (step !== watched) settle();
      watched = step;
      if (typeof values === "function") waiting.push(() => expectFinite(step, values(), again));
      else expectFinite(step, values, again);
    },
    close() {
      try {
        settle();
        saver?.close();
      } finally {
        listener.terminate();
        log.close();
      }
    },
  };
}
