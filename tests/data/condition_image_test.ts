import assert from "node:assert/strict";
import { createRandom } from "../../lib/data/random.ts";
import { conditionImage, drawVariation, prepareImage, varyImage } from "../../lib/data/condition_image.ts";
import type { Image } from "../../lib/io/image.ts";

/** A picture with a colour for each pixel. */
function picture(width: number, height: number, channels: 1 | 3 | 4, color: (x: number, y: number) => number[]): Image {
  const data = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; i++) data.set(color(i % width, Math.floor(i / width)), i * channels);
  return { width, height, channels, data };
}

function isInside(x: number, y: number): boolean {
  return x >= 10 && x <= 30 && y >= 20 && y <= 30;
}

Deno.test("conditionImage() crops to 1.2 times the object, centred, and multiplies by alpha", () => {
  const view = picture(64, 64, 4, (x, y) => isInside(x, y) ? [255, 128, 0, 255] : [9, 9, 9, 0]);
  const out = conditionImage(view, 24); // half = 10 * 1.2, the square is x 8..32, y 13..37: 24 pixels, not resized
  const at = (c: number, x: number, y: number): number => out[c * 576 + (y - 13) * 24 + x - 8];
  for (let y = 13; y < 37; y++) {
    for (let x = 8; x < 32; x++) {
      assert.deepEqual([at(0, x, y), at(1, x, y), at(2, x, y)], isInside(x, y) ? [1, Math.fround(128 / 255), 0] : [0, 0, 0]);
    }
  }
});

Deno.test("conditionImage() reaches beyond the picture's edge, where nothing is", () => {
  const out = conditionImage(picture(16, 16, 4, (_, y) => [255, 255, 255, y < 8 ? 255 : 0]), 36);
  assert.equal(out.length, 3 * 36 * 36);
  assert.equal(out[0], 0);
  assert.ok(out[18 * 36 + 18] > 0.9);
});

Deno.test("conditionImage() refuses pictures without alpha and without an object", () => {
  assert.throws(() => conditionImage(picture(4, 4, 3, () => [1, 2, 3]), 8), /3 channels and nothing in it/);
  assert.throws(() => conditionImage(picture(4, 4, 4, () => [1, 2, 3, 0]), 8), /nothing in it/);
});

Deno.test("conditionImage() takes an object of a single pixel", () => {
  assert.ok(conditionImage(picture(9, 9, 4, (x, y) => [255, 255, 255, x === 4 && y === 4 ? 255 : 0]), 4)[0] > 0.5);
});

Deno.test("prepareImage() uses alpha above 0.8 for the box and steps of 8 bits", () => {
  const image = picture(64, 64, 4, (x, y) => isInside(x, y) ? [255, 101, 0, 255] : [255, 255, 255, x < 40 ? 100 : 0]);
  const { data, warning } = prepareImage(image, 24); // side int(1.2 * 20) = 24 about (20, 25): x 8..32, y 13..37
  assert.equal(warning, undefined);
  assert.deepEqual([data[(20 - 13) * 24 + 2], data[(20 - 13) * 24 + 1]].map((v) => Math.round(v * 255)), [255, 100]);
  assert.ok(data.every((v) => Math.abs(v * 255 - Math.round(v * 255)) < 1e-3));
});

Deno.test("prepareImage() takes a plain background away and says so", () => {
  const back = (x: number): number[] => [200 + x % 3, 205, 210]; // a little noise
  const { data, warning } = prepareImage(picture(64, 64, 3, (x, y) => isInside(x, y) ? [255, 40, 0] : back(x)), 24);
  assert.match(warning!, /background \(about rgb 200 205 210\) was taken away/);
  assert.deepEqual([data[0], data[12 * 24 + 12], data[576 + 12 * 24 + 12]].map((v) => Math.round(v * 255)), [0, 255, 40]);
  const grey = prepareImage(picture(64, 64, 1, (x, y) => [isInside(x, y) ? 20 : 255]), 24);
  assert.equal(Math.round(grey.data[12 * 24 + 12] * 255), 20);
});

Deno.test("prepareImage() takes all of a picture without a plain background, and scales a large one down", () => {
  const busy = prepareImage(picture(64, 32, 3, (x, y) => [x * 53 % 256, y * 91 % 256, (x * y * 37) % 256]), 16);
  assert.match(busy.warning!, /all of it is taken/);
  assert.equal(busy.data.length, 3 * 256);
  const plain = prepareImage(picture(32, 32, 3, () => [255, 255, 255]), 8);
  assert.match(plain.warning!, /all of it is taken/);
  const wide = prepareImage(picture(2000, 40, 3, (x, y) => x > 500 && x < 1500 && y > 10 && y < 30 ? [0, 0, 255] : [255, 0, 0]), 8);
  const sum = (c: number): number => wide.data.subarray(c * 64, c * 64 + 64).reduce((a, b) => a + b);
  assert.ok(sum(2) > 5 * sum(0));
});

Deno.test("prepareImage() refuses a picture with nothing in it", () => {
  assert.throws(() => prepareImage(picture(8, 8, 4, () => [255, 255, 255, 100]), 8), /no pixel has alpha above 0.8/);
});

Deno.test("varyImage() exchanges channels, mirrors each row, and moves what is seen", () => {
  const image = Uint8Array.from({ length: 12 }, (_, i) => i + 1), still = { mirror: false, shift: [0, 0], channels: [0, 1, 2] } as const;
  assert.deepEqual([...varyImage(image, 2, still)], [...image]);
  assert.deepEqual([...varyImage(image, 2, { ...still, mirror: true })], [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11]);
  assert.deepEqual([...varyImage(image, 2, { ...still, channels: [2, 0, 1] })], [9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual([...varyImage(image, 2, { ...still, shift: [1, 0] })], [0, 1, 0, 3, 0, 5, 0, 7, 0, 9, 0, 11]);
  assert.deepEqual([...varyImage(image, 2, { ...still, mirror: true, shift: [0, -1] })], [4, 3, 0, 0, 8, 7, 0, 0, 12, 11, 0, 0]);
  assert.deepEqual([...varyImage(image, 2, { ...still, mirror: true, shift: [-1, 0] })], [1, 0, 3, 0, 5, 0, 7, 0, 9, 0, 11, 0]);
});

Deno.test("drawVariation() draws only what it may, and within its limits", () => {
  const random = createRandom(1, 0), still = { mirror: false, shift: 0, exchange: 0 };
  assert.deepEqual(drawVariation(still, 64, random), { mirror: false, shift: [0, 0], channels: [0, 1, 2] });
  const drawn = Array.from({ length: 400 }, () => drawVariation({ mirror: true, shift: 1 / 16, exchange: 0.5 }, 64, random));
  assert.ok(drawn.every(({ shift }) => shift.every((d) => Number.isInteger(d) && Math.abs(d) <= 4)));
  assert.equal(new Set(drawn.map(({ shift }) => shift[0])).size, 9);
  assert.equal(new Set(drawn.map(({ channels }) => channels.join())).size, 6);
  const mirrored = drawn.filter(({ mirror }) => mirror).length;
  assert.ok(mirrored > 140 && mirrored < 260);
});
