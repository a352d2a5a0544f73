/** What an optimizer holds on the device, for the error where it does not fit. */
import { leaves, type ParameterSpec } from "../nn/parameters.ts";
import { device } from "../tensor/device.ts";
import { formatBytes, OutOfMemoryError } from "../tensor/memory.ts";
import { sizeOf } from "../tensor/tensor.ts";

/** What decides about it. */
export interface StateSizeOptions {
  momentBits: 8 | 32;
  onHost: "nothing" | "means" | "state";
  emaRates: readonly number[];
  /** Processes that masters, moments and means are spread over. */
  world: number;
}

/** Bytes on the device of masters, gradients, 16-bit copies, moments and means of the parameters that `specs` describes. */
export function stateBytes(specs: unknown, { momentBits, onHost, emaRates, world }: StateSizeOptions): number {
  const moments = onHost === "state" ? 0 : momentBits === 8 ? 2.0625 : 8, means = onHost === "nothing" ? 4 * emaRates.length : 0;
  return leaves<ParameterSpec>(specs).filter(([, spec]) => !spec.buffer).reduce((sum, [, { shape, dtype }]) => {
    return sum + sizeOf(shape) * ((dtype === "f32" ? 4 : 6) + (4 + moments + means) / world);
  }, 0);
}

/** Runs `make`, which takes that memory; where it does not fit, the error says how much does, and what would take less. */
export function holdingState<T>(specs: unknown, options: StateSizeOptions, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    const { memory } = device(),
      { momentBits, onHost } = options,
      advice = [
        ...(momentBits === 32 ? ["--optimizer.momentBits=8"] : []),
        ...(onHost === "state" ? [] : [onHost === "means" ? "--optimizer.onHost=state" : "--optimizer.onHost=means or state"]),
      ];
    throw new OutOfMemoryError(
      `Cannot hold what training takes: the memory limit is ${formatBytes(memory.limit)}, it must be more than ` +
        `${formatBytes(stateBytes(specs, options))} for parameters, gradients, moments and means alone` +
        (advice.length ? `; ${advice.join(", or ")} takes less` : ""),
      { cause: error },
    );
  }
}
