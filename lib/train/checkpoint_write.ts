/** Writing a checkpoint: the tensors' file, then the manifest, then away with what is not kept. By the training thread or by another one. */
import { UNFINISHED, writeFileAtomic } from "../io/atomic.ts";
import { DISK, type Disk } from "../io/disk.ts";
import { safetensorsChunks } from "../io/safetensors.ts";
import type { DType } from "../tensor/dtype.ts";
import { checkpointName, checkpointPath, formatManifest, type Manifest, sha256, stepOfFile } from "./manifest.ts";

/** Our dtypes by their names in a file. */
export const FILE_DTYPE = { f32: "F32", f16: "F16", bf16: "BF16", i32: "I32", i64: "I64", u8: "U8" } as const;

/** A tensor of a checkpoint and how to get its bytes, chunk by chunk. */
export interface TensorSource {
  name: string;
  dtype: DType;
  shape: readonly number[];
  chunks: () => Iterable<Uint8Array>;
}

/** Which checkpoints are not removed. */
export interface Retention {
  /** The newest so many. */
  keep: number;
  /** And those of every so many steps, for good; none where 0. */
  milestoneEvery: number;
}

/** What is written. */
export interface CheckpointContent extends Omit<Manifest, "files">, Retention {
  folder: string;
}

/**
 * Writes a checkpoint whole or not at all: the manifest comes last, and while it is not in its place nothing of an earlier checkpoint changes. Then
 * removes those that are not kept, those of later steps (of a run that was started again from an earlier one), and what killed saves left.
 */
export function writeCheckpoint(content: CheckpointContent, tensors: Iterable<TensorSource>, disk: Disk = DISK): void {
  const { folder, step, keep, milestoneEvery, state, config, version } = content, ckpts = `${folder}/ckpts`;
  try {
    Deno.mkdirSync(ckpts, { recursive: true });
  } catch (cause) {
    throw new Error(`Cannot write a checkpoint to ${ckpts}: the system says "${(cause as Error).message}", it must be a folder`, { cause });
  }
  const name = tensorsName(folder, step), path = `${ckpts}/${name}`, hash = sha256();
  let bytes = 0;
  const hashed = function* (): Generator<Uint8Array> {
    const list = [...tensors].map(({ name, dtype, shape, chunks }) => ({ name, dtype: FILE_DTYPE[dtype], shape, bytes: chunks }));
    for (const chunk of safetensorsChunks(path, list, { step: String(step) })) {
      hash.update(chunk);
      bytes += chunk.length;
      yield chunk;
    }
  };
  const text = formatManifest({ step, files: [], state, config, version }); // throws before anything is written where the state cannot be
  writeFileAtomic(path, hashed(), disk);
  const files = [{ name, bytes, sha256: hash.digest("hex") }], whole = { step, files, state, config, version };
  writeFileAtomic(checkpointPath(folder, step), new TextEncoder().encode(text && formatManifest(whole)), disk);
  prune(folder, whole, { keep, milestoneEvery }, disk);
}

/** The name of the tensors' file; another one than that of a checkpoint of the same step, from another course of the run, which stays until the new manifest is there. */
function tensorsName(folder: string, step: number): string {
  let name = `${checkpointName(step)}.safetensors`;
  if (!exists(checkpointPath(folder, step))) return name;
  for (let i = 1; exists(`${folder}/ckpts/${name}`); i++) name = `${checkpointName(step)}-${i}.safetensors`;
  return name;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The steps that `folder` has checkpoints of, the newest first. */
export function listCheckpoints(folder: string): number[] {
  return listFiles(folder).map(stepOfFile).filter((f) => f?.manifest).map((f) => f!.step).sort((a, b) => b - a);
}

function listFiles(folder: string): string[] {
  try {
    return [...Deno.readDirSync(`${folder}/ckpts`)].map((e) => e.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

function prune(folder: string, { step, files: current }: Manifest, { keep, milestoneEvery }: Retention, disk: Disk): void {
  const past = listCheckpoints(folder).filter((s) => s <= step);
  const kept = new Set(past.filter((s, i) => i < Math.max(keep, 1) || (milestoneEvery > 0 && s % milestoneEvery === 0)));
  const files = listFiles(folder).map((name) => ({ name, of: stepOfFile(name) }));
  const away = files.filter(({ name, of }) =>
    of ? !kept.has(of.step) || (of.step === step && !of.manifest && current.every((file) => file.name !== name)) : UNFINISHED.test(name)
  );
  for (const { name } of away.sort((a, b) => Number(b.of?.manifest ?? false) - Number(a.of?.manifest ?? false))) { // manifests first
    try {
      disk.remove(`${folder}/ckpts/${name}`);
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) continue;
      throw new Error(
        `Cannot remove ${folder}/ckpts/${name}, which is not kept: ${(cause as Error).message}; the checkpoint of step ${step} is written`,
        { cause },
      );
    }
  }
}
