/** Host memory as the CPU kernels see it: glibc's allocator and copies, by address. */

const SYMBOLS = {
  aligned_alloc: { parameters: ["usize", "usize"], result: "u64" },
  free: { parameters: ["u64"], result: "void" },
  memcpy: { parameters: ["u64", "u64", "usize"], result: "void" },
  memset: { parameters: ["u64", "i32", "usize"], result: "void" },
  gnu_get_libc_version: { parameters: [], result: "pointer" },
  __x86_get_cpuid_feature_leaf: { parameters: ["u32"], result: "pointer", optional: true }, // since glibc 2.33
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

/** The version of glibc, such as "2.36". */
export function glibcVersion(): string {
  return Deno.UnsafePointerView.getCString(openLibc().gnu_get_libc_version()!);
}

/** Instruction sets of the CPU libraries: the CPUID leaf (1 or 7) as glibc counts them, the register (1 EBX, 2 ECX) and the bit. */
const INSTRUCTIONS = { AVX2: [1, 1, 5], FMA: [0, 2, 12], F16C: [0, 2, 29] } as const;

/** Which instruction sets that the CPU libraries use this processor (or its system) lacks; none where glibc is too old to tell. */
export function missingInstructions(): string[] {
  const { __x86_get_cpuid_feature_leaf: leafOf } = openLibc();
  if (!leafOf) return [];
  return Object.entries(INSTRUCTIONS).filter(([, [leaf, register, bit]]) => {
    const found = leafOf(leaf), usable = 16 + 4 * register; // {cpuid: u32[4], usable: u32[4]}
    return found !== null && !(new Deno.UnsafePointerView(found).getUint32(usable) >> bit & 1);
  }).map(([name]) => name);
}
