/**
 * The memory behind tensors. What only recorded ops still know can be given up after the forward pass and made again when the backward pass
 * needs it: who computes a tensor says how ({@linkcode rebuildable}), a choice says whether ({@linkcode withChoice}).
 */
import { device, type OpenDevice } from "./device.ts";
import { tidy } from "./scope.ts";
import { noGrad } from "./tape.ts";
import { Tensor } from "./tensor.ts";
import { type DType, DTYPE_BYTES } from "./dtype.ts";
import type { Parked } from "./parking.ts";

/** What a tensor is, where it comes to giving it up. */
export type Kind = "norm" | "head norm" | "activation" | "residual" | "movement" | "linear" | "convolution" | "attention" | "fp8";

/** How a tensor is made again. */
export interface Recipe {
  kind: Kind;
  /** What `fill` reads: kept, or made again in its turn, for as long as the tensor may be. Absent ones may be listed. */
  from: readonly (Tensor | null | undefined)[];
  /** Writes into y, a tensor like the one that is gone, what that one held. */
  fill(y: Tensor): void;
}

/** keep: until the backward pass has used it. drop: made again. offload: brought to the host, and back before it is needed. */
export type Choice = "keep" | "drop" | "offload";

/** Decides about a tensor that has a recipe; `block` is the number of the block that made it, where one did. */
export type Choose = (t: Tensor, recipe: Recipe, block?: number) => Choice;

/**
 * Norms and activations are made again, in a pass over memory that is kept anyway; nothing else is, nor norms of heads that an op was told to keep. Every
 * plan makes activations again, so that gradients are the same under all: cuBLASLt's GELU rounds once where the one that is made again rounds twice.
 */
export const chooseFree: Choose = (_, { kind }) => kind === "norm" || kind === "activation" ? "drop" : "keep";

/** For a pass that takes as little as it may: norms of heads are made again too. */
export const chooseLeast: Choose = (t, recipe) => recipe.kind === "head norm" ? "drop" : chooseFree(t, recipe);

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
  const choice = t.size ? choose(t, recipe, block) : "keep";
  if (choice !== "keep") t.storage.giveUpLater(t, choice === "drop" ? recipe : null);
}

/** A tensor that takes no memory until somebody reads it: what `recipe` writes. */
export function unmade(shape: readonly number[], dtype: DType, recipe: Recipe): Tensor {
  const bytes = DTYPE_BYTES[dtype] * shape.reduce((a, b) => a * b, 1), t = new Tensor(new Storage(0n, bytes), 0, shape, dtype);
  t.storage.makeLater(t, recipe);
  return t;
}

/** How many tensors come back from the host before they are needed. */
const AHEAD = 2;

/** What is on the host, the last one brought there at the end: the backward pass needs it in the opposite order. */
const parked: Storage[] = [];

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
  #recipe: { shape: readonly number[]; dtype: DType; sources: Tensor[]; fill: ((y: Tensor) => void) | null } | null = null;
  #away = false;
  #later = false;
  #parked: Parked | null = null;

  /** `bytes` at `address`, or none; `onHost` is whether they are of the host's memory. */
  constructor(address: bigint, readonly bytes: number, readonly onHost = false) {
    this.#address = address;
  }

  /** Where it lies. */
  get address(): bigint {
    if (this.#later) this.restore();
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
    if (this.#parked) this.#leaveHost().drop();
    if (!this.#away && this.bytes > 0) this.onHost ? memory.hostFree(this.#address) : memory.free(this.#address, this.bytes);
    this.#forget();
  }

  /** Only recorded ops still know one of its tensors. */
  wait(): void {
    this.#waiting++;
    this.#settle();
  }

  /** Gives the memory up as soon as only recorded ops know it, to be made again or, without a recipe, brought to the host. See {@linkcode rebuildable}. */
  giveUpLater({ shape, dtype }: Tensor, recipe: Recipe | null): void {
    const sources = recipe?.from.filter((t): t is Tensor => !!t) ?? [];
    for (const t of sources) t.hold();
    this.#recipe = { shape, dtype, sources, fill: recipe && ((y) => recipe.fill(y)) };
  }

  /** Does without memory until somebody asks for the address. */
  makeLater(t: Tensor, recipe: Recipe): void {
    this.giveUpLater(t, recipe);
    this.#away = this.#later = true;
  }

  #settle(): void {
    if (this.#waiting < this.#refs) return;
    this.saved = true;
    if (!this.#recipe || this.#away) return;
    const { memory } = this.device;
    if (this.#recipe.fill) memory.free(this.#address, this.bytes);
    else {
      this.#parked = memory.park(this.#address, this.bytes);
      parked.push(this);
    }
    this.#away = true;
  }

  /** Ends the stay on the host. */
  #leaveHost(): Parked {
    const stay = this.#parked!;
    parked.splice(parked.lastIndexOf(this), 1);
    this.#parked = null;
    return stay;
  }

  /** Has it back from the host, and begins to bring those back that are needed next. */
  #fetch(): void {
    const at = parked.lastIndexOf(this), stay = this.#leaveHost();
    this.#address = stay.take();
    this.#away = false;
    this.#recipe = null;
    for (let i = at - 1; i >= Math.max(0, at - AHEAD); i--) parked[i].#parked?.bring();
  }

  /** Makes the memory again where it was given up; it then stays until its last tensor is freed. */
  restore(): void {
    const recipe = this.#recipe;
    if (!recipe || !this.#away) return;
    if (!recipe.fill) return this.#fetch();
    const { fill } = recipe;
    for (const t of recipe.sources) t.storage.restore();
    this.#address = this.device.memory.alloc(this.bytes);
    this.#away = this.#later = false;
    this.#recipe = null; // or freeing y would give it up again
    noGrad(() => tidy(() => fill(new Tensor(this, 0, recipe.shape, recipe.dtype))));
    for (const t of recipe.sources) t.unhold();
  }

  #forget(): void {
    const sources = this.#recipe?.sources ?? [];
    this.#recipe = null;
    for (const t of sources) t.unhold();
  }
}
