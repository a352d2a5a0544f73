/** Opens the kernel libraries of a device. Every call throws a {@linkcode KernelError} on a non-zero status. */
import { missingInstructions } from "./host.ts";
import { observer } from "./observer.ts";
import {
  FLASH_ATTN,
  type FlashAttnKernels,
  OPS,
  type OpsKernels,
  RENDER,
  type RenderKernels,
  SPCONV,
  type SpconvKernels,
} from "./symbols.ts";

/** A device that the kernel libraries exist for. */
export type Device = "cpu" | "cuda";

/** All kernels of a device. */
export type Kernels = OpsKernels & FlashAttnKernels & SpconvKernels & RenderKernels;

/** The version of the C ABI that these bindings speak (`K_ABI_VERSION` in `kernels/include/k.h`). */
export const ABI_VERSION = 4;

/** A kernel refused its arguments (status < 0), or CUDA reported an error (status > 0). */
export class KernelError extends Error {
  override name = "KernelError";
  /** `status` is the kernel's status, `detail` its own message. */
  constructor(readonly status: number, detail: string) {
    super(`Cannot run ${detail}${status > 0 ? ` (CUDA error ${status})` : ""}`);
  }
}

const LIBRARIES = { ops: OPS, flash_attn: FLASH_ATTN, spconv: SPCONV, render: RENDER };

/** The folder of the kernel libraries: `kernels/prebuilt/<platform>/`, or the one that ESPALIER_KERNELS names. */
export function kernelFolder(): URL {
  const platform = `${Deno.build.os}-${Deno.build.arch}`;
  if (platform !== "linux-x86_64") {
    throw new Error(`Cannot open the kernel libraries: the platform is ${platform}, it must be linux-x86_64`);
  }
  const folder = Deno.env.get("ESPALIER_KERNELS");
  return folder
    ? new URL(folder.replace(/\/*$/, "/"), `file://${Deno.cwd()}/`)
    : new URL(`../kernels/prebuilt/${platform}/`, import.meta.url);
}

function expectInstructions(): void {
  const missing = missingInstructions();
  if (missing.length) {
    throw new Error(
      `Cannot open the CPU kernels: this processor has no ${
        missing.join(", ")
      }, it must have AVX2, FMA and F16C (Intel since 2013, AMD since 2015)`,
    );
  }
}

/** Throws where an ELF file ends before its table of sections, which stands last: opening it would end the process. */
function expectWhole(path: URL): void {
  using file = Deno.openSync(path);
  const head = new Uint8Array(64), view = new DataView(head.buffer), { size } = file.statSync();
  if (file.readSync(head) !== 64 || view.getUint32(0) !== 0x7f454c46) return; // no ELF file: the system says so
  const end = Number(view.getBigUint64(40, true)) + view.getUint16(58, true) * view.getUint16(60, true);
  if (end > size) throw new Error(`the file is cut off at ${size} of ${end} bytes`);
}

function openLibrary(name: keyof typeof LIBRARIES, device: Device): Record<string, unknown> {
  const path = new URL(`lib${name}_${device}.so`, kernelFolder());
  const symbols = Object.fromEntries(
    Object.entries(LIBRARIES[name]).map(([symbol, type]) => [symbol, { ...type, optional: true as const }]),
  );
  let library;
  try {
    expectWhole(path);
    library = Deno.dlopen(path, symbols as Deno.ForeignLibraryInterface).symbols as Record<
      string,
      ((...args: unknown[]) => unknown) | null
    >;
  } catch (error) {
    throw new Error(
      `Cannot open the ${device} kernels: ${path.pathname} says "${(error as Error).message}", it must be a readable shared library ` +
        "(restore kernels/prebuilt from the repository or build it with `deno task build`; `deno task doctor` says more)",
    );
  }
  const version = library.k_abi_version?.();
  if (version !== ABI_VERSION) {
    throw new Error(
      `Cannot use ${path.pathname}: its ABI version is ${version}, it must be ${ABI_VERSION} (build it again with \`deno task build\`)`,
    );
  }
  const message = library.k_last_error!;
  const failed = (status: number): never => {
    throw new KernelError(status, Deno.UnsafePointerView.getCString(message() as Deno.PointerObject));
  };
  return Object.fromEntries(
    Object.entries(library).map(([symbol, call]) => {
      if (!call) {
        const missing = (): never => {
          throw new Error(`Cannot run ${symbol}: ${path.pathname} has no such symbol, build it again with \`deno task build\``);
        };
        return [symbol, missing];
      }
      const run = (...args: unknown[]): void => {
        const status = call(...args) as number;
        if (status !== 0) failed(status);
      };
      const watched = (...args: unknown[]): void => {
        if (observer) return observer(symbol, args, () => run(...args));
        const status = call(...args) as number; // not through run: a call more costs as much as the kernel's own checks
        if (status !== 0) failed(status);
      };
      return [symbol, symbol.endsWith("_workspace") ? run : watched];
    }),
  );
}

const opened = new Map<Device, Kernels>();

/** The kernels of `device`, from `kernels/prebuilt/<platform>/` (or the folder in ESPALIER_KERNELS). Opened once; never closed. */
export function openKernels(device: Device): Kernels {
  const known = opened.get(device);
  if (known) return known;
  if (device === "cpu") expectInstructions();
  const kernels = Object.assign(
    {},
    ...Object.keys(LIBRARIES).map((name) => openLibrary(name as keyof typeof LIBRARIES, device)),
  ) as Kernels;
  opened.set(device, kernels);
  return kernels;
}
