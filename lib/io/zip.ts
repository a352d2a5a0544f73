/** Reading zip archives that strangers may have made: stored and deflated entries, of any size (zip64). */
import { constants, crc32, inflateRawSync } from "node:zlib";
import { quote } from "./read.ts";

/** One entry, still packed. */
export interface ZipEntry {
  name: string;
  /** Bytes when unpacked, as the archive declares; never more than its packed bytes can hold. */
  size: number;
  packed: Uint8Array;
  deflated: boolean;
  crc: number;
}

const END_MAGIC = 0x06054b50;
const CENTRAL_MAGIC = 0x02014b50;
const LOCAL_MAGIC = 0x04034b50;
const END64_MAGIC = 0x06064b50;
const LOCATOR_MAGIC = 0x07064b50;
const END_BYTES = 22;
const END64_BYTES = 56;
const LOCATOR_BYTES = 20;
const FULL = 0xffffffff; // the value is in a zip64 record
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const KNOWN_FLAGS = 0x080e; // how hard the packer tried, sizes that follow the data, names in UTF-8
const MAX_RATIO = 1032; // the most that deflate can do
const PEEK_BYTES = 4096;

/**
 * The entries of an archive; nothing is unpacked. `name` is what messages call it. Throws an `Error` where the directory is damaged,
 * entries overlap or share a name, one is encrypted or packed in another way, or declares more bytes than deflate could make of it.
 */
export function readZip(bytes: Uint8Array, name: string): ZipEntry[] {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { start, end, count } = findDirectory(view, fault);

  const entries: ZipEntry[] = [], names = new Set<string>(), spans: [number, number][] = [];
  let at = start;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL_BYTES > end || view.getUint32(at, true) !== CENTRAL_MAGIC) throw fault(`directory entry ${i} is damaged`);
    const nameBytes = view.getUint16(at + 28, true);
    const next = at + CENTRAL_BYTES + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (next > end) throw fault(`directory entry ${i} is damaged`);
    const rawName = bytes.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes);
    const entryName = new TextDecoder().decode(rawName);
    const of = `entry ${quote(entryName)}`;
    if (names.has(entryName)) throw fault(`${of} is given twice`);
    names.add(entryName);

    const flags = view.getUint16(at + 8, true), method = view.getUint16(at + 10, true);
    const wide = wideValues(view, at, fault), local = wide.at(view.getUint32(at + 42, true), 2);
    const unpacked = wide.at(view.getUint32(at + 24, true), 0), packedBytes = wide.at(view.getUint32(at + 20, true), 1);
    if (flags & ~KNOWN_FLAGS) throw fault(`${of} is encrypted or uses another extension, its flags are ${flags}`);
    if (method !== 0 && method !== 8) throw fault(`${of} is packed by method ${method}, it must be stored (0) or deflated (8)`);
    if (method === 0 ? unpacked !== packedBytes : unpacked > packedBytes * MAX_RATIO) {
      throw fault(`${of} declares ${unpacked} bytes, its ${packedBytes} packed bytes cannot hold that`);
    }
    const data = dataStart(view, bytes, local, rawName, start);
    if (data < 0 || data + packedBytes > start) throw fault(`${of} does not lie in the archive`);
    spans.push([local, data + packedBytes]);
    const packed = bytes.subarray(data, data + packedBytes);
    entries.push({ name: entryName, size: unpacked, packed, deflated: method === 8, crc: view.getUint32(at + 16, true) });
    at = next;
  }
  if (at !== end) throw fault(`its directory has ${end - at} bytes too many`);
  spans.sort((a, b) => a[0] - b[0]);
  if (spans.some(([from], i) => i > 0 && from < spans[i - 1][1])) throw fault("two of its entries overlap");
  return entries;
}

/** Where the directory lies, and how many entries it has: from the end record, or from the zip64 one before it. */
function findDirectory(view: DataView, fault: (what: string) => Error): { start: number; end: number; count: number } {
  const end = findEnd(view);
  if (end < 0) throw fault("it has no zip directory at its end; is it cut off?");
  const count = view.getUint16(end + 10, true), size = view.getUint32(end + 12, true), start = view.getUint32(end + 16, true);
  const split = (): Error => fault("it is one part of a split archive");
  if (view.getUint32(end + 4, true) !== 0 || view.getUint16(end + 8, true) !== count) throw split();
  const found = { start, size, count, end }, locator = end - LOCATOR_BYTES;
  if (locator >= 0 && view.getUint32(locator, true) === LOCATOR_MAGIC) {
    const at = Number(view.getBigUint64(locator + 8, true));
    if (
      at + END64_BYTES > locator || view.getUint32(at, true) !== END64_MAGIC ||
      at + 12 + Number(view.getBigUint64(at + 4, true)) !== locator
    ) {
      throw fault("its zip64 record is damaged");
    }
    const value = (offset: number): number => Number(view.getBigUint64(at + offset, true));
    if (view.getUint32(locator + 4, true) !== 0 || view.getBigUint64(at + 16, true) !== 0n || value(24) !== value(32)) throw split();
    Object.assign(found, { count: value(32), size: value(40), start: value(48), end: at });
  } else if (count === 0xffff || size === FULL || start === FULL) {
    throw fault("its zip64 record is missing, an archive above 4 GiB must have one");
  }
  if (found.start + found.size !== found.end) {
    throw fault(`its directory ends at byte ${found.start + found.size}, it must end at ${found.end}`);
  }
  if (found.count * CENTRAL_BYTES > found.size) throw fault(`its directory has ${found.size} bytes, its ${found.count} entries take more`);
  return found;
}

/** The values of a directory entry that do not fit 32 bits: they stand in a record of their own, in the order unpacked, packed, local. */
function wideValues(view: DataView, at: number, fault: (what: string) => Error): { at(value: number, place: 0 | 1 | 2): number } {
  const full = [24, 20, 42].map((offset) => view.getUint32(at + offset, true) === FULL);
  return {
    at(value, place) {
      if (!full[place]) return value;
      let from = at + CENTRAL_BYTES + view.getUint16(at + 28, true);
      const end = from + view.getUint16(at + 30, true), skip = 8 * full.slice(0, place).filter(Boolean).length;
      for (let size = 0; from + 4 <= end; from += 4 + size) {
        size = view.getUint16(from + 2, true);
        if (view.getUint16(from, true) === 1 && skip + 8 <= size && from + 4 + size <= end) {
          return Number(view.getBigUint64(from + 4 + skip, true));
        }
      }
      throw fault("an entry's zip64 record is missing, what is above 4 GiB must have one");
    },
  };
}

/** Where the end record is: the last place where its comment reaches just to the end of the archive; or -1. */
function findEnd(view: DataView): number {
  const last = view.byteLength - END_BYTES;
  for (let at = last; at >= Math.max(0, last - 0xffff); at--) {
    if (view.getUint32(at, true) === END_MAGIC && at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) return at;
  }
  return -1;
}

/** Where the data behind the local header at `at` begin, or -1 where there is no such header with the entry's name. */
function dataStart(view: DataView, bytes: Uint8Array, at: number, name: Uint8Array, limit: number): number {
  if (at + LOCAL_BYTES > limit || view.getUint32(at, true) !== LOCAL_MAGIC) return -1;
  const nameBytes = view.getUint16(at + 26, true);
  const start = at + LOCAL_BYTES;
  const same = nameBytes === name.length && name.every((byte, i) => bytes[start + i] === byte);
  return same ? start + nameBytes + view.getUint16(at + 28, true) : -1;
}

/** The first bytes of an entry, some thousand of them or all; the checksum is not looked at. */
export function peekEntry(entry: ZipEntry, name: string): Uint8Array<ArrayBuffer> {
  const some = entry.packed.subarray(0, PEEK_BYTES);
  return entry.deflated ? inflate(entry, name, some, PEEK_BYTES * MAX_RATIO) : new Uint8Array(some);
}

/** Unpacks an entry, never to more than its declared size, and checks its size and CRC. `name` is what messages call the archive. */
export function unpackEntry(entry: ZipEntry, name: string): Uint8Array<ArrayBuffer> {
  const out = entry.deflated ? inflate(entry, name, entry.packed, Math.max(1, entry.size)) : new Uint8Array(entry.packed);
  if (out.length !== entry.size) {
    throw new Error(`Cannot read ${name}: entry ${quote(entry.name)} unpacks to ${out.length} bytes, it declares ${entry.size}`);
  }
  if (crc32(out) !== entry.crc) throw new Error(`Cannot read ${name}: entry ${quote(entry.name)} is damaged, its checksum differs`);
  return out;
}

function inflate(entry: ZipEntry, name: string, packed: Uint8Array, most: number): Uint8Array<ArrayBuffer> {
  try {
    const finishFlush = packed.length < entry.packed.length ? constants.Z_SYNC_FLUSH : constants.Z_FINISH;
    const out = inflateRawSync(packed, { maxOutputLength: most, finishFlush });
    return new Uint8Array(out.buffer as ArrayBuffer, out.byteOffset, out.length);
  } catch (cause) {
    throw new Error(`Cannot read ${name}: entry ${quote(entry.name)} does not unpack (${(cause as Error).message})`, { cause });
  }
}
