import assert from "node:assert/strict";
import { type ConditionPictures, drawConditions, PLAIN_PICTURES } from "../../lib/data/condition_batch.ts";
import { createRandom } from "../../lib/data/random.ts";

/** Two objects with three and one views of one pixel, whose bytes say which they are. */
const PICTURES: ConditionPictures = { size: 1, views: [3, 1], picture: (k, view) => new Uint8Array(3).fill(10 * k + view) };

Deno.test("drawConditions() draws views of its objects, drops as often as asked, and repeats itself", () => {
  const indices = Array.from({ length: 400 }, (_, i) => i % 2);
  const draw = (pUncond: number) => drawConditions(PICTURES, indices, { pUncond, augment: PLAIN_PICTURES, random: createRandom(3) });
  const { images, kept, gains } = draw(0.25), seen = new Set(images.map(([byte]) => byte));
  assert.deepEqual([...seen].sort((a, b) => a - b), [0, 1, 2, 10]);
  images.forEach(([byte], b) => assert.equal(byte >= 10, indices[b] === 1));
  const dropped = kept.filter((k) => k === 0).length;
  assert.ok(dropped > 70 && dropped < 130 && kept.every((k) => k === 0 || k === 1), `${dropped} of 400 dropped`);
  assert.ok(gains.length === 1200 && gains.every((g) => g === 1));
  assert.deepEqual(draw(0.25), draw(0.25));
  assert.ok(draw(0).kept.every((k) => k === 1) && draw(1).kept.every((k) => k === 0));
});

Deno.test("drawConditions() varies colours by the gain", () => {
  const augment = { ...PLAIN_PICTURES, gain: 0.3 };
  const { gains } = drawConditions(PICTURES, Array(100).fill(0), { pUncond: 0, augment, random: createRandom(4) });
  assert.ok(gains.every((g) => g >= 0.7 && g <= 1.3) && new Set(gains).size > 290);
});
