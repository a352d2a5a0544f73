import assert from "node:assert/strict";
import type { Image } from "../../lib/io/image.ts";
import { channelColors, columnsOf, conditionPicture, voxelPicture } from "../../lib/train/samples.ts";

/** How many pixels of an RGB image are not white. */
function inked({ data }: Image): number {
  let count = 0;
  for (let i = 0; i < data.length; i += 3) if (data[i] + data[i + 1] + data[i + 2] < 3 * 255) count++;
  return count;
}

Deno.test("voxelPicture() draws voxels on white", () => {
  const none = voxelPicture(new Int32Array(), 8, 32), one = voxelPicture(Int32Array.of(4, 4, 4), 8, 32), all: number[] = [];
  for (let i = 0; i < 512; i++) all.push(i >> 6, i >> 3 & 7, i & 7);
  const full = voxelPicture(Int32Array.from(all), 8, 32);
  for (const { width, height, channels, data } of [none, one, full]) {
    assert.deepEqual([width, height, channels, data.length], [32, 32, 3, 32 * 32 * 3]);
  }
  assert.equal(inked(none), 0);
  assert.ok(inked(one) >= 1 && inked(one) < inked(full), `${inked(one)} of ${inked(full)} pixels`);
  assert.ok(inked(full) > 32 * 32 / 4);
  const corners = [0, 31, 32 * 31, 32 * 32 - 1].map((pixel) => [...full.data.subarray(3 * pixel, 3 * pixel + 3)]);
  assert.deepEqual(corners, [0, 1, 2, 3].map(() => [255, 255, 255]), "the whole cube is in view");
});

Deno.test("conditionPicture() takes the nearest pixel of a picture [3, S, S]", () => {
  const values = Float32Array.of(0, 1, 0.5, 0, 0, 0, 0, 1, 1, 1, 1, 1), picture = conditionPicture(values, 2, 4);
  assert.deepEqual([picture.width, picture.height, picture.channels], [4, 4, 3]);
  const at = (x: number, y: number) => [...picture.data.subarray((y * 4 + x) * 3, (y * 4 + x) * 3 + 3)];
  assert.deepEqual([at(0, 0), at(3, 1), at(1, 2), at(2, 3)], [[0, 0, 255], [255, 0, 255], [128, 0, 255], [0, 255, 255]]);
});

Deno.test("columnsOf() puts each list in a column", () => {
  const grey = (v: number): Image => ({ width: 1, height: 1, channels: 3, data: new Uint8Array(3).fill(v) });
  const { width, height, data } = columnsOf([[grey(1), grey(2)], [grey(3), grey(4)], [grey(5), grey(6)]]);
  assert.deepEqual([width, height], [3, 2]);
  assert.deepEqual([...data].filter((_, i) => i % 3 === 0), [1, 3, 5, 2, 4, 6]);
});

Deno.test("channelColors() shows three channels, from dark to bright", () => {
  assert.deepEqual([...channelColors(Float32Array.of(0, 100, -1000, 7), 4)], [0.5, 1, 0]);
  assert.deepEqual([...channelColors(Float32Array.of(0, 100), 1)], [0.5, 0.5, 0.5, 1, 1, 1]);
});
