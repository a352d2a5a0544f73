/** Exponential means of the parameters, in f32, without bias correction: each starts as a copy of the masters. */
import { device } from "../tensor/device.ts";
import { persist } from "../tensor/scope.ts";
import { empty, emptyOnHost, kernels, stream, type Tensor } from "../tensor/tensor.ts";

/** One exponential mean. */
export interface Ema {
  /** How much of the mean stays at each step, such as 0.9999. */
  rate: number;
  /** [n] f32, laid out as the masters. */
  values: Tensor;
}

/** A mean of `master` [n] for each rate, starting at it, in the host's memory where asked. They live until they are freed by hand. */
export function makeEmas(master: Tensor, rates: readonly number[], { onHost = false } = {}): Ema[] {
  for (const rate of rates) {
    if (!(rate >= 0 && rate < 1)) throw new RangeError(`Cannot average parameters: an EMA rate is ${rate}, it must be in [0, 1)`);
  }
  const emas = persist(() => rates.map((rate) => ({ rate, values: (onHost ? emptyOnHost : empty)(master.shape) })));
  resetEmas(master, emas);
  return emas;
}

/** Starts the means again at `master`: after other weights were loaded into them. */
export function resetEmas(master: Tensor, emas: readonly Ema[]): void {
  for (const { values } of emas) if (master.size) device().memory.copy(values.addr, master.addr, master.bytes);
}

/** `values = rate * values + (1 - rate) * master`. {@linkcode adamwStep} does it for the means that it is given. */
export function updateEma(master: Tensor, { rate, values }: Ema): void {
  kernels().k_ema_fwd(values.addr, master.addr, BigInt(master.size), rate, stream());
}
