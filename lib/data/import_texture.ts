import { type Image, readImage } from "../io/image.ts";
import type { Texture } from "../render/mesh.ts";
import type { ImportLimits } from "./import_files.ts";

/** Packs of assets share their pictures: the last few decoded ones are kept, by the hash of the file. */
const KEPT = 4;
const recent = new Map<string, Texture>();

function toTexture({ width, height, channels, data }: Image): Texture {
  if (channels === 4) return { width, height, data };
  const rgba = new Uint8Array(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgba[i * 4 + c] = data[i * channels + (channels === 1 ? 0 : c)];
  return { width, height, data: rgba };
}

/** Decodes a PNG or JPEG file to RGBA; throws an Error that begins with `what` for anything else, and for more pixels than the limit. */
export async function decodeTexture(file: Uint8Array<ArrayBuffer>, what: string, limits: ImportLimits): Promise<Texture> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", file)).toHex();
  const known = recent.get(hash);
  let texture: Texture;
  try {
    texture = known && known.width * known.height <= limits.texturePixels
      ? known
      : toTexture(readImage(file, { maxPixels: limits.texturePixels }));
  } catch (error) {
    throw new Error(`${what} is no picture that can be read: ${(error as Error).message}`);
  }
  recent.delete(hash);
  recent.set(hash, texture);
  if (recent.size > KEPT) recent.delete(recent.keys().next().value!);
  return texture;
}
