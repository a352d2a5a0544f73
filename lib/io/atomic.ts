/** Files that are either whole or not there. */

/**
 * Writes `content`, at once or chunk by chunk, to a new file beside `path`, syncs it to the disk and only then renames it to `path`.
 * On any failure, also one inside the iterable, the new file is removed and what was at `path` stays as it was.
 * A process that is killed meanwhile leaves a `.espalier-<id>.tmp` behind, which nobody reads.
 */
export function writeFileAtomic(path: string, content: Uint8Array | Iterable<Uint8Array>): void {
  const slash = path.lastIndexOf("/");
  const folder = slash < 0 ? "." : path.slice(0, slash + 1);
  const temp = `${slash < 0 ? "" : folder}.espalier-${crypto.randomUUID()}.tmp`;
  let file: Deno.FsFile | undefined;
  let renamed = false;
  let written = 0;
  try {
    file = Deno.openSync(temp, { write: true, createNew: true });
    for (const chunk of content instanceof Uint8Array ? [content] : content) {
      for (let at = 0; at < chunk.length;) at += file.writeSync(chunk.subarray(at));
      written += chunk.length;
    }
    file.syncSync();
    Deno.renameSync(temp, path);
    renamed = true;
    syncFolder(folder);
  } catch (cause) {
    throw new Error(`Cannot write ${path}: ${writeFailure(cause, folder, written)}`, { cause });
  } finally {
    file?.close();
    if (file && !renamed) Deno.removeSync(temp);
  }
}

/** Makes the rename itself survive a power cut, where the file system can do that for a folder. */
function syncFolder(folder: string): void {
  try {
    using handle = Deno.openSync(folder, { read: true });
    handle.syncSync();
  } catch { /* the file is whole and in its place all the same */ }
}

function writeFailure(cause: unknown, folder: string, written: number): string {
  const error = cause as Error & { code?: string };
  if (error.code === "ENOSPC" || error.code === "EDQUOT") {
    return `the disk is full after ${written} bytes; free some space or choose another folder`;
  }
  if (error.code === "ENOENT") return `its folder ${folder} does not exist`;
  return error.message ?? String(cause);
}
