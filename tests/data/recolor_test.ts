import assert from "node:assert/strict";
import { createRandom } from "../../lib/data/random.ts";
import { drawRecolor, exchangePlanes, NO_RECOLOR, recolorFeatures, SAME_COLORS } from "../../lib/data/recolor.ts";

Deno.test("drawRecolor() leaves colours as often as asked, and without a part draws no numbers", () => {
  const random = createRandom(1), drawn = Array.from({ length: 600 }, () => drawRecolor({ part: 0.5, gain: 0.4 }, random));
  const changed = drawn.filter((colors) => colors !== SAME_COLORS);
  assert.ok(changed.length > 240 && changed.length < 360);
  assert.equal(new Set(changed.map(({ channels }) => channels.join())).size, 6);
  for (const { channels, gains } of changed) {
    assert.deepEqual(channels.toSorted(), [0, 1, 2]);
    assert.ok(gains.length === 3 && gains.every((g) => g >= 0.6 && g <= 1));
  }
  const a = createRandom(2), b = createRandom(2);
  assert.equal(drawRecolor(NO_RECOLOR, a), SAME_COLORS);
  assert.equal(a(), b());
});

Deno.test("features and pictures of one colour get the same one", () => {
  const recolor = { channels: [2, 0, 1], gains: [1, 0.5, 0.25] }, rgb = [40, 120, 250];
  const features = Float32Array.from([...rgb.map((v) => 2 * v / 255 - 1), 7, 8, 9, ...rgb.map((v) => 2 * v / 255 - 1), 10, 11, 12]);
  const planes = Uint8Array.from([...rgb.flatMap((v) => [v, v]), 255, 0]);
  const made = recolorFeatures(features, 6, recolor), shown = exchangePlanes(planes, recolor, 2);
  for (const c of [0, 1, 2]) {
    const want = rgb[recolor.channels[c]] * recolor.gains[c];
    assert.ok(Math.abs((made[c] + 1) / 2 * 255 - want) < 1e-3 && Math.abs((made[6 + c] + 1) / 2 * 255 - want) < 1e-3);
    assert.deepEqual([...shown.subarray(2 * c, 2 * c + 2)].map((v) => v * recolor.gains[c]), [want, want]);
  }
  assert.deepEqual([...made.subarray(3, 6), ...made.subarray(9)], [7, 8, 9, 10, 11, 12]);
  assert.deepEqual([...shown.subarray(6)], [255, 0]);
  assert.deepEqual(recolorFeatures(features, 6, SAME_COLORS).map((v) => Math.fround(v)), features);
  assert.deepEqual(exchangePlanes(planes, SAME_COLORS, 2), planes);
});
