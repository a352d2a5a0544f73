import assert from "node:assert/strict";
import type { Image } from "../../lib/io/pixels.ts";
import { resizeImage } from "../../lib/io/resize.ts";
import { assertRefused } from "./corrupt.ts";

// deno-fmt-ignore
const RGBA: Image = { width: 4, height: 3, channels: 4, data: new Uint8Array([
  248, 194, 190, 0, 147, 26, 237, 21, 245, 211, 239, 45, 5, 157, 159, 60, 54, 236, 109, 46, 199, 82, 32, 255,
  36, 7, 134, 222, 57, 146, 8, 149, 14, 15, 22, 10, 144, 208, 24, 24, 7, 41, 11, 1, 59, 104, 225, 110,
]) };
const RGB: Image = { width: 4, height: 3, channels: 3, data: RGBA.data.filter((_, i) => i % 4 < 3) };

/** The bytes of a resized image. */
function resized(image: Image, width: number, height: number, premultiplied = false): number[] {
  const out = resizeImage(image, { width, height, premultiplied });
  assert.deepEqual([out.width, out.height, out.channels, out.data.length], [
    width,
    height,
    image.channels,
    width * height * image.channels,
  ]);
  return [...out.data];
}

Deno.test("resizeImage() gives Pillow's bytes, smaller and larger, with and without alpha", () => {
  assert.deepEqual(resized(RGBA, 2, 2), [166, 81, 85, 75, 81, 92, 103, 116, 155, 92, 56, 72, 67, 76, 113, 117]);
  assert.deepEqual(resized(RGBA, 4, 1), [48, 206, 97, 21, 192, 87, 43, 111, 64, 36, 149, 99, 49, 135, 100, 109]);
  // deno-fmt-ignore
  assert.deepEqual(resized(RGBA, 7, 5), [
    0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 16, 0, 255, 255, 255, 2, 255, 255, 255, 22, 97, 230, 242, 42, 0, 137, 210, 52, 0, 255, 255, 8, 176,
    130, 46, 49, 195, 75, 51, 115, 161, 55, 120, 133, 76, 60, 157, 123, 40, 117, 97, 102, 39, 172, 36, 90, 0, 255, 255, 21, 184, 142,
    37, 109, 204, 88, 27, 242, 142, 38, 92, 255, 26, 9, 135, 213, 26, 85, 68, 165, 70, 174, 0, 142, 0, 255, 182, 14, 167, 140, 39, 58,
    197, 107, 23, 119, 146, 43, 86, 106, 16, 2, 133, 92, 35, 87, 134, 116, 66, 133, 127, 138, 0, 0, 0, 6, 0, 63, 63, 4, 0, 10, 0, 0, 0,
    2, 0, 0, 0, 2, 0, 0, 64, 109, 255, 63, 56, 95, 255, 118,
  ]);
  assert.deepEqual(resized(RGB, 2, 2), [187, 129, 179, 103, 126, 152, 80, 116, 24, 52, 79, 84]);
  // deno-fmt-ignore
  assert.deepEqual(resized(RGB, 3, 6), [
    222, 119, 214, 214, 126, 255, 79, 201, 199, 194, 156, 181, 193, 89, 221, 67, 178, 147, 139, 205, 117, 152, 35, 139, 44, 134, 68, 80,
    184, 49, 103, 43, 44, 27, 86, 66, 62, 107, 29, 83, 108, 9, 29, 71, 141, 58, 59, 25, 77, 150, 0, 32, 67, 193,
  ]);
  const ramp: Image = { width: 16, height: 1, channels: 1, data: Uint8Array.from({ length: 16 }, (_, i) => 15 * i) };
  assert.deepEqual(resized(ramp, 5, 1), [17, 64, 113, 161, 208]);
});

Deno.test("resizeImage() keeps constants and does not let transparent colours bleed", () => {
  const flat: Image = { width: 5, height: 4, channels: 3, data: new Uint8Array(60).fill(200) };
  for (const [width, height] of [[1, 1], [3, 9], [50, 2]]) assert.ok(resized(flat, width, height).every((value) => value === 200));
  const half: Image = { width: 2, height: 1, channels: 4, data: new Uint8Array([200, 0, 0, 255, 0, 255, 0, 0]) };
  const [r, g, b, a] = resized(half, 1, 1);
  assert.deepEqual([r, g, b, a], [199, 0, 0, 128]);
});

Deno.test("resizeImage() takes premultiplied colours as they are", () => {
  const half: Image = { width: 2, height: 1, channels: 4, data: new Uint8Array([200, 0, 0, 255, 0, 0, 0, 0]) };
  assert.deepEqual(resized(half, 1, 1, true), [100, 0, 0, 128]);
});

Deno.test("resizeImage() to the same size is a copy", () => {
  const same = resizeImage(RGBA, { width: 4, height: 3 });
  assert.deepEqual(same, RGBA);
  assert.notEqual(same.data.buffer, RGBA.data.buffer);
  assertRefused(() => resizeImage(RGBA, { width: 0, height: 3 }), "the image is 0 x 3");
  assertRefused(() => resizeImage(RGBA, { width: 1e5, height: 1e5 }), "at most");
});
