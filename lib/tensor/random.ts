/** Philox random numbers: the same sequence on every device, with a state of two numbers. */
import { DTYPE, type FloatDType } from "./dtype.ts";
import { empty, kernels, stream, type Tensor } from "./tensor.ts";

/** The state of a {@linkcode Generator}. */
export interface GeneratorState {
  /** The Philox key. */
  seed: string;
  /** How many 4-number counters were used. */
  offset: string;
}

/** A counter-based random generator (Philox 4x32-10, Salmon et al. 2011). Every draw uses whole counters, so the state is exact. */
export class Generator {
  #seed: bigint;
  #offset = 0n;

  /** `seed` is a whole number of 64 bits. */
  constructor(seed: number | bigint) {
    this.#seed = BigInt.asUintN(64, BigInt(seed));
  }

  /** Standard normal values. */
  normal(shape: readonly number[], { dtype = "f32" }: { dtype?: FloatDType } = {}): Tensor {
    const y = empty(shape, dtype);
    kernels().k_random_normal_fwd(y.addr, BigInt(y.size), this.#seed, this.#take(y.size), DTYPE[dtype], stream());
    return y;
  }

  /** Values from `low` (included) to `high` (excluded). */
  uniform(
    shape: readonly number[],
    { low = 0, high = 1, dtype = "f32" }: { low?: number; high?: number; dtype?: FloatDType } = {},
  ): Tensor {
    const y = empty(shape, dtype);
    kernels().k_random_uniform_fwd(y.addr, BigInt(y.size), this.#seed, this.#take(y.size), low, high, DTYPE[dtype], stream());
    return y;
  }

  #take(size: number): bigint {
    const at = this.#offset;
    this.#offset += BigInt(Math.ceil(size / 4));
    return at;
  }

  /** The state, for a checkpoint. */
  state(): GeneratorState {
    return { seed: this.#seed.toString(), offset: this.#offset.toString() };
  }

  /** Puts a state back. */
  restore({ seed, offset }: GeneratorState): void {
    this.#seed = BigInt(seed);
    this.#offset = BigInt(offset);
  }
}
