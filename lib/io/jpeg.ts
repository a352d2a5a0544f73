/** JPEG in. Its segments are checked here; jpeg-js decodes. */
import jpeg from "jpeg-js";
import { checkSize, type Image, MAX_PIXELS } from "./pixels.ts";

const MAX_SCANS = 100;
const MAX_MEGABYTES = 4096;
const MAX_PIXELS_A_BYTE = 1024; // even an empty picture takes a bit for 64 pixels
const SOF = 0xc0, DHT = 0xc4, JPG = 0xc8, DAC = 0xcc, SOF_LAST = 0xcf, EOI = 0xd9, SOS = 0xda, APP1 = 0xe1;

/** Whether `bytes` begin as a JPEG file does. */
export function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/**
 * Decodes a JPEG file to RGB, turned upright as its EXIF orientation says. Throws an `Error` where it is damaged, as far as that shows:
 * the format has no checksums. `name` is what messages call the file.
 */
export function decodeJpeg(bytes: Uint8Array, name: string, maxPixels: number = MAX_PIXELS): Image {
  const { width, height, orientation } = readSegments(bytes, (what) => new Error(`Cannot read ${name}: ${what}`));
  checkSize(`read ${name}`, width, height, maxPixels);
  if (width * height > bytes.length * MAX_PIXELS_A_BYTE) {
    throw new Error(`Cannot read ${name}: it has ${bytes.length} bytes, too few for ${width} x ${height} pixels`);
  }
  try {
    const { data } = jpeg.decode(bytes, {
      useTArray: true,
      formatAsRGBA: false,
      tolerantDecoding: false,
      maxResolutionInMP: maxPixels / 1e6,
      maxMemoryUsageInMB: MAX_MEGABYTES,
    });
    return turnUpright({ width, height, channels: 3, data: data as Uint8Array<ArrayBuffer> }, orientation);
  } catch (cause) {
    throw new Error(`Cannot read ${name}: it does not decode as JPEG (${(cause as Error).message})`, { cause });
  }
}

interface Segments {
  width: number;
  height: number;
  orientation: number;
}

/** Walks from segment to segment to the end mark, which a file that is cut off lacks. */
function readSegments(bytes: Uint8Array, fault: (what: string) => Error): Segments {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let frame: { width: number; height: number } | undefined, orientation = 1, scans = 0, at = 2;
  const cutOff = (): Error => fault("it has no end mark; is it cut off?");
  while (true) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) at++;
    if (at + 2 > bytes.length) throw cutOff();
    if (bytes[at] !== 0xff) throw fault(`there is no marker at byte ${at}`);
    const marker = bytes[at + 1];
    if (marker === EOI) break;
    if (at + 4 > bytes.length) throw cutOff();
    const length = view.getUint16(at + 2), end = at + 2 + length;
    if (length < 2) throw fault(`the segment at byte ${at} is ${length} bytes long`);
    if (end > bytes.length) throw cutOff();
    if (marker === APP1) orientation = exifOrientation(bytes.subarray(at + 4, end)) ?? orientation;
    if (marker >= SOF && marker <= SOF_LAST && marker !== DHT && marker !== JPG && marker !== DAC) {
      if (frame) throw fault("it has more than one frame");
      if (marker > 0xc2) throw fault("it is lossless, hierarchical or arithmetic-coded, it must be baseline or progressive");
      if (length < 8) throw fault("its frame header is cut off");
      if (bytes[at + 4] !== 8) throw fault(`its samples have ${bytes[at + 4]} bits, they must have 8`);
      frame = { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    }
    at = end;
    if (marker === SOS) {
      if (!frame) throw fault("a scan comes before the frame header");
      if (++scans > MAX_SCANS) throw fault(`it has more than ${MAX_SCANS} scans`);
      while (at < bytes.length && !(bytes[at] === 0xff && isMarker(bytes[at + 1]))) at++;
    }
  }
  if (!frame || scans === 0) throw fault("it holds no picture");
  return { ...frame, orientation };
}

/** Whether this byte, after 0xff within coded data, ends them: 0 is data, d0 to d7 restart the decoder, ff is padding. */
function isMarker(byte: number | undefined): boolean {
  return byte !== undefined && byte !== 0 && byte !== 0xff && (byte < 0xd0 || byte > 0xd7);
}

/** The orientation, 1 to 8, that an EXIF segment gives, if it does. */
function exifOrientation(segment: Uint8Array): number | undefined {
  if (String.fromCharCode(...segment.subarray(0, 6)) !== "Exif\0\0" || segment.length < 14) return undefined;
  const view = new DataView(segment.buffer, segment.byteOffset + 6, segment.length - 6);
  const little = view.getUint16(0) === 0x4949;
  const start = view.getUint32(4, little);
  if (start + 2 > view.byteLength) return undefined;
  const count = view.getUint16(start, little);
  for (let i = 0, at = start + 2; i < count && at + 12 <= view.byteLength; i++, at += 12) {
    const value = view.getUint16(at + 8, little);
    if (view.getUint16(at, little) === 0x0112 && value >= 1 && value <= 8) return value;
  }
  return undefined;
}

/** Orientation 1 to 4: mirrored and turned in place; 5 to 8: rows and columns swapped besides. */
function turnUpright(image: Image, orientation: number): Image {
  if (orientation === 1) return image;
  const { width: W, height: H, data, channels } = image;
  const swap = orientation >= 5;
  const mirrorX = [2, 3, 7, 8].includes(orientation), mirrorY = [3, 4, 6, 7].includes(orientation); // of the stored image
  const width = swap ? H : W, height = swap ? W : H;
  const out = new Uint8Array(data.length);
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < width; x++, o += channels) {
      const u = swap ? y : x, v = swap ? x : y;
      const from = ((mirrorY ? H - 1 - v : v) * W + (mirrorX ? W - 1 - u : u)) * channels;
      for (let c = 0; c < channels; c++) out[o + c] = data[from + c];
    }
  }
  return { width, height, channels, data: out };
}
