/** Host random numbers in [0, 1), the same on every machine. */
export type Random = () => number;

/** A generator (sfc32, Doty-Humphrey 2010) started from whole numbers; different words give unrelated sequences. */
export function createRandom(...words: number[]): Random {
  let a = 0x9e3779b9, b = 0x243f6a88, c = 0xb7e15162, counter = 1;
  const next = (): number => {
    const t = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21 | c >>> 11) + t) | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (const word of words) {
    a ^= word | 0;
    b ^= Math.floor(word / 2 ** 32) | 0;
    for (let i = 0; i < 16; i++) next();
  }
  return next;
}

/** A number from `low` to `high`. */
export function uniform(random: Random, low: number, high: number): number {
  return low + (high - low) * random();
}

/** A whole number from `low` to `high`, both included. */
export function integer(random: Random, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

/** True with probability `p`. */
export function chance(random: Random, p: number): boolean {
  return random() < p;
}

/** One element of a list. */
export function pick<T>(random: Random, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)];
}

/** The whole numbers below `n` in a random order (Fisher-Yates). */
export function permutation(random: Random, n: number): Uint32Array<ArrayBuffer> {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const k = Math.floor(random() * (i + 1));
    [order[i], order[k]] = [order[k], order[i]];
  }
  return order;
}
