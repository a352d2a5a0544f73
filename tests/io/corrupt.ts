/** What every reader of files must stand: cut off, flipped bits, lies about sizes. */
import assert from "node:assert/strict";

/** Runs `body` with a new folder, which is gone afterwards. */
export function withFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-io-" });
  try {
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Asserts that `read` throws one of our errors, which contains `part`, and nothing of an engine's or a package's own. */
export function assertRefused(read: () => unknown, part: string | RegExp = ""): void {
  assert.throws(read, (error: Error) => {
    assert.match(error.message, /^Cannot [a-z]+ /);
    if (typeof part === "string") assert.ok(error.message.includes(part), `${JSON.stringify(error.message)} does not say ${part}`);
    else assert.match(error.message, part);
    return true;
  });
}

/** Asserts that `read` refuses every beginning of `bytes`. */
export function assertTruncationsRefused(bytes: Uint8Array, read: (bytes: Uint8Array<ArrayBuffer>) => unknown): void {
  for (let length = 0; length < bytes.length; length++) {
    const part = bytes.slice(0, length);
    try {
      assertRefused(() => read(part));
    } catch (cause) {
      throw new Error(`cut off at ${length} of ${bytes.length} bytes`, { cause });
    }
  }
}

/**
 * Flips every bit of `bytes` in turn: `read` must refuse it with one of our errors or accept it, in good time and memory.
 * Gives the number of flips that were accepted.
 */
export function countAcceptedFlips(
  bytes: Uint8Array,
  read: (bytes: Uint8Array<ArrayBuffer>) => unknown,
  end: number = bytes.length,
): number {
  let accepted = 0;
  const start = performance.now(), memory = Deno.memoryUsage().rss;
  for (let bit = 0; bit < end * 8; bit++) {
    const copy = bytes.slice();
    copy[bit >> 3] ^= 1 << (bit & 7);
    try {
      read(copy);
      accepted++;
    } catch (cause) {
      if (!/^Cannot [a-z]+ /.test((cause as Error).message)) throw new Error(`bit ${bit & 7} of byte ${bit >> 3}`, { cause });
    }
  }
  assert.ok(performance.now() - start < 60_000, "flips took too long");
  assert.ok(Deno.memoryUsage().rss - memory < 1e9, "flips took too much memory");
  return accepted;
}

/** The bytes of `text`, one a character. */
export function latin1(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** One array out of several. */
export function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
