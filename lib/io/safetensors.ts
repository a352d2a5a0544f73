/**
 * Safetensors: 8 bytes of header length (little endian), a JSON header `{name: {dtype, shape, data_offsets}}`, then the bytes of
 * all tensors without a gap. Reading maps the file; nothing is copied until it is used.
 */
import { mapFile } from "../../ffi/mmap.ts";
import { writeFileAtomic } from "./atomic.ts";
import { isObject, parseJsonObject } from "./json.ts";
import { quote, readBytes } from "./read.ts";

/** Bytes of one element of each dtype. */
export const SAFETENSORS_ITEM_BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 } as const;

/** A dtype by its name in the file. */
export type SafetensorsDtype = keyof typeof SAFETENSORS_ITEM_BYTES;

/** One tensor of a file. */
export interface StoredTensor {
  dtype: SafetensorsDtype;
  shape: number[];
  /** Its elements, little endian, as a view of the file: see `bytesToF32`. Not always aligned to the element. */
  bytes: Uint8Array<ArrayBuffer>;
}

/** The content of a file. */
export interface SafetensorsContent {
  metadata: Record<string, string>;
  /** By name, in the order of their bytes. */
  tensors: Map<string, StoredTensor>;
}

/** An open file, or an open set of shards. Leaving a `using` block closes it. */
export interface SafetensorsFile extends SafetensorsContent, Disposable {
  /** Unmaps; the `bytes` of every tensor become empty. */
  close(): void;
}

const MAX_HEADER = 100_000_000;
const MAX_INDEX = 100_000_000;

/**
 * Opens one `.safetensors` file, a `.safetensors.index.json` with the shards beside it, or a list of shards.
 * Everything in the file is checked before the first tensor is handed out: header, names, shapes, and that the tensors tile the data
 * exactly. Throws an `Error` naming the file and the tensor.
 */
export function openSafetensors(path: string | readonly string[]): SafetensorsFile {
  if (typeof path !== "string") return openShards(path);
  return path.endsWith(".index.json") ? openIndex(path) : openShards([path]);
}

/** `admit` may throw at a tensor and the shard that it was found in. */
function openShards(paths: readonly string[], admit?: (name: string, path: string) => void): SafetensorsFile {
  const maps: Disposable[] = [];
  const close = (): void => maps.forEach((map) => map[Symbol.dispose]());
  const metadata: Record<string, string> = {};
  const tensors = new Map<string, StoredTensor>();
  try {
    for (const path of paths) {
      const map = mapFile(path);
      maps.push(map);
      const shard = parseSafetensors(map.bytes, path);
      Object.assign(metadata, shard.metadata);
      for (const [name, tensor] of shard.tensors) {
        if (tensors.has(name)) throw new Error(`Cannot read ${path}: tensor ${quote(name)} is in an earlier shard too`);
        admit?.(name, path);
        tensors.set(name, tensor);
      }
    }
  } catch (error) {
    close();
    throw error;
  }
  return { metadata, tensors, close, [Symbol.dispose]: close };
}

function openIndex(path: string): SafetensorsFile {
  const shardOf = parseWeightMap(readBytes(path, MAX_INDEX), path);
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  const shards = [...new Set(shardOf.values())].map((shard) => folder + shard);
  const file = openShards(shards, (name, shard) => {
    const want = shardOf.get(name);
    if (want === undefined) throw new Error(`Cannot read ${shard}: tensor ${quote(name)} is not in the index ${path}`);
    if (folder + want !== shard) throw new Error(`Cannot read ${shard}: tensor ${quote(name)} is here, the index has it in ${want}`);
  });
  const missing = [...shardOf].find(([name]) => !file.tensors.has(name));
  if (!missing) return file;
  file.close();
  throw new Error(`Cannot read ${path}: tensor ${quote(missing[0])} is not in ${missing[1]}, where the index has it`);
}

/** Which shard has which tensor, from `bytes`, a whole index; `path` is what messages call it. A shard is a file beside the index. */
export function parseWeightMap(bytes: Uint8Array, path: string): Map<string, string> {
  let index: Record<string, unknown>;
  try {
    index = parseJsonObject(bytes);
  } catch (cause) {
    throw new Error(`Cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
  if (!isObject(index.weight_map)) throw new Error(`Cannot read ${path}: it has no weight_map, it must map tensor names to shard files`);
  const shardOf = new Map<string, string>();
  for (const [name, shard] of Object.entries(index.weight_map)) {
    if (typeof shard !== "string" || !/^[^/\\\0]+\.safetensors$/.test(shard)) {
      const got = typeof shard === "string" ? quote(shard) : typeof shard;
      throw new Error(`Cannot read ${path}: the shard of tensor ${quote(name)} is ${got}, it must be a plain *.safetensors file name`);
    }
    shardOf.set(name, shard);
  }
  return shardOf;
}

/** What `bytes`, a whole file, hold, as views of them; `name` is what messages call it. Checks all that `openSafetensors` does. */
export function parseSafetensors(bytes: Uint8Array<ArrayBuffer>, name: string): SafetensorsContent {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  if (bytes.length < 8) throw fault(`it has ${bytes.length} bytes, it must have at least 8; is it cut off?`);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER || length > bytes.length - 8) {
    throw fault(
      `its header length is ${length}, it must be at most ${
        Math.min(MAX_HEADER, bytes.length - 8)
      }; is it cut off, or no safetensors file?`,
    );
  }
  const dataStart = 8 + Number(length);
  if (bytes[8] !== 0x7b) throw fault("its header does not begin with {; is it no safetensors file?");
  let header: Record<string, unknown>;
  try {
    header = parseJsonObject(bytes.subarray(8, dataStart));
  } catch (cause) {
    throw new Error(`Cannot read ${name}: of its header, ${(cause as Error).message}`, { cause });
  }

  const { __metadata__: metadata = {}, ...entries } = header;
  if (!isObject(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
    throw fault("its __metadata__ is not an object of strings");
  }
  const data = bytes.subarray(dataStart);
  const found = Object.entries(entries).map(([key, entry]) => readEntry(key, entry, data, fault));
  found.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  for (const tensor of found) {
    if (tensor.begin !== end) {
      throw fault(`tensor ${quote(tensor.name)} begins at byte ${tensor.begin} of the data, it must begin at ${end}: no gap, no overlap`);
    }
    end = tensor.end;
  }
  if (end !== data.length) throw fault(`its tensors fill ${end} bytes, the file has ${data.length} for them`);
  return {
    metadata: Object.fromEntries(Object.entries(metadata)) as Record<string, string>,
    tensors: new Map(found.map((t) => [t.name, { dtype: t.dtype, shape: t.shape, bytes: data.subarray(t.begin, t.end) }])),
  };
}

interface Entry {
  name: string;
  dtype: SafetensorsDtype;
  shape: number[];
  begin: number;
  end: number;
}

function readEntry(name: string, entry: unknown, data: Uint8Array, fault: (what: string) => Error): Entry {
  const of = `of tensor ${quote(name)}`;
  if (!isObject(entry)) throw fault(`the entry ${of} is not an object`);
  const extra = Object.keys(entry).find((key) => key !== "dtype" && key !== "shape" && key !== "data_offsets");
  if (extra !== undefined) throw fault(`the entry ${of} has ${quote(extra)}, it must have dtype, shape and data_offsets only`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isDtype(dtype)) {
    throw fault(`the dtype ${of} is ${quote(String(dtype))}, it must be one of ${Object.keys(SAFETENSORS_ITEM_BYTES).join(" ")}`);
  }
  if (!isCounts(shape)) throw fault(`the shape ${of} is not a list of whole numbers from 0`);
  if (!isCounts(offsets) || offsets.length !== 2) throw fault(`the data_offsets ${of} are not two whole numbers from 0`);
  const [begin, end] = offsets;
  if (begin > end || end > data.length) {
    throw fault(`the data_offsets ${of} are ${begin} and ${end}, they must rise and stay within ${data.length}; is the file cut off?`);
  }
  const want = byteLength(dtype, shape);
  if (want !== end - begin) throw fault(`the bytes ${of} are ${end - begin}, its shape [${quoteShape(shape)}] of ${dtype} takes ${want}`);
  return { name, dtype, shape, begin, end };
}

function isDtype(value: unknown): value is SafetensorsDtype {
  return typeof value === "string" && Object.hasOwn(SAFETENSORS_ITEM_BYTES, value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** Bytes of a tensor; inexact, but then far above any file, where the product passes 2^53. */
function byteLength(dtype: SafetensorsDtype, shape: readonly number[]): number {
  return shape.includes(0) ? 0 : shape.reduce((product, n) => product * n, SAFETENSORS_ITEM_BYTES[dtype]);
}

function quoteShape(shape: readonly number[]): string {
  return shape.slice(0, 16).join(", ") + (shape.length > 16 ? ", ..." : "");
}

/** A tensor to be written. */
export interface TensorToWrite {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  /** Its elements, little endian; a function is called when their turn comes, so that one tensor, or one chunk of it, need be in memory. */
  bytes: Uint8Array | (() => Uint8Array | Iterable<Uint8Array>);
}

/**
 * Writes a file tensor by tensor, whole or not at all (`writeFileAtomic`). Wide elements come first, so that every tensor is aligned;
 * tensors of one width keep their order. Equal arguments give equal bytes.
 */
export function writeSafetensors(path: string, tensors: Iterable<TensorToWrite>, metadata: Record<string, string> = {}): void {
  writeFileAtomic(path, safetensorsChunks(path, tensors, metadata));
}

/** The bytes that {@linkcode writeSafetensors} writes, chunk by chunk; `path` is what messages call them. */
export function safetensorsChunks(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Record<string, string> = {},
): Iterable<Uint8Array> {
  const list = [...tensors].sort((a, b) => SAFETENSORS_ITEM_BYTES[b.dtype] - SAFETENSORS_ITEM_BYTES[a.dtype]);
  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  const names = new Set(["__metadata__"]);
  let end = 0;
  for (const { name, dtype, shape } of list) {
    if (names.has(name)) throw new Error(`Cannot write ${path}: the tensor name ${quote(name)} is taken, names must differ`);
    if (!isCounts(shape)) {
      throw new Error(`Cannot write ${path}: the shape of tensor ${quote(name)} is [${shape}], it must be whole numbers from 0`);
    }
    names.add(name);
    const begin = end;
    end += byteLength(dtype, shape);
    header.push([name, { dtype, shape, data_offsets: [begin, end] }]);
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > MAX_HEADER) throw new Error(`Cannot write ${path}: its header has ${padded} bytes, it must have at most ${MAX_HEADER}`);
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  return chunks(head, list);
}

function* chunks(head: Uint8Array, list: readonly TensorToWrite[]): Generator<Uint8Array> {
  yield head;
  for (const { name, dtype, shape, bytes } of list) {
    const data = typeof bytes === "function" ? bytes() : bytes, want = byteLength(dtype, shape);
    let got = 0;
    for (const chunk of data instanceof Uint8Array ? [data] : data) {
      got += chunk.length;
      yield chunk;
    }
    if (got !== want) throw new Error(`tensor ${quote(name)} has ${got} bytes, its shape [${quoteShape(shape)}] of ${dtype} takes ${want}`);
  }
}
