/**
 * The manifest of a checkpoint, `ckpts/step0000500.json`: what its files hold (SHA-256 each) and everything of the run that is no tensor. It is
 * written last, so a checkpoint without one is no checkpoint. Its last line is the SHA-256 of the lines before, so no changed bit passes.
 */
import { createHash, type Hash } from "node:crypto";
import { isObject } from "../io/json.ts";
import { readBytes } from "../io/read.ts";
import type { CodeVersion } from "./version.ts";

const FORMAT = "espalier-checkpoint-1", MAX_MANIFEST = 2 ** 28;

/** A file of a checkpoint, beside the manifest. */
export interface ManifestFile {
  name: string;
  bytes: number;
  sha256: string;
}

/** What a manifest says. */
export interface Manifest {
  step: number;
  files: ManifestFile[];
  /** The state that is no tensor. */
  state: unknown;
  /** The run's config, and the code that wrote the checkpoint. */
  config: unknown;
  version: CodeVersion;
}

/** The path of the manifest of a step: that of the checkpoint. */
export function checkpointPath(folder: string, step: number): string {
  return `${folder}/ckpts/${checkpointName(step)}.json`;
}

/** What the names of a step's files begin with. */
export function checkpointName(step: number): string {
  return `step${String(step).padStart(7, "0")}`;
}

/** The step that a file of `ckpts` belongs to, and whether it is the manifest; null for a file that is none of a checkpoint's. */
export function stepOfFile(name: string): { step: number; manifest: boolean } | null {
  const [, step, rest] = name.match(/^step(\d{7,})(\.json|[.-].*safetensors)$/) ?? [];
  return step === undefined ? null : { step: Number(step), manifest: rest === ".json" };
}

/** A SHA-256 that takes bytes as they come. */
export function sha256(): Hash {
  return createHash("sha256");
}

function hashOf(text: string): string {
  return sha256().update(text).digest("hex");
}

/** A manifest as text. Throws where its state holds a number that JSON has not: it would come back as another. */
export function formatManifest(manifest: Manifest): string {
  const check = (key: string, value: unknown): unknown => {
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new RangeError(`Cannot write a checkpoint: ${key} of its state is ${value}, it must be finite`);
    }
    return value;
  };
  const lines = Object.entries({ format: FORMAT, ...manifest }).map(([key, value]) =>
    `${JSON.stringify(key)}: ${JSON.stringify(value ?? null, check)}`
  );
  const body = `{\n${lines.join(",\n")}`;
  return `${body},\n"sha256": "${hashOf(body)}"\n}\n`;
}

/** Reads a manifest and checks it to the bit. */
export function readManifest(path: string): Manifest {
  return parseManifest(readBytes(path, MAX_MANIFEST), path);
}

/** What `bytes`, a whole manifest, say; `path` is what messages call it. */
export function parseManifest(bytes: Uint8Array, path: string): Manifest {
  const fault = (what: string): Error => new Error(`Cannot read ${path}: ${what}; the checkpoint is damaged`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    if (cause instanceof TypeError) throw fault("it is not UTF-8");
    throw cause;
  }
  const [, body, hash] = text.match(/^([\s\S]*),\n"sha256": "([0-9a-f]{64})"\n\}\n$/) ?? [];
  if (body === undefined) throw fault("its end is not that of a checkpoint's manifest");
  if (hashOf(body) !== hash) throw fault("its SHA-256 is not the one it says");
  const manifest = JSON.parse(`${body}}`);
  if (!isObject(manifest) || manifest.format !== FORMAT) {
    throw new Error(`Cannot read ${path}: its format is ${JSON.stringify(manifest.format)}, it must be ${JSON.stringify(FORMAT)}`);
  }
  return manifest as unknown as Manifest;
}

/** Throws unless the files of a manifest, in `folder`, are what it says to the bit. */
export function verifyFiles(folder: string, { files }: Manifest): void {
  for (const { name, bytes, sha256: want } of files) {
    const path = `${folder}/${name}`, fault = (what: string): Error => new Error(`Cannot read ${path}: ${what}; the checkpoint is damaged`);
    if (/[/\\]/.test(name)) throw fault("its name leads out of the folder");
    let file: Deno.FsFile;
    try {
      file = Deno.openSync(path);
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) throw fault("there is no such file");
      throw fault((cause as Error).message);
    }
    using opened = file;
    const { size } = opened.statSync(), hash = sha256(), chunk = new Uint8Array(Math.min(Math.max(bytes, 1), 4 * 2 ** 20));
    if (size !== bytes) throw fault(`it has ${size} bytes, its manifest says ${bytes}`);
    for (let count = opened.readSync(chunk); count; count = opened.readSync(chunk)) hash.update(chunk.subarray(0, count));
    if (hash.digest("hex") !== want) throw fault("its SHA-256 is not the one its manifest says");
  }
}
