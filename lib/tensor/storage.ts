/**
 * The memory behind tensors. What only recorded ops still know can be given up after the forward pass and made again when the backward pass
 * needs it: who computes a tensor says how ({@linkcode rebuildable}), a choice says whether ({@linkcode withChoice}).
 */
import { device, type OpenDevice } from "./device.ts";
import { tidy } from "./scope.ts";
import { noGrad } from "./tape.ts";
import { Tensor } from "./tensor.ts";
import type { DType } from "./dtype.ts";

/** What a tensor is, where it comes to giving it up. */
export type Kind = "norm" | "activation" | "residual" | "movement" | "linear" | "convolution" | "attention";

/** How a tensor is made again. */
export interface Recipe {
  kind: Kind;
  /** What `fill` reads: kept, or made again in its turn, for as long as the tensor may be. Absent ones may be listed. */
  from: readonly (Tensor | null | undefined)[];
  /** Writes into y, a tensor like the one that is gone, what that one held. */
  fill(y: Tensor): void;
}

/** keep: until the backward pass has used it. drop: made again. */
export type Choice = "keep" | "drop";

/** Decides about a tensor that has a recipe; `block` is the number of the block that made it, where one did. */
export type Choose = (t: Tensor, recipe: Recipe, block?: number) => Choice;

/**
 * Norms and activations are made again, in a pass over memory that is kept anyway; nothing else is. Every plan makes them again, so that gradients
 * are the same under all: cuBLASLt's GELU rounds once where the one that is made again rounds twice.
 */
export const chooseFree: Choose = (_, { kind }) => kind === "norm" || kind === "activation" ? "drop" : "keep";

let choose = chooseFree, block: number | undefined;

/** Runs `body` with another choice. */
export function withChoice<T>(choice: Choose, body: () => T): T {
  const before = choose;
  choose = choice;
  try {
    return body();
  } finally {
    choose = before;
  }
}

/** Runs `body` as block `i` of several that are alike: a choice is told so. */
export function inBlock<T>(i: number, body: () => T): T {
  const before = block;
  block = i;
  try {
    return body();
  } finally {
    block = before;
  }
}

/** Says how a tensor that recorded ops may keep can be made again. `t` sees all of its memory. */
export function rebuildable(t: Tensor, recipe: Recipe): void {
  if (t.size && choose(t, recipe, block) === "drop") t.storage.giveUpLater(t, recipe);
}

/** Memory that one or more tensors see; given back when the last of them is freed. */
export class Storage {
  /** The device that it belongs to. */
  readonly device: OpenDevice = device();
  /** Whether a recorded op ever needed it, and whether a time came when only such ops knew it. */
  needed = false;
  saved = false;
  #refs = 0;
  #waiting = 0;
  #address: bigint;
  #recipe: { shape: readonly number[]; dtype: DType; sources: Tensor[]; fill(y: Tensor): void } | null = null;
  #away = false;

  /** `bytes` at `address`, or none; `onHost` is whether they are of the host's memory. */
  constructor(address: bigint, readonly bytes: number, readonly onHost = false) {
    this.#address = address;
  }

  /** Where it lies. */
  get address(): bigint {
    if (this.#away) {
      throw new ReferenceError("Cannot use a tensor that was given up for the backward pass: an op that reads it must list it as saved");
    }
    return this.#address;
  }

  /** Whether more than one tensor sees it. */
  get shared(): boolean {
    return this.#refs > 1;
  }

  /** One tensor more sees it. */
  attach(): void {
    this.#refs++;
  }

  /** One of its tensors is freed; `waiting` is whether only recorded ops knew it. */
  detach(waiting: boolean): void {
    if (waiting) this.#waiting--;
    if (--this.#refs > 0) return this.#settle();
    const { memory } = this.device;
    if (!this.#away && this.bytes > 0) this.onHost ? memory.hostFree(this.#address) : memory.free(this.#address, this.bytes);
    this.#forget();
  }

  /** Only recorded ops still know one of its tensors. */
  wait(): void {
    this.#waiting++;
    this.#settle();
  }

  /** Gives the memory up as soon as only recorded ops know it; see {@linkcode rebuildable}. */
  giveUpLater({ shape, dtype }: Tensor, { from, fill }: Recipe): void {
    const sources = from.filter((t): t is Tensor => !!t);
    for (const t of sources) t.hold();
    this.#recipe = { shape, dtype, sources, fill };
  }

  #settle(): void {
    if (this.#waiting < this.#refs) return;
    this.saved = true;
    if (!this.#recipe || this.#away) return;
    this.device.memory.free(this.#address, this.bytes);
    this.#away = true;
  }

  /** Makes the memory again where it was given up; it then stays until its last tensor is freed. */
  restore(): void {
    const recipe = this.#recipe;
    if (!recipe || !this.#away) return;
    for (const t of recipe.sources) t.storage.restore();
    this.#address = this.device.memory.alloc(this.bytes);
    this.#away = false;
    this.#recipe = null; // or freeing y would give it up again
    noGrad(() => tidy(() => recipe.fill(new Tensor(this, 0, recipe.shape, recipe.dtype))));
    for (const t of recipe.sources) t.unhold();
  }

  #forget(): void {
    const sources = this.#recipe?.sources ?? [];
    this.#recipe = null;
    for (const t of sources) t.unhold();
  }
}
