/** One place that sees the calls of kernels, products and the CUDA runtime: for profiles. */

/** Is handed each call in the place of its being made: it must run `call`, once. */
export type Observer = (name: string, args: readonly unknown[], call: () => void) => void;

/** Who looks on; undefined for nobody. */
export let observer: Observer | undefined;

/** Lets `next` look on from now on (undefined: nobody). Returns who did before. */
export function observe(next: Observer | undefined): Observer | undefined {
  const before = observer;
  observer = next;
  return before;
}
