/** Host memory as the CPU kernels see it: glibc's allocator and copies, by address. */

const SYMBOLS = {
  aligned_alloc: { parameters: ["usize", "usize"], result: "u64" },
  free: { parameters: ["u64"], result: "void" },
  memcpy: { parameters: ["u64", "u64", "usize"], result: "void" },
  memset: { parameters: ["u64", "i32", "usize"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

/** glibc's memory functions. */
export type Libc = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Libc | undefined;

/** Opens glibc, once. */
export function openLibc(): Libc {
  if (opened) return opened;
  try {
    opened = Deno.dlopen("libc.so.6", SYMBOLS).symbols;
  } catch (error) {
    throw new Error(`Cannot open the C library: libc.so.6 says "${(error as Error).message}", it must be glibc`);
  }
  return opened;
}

/** The address of a typed array's first byte, or 0 for none. The array must stay referenced while the address is used. */
export function addressOf(array: ArrayBufferView<ArrayBuffer>): bigint {
  return array.byteLength === 0 ? 0n : BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(array)));
}
