/** NumPy's .npy: a magic word, a Python literal `{'descr', 'fortran_order', 'shape'}`, then the elements, little endian, in C order. */
import { writeFileAtomic } from "./atomic.ts";
import { DEFAULT_MAX_BYTES, quote, readBytes, type Source, sourceName } from "./read.ts";

/** The element type of each dtype; `b1` (bool) is a byte that is 0 or 1. */
export interface NpyData {
  f2: Float16Array<ArrayBuffer>;
  f4: Float32Array<ArrayBuffer>;
  f8: Float64Array<ArrayBuffer>;
  i2: Int16Array<ArrayBuffer>;
  i4: Int32Array<ArrayBuffer>;
  i8: BigInt64Array<ArrayBuffer>;
  u1: Uint8Array<ArrayBuffer>;
  u2: Uint16Array<ArrayBuffer>;
  b1: Uint8Array<ArrayBuffer>;
}

/** A dtype by NumPy's short name. */
export type NpyDtype = keyof NpyData;

/** An array: `data` has one element for each place of `shape`, the last axis fastest. */
export interface NpyArray<D extends NpyDtype = NpyDtype> {
  dtype: D;
  shape: number[];
  data: NpyData[D];
}

/** An array to be written. `dtype` may be left out where it follows from `data`: always, but for `b1`. */
export interface ArrayToWrite {
  shape: readonly number[];
  data: NpyData[NpyDtype];
  dtype?: NpyDtype;
}

/** What `readNpy` accepts. */
export interface ReadNpyOptions {
  /** The most bytes that the file may take in memory. Default 4 GiB. */
  maxBytes?: number;
}

const ARRAYS = {
  f2: Float16Array,
  f4: Float32Array,
  f8: Float64Array,
  i2: Int16Array,
  i4: Int32Array,
  i8: BigInt64Array,
  u1: Uint8Array,
  u2: Uint16Array,
  b1: Uint8Array,
} as const;
const MAX_HEADER = 1 << 16;
const MAX_AXES = 64;

/** Reads an .npy file. Fortran order is turned into C order. Throws an `Error` on anything that is not a whole, plain array. */
export function readNpy(source: Source, { maxBytes = DEFAULT_MAX_BYTES }: ReadNpyOptions = {}): NpyArray {
  return parseNpy(readBytes(source, maxBytes), sourceName(source, "npy"));
}

/** Writes an .npy file, whole or not at all. */
export function writeNpy(path: string, array: ArrayToWrite): void {
  writeFileAtomic(path, encodeNpy(array, path));
}

/** What the header of an .npy file says. */
export interface NpyHeader {
  dtype: NpyDtype;
  shape: number[];
  fortran: boolean;
  /** Bytes of header, which is where the elements begin. */
  start: number;
  /** Bytes of the whole file. */
  bytes: number;
}

/** The header at the start of `bytes`, which may be only the beginning of a file; `name` is what messages call it. */
export function parseNpyHeader(bytes: Uint8Array, name: string): NpyHeader {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 12) throw fault(`it has ${bytes.length} bytes, an npy header has more; is it cut off?`);
  if (String.fromCharCode(...bytes.subarray(0, 6)) !== "\x93NUMPY") throw fault("it does not begin with \\x93NUMPY; is it no npy array?");
  const version = bytes[6];
  if (version < 1 || version > 3) throw fault(`its format version is ${version}, it must be 1, 2 or 3`);
  const start = version === 1 ? 10 + view.getUint16(8, true) : 12 + view.getUint32(8, true);
  if (start > bytes.length || start > MAX_HEADER) {
    throw fault(`its header ends at byte ${start}, there are ${bytes.length}; is it cut off?`);
  }
  const { descr, fortran_order, shape, ...extra } = parseLiteral(
    new TextDecoder("latin1").decode(bytes.subarray(version === 1 ? 10 : 12, start)),
  );
  const order = fortran_order === "True" || fortran_order === "False";
  if (!descr || !order || !shape?.startsWith("(") || Object.keys(extra).length > 0) {
    throw fault("its header must be {'descr': '<..', 'fortran_order': .., 'shape': (..)}; records and objects are not read");
  }
  const dtype = descr.slice(2, -1);
  if (!Object.hasOwn(ARRAYS, dtype) || !["<", dtype.endsWith("1") ? "|" : "<"].includes(descr[1])) {
    throw fault(`its dtype is ${quote(descr.slice(1, -1))}, it must be little endian and one of ${Object.keys(ARRAYS).join(" ")}`);
  }
  const dims = shape.slice(1, -1).split(",").map((n) => n.trim()).filter((n, i, all) => n !== "" || i < all.length - 1);
  const sizes = dims.map((n) => /^\d+$/.test(n) ? Number(n) : NaN);
  if (sizes.length > MAX_AXES) throw fault(`its shape has ${sizes.length} axes, it must have at most ${MAX_AXES}`);
  if (!sizes.every(Number.isSafeInteger)) throw fault(`its shape is ${quote(shape)}, it must be whole numbers`);
  return {
    dtype: dtype as NpyDtype,
    shape: sizes,
    fortran: fortran_order === "True",
    start,
    bytes: start + byteLength(dtype as NpyDtype, sizes),
  };
}

/** The items of a Python dict of words to strings, words and tuples, as they are written; nothing at all where it is anything else. */
function parseLiteral(text: string): Record<string, string> {
  const outer = /^\s*\{(.*)\}\s*$/s.exec(text);
  const items: Record<string, string> = {};
  if (!outer) return items;
  const item = /\s*(["'])(\w+)\1\s*:\s*('[^']*'|"[^"]*"|\w+|\([^()]*\))\s*(?:,\s*|$)/y;
  while (item.lastIndex < outer[1].length) {
    const match = item.exec(outer[1]);
    if (!match || Object.hasOwn(items, match[2])) return {};
    items[match[2]] = match[3];
  }
  return items;
}

/** Elements of a shape; inexact, but then far above what fits, where the product passes 2^53. */
function elements(shape: readonly number[]): number {
  return shape.includes(0) ? 0 : shape.reduce((product, n) => product * n, 1);
}

function byteLength(dtype: NpyDtype, shape: readonly number[]): number {
  return elements(shape) * ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/** The array that `bytes`, a whole .npy file, hold; `name` is what messages call it. A view of `bytes` where they are aligned. */
export function parseNpy(bytes: Uint8Array<ArrayBuffer>, name: string): NpyArray {
  const { dtype, shape, fortran, start, bytes: want } = parseNpyHeader(bytes, name);
  if (want !== bytes.length) {
    throw new Error(`Cannot read ${name}: it has ${bytes.length} bytes, ${dtype} [${shape.join(", ")}] takes ${want}; is it cut off?`);
  }
  const content = bytes.subarray(start);
  const { buffer, byteOffset } = content.byteOffset % ARRAYS[dtype].BYTES_PER_ELEMENT === 0 ? content : new Uint8Array(content);
  const data = new ARRAYS[dtype](buffer, byteOffset, elements(shape));
  if (dtype === "b1") {
    (data as Uint8Array).forEach((value, i) => {
      if (value > 1) throw new Error(`Cannot read ${name}: element ${i} of a bool array is ${value}, it must be 0 or 1`);
    });
  }
  return { dtype, shape, data: fortran ? toC(data, shape) : data };
}

/** Turns the order of elements from first axis fastest to last axis fastest. */
function toC<T extends NpyData[NpyDtype]>(data: T, shape: readonly number[]): T {
  const out = new (data.constructor as new (n: number) => T)(data.length);
  const index = new Array<number>(shape.length).fill(0);
  const strides = shape.map((_, axis) => elements(shape.slice(0, axis)));
  for (let i = 0, from = 0; i < out.length; i++) {
    out[i] = data[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return out;
}

/** The bytes of an .npy file; elements begin at a multiple of 64. `name` is what messages call it. */
export function encodeNpy({ shape, data, dtype = dtypeOf(data) }: ArrayToWrite, name: string): Uint8Array<ArrayBuffer> {
  if (!(data instanceof ARRAYS[dtype])) {
    throw new TypeError(`Cannot write ${name}: its data is ${data.constructor.name}, it must fit dtype ${dtype}`);
  }
  if (!shape.every((n) => Number.isSafeInteger(n) && n >= 0) || elements(shape) !== data.length) {
    throw new Error(`Cannot write ${name}: it has ${data.length} elements, its shape [${shape.join(", ")}] takes another number`);
  }
  const descr = (dtype.endsWith("1") ? "|" : "<") + dtype;
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const start = Math.ceil((10 + header.length + 1) / 64) * 64;
  if (shape.length > MAX_AXES) {
    throw new Error(`Cannot write ${name}: its shape has ${shape.length} axes, it must have at most ${MAX_AXES}`);
  }
  const out = new Uint8Array(start + data.byteLength);
  out.set(new TextEncoder().encode(`?NUMPY\x01\0??${header.padEnd(start - 11)}\n`));
  out[0] = 0x93;
  new DataView(out.buffer).setUint16(8, start - 10, true);
  out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), start);
  return out;
}

function dtypeOf(data: NpyData[NpyDtype]): NpyDtype {
  const found = Object.entries(ARRAYS).find(([, array]) => data instanceof array);
  if (!found) throw new TypeError("Cannot write an array: its data is no array of a known dtype");
  return found[0] as NpyDtype;
}

/** Throws where an element of `data` is NaN or infinite; `name` is what the message calls the array. */
export function assertFinite(name: string, data: Float16Array | Float32Array | Float64Array): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i])) throw new Error(`Cannot use ${name}: element ${i} is ${data[i]}, all must be finite`);
  }
}
