/** Files that are either whole or not there. */
import { DISK, type Disk, type DiskFile } from "./disk.ts";

/** The names of files that are not whole yet. */
export const UNFINISHED = /^\.espalier-.*\.tmp$/;

/**
 * Writes `content`, at once or chunk by chunk, to a new file beside `path`, syncs it to the disk and only then renames it to `path`.
 * On any failure, also one inside the iterable, the new file is removed and what was at `path` stays as it was.
 * A process that is killed meanwhile leaves a `.espalier-<id>.tmp` behind, which nobody reads.
 */
export function writeFileAtomic(path: string, content: Uint8Array | Iterable<Uint8Array>, disk: Disk = DISK): void {
  const slash = path.lastIndexOf("/");
  const folder = slash < 0 ? "." : path.slice(0, slash + 1);
  const temp = `${slash < 0 ? "" : folder}.espalier-${crypto.randomUUID()}.tmp`;
  let file: DiskFile | undefined, made = false, renamed = false, written = 0;
  try {
    file = disk.create(temp);
    made = true;
    for (const chunk of content instanceof Uint8Array ? [content] : content) {
      for (let at = 0; at < chunk.length;) {
        const count = file.write(chunk.subarray(at));
        if (count === 0) throw new Error(`the system takes no more than ${written} bytes`);
        at += count;
        written += count;
      }
    }
    file.sync();
    file.close();
    file = undefined;
    disk.rename(temp, path);
    renamed = true;
    disk.syncFolder(folder);
  } catch (cause) {
    try {
      file?.close();
      if (made && !renamed) disk.remove(temp);
    } catch { /* the disk refuses that too: the first failure is what matters, and nobody reads the file */ }
    throw new Error(`Cannot write ${path}: ${writeFailure(cause, folder, written)}`, { cause });
  }
}

function writeFailure(cause: unknown, folder: string, written: number): string {
  const error = cause as Error & { code?: string };
  switch (error.code) {
    case "ENOSPC":
    case "EDQUOT":
      return `the disk is full after ${written} bytes; free some space or choose another folder`;
    case "ENOENT":
      return `its folder ${folder} does not exist`;
    case "EROFS":
      return `the disk of ${folder} is read-only; make it writable or choose another folder`;
    case "EIO":
      return `the disk of ${folder} fails (input/output error) after ${written} bytes; choose a folder on another disk`;
  }
  return error.message ?? String(cause);
}
