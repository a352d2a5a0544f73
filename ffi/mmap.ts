/** Files as memory: `mapFile` maps a whole file without reading it. */

const LIBC = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
} as const;
const O_RDONLY_CLOEXEC = 0o2000000;
const SEEK_END = 2;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_NORESERVE = 0x4002;
const MAP_FAILED = 2n ** 64n - 1n;

let libc: Deno.DynamicLibrary<typeof LIBC> | undefined;

/** A file in memory. Leaving a `using` block closes it. */
export interface MappedFile extends Disposable {
  /** The whole file. Pages are read when they are touched. A write changes this copy only, never the file. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Unmaps. `bytes` and every view of it become empty; closing twice is harmless. */
  close(): void;
}

/**
 * Maps the file at `path`, of any size, without copying. An empty file gives an empty array.
 * The file must not be cut short while it is mapped: touching a page that is gone ends the process.
 * Needs read and un-scoped ffi permission. Throws where `path` is no readable regular file.
 */
export function mapFile(path: string): MappedFile {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotFound ? "there is no such file" : (cause as Error).message;
    throw new Error(`Cannot map ${path}: ${reason}`, { cause });
  }
  if (!info.isFile) throw new Error(`Cannot map ${path}: it is ${info.isDirectory ? "a folder" : "no regular file"}, it must be a file`);

  const { symbols } = libc ??= Deno.dlopen("libc.so.6", LIBC);
  const fd = symbols.open(new TextEncoder().encode(path + "\0"), O_RDONLY_CLOEXEC);
  if (fd < 0) throw new Error(`Cannot map ${path}: it cannot be opened for reading`);
  try {
    const size = symbols.lseek(fd, 0n, SEEK_END); // of the file that is open, whatever the path names by now
    if (size < 0n) throw new Error(`Cannot map ${path}: its size is unknown`);
    if (size === 0n) return mapped(new ArrayBuffer(0), () => {});
    const address = symbols.mmap(null, size, PROT_READ_WRITE, MAP_PRIVATE_NORESERVE, fd, 0n);
    if (address === null || Deno.UnsafePointer.value(address) === MAP_FAILED) {
      throw new Error(`Cannot map ${path}: the system refuses a mapping of ${size} bytes`);
    }
    const buffer = Deno.UnsafePointerView.getArrayBuffer(address, Number(size)) as ArrayBuffer;
    return mapped(buffer, () => symbols.munmap(address, size));
  } finally {
    symbols.close(fd);
  }
}

function mapped(buffer: ArrayBuffer, unmap: () => void): MappedFile {
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    buffer.transfer(); // detaches: no view can reach the pages that go away now
    unmap();
  };
  return { bytes: new Uint8Array(buffer), close, [Symbol.dispose]: close };
}
