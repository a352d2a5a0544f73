/** `--dry-run`: what a run would do, once everything is built. */
import { device } from "../tensor/device.ts";
import { formatBytes } from "../tensor/memory.ts";
import type { RunOptions } from "./run.ts";

/** Ends a dry run: no fault, its message is the report. */
export class DryRun extends Error {
  override name = "DryRun";
}

/** What the run in `folder` would do from step `first` on. */
export function dryRunReport(folder: string, first: number, { label, steps, tensors, log }: RunOptions): string {
  const { name, memory } = device(), state = Object.values(tensors).reduce((sum, t) => sum + t.bytes, 0);
  const written = log.keep * state,
    lines = {
      "device": `${name}, ${formatBytes(memory.use().used)} of ${formatBytes(memory.limit)} in use before the first step`,
      "steps": `${first} to ${steps}${first ? ", going on from a checkpoint that was read and checked" : ""}`,
      "a checkpoint": `${formatBytes(state)}; ${
        log.saveEvery ? `a kill loses ${log.saveEvery} steps at most` : "written at the end alone"
      }; ${log.keep} are kept, ${formatBytes(written)}${log.milestoneEvery ? `, and those of every ${log.milestoneEvery} steps` : ""}`,
      "output": folder,
    };
  return [
    `${label}: everything is built, nothing was trained or written`,
    ...Object.entries(lines).map(([key, text]) => `  ${key.padEnd(13)} ${text}`),
  ].join("\n");
}
