/** Mutations of bytes: what a fuzzer does to a file. All from one seed, so that each input can be made again. */

/** Small fast random numbers (xorshift32). */
export class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) | 1;
  }
  /** A whole number from 0 up to below `n`. */
  below(n: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) % n;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

const NUMBERS = [
  0,
  1,
  2,
  3,
  4,
  7,
  8,
  16,
  31,
  63,
  64,
  100,
  127,
  128,
  255,
  256,
  511,
  512,
  1023,
  32767,
  32768,
  65535,
  65536,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
];
const BIG = [0n, 1n, -1n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 62n - 1n];
const TEXTS = [
  ...[
    "0",
    "-1",
    "1e308",
    "1e999",
    "-1e-9",
    "NaN",
    "9007199254740993",
    "4294967296",
    "2147483648",
    "1.5",
    "null",
    "true",
    '""',
    "[]",
    "{}",
    "[[[[",
    "]]",
  ],
  ...[
    '"__proto__"',
    '"constructor"',
    '"../../x"',
    '"/etc/passwd"',
    '"http://x/y"',
    '"file:///etc/passwd"',
    "\0",
    "\n",
    "\r\n",
    " ",
    "-",
    "+",
    ".",
    ",",
    ":",
    '"',
    "\\",
    "é",
  ],
];
const ENCODED = TEXTS.map((text) => new TextEncoder().encode(text));

function splice(bytes: Uint8Array, from: number, remove: number, insert: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.length - remove + insert.length);
  out.set(bytes.subarray(0, from));
  out.set(insert, from);
  out.set(bytes.subarray(from + remove), from + insert.length);
  return out;
}

/** The run of digits at or after a place, as [start, end); empty where there is none. */
function digitsAt(bytes: Uint8Array, from: number): [number, number] {
  const digit = (i: number): boolean => bytes[i] >= 0x30 && bytes[i] <= 0x39;
  let start = from;
  while (start < bytes.length && !digit(start)) start++;
  let end = start;
  while (end < bytes.length && digit(end)) end++;
  return [start, end];
}

/** One change. `tokens` are what the format is made of, `other` another file of it. */
function change(bytes: Uint8Array<ArrayBuffer>, dice: Dice, tokens: readonly Uint8Array[], other: Uint8Array): Uint8Array<ArrayBuffer> {
  const n = bytes.length, at = n ? dice.below(n) : 0;
  if (!n) return dice.pick(ENCODED).slice();
  switch (dice.below(12)) {
    case 0:
    case 1: {
      const out = bytes.slice();
      out[at] ^= 1 << dice.below(8);
      return out;
    }
    case 2: {
      const out = bytes.slice();
      out[at] = dice.below(256);
      return out;
    }
    case 3: { // a number of 1, 2, 4 or 8 bytes
      const out = bytes.slice(),
        view = new DataView(out.buffer),
        width = dice.pick([1, 2, 4, 8]),
        place = Math.min(at, Math.max(0, n - width));
      const little = dice.below(4) > 0, value = dice.pick(NUMBERS);
      if (place + width > n) return out;
      if (width === 1) out[place] = value;
      else if (width === 2) view.setUint16(place, value, little);
      else if (width === 4) view.setUint32(place, dice.below(3) ? value : -value, little);
      else view.setBigUint64(place, BigInt.asUintN(64, dice.pick(BIG)), little);
      return out;
    }
    case 4:
      return bytes.slice(0, at);
    case 5: // away with a part
      return splice(bytes, at, Math.min(n - at, 1 + dice.below(16)), new Uint8Array());
    case 6: { // a part twice, or elsewhere
      const from = dice.below(n);
      return splice(bytes, at, dice.below(2) ? 0 : Math.min(n - at, 4), bytes.subarray(from, from + 1 + dice.below(32)));
    }
    case 7:
      return splice(bytes, at, dice.below(2) ? Math.min(n - at, 1 + dice.below(8)) : 0, dice.pick(ENCODED));
    case 8:
      return tokens.length ? splice(bytes, at, dice.below(2) ? Math.min(n - at, 4) : 0, dice.pick(tokens)) : bytes.slice();
    case 9: { // another number in a text
      const [start, end] = digitsAt(bytes, at);
      return start === end ? bytes.slice() : splice(bytes, start, end - start, dice.pick(ENCODED));
    }
    case 10: { // the beginning of one and the end of another
      const cut = dice.below(other.length + 1);
      return splice(bytes, at, n - at, other.subarray(cut));
    }
    default: { // many of a byte
      return splice(bytes, at, 0, new Uint8Array(1 + dice.below(200)).fill(bytes[at]));
    }
  }
}

/** `bytes` with a change, or with several. */
export function mutate(
  bytes: Uint8Array<ArrayBuffer>,
  dice: Dice,
  tokens: readonly Uint8Array[],
  other: Uint8Array,
): Uint8Array<ArrayBuffer> {
  let out = bytes;
  for (let i = dice.below(3) ? 1 : 2 + dice.below(5); i > 0; i--) out = change(out, dice, tokens, other);
  return out;
}
