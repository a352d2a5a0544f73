import assert from "node:assert/strict";
import * as pictures from "../../../lib/data/procedural/pictures.ts";
import { createRandom } from "../../../lib/data/random.ts";

const RED: pictures.Rgb = [0.8, 0.2, 0.1], BLUE: pictures.Rgb = [0.1, 0.2, 0.8];
const MAKERS: Record<string, (random: () => number) => pictures.Picture> = {
  wood: (r) => pictures.wood(r, RED),
  planks: (r) => pictures.planks(r, RED),
  bricks: (r) => pictures.bricks(r, RED, BLUE),
  tiles: (r) => pictures.tiles(r, RED),
  stripes: (r) => pictures.stripes(r, [RED, BLUE]),
  checks: (r) => pictures.checks(r, [RED, BLUE]),
  dots: (r) => pictures.dots(r, [RED, BLUE]),
  mottled: (r) => pictures.mottled(r, RED),
  waves: (r) => pictures.waves(r, [RED, BLUE]),
  windows: (r) => pictures.windows(r, RED),
  pattern: (r) => pictures.pattern(r, RED),
};

Deno.test("each picture is opaque, has more than one colour, and follows its random numbers", () => {
  for (const [name, make] of Object.entries(MAKERS)) {
    for (let seed = 0; seed < 8; seed++) {
      const { width, height, data } = make(createRandom(seed));
      assert.equal(data.length, width * height * 4, name);
      const colors = new Set(new Uint32Array(data.buffer));
      assert.ok(colors.size > 1, `${name} ${seed} is plain`);
      for (let i = 3; i < data.length; i += 4) assert.equal(data[i], 255);
      assert.deepEqual(make(createRandom(seed)).data, data);
    }
  }
});

Deno.test("a picture goes on over its edges: the step there is no larger than inside", () => {
  for (const name of ["mottled", "wood"]) {
    const { width, height, data } = MAKERS[name](createRandom(3));
    const row = (x: number): number[] => Array.from({ length: height }, (_, y) => data[(y * width + x) * 4]);
    const step = (a: number, b: number): number => row(a).reduce((sum, v, y) => sum + Math.abs(v - row(b)[y]), 0);
    const inside = Array.from({ length: width - 1 }, (_, x) => step(x, x + 1));
    assert.ok(step(width - 1, 0) <= Math.max(...inside) * 1.2, name);
  }
});

Deno.test("hsv() gives the corners of the colour wheel", () => {
  assert.deepEqual([0, 1 / 3, 2 / 3].map((h) => pictures.hsv(h, 1, 1).map(Math.round)), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]);
  for (const color of [pictures.paint, pictures.woodColor, pictures.stoneColor, pictures.leafColor]) {
    assert.ok(color(createRandom(1)).every((c) => c >= 0 && c <= 1));
  }
  assert.deepEqual(pictures.shade([0.5, 0.9, 0], 2), [1, 1, 0]);
});
