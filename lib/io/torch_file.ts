/**
 * PyTorch's files (`torch.save`, since version 1.6): a zip archive with one pickle and the bytes of every storage. Nothing in them is run: the
 * reader knows how to make tensors and refuses a file that wants anything else.
 */
import { mapFile } from "../../ffi/mmap.ts";
import { crc32 } from "node:zlib";
import { calledName, type PickleValue, readPickle } from "./pickle.ts";
import { quote } from "./read.ts";
import { SAFETENSORS_ITEM_BYTES, type SafetensorsDtype, type StoredTensor } from "./safetensors.ts";
import { readZip, type ZipEntry } from "./zip.ts";

/** What a file holds. */
export interface TorchContent {
  /** Tensors by name; those of dictionaries in dictionaries have names joined by dots. Bytes are views of the file where they can be. */
  tensors: Map<string, StoredTensor>;
  /** Numbers, texts and truth values, named likewise; a list's entries by their place. */
  values: Map<string, number | bigint | string | boolean | null>;
}

/** An open file. Leaving a `using` block closes it. */
export interface TorchFile extends TorchContent, Disposable {
  /** Unmaps; the `bytes` of every tensor become empty. */
  close(): void;
}

const DTYPES: Record<string, SafetensorsDtype> = {
  ...{ DoubleStorage: "F64", FloatStorage: "F32", HalfStorage: "F16", BFloat16Storage: "BF16" },
  ...{ LongStorage: "I64", IntStorage: "I32", ShortStorage: "I16", CharStorage: "I8", ByteStorage: "U8", BoolStorage: "BOOL" },
};

/** Names inside names, values that are looked at, and characters of a name. */
const MAX_DEPTH = 32, MAX_VALUES = 1_000_000, MAX_NAME = 1000;
/** Tensors that do not lie in order are copied: in all at most so many times the file. */
const MAX_COPIED = 4;

/** A storage: the bytes of a file, seen by one or more tensors. */
class Storage {
  constructor(readonly dtype: SafetensorsDtype, readonly bytes: Uint8Array<ArrayBuffer>) {}
}

/** A tensor as the pickle describes it. */
class View {
  constructor(readonly storage: Storage, readonly offset: number, readonly shape: number[], readonly stride: number[]) {}
}

/** Opens a `.pt` or `.pth` file; the file is mapped. Throws an `Error` naming the file. */
export function openTorchFile(path: string): TorchFile {
  const map = mapFile(path), close = (): void => map.close();
  try {
    return { ...parseTorchFile(map.bytes, path), close, [Symbol.dispose]: close };
  } catch (error) {
    close();
    throw error;
  }
}

/** What `bytes`, a whole file, hold; `name` is what messages call it. */
export function parseTorchFile(bytes: Uint8Array<ArrayBuffer>, name: string): TorchContent {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  if (bytes.length < 4 || bytes[0] !== 0x50 || bytes[1] !== 0x4b) {
    const advice = bytes[0] === 0x80 ? "PyTorch before 1.6 wrote such files: load and save it there once more" : "is it one of torch.save?";
    throw fault(`it is no zip archive; ${advice}`);
  }
  const entries = new Map(readZip(bytes, name).map((entry) => [entry.name, entry]));
  const pickles = [...entries.keys()].filter((key) => /^[^/]+\/data\.pkl$/.test(key));
  if (pickles.length !== 1) throw fault(`it has ${pickles.length} entries like archive/data.pkl, it must have one`);
  const root = pickles[0].slice(0, -"data.pkl".length), order = entries.get(`${root}byteorder`);
  if (order && new TextDecoder().decode(stored(order, name)) !== "little") throw fault("its byte order is not little");

  const storages = new Map<string, Storage>();
  const persistent = (id: PickleValue): Storage => {
    const [kind, type, key, , count] = Array.isArray(id) ? id : [];
    const dtype = DTYPES[calledName(type)?.match(/^torch\.(\w+)$/)?.[1] ?? ""];
    if (kind !== "storage" || !dtype || typeof key !== "string" || !isCount(count)) {
      throw fault("a storage of its pickle is not described as one");
    }
    const known = storages.get(key);
    if (known) {
      if (known.dtype !== dtype) throw fault(`storage ${quote(key)} is ${known.dtype} and ${dtype}, it must be of one kind`);
      return known;
    }
    const entry = entries.get(`${root}data/${key}`);
    if (!entry) throw fault(`storage ${quote(key)} is not in the archive`);
    const want = count * SAFETENSORS_ITEM_BYTES[dtype];
    if (entry.size !== want) throw fault(`storage ${quote(key)} has ${entry.size} bytes, ${count} of ${dtype} take ${want}`);
    const made = new Storage(dtype, stored(entry, name));
    storages.set(key, made);
    return made;
  };
  const rebuild = (storage: PickleValue, offset: PickleValue, shape: PickleValue, stride: PickleValue): View => {
    if (!(storage instanceof Storage) || !isCount(offset) || !isCounts(shape) || !isCounts(stride) || shape.length !== stride.length) {
      throw fault("a tensor of its pickle is not described as one");
    }
    return new View(storage, offset, shape, stride);
  };
  const forbidden = (what: string) => (): never => {
    throw fault(`its pickle calls ${what}`);
  };
  const content = readPickle(stored(entries.get(pickles[0])!, name), name, {
    persistent,
    functions: {
      ...Object.fromEntries(Object.keys(DTYPES).map((type) => [`torch.${type}`, forbidden(type)])),
      "collections.OrderedDict": () => new Map(),
      "torch._utils._rebuild_tensor_v2": rebuild,
      "torch._utils._rebuild_parameter": (data) => {
        if (!(data instanceof View)) throw fault("a parameter of its pickle is no tensor");
        return data;
      },
    },
  });
  return flatten(content, bytes.length, fault);
}

/** The bytes of an entry that torch.save wrote: as they are, never packed. */
function stored(entry: ZipEntry, name: string): Uint8Array<ArrayBuffer> {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: entry ${quote(entry.name)} is ${what}`);
  if (entry.deflated) throw fault("deflated, it must be stored, as torch.save does");
  if (crc32(entry.packed) !== entry.crc) throw fault("damaged, its checksum differs");
  return entry.packed as Uint8Array<ArrayBuffer>;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= 64 && value.every(isCount);
}

function flatten(content: PickleValue, fileBytes: number, fault: (what: string) => Error): TorchContent {
  const out: TorchContent = { tensors: new Map(), values: new Map() };
  let looked = 0, copied = 0;
  const visit = (value: PickleValue, path: string, depth: number): void => {
    if (++looked > MAX_VALUES) throw fault(`it has more than ${MAX_VALUES} values`);
    if (path.length > MAX_NAME) throw fault(`the name ${quote(path)} has more than ${MAX_NAME} characters`);
    if (depth > MAX_DEPTH) throw fault(`its dictionaries are nested deeper than ${MAX_DEPTH}`);
    if (value instanceof View) {
      if (out.tensors.has(path)) throw fault(`two of its tensors are called ${quote(path)}`);
      const { tensor, copy } = contiguous(value, path, (MAX_COPIED * fileBytes) - copied, fault);
      copied += copy;
      out.tensors.set(path, tensor);
    } else if (value instanceof Map || Array.isArray(value)) {
      for (const [key, inner] of value instanceof Map ? value : value.entries()) {
        if (typeof key !== "string" && typeof key !== "number") throw fault("a key of its dictionaries is neither a text nor a number");
        visit(inner, path ? `${path}.${key}` : `${key}`, depth + 1);
      }
    } else if (value === null || ["number", "bigint", "string", "boolean"].includes(typeof value)) {
      out.values.set(path, value as string);
    } else throw fault(`${quote(path)} is neither a tensor nor a number, text, list or dictionary`);
  };
  visit(content, "", 0);
  return out;
}

/** A tensor's elements in order: a view of the storage where they lie so, else a copy of at most `room` bytes. */
function contiguous(
  { storage: { dtype, bytes }, offset, shape, stride }: View,
  path: string,
  room: number,
  fault: (what: string) => Error,
): { tensor: StoredTensor; copy: number } {
  const item = SAFETENSORS_ITEM_BYTES[dtype],
    of = `tensor ${quote(path)}`,
    count = shape.includes(0) ? 0 : shape.reduce((a, b) => a * b, 1);
  const last = count ? shape.reduce((sum, extent, i) => sum + (extent - 1) * stride[i], offset) : 0, held = bytes.length / item;
  if (count && !(last < held)) throw fault(`${of} reaches to element ${last} of a storage of ${held}`);
  if (count > held) throw fault(`${of} has ${count} elements of a storage of ${held}: an expanded tensor must be saved as a whole one`);
  let run = 1, inOrder = true;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] > 1 && stride[i] !== run) inOrder = false;
    run *= shape[i];
  }
  if (inOrder || !count) {
    return { tensor: { dtype, shape, bytes: count ? bytes.subarray(offset * item, (offset + count) * item) : new Uint8Array() }, copy: 0 };
  }
  if (count * item > room) throw fault(`${of} and others that do not lie in order take more than ${MAX_COPIED} times the file`);
  const out = new Uint8Array(count * item), index = new Array(shape.length).fill(0);
  for (let n = 0, from = offset; n < count; n++) {
    for (let b = 0; b < item; b++) out[n * item + b] = bytes[from * item + b];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += stride[axis];
      if (++index[axis] < shape[axis]) break;
      from -= shape[axis] * stride[axis];
      index[axis] = 0;
    }
  }
  return { tensor: { dtype, shape, bytes: out }, copy: out.length };
}
