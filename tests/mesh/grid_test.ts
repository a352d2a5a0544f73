import assert from "node:assert/strict";
import { blurGrid, fillInterior, gridSide } from "../../lib/mesh/grid.ts";
import { isoSurface } from "../../lib/mesh/iso_surface.ts";
import { meshStats } from "../../lib/mesh/mesh.ts";
import { ballField, fieldOf } from "./fields.ts";

Deno.test("gridSide() is the cube root", () => {
  assert.equal(gridSide(64 ** 3), 64);
  assert.throws(() => gridSide(0), RangeError);
});

Deno.test("blurGrid() spreads an impulse as a Gaussian and keeps a constant", () => {
  const impulse = new Float32Array(11 ** 3);
  impulse[(5 * 11 + 5) * 11 + 5] = 1;
  const blurred = blurGrid(impulse, 1), at = (x: number, y: number, z: number): number => blurred[(x * 11 + y) * 11 + z];
  assert.ok(Math.abs(blurred.reduce((sum, x) => sum + x, 0) - 1) < 1e-5);
  for (const ratio of [at(6, 5, 5), at(5, 6, 5), at(5, 5, 6)]) assert.ok(Math.abs(ratio / at(5, 5, 5) - Math.exp(-0.5)) < 1e-5);
  assert.ok(blurGrid(new Float32Array(8).fill(2.5), 2).every((x) => Math.abs(x - 2.5) < 1e-6));
});

Deno.test("fillInterior() makes a body of a shell, and leaves what is outside", () => {
  const R = 24, shell = ballField(R, 0.4).map((d) => Math.abs(d) < 0.9 / R ? 4 : -6);
  const filled = fillInterior(shell);
  assert.equal(meshStats(isoSurface(shell)).parts, 2);
  assert.equal(meshStats(isoSurface(filled)).parts, 1);
  shell.forEach((x, i) => assert.ok(x > 0 || filled[i] === -6 || filled[i] === 6));
  assert.equal(filled[0], -6);
});

Deno.test("fillInterior() fills a leaky shell only with a closing, at the border as well", () => {
  const R = 24,
    holed = (radius: number): Float32Array =>
      fieldOf(R, (x, y, z) => Math.abs(radius - Math.hypot(x, y, z)) < 0.9 / R && !(z > 0 && Math.hypot(x, y) < 1 / R) ? 4 : -6);
  for (const radius of [0.3, 0.48]) {
    const field = holed(radius), body = 4 / 3 * Math.PI * radius ** 3;
    assert.deepEqual(fillInterior(field), field);
    const volume = meshStats(isoSurface(fillInterior(field, { close: 1 }))).volume;
    assert.ok(volume > 0.95 * body && volume < 1.5 * body, `${volume} of ${body}`);
  }
});
