/**
 * Saves a run's checkpoints off its path: the state is copied to host memory (on a GPU page-locked, at the bus's speed), training goes on, and
 * another thread hashes and writes the copy. The files are those of {@linkcode saveCheckpoint}, to the byte.
 */
import { OutOfMemoryError } from "../tensor/memory.ts";
import { type Kept, type SnapshotBuffer, snapshotBuffer } from "../tensor/snapshot.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { saveCheckpoint } from "./checkpoint.ts";
import type { Retention } from "./checkpoint_write.ts";
import { FLAGS, type SaveMessage, STATUS, TEXT_BYTES, TEXT_START } from "./save_protocol.ts";
import { codeVersion } from "./version.ts";

/** Options of {@linkcode openSaver}. */
export interface SaverOptions extends Retention {
  tensors: Record<string, Tensor | Kept>;
  config: unknown;
  say: (text: string) => void;
}

/** Writes the checkpoints of one run. */
export interface Saver {
  /**
   * Writes the checkpoint of `step` with the tensors as they are now. Waits for an earlier one first; with `wait` for this one too. Throws where
   * either could not be written.
   */
  save(step: number, state: unknown, options?: { wait?: boolean }): void;
  /** Throws where a checkpoint that was begun could not be written; waits for nothing. */
  check(): void;
  /** Whether a checkpoint is still being written. Throws where the disk takes nothing any more. */
  busy(): boolean;
  /** Waits until everything is written. Throws where it could not be. */
  finish(): void;
  /** Waits, and gives memory and thread back. */
  close(): void;
}

/** How long the other thread may write nothing before it counts as hanging. */
const PATIENCE_MS = 120_000, POLL_MS = 1000;

/** Opens the saver of the run in `folder`. Its memory and thread come with the first checkpoint that is written beside training. */
export function openSaver(folder: string, { tensors, config, keep, milestoneEvery, say }: SaverOptions): Saver {
  const shared = new SharedArrayBuffer(TEXT_START + TEXT_BYTES), flags = new Int32Array(shared, 0, 4), version = codeVersion();
  let buffer: SnapshotBuffer | undefined, worker: Worker | undefined, beside = true;
  const check = (): void => {
    if (Atomics.load(flags, FLAGS.status) !== STATUS.failed) return;
    Atomics.store(flags, FLAGS.status, STATUS.idle);
    throw new Error(new TextDecoder().decode(new Uint8Array(shared, TEXT_START, Atomics.load(flags, FLAGS.textLength)).slice()));
  };
  let seen = { progress: -1, at: 0 };
  const busy = (): boolean => {
    if (Atomics.load(flags, FLAGS.status) !== STATUS.busy) return false;
    const progress = Atomics.load(flags, FLAGS.progress), at = performance.now();
    if (progress !== seen.progress) seen = { progress, at };
    else if (at - seen.at > PATIENCE_MS) {
      throw new Error(
        `Cannot write a checkpoint to ${folder}: the disk took nothing for ${
          PATIENCE_MS / 1000
        } s, it must take more; is it a network disk that hangs?`,
      );
    }
    return true;
  };
  const finish = (): void => {
    while (busy()) Atomics.wait(flags, FLAGS.status, STATUS.busy, POLL_MS);
    check();
  };
  const onUnload = (): void => {
    try {
      finish(); // a run that ends in an error still has the checkpoint that was being written
    } catch (error) {
      console.error((error as Error).message);
    }
  };
  const start = (): void => {
    buffer ??= snapshotBuffer(tensors);
    if (worker) return;
    worker = new Worker(new URL("./save_worker.ts", import.meta.url), { type: "module" });
    worker.postMessage({ shared } satisfies SaveMessage);
    globalThis.addEventListener("unload", onUnload);
  };
  return {
    save(step, state, { wait = false } = {}) {
      finish();
      if (beside && !wait) {
        try {
          start();
        } catch (error) {
          if (!(error instanceof OutOfMemoryError)) throw error;
          beside = false;
          say(`training waits for its checkpoints from now on: ${error.message}`);
        }
      }
      if (wait || !beside) return saveCheckpoint(folder, step, { tensors, state, config, keep, milestoneEvery });
      const entries = buffer!.take();
      seen = { progress: -1, at: performance.now() };
      Atomics.store(flags, FLAGS.status, STATUS.busy);
      worker!.postMessage({ content: { folder, step, state, config, version, keep, milestoneEvery }, entries } satisfies SaveMessage);
    },
    check,
    busy,
    finish,
    close() {
      try {
        finish();
      } finally {
        globalThis.removeEventListener("unload", onUnload);
        worker?.terminate();
        buffer?.free();
        buffer = worker = undefined;
      }
    },
  };
}
