/**
 * Checkpoints of a run. A step's are two files: `ckpts/step0000500.safetensors` with every tensor of the training state, and the manifest
 * `ckpts/step0000500.json` with the rest. What is not whole, to the bit, is never used.
 */
import { openSafetensors } from "../io/safetensors.ts";
import { device } from "../tensor/device.ts";
import { inFileOrder, type Kept, keptOf, tensorBytes } from "../tensor/snapshot.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { FILE_DTYPE, listCheckpoints, type Retention, type TensorSource, writeCheckpoint } from "./checkpoint_write.ts";
import { checkpointPath, type Manifest, readManifest, verifyFiles } from "./manifest.ts";
import { codeVersion } from "./version.ts";

/** What {@linkcode saveCheckpoint} writes. */
export interface CheckpointParts extends Partial<Retention> {
  tensors: Record<string, Tensor | Kept>;
  /** The rest of the state, as JSON. */
  state: unknown;
  config?: unknown;
}

/** Tensors on the device as a checkpoint's. */
export function tensorSources(tensors: Record<string, Tensor | Kept>): TensorSource[] {
  return inFileOrder(tensors).map(([name, t]) => ({ name, dtype: t.dtype, shape: t.shape, chunks: () => tensorBytes(t) }));
}

/** Goes through the pieces of tensors that all processes hold parts of, for the one that writes them. */
export function giveParts(tensors: Record<string, Tensor | Kept>): void {
  for (const [, t] of inFileOrder(tensors)) {
    if (t.together) { for (const _ of t.pieces()); }
  }
}

/**
 * Writes the checkpoint of `step` and returns when it is on the disk; see {@linkcode writeCheckpoint}. Where other processes hold parts of it, they
 * call {@linkcode giveParts}; their parts are asked for also where the disk fails.
 */
export function saveCheckpoint(
  folder: string,
  step: number,
  { tensors, state, config = null, keep = 1, milestoneEvery = 0 }: CheckpointParts,
): void {
  const sources = tensorSources(tensors).map(({ chunks, ...source }) => {
    const bytes = chunks()[Symbol.iterator]();
    return { ...source, bytes, chunks: () => ({ [Symbol.iterator]: () => ({ next: () => bytes.next() }) }) }; // not closed where it is left
  });
  try {
    writeCheckpoint({ folder, step, state, config, version: codeVersion(), keep, milestoneEvery }, sources);
  } finally {
    for (const { name, bytes } of sources) {
      if (keptOf(tensors[name]).together) { while (!bytes.next().done); }
      else bytes.return?.();
    }
  }
}

function folderOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/"))) || ".";
}

/** Reads the manifest at `path` and checks every byte of the checkpoint against it. */
export function verifyCheckpoint(path: string): Manifest {
  const manifest = readManifest(path);
  if (checkpointPath(".", manifest.step) !== `./ckpts/${path.slice(path.lastIndexOf("/") + 1)}`) {
    throw new Error(`Cannot read ${path}: its step is ${manifest.step}, its name says another; it must not be renamed`);
  }
  verifyFiles(folderOf(path), manifest);
  return manifest;
}

/**
 * Copies the checkpoint whose manifest is at `path` into the tensors of a run, which must be exactly those it was saved from, and returns its state.
 * Every byte is checked before the first tensor changes.
 */
export function loadCheckpoint(path: string, tensors: Record<string, Tensor | Kept>): unknown {
  const manifest = verifyCheckpoint(path);
  fill(path, manifest, tensors);
  return manifest.state;
}

function fill(path: string, { files }: Manifest, tensors: Record<string, Tensor | Kept>): void {
  using file = openSafetensors(files.map(({ name }) => `${folderOf(path)}/${name}`));
  const extra = [...file.tensors.keys()].filter((name) => !Object.hasOwn(tensors, name));
  if (extra.length) {
    throw new Error(
      `Cannot resume from ${path}: it holds ${extra.join(", ")}, which this run has not; it must be resumed with its own config`,
    );
  }
  for (const [name, t] of Object.entries(tensors)) {
    const stored = file.tensors.get(name);
    if (!stored || stored.dtype !== FILE_DTYPE[t.dtype] || `${stored.shape}` !== `${t.shape}`) {
      const found = stored ? `[${stored.shape}] ${stored.dtype}` : "missing";
      throw new Error(
        `Cannot resume from ${path}: ${name} is ${found}, it must be [${t.shape}] ${FILE_DTYPE[t.dtype]}; resume with the run's own config`,
      );
    }
  }
  for (const [name, t] of Object.entries(tensors)) keptOf(t).fill(file.tensors.get(name)!.bytes);
  device().memory.synchronize();
}

/** Options of {@linkcode resume}. */
export interface ResumeOptions {
  /** "latest", "none", or a step. */
  ckpt: string;
  tensors: Record<string, Tensor | Kept>;
  say: (text: string) => void;
}

/**
 * Loads what `ckpt` asks for into `tensors`: the state it held and its step, or null where there is nothing to resume. "latest" is the newest
 * checkpoint whose every byte is right; what is passed over is said. Throws where there are checkpoints and none is good: nothing starts anew in silence.
 */
export function resume(folder: string, { ckpt, tensors, say }: ResumeOptions): { step: number; state: unknown } | null {
  if (ckpt === "none") return null;
  if (ckpt !== "latest") {
    const step = Number(ckpt);
    if (!Number.isInteger(step)) throw new RangeError(`Cannot resume: --ckpt is "${ckpt}", it must be latest, none or a step`);
    return { step, state: loadCheckpoint(checkpointPath(folder, step), tensors) };
  }
  const steps = listCheckpoints(folder);
  for (const step of steps) {
    const path = checkpointPath(folder, step);
    let manifest: Manifest;
    try {
      manifest = verifyCheckpoint(path);
    } catch (error) {
      say(`passing over ${path}: ${(error as Error).message}`);
      continue;
    }
    say(`resuming from ${path}`);
    const { espalier, commit } = manifest.version, now = codeVersion();
    if (espalier !== now.espalier || commit !== now.commit) {
      say(
        `it was written by version ${espalier} (${commit?.slice(0, 9) ?? "no commit"}), this is ${now.espalier} (${
          now.commit?.slice(0, 9)
        })`,
      );
    }
    fill(path, manifest, tensors);
    return { step, state: manifest.state };
  }
  if (steps.length) {
    throw new Error(`Cannot resume ${folder}: none of its ${steps.length} checkpoints is whole, one must be; --ckpt none starts anew`);
  }
  return null;
}

export { checkpointPath, listCheckpoints };
