/** NumPy's .npz: a zip archive of .npy arrays. */
import { zipSync } from "fflate";
import { writeFileAtomic } from "./atomic.ts";
import { type ArrayToWrite, encodeNpy, type NpyArray, type NpyDtype, type NpyHeader, parseNpy, parseNpyHeader } from "./npy.ts";
import { DEFAULT_MAX_BYTES, quote, readBytes, type Source, sourceName } from "./read.ts";
import { peekEntry, readZip, unpackEntry, type ZipEntry } from "./zip.ts";

/** What an array must be. */
export interface ArraySpec {
  dtypes: readonly NpyDtype[];
  /** A number stands for itself, a name for any size that is the same wherever the name stands: `["N", 3]`. */
  shape: readonly (number | string)[];
}

/** What `readNpz` accepts. */
export interface ReadNpzOptions {
  /** The most bytes that the file, and the arrays read from it, may take in memory. Default 4 GiB. */
  maxBytes?: number;
}

/** What `readNpz` accepts where the caller knows which arrays it wants. */
export interface WantedArrays<W> extends ReadNpzOptions {
  want: W;
}

/**
 * Reads arrays of an .npz file: those that `want` names, with the dtypes and shapes that it says; without it all of them.
 * Sizes, dtypes and shapes are checked before anything is unpacked, checksums after. Throws an `Error` naming the file and the array.
 */
export function readNpz<const W extends Record<string, ArraySpec>>(
  source: Source,
  options: WantedArrays<W>,
): { [K in keyof W]: NpyArray<W[K]["dtypes"][number]> };
/** Reads all arrays of an .npz file. */
export function readNpz(source: Source, options?: ReadNpzOptions): Record<string, NpyArray>;
export function readNpz(source: Source, options: Partial<WantedArrays<Record<string, ArraySpec>>> = {}): Record<string, NpyArray> {
  const { want, maxBytes = DEFAULT_MAX_BYTES } = options;
  const path = sourceName(source, "npz");
  const entries = new Map(readZip(readBytes(source, maxBytes), path).map((entry) => [arrayName(entry, path), entry]));
  for (const name of Object.keys(want ?? {})) {
    if (!entries.has(name)) {
      const has = [...entries.keys()].slice(0, 10).map(quote).join(", ");
      throw new Error(`Cannot read ${path}: it has no array ${quote(name)}, it has ${has || "none"}`);
    }
  }
  const chosen = [...entries].filter(([name]) => !want || Object.hasOwn(want, name));
  const total = chosen.reduce((sum, [, entry]) => sum + entry.size, 0);
  if (total > maxBytes) throw new Error(`Cannot read ${path}: its arrays take ${total} bytes, they must take at most ${maxBytes}`);

  const dims = new Map<string, number>();
  for (const [name, entry] of chosen) {
    const header = parseNpyHeader(peekEntry(entry, path), inside(path, entry));
    if (header.bytes !== entry.size) {
      throw new Error(
        `Cannot read ${inside(path, entry)}: it takes ${entry.size} bytes, its shape [${header.shape}] takes ${header.bytes}`,
      );
    }
    if (want) checkSpec(inside(path, entry), header, want[name], dims);
  }
  return Object.fromEntries(chosen.map(([name, entry]) => [name, parseNpy(unpackEntry(entry, path), inside(path, entry))]));
}

function arrayName(entry: ZipEntry, path: string): string {
  if (!entry.name.endsWith(".npy")) throw new Error(`Cannot read ${path}: its entry ${quote(entry.name)} is no .npy array`);
  return entry.name.slice(0, -4);
}

function inside(path: string, entry: ZipEntry): string {
  return `${path}: ${quote(entry.name)}`;
}

/** `dims` remembers the sizes that names of axes stand for. */
function checkSpec(name: string, { dtype, shape }: NpyHeader, want: ArraySpec, dims: Map<string, number>): void {
  const fits = want.dtypes.includes(dtype) && shape.length === want.shape.length && want.shape.every((size, axis) => {
    if (typeof size === "number") return size === shape[axis];
    if (!dims.has(size)) dims.set(size, shape[axis]);
    return dims.get(size) === shape[axis];
  });
  if (fits) return;
  const sizes = want.shape.map((size) => typeof size === "string" && dims.has(size) ? `${size} = ${dims.get(size)}` : size);
  throw new Error(
    `Cannot read ${name}: it is ${dtype} [${shape.join(", ")}], it must be ${want.dtypes.join(" or ")} [${sizes.join(", ")}]`,
  );
}

/** What `writeNpz` accepts. */
export interface WriteNpzOptions {
  /** Deflates the arrays; without it they are stored as they are. Default true. */
  compressed?: boolean;
}

/** Writes an .npz file, whole or not at all. Equal arrays give equal bytes. */
export function writeNpz(path: string, arrays: Record<string, ArrayToWrite>, { compressed = true }: WriteNpzOptions = {}): void {
  const files = Object.entries(arrays).map(([name, array]) => [`${name}.npy`, encodeNpy(array, `${path}: ${quote(name)}`)] as const);
  const total = files.reduce((sum, [, bytes]) => sum + bytes.length, 0);
  if (total > 0xf0000000) throw new Error(`Cannot write ${path}: its arrays take ${total} bytes, a zip archive must stay below 4 GiB`);
  writeFileAtomic(path, zipSync(Object.fromEntries(files), { level: compressed ? 6 : 0, mtime: new Date(1980, 0, 1) }));
}
