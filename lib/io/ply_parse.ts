/**
 * PLY, ascii or binary of either byte order: a text header that lists elements and their properties, then the rows of each element.
 * A property is one number a row, or a list: a count, then so many numbers.
 */
import { quote } from "./read.ts";

/** A column of numbers, in the type that the file declares. */
export type PlyColumn =
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>;

/** A column of lists: row i has `values[offsets[i]]` to before `values[offsets[i + 1]]`. */
export interface PlyLists {
  /** [count + 1] */
  offsets: Uint32Array<ArrayBuffer>;
  values: PlyColumn;
}

/** One element: so many rows, its properties by name. */
export interface PlyElement {
  count: number;
  columns: Record<string, PlyColumn>;
  lists: Record<string, PlyLists>;
}

/** The content of a file. */
export interface Ply {
  comments: string[];
  elements: Record<string, PlyElement>;
}

/** One number type: how it is stored and read. */
interface Scalar {
  bytes: number;
  array: new (of: number | number[]) => PlyColumn;
  get(view: DataView, at: number, little: boolean): number;
}

const INT8: Scalar = { bytes: 1, array: Int8Array, get: (view, at) => view.getInt8(at) };
const UINT8: Scalar = { bytes: 1, array: Uint8Array, get: (view, at) => view.getUint8(at) };
const INT16: Scalar = { bytes: 2, array: Int16Array, get: (view, at, little) => view.getInt16(at, little) };
const UINT16: Scalar = { bytes: 2, array: Uint16Array, get: (view, at, little) => view.getUint16(at, little) };
const INT32: Scalar = { bytes: 4, array: Int32Array, get: (view, at, little) => view.getInt32(at, little) };
const UINT32: Scalar = { bytes: 4, array: Uint32Array, get: (view, at, little) => view.getUint32(at, little) };
const FLOAT: Scalar = { bytes: 4, array: Float32Array, get: (view, at, little) => view.getFloat32(at, little) };
const DOUBLE: Scalar = { bytes: 8, array: Float64Array, get: (view, at, little) => view.getFloat64(at, little) };
const OLD_NAMES = { char: INT8, uchar: UINT8, short: INT16, ushort: UINT16, int: INT32, uint: UINT32, float: FLOAT, double: DOUBLE };
const NEW_NAMES = { int8: INT8, uint8: UINT8, int16: INT16, uint16: UINT16, int32: INT32, uint32: UINT32, float32: FLOAT, float64: DOUBLE };
const SCALARS: Record<string, Scalar> = { ...OLD_NAMES, ...NEW_NAMES };

interface Property {
  name: string;
  scalar: Scalar;
  /** The type of a list's count; absent where the property is one number. */
  length?: Scalar;
}
interface ElementHeader {
  name: string;
  count: number;
  properties: Property[];
}
interface Header {
  format: string;
  comments: string[];
  elements: ElementHeader[];
  start: number;
}
/** Where rows come from: the numbers of a file, one after the other. */
interface Rows {
  /** The next number; throws at the end. */
  next(scalar: Scalar): number;
  /** The least bytes that one row of these properties takes. */
  least(properties: readonly Property[]): number;
  left(): number;
  mark(): number;
  rewind(mark: number): void;
}

const MAX_HEADER = 1 << 20;
const MAX_WORD = 64;

/** What `bytes`, a whole file, hold; `name` is what messages call it. Counts are checked against the bytes before anything is allocated. */
export function parsePly(bytes: Uint8Array<ArrayBuffer>, name: string): Ply {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  const { format, comments, elements, start } = parseHeader(bytes, fault);
  const body = bytes.subarray(start);
  const rows = format === "ascii" ? asciiRows(body) : binaryRows(body, format === "binary_little_endian");
  const parsed = elements.map((element) => [element.name, readElement(element, rows, fault)] as const);
  if (rows.left() > 0) throw fault(`it has ${rows.left()} bytes after its last row`);
  return { comments, elements: Object.fromEntries(parsed) };
}

function parseHeader(bytes: Uint8Array, fault: (what: string) => Error): Header {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, MAX_HEADER));
  if (!/^ply\r?\n/.test(text)) throw fault("it does not begin with the line ply; is it no PLY file?");
  const end = /\nend_header\r?\n/.exec(text);
  if (!end) throw fault("its header has no end_header line; is it cut off?");
  const elements: ElementHeader[] = [], comments: string[] = [];
  let format = "";
  for (const line of text.slice(4, end.index + 1).split(/\r?\n/)) {
    const [word, ...rest] = line.trim().split(/\s+/);
    if (word === "" || word === "obj_info") continue;
    else if (word === "comment") comments.push(line.trim().slice(8));
    else if (word === "format" && format === "" && rest.length === 2) format = rest[0];
    else if (word === "element" && rest.length === 2 && /^\d+$/.test(rest[1])) {
      if (elements.some((element) => element.name === rest[0])) throw fault(`element ${quote(rest[0])} is declared twice`);
      elements.push({ name: rest[0], count: Number(rest[1]), properties: [] });
    } else if (word === "property" && elements.length > 0) addProperty(elements.at(-1)!, rest, fault);
    else throw fault(`its header line ${quote(line)} is not understood`);
  }
  if (!["ascii", "binary_little_endian", "binary_big_endian"].includes(format)) {
    throw fault(`its format is ${quote(format)}, it must be ascii, binary_little_endian or binary_big_endian`);
  }
  for (const { name, count, properties } of elements) {
    if (count > 0xffffffff) throw fault(`element ${quote(name)} has ${count} rows, it must have fewer than 2^32`);
    if (properties.length === 0 && count > 0) throw fault(`element ${quote(name)} has rows but no property`);
  }
  return { format, comments, elements, start: end.index + end[0].length };
}

function addProperty(element: ElementHeader, words: readonly string[], fault: (what: string) => Error): void {
  const isList = words[0] === "list";
  const types = words.slice(isList ? 1 : 0, -1);
  const name = words.at(-1) ?? "";
  const known = types.every((type) => Object.hasOwn(SCALARS, type));
  if (types.length !== (isList ? 2 : 1) || !known || (isList && /^(float|double)/.test(types[0]))) {
    throw fault(`property ${quote(words.join(" "))} of element ${quote(element.name)} is not understood`);
  }
  if (element.properties.some((property) => property.name === name)) throw fault(`property ${quote(name)} is declared twice`);
  element.properties.push({ name, scalar: SCALARS[types.at(-1)!], length: isList ? SCALARS[types[0]] : undefined });
}

function readElement({ name, count, properties }: ElementHeader, rows: Rows, fault: (what: string) => Error): PlyElement {
  const start = rows.mark();
  try {
    if (count * rows.least(properties) > rows.left()) throw END;
    const totals = properties.some((property) => property.length) ? countLists(properties, count, rows) : [];
    rows.rewind(start);
    const parts = properties.map(({ name, scalar, length }, p) => {
      const values = new scalar.array(length ? totals[p] : count);
      return { name, scalar, length, values, offsets: length && new Uint32Array(count + 1) };
    });
    for (let row = 0; row < count; row++) {
      for (const { scalar, length, values, offsets } of parts) {
        if (!length || !offsets) values[row] = rows.next(scalar);
        else {
          let at = offsets[row];
          offsets[row + 1] = at + rows.next(length);
          while (at < offsets[row + 1]) values[at++] = rows.next(scalar);
        }
      }
    }
    const columns = parts.flatMap(({ name, values, offsets }) => offsets ? [] : [[name, values]]);
    const lists = parts.flatMap(({ name, values, offsets }) => offsets ? [[name, { offsets, values }]] : []);
    return { count, columns: Object.fromEntries(columns), lists: Object.fromEntries(lists) };
  } catch (error) {
    if (error === END) throw fault(`element ${quote(name)} has fewer than its ${count} rows; is it cut off?`);
    throw fault(`element ${quote(name)}: ${(error as Error).message}`);
  }
}

/** How many numbers all lists of each property hold together. */
function countLists(properties: readonly Property[], count: number, rows: Rows): number[] {
  const totals = properties.map(() => 0);
  for (let row = 0; row < count; row++) {
    for (let p = 0; p < properties.length; p++) {
      const { scalar, length } = properties[p];
      const n = length ? rows.next(length) : 1;
      if (n < 0) throw new Error(`row ${row} has a list of ${n} numbers`);
      totals[p] += n;
      for (let i = 0; i < n; i++) rows.next(scalar);
    }
  }
  return totals;
}

const END = new Error("the rows end early");

function binaryRows(body: Uint8Array<ArrayBuffer>, little: boolean): Rows {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  let at = 0;
  return {
    next(scalar) {
      const from = at;
      at += scalar.bytes;
      if (at > body.length) throw END;
      return scalar.get(view, from, little);
    },
    least: (properties) => properties.reduce((sum, { scalar, length }) => sum + (length ?? scalar).bytes, 0),
    left: () => body.length - at,
    mark: () => at,
    rewind: (mark) => at = mark,
  };
}

/** White space must follow the last number too: without it nobody could tell 1.25 from the beginning of 1.257. */
function asciiRows(body: Uint8Array): Rows {
  let at = 0;
  const skipSpace = (): void => {
    while (at < body.length && body[at] <= 0x20) at++;
  };
  return {
    next(scalar) {
      skipSpace();
      const from = at;
      while (at < body.length && body[at] > 0x20) at++;
      if (at === body.length) throw END;
      return parseNumber(String.fromCharCode(...body.subarray(from, Math.min(at, from + MAX_WORD))), scalar);
    },
    least: (properties) => 2 * properties.length,
    left() {
      skipSpace();
      return body.length - at;
    },
    mark: () => at,
    rewind: (mark) => at = mark,
  };
}

function parseNumber(word: string, scalar: Scalar): number {
  const isFloat = scalar === FLOAT || scalar === DOUBLE;
  const special = isFloat ? /^([-+]?)(nan|inf(?:inity)?)$/i.exec(word) : null;
  if (special) return special[2].toLowerCase() === "nan" ? NaN : special[1] === "-" ? -Infinity : Infinity;
  const value = Number(word);
  if (!/^[-+.\d][-+.\de]*$/i.test(word) || !Number.isFinite(value) || word.length === MAX_WORD) {
    throw new Error(`${quote(word)} is no number`);
  }
  if (!isFloat && new scalar.array([value])[0] !== value) throw new Error(`${quote(word)} does not fit its type`);
  return value;
}
