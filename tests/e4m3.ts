/** The 8-bit floats E4M3 in plain arithmetic. */

/** The value of the bits of E4M3: sign, 4 bits of exponent, 3 of mantissa. */
export function decode(bits: number): number {
  const exponent = bits >> 3 & 15, mantissa = bits & 7, sign = bits & 128 ? -1 : 1;
  if (exponent === 15 && mantissa === 7) return NaN;
  return sign * (exponent ? (1 + mantissa / 8) * 2 ** (exponent - 7) : mantissa * 2 ** -9);
}

export const VALUES = Array.from({ length: 127 }, (_, bits) => decode(bits)); // of the bits 0 to 126, ascending

/** v rounded to the nearest value of E4M3, of two that are as near to that with even bits. */
export function round(v: number): number {
  const size = Math.abs(v);
  let best = 0;
  VALUES.forEach((value, bits) => {
    const better = Math.abs(value - size) - Math.abs(VALUES[best] - size);
    if (better < 0 || (better === 0 && bits % 2 === 0)) best = bits;
  });
  return Math.sign(v) * VALUES[best];
}

/** What the rows [N, C] of `x` are in 8 bits, and their scales. */
export function rounded(x: ArrayLike<number>, C: number): { values: Float64Array; scale: number[] } {
  const scale = Array.from({ length: x.length / C }, (_, n) => {
    const most = Array.from({ length: C }, (_, c) => Math.abs(x[n * C + c])).reduce((a, b) => Math.max(a, b), 0);
    return most === 0 ? 1 : 2 ** Math.ceil(Math.log2(most / 448));
  });
  return { values: Float64Array.from(x, (v, i) => round(v / scale[Math.floor(i / C)])), scale };
}
