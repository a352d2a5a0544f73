/** NCCL: collectives between GPUs. Every call throws on an error status. */
import { openCudaLibrary } from "./shared_library.ts";

/** ncclUniqueId, passed by value. */
const UNIQUE_ID = { struct: Array(16).fill("u64") as "u64"[] };

const SYMBOLS = {
  ncclGetErrorString: { parameters: ["i32"], result: "pointer" },
  ncclGetVersion: { parameters: ["buffer"], result: "i32" },
  ncclGetUniqueId: { parameters: ["buffer"], result: "i32" },
  ncclCommInitRank: { parameters: ["buffer", "i32", UNIQUE_ID, "i32"], result: "i32" },
  ncclCommDestroy: { parameters: ["u64"], result: "i32" },
  ncclCommAbort: { parameters: ["u64"], result: "i32" },
  ncclAllReduce: { parameters: ["u64", "u64", "usize", "i32", "i32", "u64", "u64"], result: "i32" },
  ncclReduceScatter: { parameters: ["u64", "u64", "usize", "i32", "i32", "u64", "u64"], result: "i32" },
  ncclAllGather: { parameters: ["u64", "u64", "usize", "i32", "u64", "u64"], result: "i32" },
  ncclBroadcast: { parameters: ["u64", "u64", "usize", "i32", "i32", "u64", "u64"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type Calls = Exclude<keyof typeof SYMBOLS, "ncclGetErrorString">;

/** NCCL's functions, each throwing where the C function returns an error. */
export type Nccl = { [K in Calls]: (...args: Parameters<Deno.DynamicLibrary<typeof SYMBOLS>["symbols"][K]>) => void };

/** ncclDataType_t by the project's dtypes. */
export const NCCL_TYPE = { u8: 1, i32: 2, i64: 4, f16: 6, f32: 7, bf16: 9 } as const;
/** ncclRedOp_t. */
export const NCCL_OP = { sum: 0, max: 2, min: 3 } as const;
/** Bytes of an ncclUniqueId. */
export const UNIQUE_ID_BYTES = 128;

let opened: Nccl | undefined;

/** Opens libnccl, once. Throws where it is missing. */
export function openNccl(): Nccl {
  if (opened) return opened;
  const library = openCudaLibrary(["libnccl.so.2", "libnccl.so"], SYMBOLS, { what: "NCCL", purpose: "joins several GPUs" });
  const { ncclGetErrorString, ...calls } = library;
  return opened = Object.fromEntries(
    Object.entries(calls).map(([name, call]) => [
      name,
      (...args: unknown[]) => {
        const status = (call as (...args: unknown[]) => number)(...args);
        if (status !== 0) {
          throw new Error(
            `Cannot run ${name}: NCCL says "${Deno.UnsafePointerView.getCString(ncclGetErrorString(status)!)}" (error ${status}); ` +
              "NCCL_DEBUG=WARN in the environment makes it say more",
          );
        }
      },
    ]),
  ) as Nccl;
}

/** NCCL's version, such as "2.28.9". */
export function ncclVersion(): string {
  const version = new Int32Array(1);
  openNccl().ncclGetVersion(version);
  const [v] = version;
  return `${Math.floor(v / 10_000)}.${Math.floor(v / 100) % 100}.${v % 100}`;
}
