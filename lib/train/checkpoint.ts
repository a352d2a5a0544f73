/**
 * Checkpoints of a run: one safetensors file a step, `ckpts/step0000500.safetensors`, with every tensor of the training state and, in its metadata,
 * the rest as JSON. It is written whole or not at all, so the newest one is always good; an unreadable one is passed over.
 */
import { openSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { device } from "../tensor/device.ts";

const FILE_DTYPE = { f32: "F32", f16: "F16", bf16: "BF16", i32: "I32", i64: "I64", u8: "U8" } as const;

/** The path of the checkpoint of a step. */
export function checkpointPath(folder: string, step: number): string {
  return `${folder}/ckpts/step${String(step).padStart(7, "0")}.safetensors`;
}

/** The steps that `folder` has checkpoints of, the newest first. */
export function listCheckpoints(folder: string): number[] {
  try {
    return [...Deno.readDirSync(`${folder}/ckpts`)].map((e) => Number(e.name.match(/^step(\d+)\.safetensors$/)?.[1] ?? -1)).filter((s) =>
      s >= 0
    ).sort((a, b) => b - a);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/**
 * Writes the checkpoint of `step`, then removes all but the newest `keep` up to it, those of later steps (of a run that was started again from an
 * earlier one), and what a save that was killed left behind.
 */
export function saveCheckpoint(
  folder: string,
  step: number,
  { tensors, state, keep }: { tensors: Record<string, Tensor>; state: unknown; keep: number },
): void {
  Deno.mkdirSync(`${folder}/ckpts`, { recursive: true });
  const list = Object.entries(tensors).map(([name, t]) => ({
    name,
    dtype: FILE_DTYPE[t.dtype],
    shape: t.shape,
    bytes: () => {
      const raw = t.readRaw();
      return new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
    },
  }));
  writeSafetensors(checkpointPath(folder, step), list, { step: String(step), state: JSON.stringify(state) });
  const all = listCheckpoints(folder), kept = all.filter((s) => s <= step).slice(0, Math.max(keep, 1));
  for (const other of all) if (!kept.includes(other)) Deno.removeSync(checkpointPath(folder, other));
  for (const { name } of Deno.readDirSync(`${folder}/ckpts`)) {
    if (/^\.espalier-.*\.tmp$/.test(name)) Deno.removeSync(`${folder}/ckpts/${name}`);
  }
}

/** Copies a checkpoint into the tensors of a run, which must be exactly those it was saved from, and returns its state. */
export function loadCheckpoint(path: string, tensors: Record<string, Tensor>): unknown {
  using file = openSafetensors(path);
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
  const { state } = file.metadata;
  if (state === undefined) {
    throw new Error(`Cannot resume from ${path}: its metadata has no state, it must be a checkpoint that a run wrote`);
  }
  for (const [name, t] of Object.entries(tensors)) if (t.size) device().memory.upload(t.addr, file.tensors.get(name)!.bytes);
  device().memory.synchronize();
  return JSON.parse(state);
}

/** Options of {@linkcode resume}. */
export interface ResumeOptions {
  /** "latest", "none", or a step. */
  ckpt: string;
  tensors: Record<string, Tensor>;
  say: (text: string) => void;
}

/** Loads what `ckpt` asks for into `tensors`: the state it held and its step, or null where there is nothing to resume. */
export function resume(folder: string, { ckpt, tensors, say }: ResumeOptions): { step: number; state: unknown } | null {
  if (ckpt === "none") return null;
  if (ckpt !== "latest") {
    const step = Number(ckpt);
    if (!Number.isInteger(step)) throw new RangeError(`Cannot resume: --ckpt is "${ckpt}", it must be latest, none or a step`);
    return { step, state: loadCheckpoint(checkpointPath(folder, step), tensors) };
  }
  for (const step of listCheckpoints(folder)) {
    const path = checkpointPath(folder, step);
    try {
      openSafetensors(path).close();
    } catch (error) {
      say(`passing over ${path}: ${(error as Error).message}`);
      continue;
    }
    say(`resuming from ${path}`);
    return { step, state: loadCheckpoint(path, tensors) };
  }
  return null;
}
