/** The file-system calls that change a disk, each behind a function of its own: what a test makes fail, or ends the process at. */

/** A new file that is being written. */
export interface DiskFile {
  /** Writes some of `bytes` (at least one) and returns how many. */
  write(bytes: Uint8Array): number;
  /** Waits until what was written is on the disk. */
  sync(): void;
  close(): void;
}

/** Where files are written. */
export interface Disk {
  /** Makes a file that is not there yet. */
  create(path: string): DiskFile;
  rename(from: string, to: string): void;
  remove(path: string): void;
  /** Makes the names in a folder survive a power cut. */
  syncFolder(path: string): void;
}

/** File systems without a sync of folders say one of these. */
const NO_FOLDER_SYNC = ["EINVAL", "ENOTSUP", "EBADF", "EISDIR"];

/** The real one. */
export const DISK: Disk = {
  create(path) {
    const file = Deno.openSync(path, { write: true, createNew: true });
    return { write: (bytes) => file.writeSync(bytes), sync: () => file.syncSync(), close: () => file.close() };
  },
  rename: (from, to) => Deno.renameSync(from, to),
  remove: (path) => Deno.removeSync(path),
  syncFolder(path) {
    try {
      using handle = Deno.openSync(path, { read: true });
      handle.syncSync();
    } catch (error) {
      if (!NO_FOLDER_SYNC.includes((error as { code?: string }).code ?? "")) throw error;
    }
  },
};
