/** Pictures as the image encoder takes them: the object cut out, filling a square, on black. */
import { chance, integer, pick, type Random } from "./random.ts";
import { type Box, cropImage, type Image, resizeImage } from "../io/image.ts";

const MARGIN = 1.2, SURE_ALPHA = 0.8 * 255, LONGEST_SIDE = 1024;
/** Of 255: how far a border pixel may be from the background's colour, and a pixel from its neighbour where the background goes on. */
const NEAR_BACKGROUND = 40, NEAR_NEIGHBOUR = 12;

/** The pixels with alpha above `limit`: [xmin, ymin, xmax, ymax], the last included; undefined where there are none. */
function boundsOf({ width, height, data }: Image, limit: number): [number, number, number, number] | undefined {
  let x0 = width, y0 = height, x1 = -1, y1 = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[(y * width + x) * 4 + 3] <= limit) continue;
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
      if (y < y0) y0 = y;
      y1 = y;
    }
  }
  return x1 < 0 ? undefined : [x0, y0, x1, y1];
}

/** Half to even, as Python rounds. */
function roundEven(x: number): number {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** RGBA [size, size] to [3, size, size], each colour times alpha, 0 to 1. */
function premultiply({ width, data }: Image): Float32Array<ArrayBuffer> {
  const area = width * width, out = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    const alpha = data[i * 4 + 3] / 255;
    for (let c = 0; c < 3; c++) out[c * area + i] = data[i * 4 + c] / 255 * alpha;
  }
  return out;
}

function cropTo(image: Image, [x0, y0, x1, y1]: Box, size: number): Image {
  return resizeImage(cropImage(image, [x0, y0, Math.max(x1, x0 + 1), Math.max(y1, y0 + 1)]), { width: size, height: size });
}

/**
 * A rendered view as a training condition: the square 1.2 times the extent of alpha > 0 about its centre, resized (Lanczos) to `size`, colours
 * times alpha. RGBA in, [3, size, size] out, 0 to 1. Throws an Error where the picture is empty or has no alpha.
 */
export function conditionImage(image: Image, size: number): Float32Array<ArrayBuffer> {
  const bounds = image.channels === 4 ? boundsOf(image, 0) : undefined;
  if (!bounds) {
    throw new Error(
      `Cannot make a condition image: the picture has ${image.channels} channels and nothing in it, it must show an object on a transparent ground`,
    );
  }
  const [x0, y0, x1, y1] = bounds, cx = (x0 + x1) / 2, cy = (y0 + y1) / 2, half = Math.max(x1 - x0, y1 - y0) / 2 * MARGIN;
  return premultiply(cropTo(image, [Math.trunc(cx - half), Math.trunc(cy - half), Math.trunc(cx + half), Math.trunc(cy + half)], size));
}

/** How {@linkcode varyImage} varies a picture. */
export interface ImageVariation {
  /** Whether left and right are exchanged. */
  mirror: boolean;
  /** Pixels to the right and down; black comes in at the other side. */
  shift: readonly [right: number, down: number];
  /** Which channel of the picture each colour channel is. */
  channels: readonly number[];
}

/** What {@linkcode drawVariation} may draw. */
export interface VariationOptions {
  /** Mirrors half of the pictures. */
  mirror: boolean;
  /** Moves pictures by up to this part of their side. */
  shift: number;
  /** Puts the channels of this part of the pictures in any order. */
  exchange: number;
}

/** The orders that colour channels may be put in. */
export const CHANNEL_ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/** Draws how a picture of this size is varied. */
export function drawVariation({ mirror, shift, exchange }: VariationOptions, size: number, random: Random): ImageVariation {
  const most = Math.round(shift * size), move = (): number => most ? integer(random, -most, most) : 0;
  return {
    mirror: mirror && chance(random, 0.5),
    shift: [move(), move()],
    channels: exchange && chance(random, exchange) ? pick(random, CHANNEL_ORDERS) : CHANNEL_ORDERS[0],
  };
}

/** A condition image [3, size, size] with its channels exchanged, mirrored, then moved. */
export function varyImage(
  image: Uint8Array,
  size: number,
  { mirror, shift: [right, down], channels }: ImageVariation,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(image.length), first = Math.max(0, right), last = Math.min(size, size + right);
  channels.forEach((from, c) => {
    for (let y = Math.max(0, down); y < Math.min(size, size + down); y++) {
      const read = (from * size + y - down) * size, write = (c * size + y) * size;
      if (!mirror) out.set(image.subarray(read + first - right, read + last - right), write + first);
      else for (let x = first; x < last; x++) out[write + x] = image[read + size - 1 - x + right];
    }
  });
  return out;
}

/** What {@linkcode prepareImage} gives. */
export interface PreparedImage {
  /** [3, size, size], 0 to 1, on black. */
  data: Float32Array<ArrayBuffer>;
  /** What was guessed, for the user to read. */
  warning?: string;
}

/**
 * A picture from outside as an inference condition: its alpha, or where it has none its background taken away by colour; the square of
 * int(1.2 * extent) about what has alpha > 0.8, resized (Lanczos) to `size`, colours times alpha, in 8-bit steps. Throws an Error where nothing is left.
 */
export function prepareImage(image: Image, size: number): PreparedImage {
  const { cutOut, warning } = image.channels === 4 && hasHoles(image) ? { cutOut: image, warning: undefined } : keyBackground(image);
  const bounds = boundsOf(cutOut, SURE_ALPHA);
  if (!bounds) throw new Error("Cannot prepare the picture: no pixel has alpha above 0.8, it must show an object");
  const [x0, y0, x1, y1] = bounds, cx = (x0 + x1) / 2, cy = (y0 + y1) / 2;
  const half = Math.floor(Math.floor(MARGIN * Math.max(x1 - x0, y1 - y0)) / 2);
  const data = premultiply(cropTo(cutOut, [roundEven(cx - half), roundEven(cy - half), roundEven(cx + half), roundEven(cy + half)], size));
  for (let i = 0; i < data.length; i++) data[i] = Math.floor(data[i] * 255 + 1e-4) / 255;
  return warning ? { data, warning } : { data };
}

function hasHoles({ data }: Image): boolean {
  for (let i = 3; i < data.length; i += 4) if (data[i] < 255) return true;
  return false;
}

function toRgba({ width, height, channels, data }: Image): Image {
  const out = new Uint8Array(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) out[i * 4 + c] = data[i * channels + (channels === 1 ? 0 : c)];
  return { width, height, channels: 4, data: out };
}

/** Makes the plain background of an opaque picture transparent: what is like the border's usual colour and connected with the border. */
function keyBackground(image: Image): { cutOut: Image; warning: string } {
  const k = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
  const cutOut = resizeImage(toRgba(image), {
    width: Math.max(1, Math.round(image.width * k)),
    height: Math.max(1, Math.round(image.height * k)),
  });
  const { width, height, data } = cutOut, border: number[] = [];
  for (let x = 0; x < width; x++) border.push(x, (height - 1) * width + x);
  for (let y = 1; y < height - 1; y++) border.push(y * width, y * width + width - 1);
  const usual = [0, 1, 2].map((c) => border.map((i) => data[i * 4 + c]).sort((a, b) => a - b)[border.length >> 1]);
  const far = (i: number, from: ArrayLike<number>, at: number): number =>
    Math.max(...[0, 1, 2].map((c) => Math.abs(data[i * 4 + c] - from[at + c])));
  const isNear = (i: number): boolean => far(i, usual, 0) <= NEAR_BACKGROUND;
  const seeds = border.filter(isNear), seen = new Uint8Array(width * height), open = [...seeds];
  for (const i of seeds) seen[i] = 1;
  let taken = seeds.length;
  for (let i = open.pop(); i !== undefined; i = open.pop()) {
    const x = i % width;
    for (
      const j of [x > 0 ? i - 1 : i, x < width - 1 ? i + 1 : i, i >= width ? i - width : i, i + width < width * height ? i + width : i]
    ) {
      if (seen[j] || !isNear(j) || far(j, data, i * 4) > NEAR_NEIGHBOUR) continue;
      seen[j] = 1;
      taken++;
      open.push(j);
    }
  }
  const advice = "a picture with the object cut out (RGBA) gives better results";
  if (seeds.length < 0.6 * border.length || taken > 0.99 * width * height) {
    return { cutOut, warning: `The picture has no transparency and no plain background: all of it is taken as the object; ${advice}.` };
  }
  for (let i = 0; i < width * height; i++) if (seen[i]) data[i * 4 + 3] = 0;
  return {
    cutOut,
    warning: `The picture has no transparency: its background (about rgb ${usual.join(" ")}) was taken away by its colour; ${advice}.`,
  };
}

/** Pixels around black ones that a resized edge reaches. */
const EDGE = 3;

/** A prepared picture [3, S, S] as RGBA: transparent where it is black, and near to that, where the resized edge of the object mixes with black. */
export function cutOutOf(data: Float32Array, S: number): Image {
  const out = new Uint8Array(S * S * 4), area = S * S;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) out[i * 4 + c] = Math.round(data[c * area + i] * 255);
    out[i * 4 + 3] = 255;
  }
  for (let i = 0; i < area; i++) {
    if (data[i] + data[area + i] + data[2 * area + i] > 0) continue;
    const x = i % S, y = Math.floor(i / S);
    for (let v = Math.max(0, y - EDGE); v <= Math.min(S - 1, y + EDGE); v++) {
      for (let u = Math.max(0, x - EDGE); u <= Math.min(S - 1, x + EDGE); u++) out[(v * S + u) * 4 + 3] = 0;
    }
  }
  return { width: S, height: S, channels: 4, data: out };
}
