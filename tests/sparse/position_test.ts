import assert from "node:assert/strict";
import { absolutePositionEmbedding } from "../../lib/ops/embed.ts";
import { voxelEmbedding } from "../../lib/sparse/position.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { step } from "../../lib/tensor/scope.ts";
import { assertClose } from "../check.ts";
import { scatter } from "../voxels.ts";

for (const C of [6, 20, 768, 1024, 1280]) {
  Deno.test(`voxelEmbedding() of ${C} channels is the host's embedding of each place`, () => {
    const coords = scatter(1, [5, 0, 9], 40), places = coords.filter((_, i) => i % 4);
    const got = step(() => voxelEmbedding(makeVoxels(coords), C).read());
    assert.deepEqual(got, absolutePositionEmbedding(places, C));
  });
}

Deno.test("voxelEmbedding() has the sines and cosines of a known place", () => {
  const at = (C: number) => step(() => voxelEmbedding(makeVoxels(Int32Array.of(0, 1, 2, 31)), C).read());
  const known: Record<number, Record<number, number>> = {
    1024: {
      0: 0.84147102,
      1: 0.81182039,
      169: 1.0556733e-4,
      170: 0.54030228,
      340: 0.90929741,
      510: -0.41614681,
      685: -0.99666369,
      850: 0.91474235,
      1019: 0.99999464,
      1020: 0,
      1023: 0,
    },
    768: { 1: 0.80196184, 127: 1.0746078e-4, 517: 0.35077721, 767: 0.99999446 },
    1280: { 1: 0.81785911, 212: 1.0441894e-4, 857: -0.15938704, 1277: 0.99999475, 1278: 0, 1279: 0 },
  };
  for (const [C, values] of Object.entries(known)) {
    const got = at(Number(C)), want = Object.entries(values);
    assertClose(`${C} channels`, want.map(([i]) => got[Number(i)]), want.map(([, v]) => v), { rtol: 0, atol: 5e-6 });
  }
});

Deno.test("voxelEmbedding() of no voxels is empty", () => {
  assert.equal(step(() => voxelEmbedding(makeVoxels(new Int32Array(0)), 12).read()).length, 0);
});
