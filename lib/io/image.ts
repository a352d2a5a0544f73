/** Image files: PNG and JPEG in, PNG out. */
import { writeFileAtomic } from "./atomic.ts";
import { decodeJpeg, isJpeg } from "./jpeg.ts";
import { type Image, MAX_PIXELS } from "./pixels.ts";
import { decodePng, encodePng, isPng } from "./png.ts";
import { readBytes, type Source, sourceName } from "./read.ts";

export { type Box, cropImage, type GridOptions, type Image, imageGrid, MAX_PIXELS } from "./pixels.ts";
export { encodePng } from "./png.ts";
export { resizeImage, type ResizeOptions } from "./resize.ts";

/** What `readImage` accepts. */
export interface ReadImageOptions {
  /** The most pixels that an image may have. Default 64 Mi (8192 x 8192). */
  maxPixels?: number;
}

const MAX_FILE_BYTES = 2 ** 30;

/**
 * Reads a PNG or JPEG image, told apart by content, as 8-bit RGB, or RGBA with straight alpha where it has transparency.
 * JPEG comes upright (EXIF). Throws an `Error` naming the file where it is neither, damaged or too large.
 */
export function readImage(source: Source, { maxPixels = MAX_PIXELS }: ReadImageOptions = {}): Image {
  const bytes = readBytes(source, MAX_FILE_BYTES), name = sourceName(source, "image");
  if (isPng(bytes)) return decodePng(bytes, name, maxPixels);
  if (isJpeg(bytes)) return decodeJpeg(bytes, name, maxPixels);
  throw new Error(`Cannot read ${name}: it is no image that is known here, it must be PNG or JPEG`);
}

/** Writes a PNG file, whole or not at all. */
export function writePng(path: string, image: Image): void {
  writeFileAtomic(path, encodePng(image));
}
