import assert from "node:assert/strict";
import { checkImage, checkSize, cropImage, type Image, imageGrid } from "../../lib/io/pixels.ts";
import { assertRefused } from "./corrupt.ts";

/** A grey image. */
function grey(width: number, ...data: number[]): Image {
  return { width, height: data.length / width, channels: 1, data: new Uint8Array(data) };
}

Deno.test("cropImage() cuts, and is black outside", () => {
  const image = grey(3, 1, 2, 3, 4, 5, 6);
  assert.deepEqual(cropImage(image, [1, 0, 3, 2]), grey(2, 2, 3, 5, 6));
  assert.deepEqual(cropImage(image, [-1, -1, 2, 1]), grey(3, 0, 0, 0, 0, 1, 2));
  assert.deepEqual(cropImage(image, [2, 1, 4, 3]), grey(2, 6, 0, 0, 0));
  assert.deepEqual(cropImage(image, [5, 5, 6, 7]), grey(1, 0, 0));
  const rgba: Image = { width: 1, height: 1, channels: 4, data: new Uint8Array([1, 2, 3, 255]) };
  assert.deepEqual([...cropImage(rgba, [0, 0, 2, 1]).data], [1, 2, 3, 255, 0, 0, 0, 0]);
  assertRefused(() => cropImage(image, [1, 0, 1, 2]), "the image is 0 x 2");
  assertRefused(() => cropImage(image, [0, 0, 1.5, 2]), "whole numbers");
  assertRefused(() => cropImage(image, [0, 0, 1e5, 1e5]), "at most");
});

Deno.test("imageGrid() lays images row by row with gaps", () => {
  const images = [1, 2, 3].map((value) => grey(1, value));
  assert.deepEqual(imageGrid(images), grey(2, 1, 2, 3, 0));
  assert.deepEqual(imageGrid(images, { columns: 3 }), grey(3, 1, 2, 3));
  assert.deepEqual(imageGrid(images.slice(0, 2), { columns: 1, padding: 1 }), grey(3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0));
  assertRefused(() => imageGrid([]), "there is no image");
  assertRefused(() => imageGrid([images[0], grey(2, 1, 2)]), "an image is 2 x 1 x 1, it must be 1 x 1 x 1 as the first");
  assertRefused(() => imageGrid(images, { columns: 0 }), "whole numbers");
});

Deno.test("checkSize() and checkImage() refuse sizes that cannot be", () => {
  for (const [width, height] of [[0, 1], [-1, 1], [1.5, 1], [NaN, 1], [Infinity, 1]]) {
    assertRefused(() => checkSize("read x", width, height), "whole numbers");
  }
  assertRefused(() => checkSize("read x", 1e4, 1e4), "Cannot read x: the image has 10000 x 10000 pixels, it must have at most 67108864");
  assertRefused(() => checkImage("read x", { ...grey(2, 1, 2), height: 2 }), "the image has 2 bytes, 2 x 2 x 1 takes 4");
  assertRefused(() => checkImage("read x", { ...grey(2, 1, 2), channels: 2 as 1 }), "2 channels");
});
