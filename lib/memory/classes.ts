/**
 * What a pass could give up: classes of tensors that stand at the same place of blocks that are alike, found by running the pass on a simulated
 * device. A class's price is the time to make it again for the bytes that this frees.
 */
import { type Choice, type Choose, chooseFree, type Kind, type Recipe } from "../tensor/storage.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Storage } from "../tensor/storage.ts";
import type { SimulatedDevice } from "./simulate.ts";

/** Tensors at one place of blocks that are alike, or one outside of blocks. */
export interface TensorClass {
  /** "stack/place kind", the same in every pass of a model. */
  key: string;
  kind: Kind;
  /** What is done with it. */
  how: Exclude<Choice, "keep">;
  /** Blocks that have it; 1 outside of blocks. */
  blocks: number;
  /** Bytes that one block's give free, less what must be kept for it alone. */
  bytes: number;
  /** Seconds to make one block's again. */
  seconds: number;
  /** Classes that go with it: nobody keeps them, but this one is made from them. */
  with: string[];
}

/** Names the tensors of a pass, in the order in which they are made: blocks that follow each other are one stack. */
export function namer(): (recipe: Recipe, block?: number) => string {
  let stack = 0, last: number | undefined, place = 0, outside = 0;
  return ({ kind }, block) => {
    if (block === undefined) return `-/${outside++} ${kind}`;
    if (block !== last) {
      if (last === undefined || block < last) stack++;
      [last, place] = [block, 0];
    }
    return `${stack}/${place++} ${kind}`;
  };
}

interface Seen {
  key: string;
  t: Tensor;
  recipe: Recipe;
  free: boolean;
  bytes: number;
  seconds: number;
}

/** Records what could be given up in a pass on a simulated device, which gives up what is free alone. */
export class Survey {
  #name = namer();
  #seen: Seen[] = [];

  /** `at` is the device that the pass runs on. */
  constructor(readonly at: SimulatedDevice) {}

  /** The choice to run the pass with. */
  readonly choose: Choose = (t, recipe, block) => {
    const key = this.#name(recipe, block), choice = chooseFree(t, recipe), { meter, memory } = this.at;
    meter.label(t.storage.address, recipe.kind);
    const seconds = meter.secondsOf(() => recipe.fill(t));
    this.#seen.push({ key, t, recipe, free: choice === "drop", bytes: memory.granted(t.bytes), seconds });
    return choice;
  };

  /** Tensors with a recipe. */
  get tensors(): number {
    return this.#seen.length;
  }

  /** After the pass: the classes, the cheapest bytes first. */
  classes(): TensorClass[] {
    const of = new Map<Storage, Seen>(this.#seen.map((s) => [s.t.storage, s])), found = new Map<string, TensorClass>();
    for (const seen of this.#seen) {
      if (seen.free || !seen.t.storage.saved) continue;
      const known = found.get(seen.key);
      if (known) {
        known.blocks++;
        continue;
      }
      const one: TensorClass = {
        key: seen.key,
        kind: seen.recipe.kind,
        how: "drop",
        blocks: 1,
        bytes: seen.bytes,
        seconds: seen.seconds,
        with: [],
      };
      this.#follow(seen, one, of);
      found.set(seen.key, one);
    }
    return [...found.values()].filter((c) => c.bytes > 0).sort((a, b) => b.bytes / b.seconds - a.bytes / a.seconds);
  }

  /** Adds to `one` what else is made again or kept for `seen`. */
  #follow({ recipe }: Seen, one: TensorClass, of: Map<Storage, Seen>): void {
    for (const source of recipe.from) {
      if (!source || source.storage.device !== this.at || source.storage.needed) continue;
      const made = of.get(source.storage);
      if (!made) one.bytes -= source.bytes;
      else if (!one.with.includes(made.key)) {
        one.seconds += made.seconds;
        if (!made.free) one.with.push(made.key);
        this.#follow(made, one, of);
      }
    }
  }
}
