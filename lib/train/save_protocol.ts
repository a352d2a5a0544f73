/** What the training thread and the one that writes checkpoints say to each other. */
import type { SnapshotEntry } from "../tensor/snapshot.ts";
import type { CheckpointContent } from "./checkpoint_write.ts";

/** What a saver sends: first the shared memory, then checkpoints. */
export type SaveMessage = { shared: SharedArrayBuffer } | SaveRequest;

/** A checkpoint to write. */
export interface SaveRequest {
  content: CheckpointContent;
  entries: SnapshotEntry[];
}

/** Places in the shared memory's Int32Array; the text of an error stands behind them. */
export const FLAGS = { status: 0, progress: 1, textLength: 2 } as const;

/** Values of the status. */
export const STATUS = { idle: 0, busy: 1, failed: 2 } as const;

/** Where the text begins, and how much fits. */
export const TEXT_START = 16, TEXT_BYTES = 4096;
