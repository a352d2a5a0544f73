/** Scratch memory of kernels. */
import { empty } from "../tensor/tensor.ts";

const bytes = new BigUint64Array(1);

/**
 * Runs `launch` with the address of as many bytes as `query` (a kernel's `k_…_workspace` function) asks for, and gives them back: the
 * device reuses them only after the launch, which is on its stream.
 */
export function withWorkspace(query: (bytes: BigUint64Array<ArrayBuffer>) => void, launch: (scratch: bigint) => void): void {
  query(bytes);
  const scratch = empty([Number(bytes[0])], "u8");
  try {
    launch(scratch.addr);
  } finally {
    scratch.free();
  }
}
