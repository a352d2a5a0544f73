/** Reading whole files that strangers may have made. */

/** The content of a file, or where it is: both are accepted wherever a file is read. */
export type Source = string | Uint8Array<ArrayBuffer>;

/** 4 GiB: the most that a reader holds in memory unless it is told otherwise. */
export const DEFAULT_MAX_BYTES = 2 ** 32;

/** How messages call `source`: its path, or `data` where it has none. */
export function sourceName(source: Source, what: string): string {
  return typeof source === "string" ? source : `${what} data`;
}

/**
 * The bytes of `source`. Throws one clear error where the path is no regular file (a pipe or a device could be read for ever),
 * or is longer than `maxBytes`.
 */
export function readBytes(source: Source, maxBytes: number = DEFAULT_MAX_BYTES): Uint8Array<ArrayBuffer> {
  if (typeof source !== "string") return source;
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    const info = Deno.statSync(source);
    if (!info.isFile) throw new Error(`it is ${info.isDirectory ? "a folder" : "no regular file"}, it must be a file`);
    if (info.size > maxBytes) throw new Error(`it has ${info.size} bytes, it must have at most ${maxBytes}`);
    bytes = Deno.readFileSync(source);
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotFound ? "there is no such file" : (cause as Error).message;
    throw new Error(`Cannot read ${source}: ${reason}`, { cause });
  }
  return bytes;
}

/** `text` in quotes for a message: control characters escaped, cut after 100 characters. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? text.slice(0, 100) + "..." : text);
}
