/**
 * Lanczos-3 resizing that gives the same bytes as Pillow's: two passes, each with weights in 22-bit fixed point and rounded to 8 bits,
 * the kernel widened by the reduction so that nothing aliases.
 */
import { checkImage, checkSize, type Image } from "./pixels.ts";

/** What `resizeImage` makes. */
export interface ResizeOptions {
  width: number;
  height: number;
  /** The colours of an RGBA image are already multiplied by alpha, and stay so. Default false: straight alpha in and out. */
  premultiplied?: boolean;
}

const LOBES = 3;
const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1); // rounds to nearest

/** Resizes `image`. Colours of transparent pixels do not bleed into others. */
export function resizeImage(image: Image, { width, height, premultiplied = false }: ResizeOptions): Image {
  checkImage("resize an image", image);
  checkSize("resize an image", width, height);
  const { channels } = image;
  if (width === image.width && height === image.height) return { ...image, data: image.data.slice() };
  const straight = channels === 4 && !premultiplied;
  let data = straight ? multiplyAlpha(image.data) : image.data;
  if (width !== image.width) data = resizeRows(data, channels, weightsOf(image.width, width));
  if (height !== image.height) data = resizeColumns(data, width * channels, weightsOf(image.height, height));
  return { width, height, channels, data: straight ? divideAlpha(data) : data };
}

/** For each output position: its first input position, how many there are, and their weights (`taps` places for each output). */
interface Weights {
  from: number;
  to: number;
  taps: number;
  first: Int32Array;
  count: Int32Array;
  weights: Int32Array;
}

/** Output i is centred at (i + 1/2) * from / to; its window reaches 3 * max(1, from / to) to both sides. */
function weightsOf(from: number, to: number): Weights {
  const scale = from / to, stretch = Math.max(1, scale), reach = LOBES * stretch;
  const taps = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(to), count = new Int32Array(to), weights = new Int32Array(to * taps), exact = new Float64Array(taps);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    first[i] = Math.max(0, Math.trunc(centre - reach + 0.5));
    count[i] = Math.min(from, Math.trunc(centre + reach + 0.5)) - first[i];
    let sum = 0;
    for (let k = 0; k < count[i]; k++) sum += exact[k] = lanczos((k + first[i] - centre + 0.5) / stretch);
    for (let k = 0; k < count[i]; k++) {
      const w = exact[k] / sum * 2 ** FRACTION_BITS;
      weights[i * taps + k] = Math.trunc(w < 0 ? w - 0.5 : w + 0.5);
    }
  }
  return { from, to, taps, first, count, weights };
}

/** sinc(x) * sinc(x / 3) within 3 of 0. */
function lanczos(x: number): number {
  return Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** data [rows, from, C] to [rows, to, C] */
function resizeRows(data: Uint8Array<ArrayBuffer>, C: number, { from, to, taps, first, count, weights }: Weights): Uint8Array<ArrayBuffer> {
  const rows = data.length / (from * C);
  const out = new Uint8ClampedArray(rows * to * C);
  for (let row = 0, o = 0; row < rows; row++) {
    for (let i = 0; i < to; i++, o += C) {
      const start = (row * from + first[i]) * C;
      let s0 = HALF, s1 = HALF, s2 = HALF, s3 = HALF;
      for (let k = 0, at = start; k < count[i]; k++, at += C) {
        const w = weights[i * taps + k];
        s0 = (s0 + Math.imul(data[at], w)) | 0;
        if (C === 1) continue;
        s1 = (s1 + Math.imul(data[at + 1], w)) | 0;
        s2 = (s2 + Math.imul(data[at + 2], w)) | 0;
        if (C === 4) s3 = (s3 + Math.imul(data[at + 3], w)) | 0;
      }
      out[o] = s0 >> FRACTION_BITS;
      if (C > 1) out[o + 1] = s1 >> FRACTION_BITS;
      if (C > 1) out[o + 2] = s2 >> FRACTION_BITS;
      if (C > 3) out[o + 3] = s3 >> FRACTION_BITS;
    }
  }
  return new Uint8Array(out.buffer);
}

/** data [from, width] to [to, width] */
function resizeColumns(
  data: Uint8Array<ArrayBuffer>,
  width: number,
  { to, taps, first, count, weights }: Weights,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8ClampedArray(to * width), sums = new Int32Array(width);
  for (let i = 0; i < to; i++) {
    sums.fill(HALF);
    for (let k = 0; k < count[i]; k++) {
      const w = weights[i * taps + k], start = (first[i] + k) * width;
      for (let x = 0; x < width; x++) sums[x] += Math.imul(data[start + x], w);
    }
    for (let x = 0; x < width; x++) out[i * width + x] = sums[x] >> FRACTION_BITS;
  }
  return new Uint8Array(out.buffer);
}

/** round(c * a / 255) */
function multiplyAlpha(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i += 4) {
    const a = data[i + 3];
    for (let c = 0; c < 3; c++) {
      const product = data[i + c] * a + 128;
      out[i + c] = ((product >> 8) + product) >> 8;
    }
    out[i + 3] = a;
  }
  return out;
}

/** floor(255 * c / a), at most 255; left as it is where a is 0 or 255. */
function divideAlpha(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  for (let i = 0; i < data.length; i += 4) {
    const a = data[i + 3];
    if (a === 0 || a === 255) continue;
    for (let c = 0; c < 3; c++) data[i + c] = Math.min(255, Math.trunc(255 * data[i + c] / a));
  }
  return data;
}
