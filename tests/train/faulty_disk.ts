/** A disk whose calls are counted and fail or end the process where a test wants, and what a power cut may leave of a list of calls. */
import { DISK, type Disk } from "../../lib/io/disk.ts";
import { resume, tensorSources } from "../../lib/train/checkpoint.ts";
import { writeCheckpoint } from "../../lib/train/checkpoint_write.ts";
import { codeVersion } from "../../lib/train/version.ts";
import { tensor } from "../../lib/tensor/tensor.ts";

/** Elements of the tensor that is saved. */
export const SIZE = 300;

/** Saves the checkpoint of `step`, whose tensor is filled with `step` and whose state is `step`; two are kept. */
export function saveOn(folder: string, step: number, { disk = DISK, size = SIZE }: { disk?: Disk; size?: number } = {}): void {
  const t = tensor(new Float32Array(size).fill(step), [size]);
  try {
    const content = { folder, step, state: step, config: {}, version: codeVersion(), keep: 2, milestoneEvery: 0 };
    writeCheckpoint(content, tensorSources({ t }), disk);
  } finally {
    t.free();
  }
}

/** One call. */
export interface DiskCall {
  call: "create" | "write" | "sync" | "rename" | "remove" | "syncFolder";
  path: string;
  to?: string;
  bytes?: Uint8Array;
}

/** The real disk; `before` is called with every call, and may throw, or return how many bytes of a write are taken. */
export function watchedDisk(before: (call: DiskCall) => number | void): Disk {
  return {
    create(path) {
      before({ call: "create", path });
      const file = DISK.create(path);
      return {
        write: (bytes) => file.write(bytes.subarray(0, before({ call: "write", path, bytes: bytes.slice() }) ?? bytes.length)),
        sync() {
          before({ call: "sync", path });
          file.sync();
        },
        close: () => file.close(),
      };
    },
    rename(from, to) {
      before({ call: "rename", path: from, to });
      DISK.rename(from, to);
    },
    remove(path) {
      before({ call: "remove", path });
      DISK.remove(path);
    },
    syncFolder(path) {
      before({ call: "syncFolder", path });
      DISK.syncFolder(path);
    },
  };
}

/** Saves `step` and returns the calls that it took. */
export function diskCalls(folder: string, step: number): DiskCall[] {
  const calls: DiskCall[] = [];
  saveOn(folder, step, { disk: watchedDisk((call) => void calls.push(call)) });
  return calls;
}

/** What goes wrong at a call: an error of the system, a disk that is read-only from there on, or one that takes half of every write. */
export const FAULTS = ["ENOSPC", "EIO", "EROFS", "short"] as const;

/** Saves `step` on a disk that fails from call `n` on (EIO, ENOSPC: at that call alone); returns the error. */
export function withFault(folder: string, step: number, fault: typeof FAULTS[number], n: number): Error | null {
  let at = 0;
  try {
    saveOn(folder, step, {
      disk: watchedDisk(({ bytes }) => {
        const now = at++;
        if (fault === "short") return bytes && now >= n ? Math.ceil(bytes.length / 2) : undefined;
        if (now === n || (fault === "EROFS" && now > n)) throw Object.assign(new Error(`${fault} at call ${n}`), { code: fault });
      }),
    });
    return null;
  } catch (error) {
    return error as Error;
  }
}

/** Remembers the files of a run's ckpts and returns what puts them back. */
export function restoreFolder(folder: string): () => void {
  const path = `${folder}/ckpts`,
    files = [...Deno.readDirSync(path)].map(({ name }) => [name, Deno.readFileSync(`${path}/${name}`)] as const);
  return () => {
    Deno.removeSync(path, { recursive: true });
    Deno.mkdirSync(path);
    for (const [name, bytes] of files) Deno.writeFileSync(`${path}/${name}`, bytes);
  };
}

/** What a crash may leave. */
export interface CrashState {
  label: string;
  /** Brings the folder, as it was before the save, into this state. */
  apply: () => void;
  /** The step that must at least be found. */
  least: number;
}

/**
 * The states that a power cut may leave after each prefix of the calls of a save: everything done; what was not synced lost, in the file, in the
 * folder's names, or in both; a last write that is there in part.
 */
export function crashStates(folder: string, step: number): CrashState[] {
  const back = restoreFolder(folder), calls = diskCalls(folder, step), states: CrashState[] = [];
  back();
  for (let n = 0; n <= calls.length; n++) {
    const done = calls.slice(0, n), synced = done.filter((c) => c.call === "rename").length === 2 && done.at(-1)!.call !== "rename";
    for (const data of ["all", "synced", "half"] as const) {
      for (const names of ["all", "synced"] as const) {
        states.push({
          label: `${n} calls, data ${data}, names ${names}`,
          apply: () => replay(done, { data, names }),
          least: synced ? step : step - 1,
        });
      }
    }
  }
  return states;
}

function replay(calls: DiskCall[], { data, names }: { data: "all" | "synced" | "half"; names: "all" | "synced" }): void {
  const content = new Map<string, Uint8Array[]>(),
    whole = new Set<string>(),
    lastFolderSync = calls.findLastIndex((c) => c.call === "syncFolder");
  calls.forEach(({ call, path, to, bytes }, i) => {
    const kept = names === "all" || i < lastFolderSync;
    if (call === "create") content.set(path, []);
    else if (call === "write") content.get(path)!.push(bytes!);
    else if (call === "sync") whole.add(path);
    else if (call === "rename" && kept) {
      content.set(to!, content.get(path)!);
      content.delete(path);
      if (whole.has(path)) whole.add(to!);
    } else if (call === "remove" && kept) Deno.removeSync(path);
  });
  for (const [path, chunks] of content) {
    const all = chunks.flatMap((c) => [...c]),
      length = data === "all" || whole.has(path) ? all.length : data === "half" ? all.length >> 1 : 0;
    Deno.writeFileSync(path, Uint8Array.from(all.slice(0, length)));
  }
}

/** What the newest good checkpoint of a folder holds. Throws unless every value of its tensor and its state are its step. */
export function newestStep(folder: string): number {
  const t = tensor(new Float32Array(SIZE), [SIZE]), found = resume(folder, { ckpt: "latest", tensors: { t }, say: () => {} });
  const values = new Set(t.read());
  t.free();
  if (!found || values.size !== 1 || !values.has(found.step) || found.state !== found.step) {
    throw new Error("a tensor and a state of two checkpoints");
  }
  return found.step;
}

/** What {@linkcode sweepDisk} tried. */
export interface DiskCounts {
  /** Calls of one save, in their order. */
  calls: string[];
  /** Faults tried: each kind at each call. */
  faults: number;
  /** Processes killed: one at each call. */
  kills: number;
  /** States of a power cut. */
  crashes: number;
  /** Cases after which the newest whole checkpoint was older than it may be, or a failure was silent: none may be. */
  wrong: number;
}

/** Saves step 3 beside 2 with every fault at every call, killed at every call, and in every state that a power cut may leave. */
export function sweepDisk(folder: string, killAt: (folder: string, step: number, n: number) => void): DiskCounts {
  for (const step of [1, 2]) saveOn(folder, step);
  const whole = restoreFolder(folder),
    calls = diskCalls(folder, 3),
    counts: DiskCounts = {
      calls: calls.map((c) => c.call),
      faults: 0,
      kills: 0,
      crashes: 0,
      wrong: 0,
    };
  const check = (ok: boolean): void => {
    if (!ok) counts.wrong++;
  };
  calls.forEach((_, n) => {
    for (const fault of FAULTS) {
      whole();
      const failed = withFault(folder, 3, fault, n);
      check((fault === "short") === (failed === null) && newestStep(folder) >= 2);
      counts.faults++;
    }
    whole();
    killAt(folder, 3, n);
    check(newestStep(folder) === (calls.slice(0, n).filter((c) => c.call === "rename").length === 2 ? 3 : 2));
    counts.kills++;
  });
  whole();
  for (const { apply, least } of crashStates(folder, 3)) {
    whole();
    apply();
    check(newestStep(folder) >= least);
    counts.crashes++;
  }
  return counts;
}
