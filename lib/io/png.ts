/** PNG in and out. Decoding is done here: bounded in memory, every checksum looked at, twice as fast as fast-png, which encodes. */
import { Buffer } from "node:buffer";
import { crc32, inflateSync } from "node:zlib";
import { encode } from "fast-png";
import { checkImage, checkSize, type Image, MAX_PIXELS } from "./pixels.ts";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const PALETTE = 3;
/** Samples a pixel, and the bits a sample may have, of each colour type. */
const CHANNELS: Record<number, number> = { 0: 1, 2: 3, [PALETTE]: 1, 4: 2, 6: 4 };
const DEPTHS: Record<number, number[]> = { 0: [1, 2, 4, 8, 16], 2: [8, 16], [PALETTE]: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
/** First x and y, steps in x and y, of the pixels that come together. */
type Pass = readonly [x: number, y: number, stepX: number, stepY: number];
const ONE_PASS: readonly Pass[] = [[0, 0, 1, 1]];
const ADAM7: readonly Pass[] = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

/** Whether `bytes` begin as a PNG file does. */
export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

interface Header {
  width: number;
  height: number;
  /** Bits a sample. */
  depth: number;
  color: number;
  /** Samples a pixel. */
  C: number;
  passes: readonly Pass[];
}
type Fault = (what: string) => Error;

/**
 * Decodes a PNG file to RGB or RGBA: grey is spread, palettes are looked up, 16 bits are rounded to 8, a transparent colour becomes alpha.
 * Throws an `Error` on any damage: each checksum and the exact number of pixels is looked at. `name` is what messages call the file.
 */
export function decodePng(bytes: Uint8Array, name: string, maxPixels: number = MAX_PIXELS): Image {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  const chunks = readChunks(bytes, fault);
  if (chunks[0].type !== "IHDR" || chunks[0].data.length !== 13) throw fault("it does not begin with its header chunk (IHDR)");
  const header = readHeader(chunks[0].data, fault);
  checkSize(`read ${name}`, header.width, header.height, maxPixels);

  const size = header.passes.reduce((sum, pass) => sum + passBytes(header, pass), 0);
  const packed = Buffer.concat(chunks.filter(({ type }) => type === "IDAT").map(({ data }) => data));
  let rows: Uint8Array;
  try {
    rows = inflateSync(packed, { maxOutputLength: size });
  } catch (cause) {
    throw new Error(`Cannot read ${name}: its pixels do not unpack to ${size} bytes (${(cause as Error).message})`, { cause });
  }
  if (rows.length !== size) throw fault(`its pixels unpack to ${rows.length} bytes, they must be ${size}`);
  const samples = readRows(rows, header, fault);
  const find = (name: string): Uint8Array | undefined => chunks.find(({ type }) => type === name)?.data;
  return header.color === PALETTE ? lookUp(samples, header, find("PLTE"), find("tRNS"), fault) : to8Bits(samples, header, find("tRNS"));
}

interface Chunk {
  type: string;
  data: Uint8Array;
}

function readChunks(bytes: Uint8Array, fault: Fault): Chunk[] {
  if (!isPng(bytes)) throw fault("it does not begin as a PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const chunks: Chunk[] = [];
  for (let at = SIGNATURE.length; chunks.at(-1)?.type !== "IEND";) {
    const end = at + 12 + (at + 12 <= bytes.length ? view.getUint32(at) : 0);
    if (end > bytes.length) throw fault("it ends inside a chunk; is it cut off?");
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, end - 4)) !== view.getUint32(end - 4)) {
      throw fault(`the chunk at byte ${at} is damaged, its checksum differs`);
    }
    chunks.push({ type, data: bytes.subarray(at + 8, end - 4) });
    at = end;
  }
  return chunks;
}

function readHeader(data: Uint8Array, fault: Fault): Header {
  const view = new DataView(data.buffer, data.byteOffset);
  const [depth, color, compression, filter, interlace] = data.subarray(8);
  if (!DEPTHS[color]?.includes(depth)) throw fault(`its pixels are of type ${color} with ${depth} bits, which PNG does not have`);
  if (compression !== 0 || filter !== 0 || interlace > 1) throw fault("its compression, filter or interlace method is unknown");
  return { width: view.getUint32(0), height: view.getUint32(4), depth, color, C: CHANNELS[color], passes: interlace ? ADAM7 : ONE_PASS };
}

/** Pixels in x and y of a pass, and bytes of one of its rows without the filter byte. */
function passSize({ width, height, depth, C }: Header, [x, y, stepX, stepY]: Pass): [width: number, height: number, stride: number] {
  const w = Math.ceil((width - x) / stepX), h = Math.ceil((height - y) / stepY);
  return [w, w > 0 ? h : 0, Math.ceil(w * C * depth / 8)];
}

function passBytes(header: Header, pass: Pass): number {
  const [, height, stride] = passSize(header, pass);
  return height * (1 + stride);
}

/** Samples of all pixels, one byte each, or two (big endian) where they have 16 bits. Undoes the filters in place. */
function readRows(rows: Uint8Array, header: Header, fault: Fault): Uint8Array<ArrayBuffer> {
  const { width, height, depth, C, passes } = header;
  const pixelBytes = C * Math.ceil(depth / 8), step = Math.ceil(C * depth / 8);
  const out = new Uint8Array(width * height * pixelBytes);
  let at = 0;
  for (const pass of passes) {
    const [w, h, stride] = passSize(header, pass), [x0, y0, stepX, stepY] = pass;
    let above = new Uint8Array(stride);
    for (let y = 0; y < h; y++, at += 1 + stride) {
      const row = rows.subarray(at + 1, at + 1 + stride) as Uint8Array<ArrayBuffer>;
      if (rows[at] > 4) throw fault(`a row has filter ${rows[at]}, which PNG does not have`);
      unfilter(rows[at], row, above, step);
      above = row;
      const pixels = depth < 8 ? unpackBits(row, w, depth) : row;
      const start = ((y0 + y * stepY) * width + x0) * pixelBytes;
      if (stepX === 1) out.set(pixels, start);
      else {for (let i = 0; i < w * pixelBytes; i++) {
          out[start + Math.floor(i / pixelBytes) * stepX * pixelBytes + i % pixelBytes] = pixels[i];
        }}
    }
  }
  return out;
}

/** Adds to each byte what the filter predicts from the bytes to the left, above, and above to the left, a pixel (`step` bytes) away. */
function unfilter(filter: number, row: Uint8Array, above: Uint8Array, step: number): void {
  const n = row.length;
  if (filter === 1) { for (let x = step; x < n; x++) row[x] += row[x - step]; }
  if (filter === 2) { for (let x = 0; x < n; x++) row[x] += above[x]; }
  if (filter === 3) {
    for (let x = 0; x < step; x++) row[x] += above[x] >> 1;
    for (let x = step; x < n; x++) row[x] += (row[x - step] + above[x]) >> 1;
  }
  if (filter === 4) {
    for (let x = 0; x < step; x++) row[x] += above[x];
    for (let x = step; x < n; x++) {
      const a = row[x - step], b = above[x], c = above[x - step];
      const da = Math.abs(b - c), db = Math.abs(a - c), dc = Math.abs(a + b - 2 * c);
      row[x] += da <= db && da <= dc ? a : db <= dc ? b : c;
    }
  }
}

/** One byte a sample out of 8 / depth samples a byte, the first in the highest bits. */
function unpackBits(row: Uint8Array, count: number, depth: number): Uint8Array {
  const out = new Uint8Array(count), mask = (1 << depth) - 1;
  for (let i = 0, bit = 0; i < count; i++, bit += depth) out[i] = row[bit >> 3] >> (8 - depth - (bit & 7)) & mask;
  return out;
}

/** `palette` has three bytes a colour, `alpha` one for each of the first colours. */
function lookUp(
  samples: Uint8Array,
  { width, height }: Header,
  palette: Uint8Array | undefined,
  alpha: Uint8Array | undefined,
  fault: Fault,
): Image {
  if (!palette || palette.length % 3 !== 0 || (alpha?.length ?? 0) > palette.length / 3) throw fault("its palette is missing or damaged");
  const channels = alpha ? 4 : 3, data = new Uint8Array(width * height * channels);
  for (let i = 0, at = 0; i < samples.length; i++, at += channels) {
    const color = samples[i];
    if (3 * color >= palette.length) throw fault(`a pixel has colour ${color}, its palette has ${palette.length / 3}`);
    for (let c = 0; c < 3; c++) data[at + c] = palette[3 * color + c];
    if (alpha) data[at + 3] = alpha[color] ?? 255;
  }
  return { width, height, channels, data };
}

/** `clear` holds the one colour, two bytes a sample, that is transparent in an image without alpha. */
function to8Bits(samples: Uint8Array<ArrayBuffer>, { width, height, depth, C }: Header, clear?: Uint8Array): Image {
  const hasAlpha = C === 2 || C === 4, key = hasAlpha ? undefined : clear;
  const channels = hasAlpha || key ? 4 : 3, colors = C < 3 ? 1 : 3;
  if (C === channels && depth === 8) return { width, height, channels, data: samples };
  const wide = (bytes: Uint8Array, i: number): number => bytes[2 * i] << 8 | bytes[2 * i + 1];
  const sample = (i: number): number => depth === 16 ? wide(samples, i) : samples[i];
  const narrow = (v: number): number => depth === 16 ? (v * 255 + 32895) >> 16 : v * (255 / (2 ** depth - 1));
  const data = new Uint8Array(width * height * channels);
  for (let i = 0, from = 0, at = 0; i < width * height; i++, from += C, at += channels) {
    for (let c = 0; c < 3; c++) data[at + c] = narrow(sample(from + c % colors));
    if (hasAlpha) data[at + 3] = narrow(sample(from + C - 1));
    if (key) {
      let same = true;
      for (let c = 0; c < colors; c++) same &&= sample(from + c) === wide(key, c);
      data[at + 3] = same ? 0 : 255;
    }
  }
  return { width, height, channels, data };
}

/** The PNG file of an image: 8 bits, not interlaced. */
export function encodePng(image: Image): Uint8Array {
  checkImage("encode a PNG file", image);
  return encode({ ...image, depth: 8 });
}
