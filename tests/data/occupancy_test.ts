import assert from "node:assert/strict";
import { mirrorVoxels, occupancyBatch, remember, UPRIGHT_SYMMETRIES, voxelIou, voxelsAbove } from "../../lib/data/occupancy.ts";

/** A generator of whole numbers: the n-th call of `integer(random, 0, 7)` gives the n-th of `list`. */
function fixed(...list: number[]): () => number {
  let at = 0;
  return () => (list[at++] + 0.5) / UPRIGHT_SYMMETRIES;
}

Deno.test("occupancyBatch() puts ones where voxels are, x slowest", () => {
  const grids = occupancyBatch([Int32Array.of(0, 0, 1, 2, 1, 0), new Int32Array(), Int32Array.of(2, 2, 2)], 3);
  assert.equal(grids.length, 3 * 27);
  assert.deepEqual([...grids.keys()].filter((i) => grids[i] !== 0), [1, 18 + 3, 2 * 27 + 26]);
  assert.ok(grids.every((v) => v === 0 || v === 1));
});

Deno.test("occupancyBatch() turns and mirrors about the vertical axis: eight ways, all different, distances kept", () => {
  const R = 4, voxels = Int32Array.of(0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3), seen = new Map<string, Int32Array>();
  for (let s = 0; s < UPRIGHT_SYMMETRIES; s++) {
    const made = voxelsAbove(occupancyBatch([voxels], R, fixed(s)), R);
    seen.set(`${made}`, made);
    assert.deepEqual([...made].filter((_, i) => i % 3 === 2).sort(), [0, 0, 0, 3], "heights stay");
    const lengths = (v: Int32Array): number[] => {
      const points = Array.from({ length: v.length / 3 }, (_, i) => v.subarray(3 * i, 3 * i + 3)), found: number[] = [];
      points.forEach((a, i) => points.slice(0, i).forEach((b) => found.push((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)));
      return found.sort((a, b) => a - b);
    };
    assert.deepEqual(lengths(made), lengths(voxels));
  }
  assert.equal(seen.size, UPRIGHT_SYMMETRIES);
  assert.ok(seen.has(`${voxelsAbove(occupancyBatch([voxels], R), R)}`), "the object as it is is one of them");
  const two = occupancyBatch([voxels, voxels], R, fixed(1, 1));
  assert.deepEqual(two.slice(0, 64), two.slice(64), "each object has a turn of its own, drawn in order");
});

Deno.test("mirrorVoxels() exchanges x alone, and twice changes nothing", () => {
  const voxels = Int32Array.of(0, 1, 2, 3, 0, 1);
  assert.deepEqual([...mirrorVoxels(voxels, 4)], [3, 1, 2, 0, 0, 1]);
  assert.deepEqual(mirrorVoxels(mirrorVoxels(voxels, 4), 4), voxels);
});

Deno.test("voxelsAbove() lists what is above the level, in the order of the grid", () => {
  const grid = new Float32Array(27);
  grid.set([0.4, -1, 0.6], 12);
  grid[26] = 0.5;
  assert.deepEqual([...voxelsAbove(grid, 3)], [1, 1, 0, 1, 1, 2, 2, 2, 2]);
  assert.deepEqual([...voxelsAbove(grid, 3, 0.5)], [1, 1, 2]);
});

Deno.test("voxelIou() is the shared part", () => {
  const a = Int32Array.of(0, 0, 0, 1, 1, 1, 2, 0, 1), b = Int32Array.of(1, 1, 1, 2, 0, 1, 2, 2, 2);
  assert.equal(voxelIou(a, b, 3), 0.5);
  assert.equal(voxelIou(b, a, 3), 0.5);
  assert.equal(voxelIou(a, a, 3), 1);
  assert.equal(voxelIou(a, new Int32Array(), 3), 0);
  assert.equal(voxelIou(new Int32Array(), new Int32Array(), 3), 1);
});

Deno.test("remember() loads once, up to its bytes", () => {
  const loads: number[] = [], load = remember((key) => (loads.push(key), Uint8Array.of(key, 0)), 5);
  for (const key of [1, 2, 1, 2, 3, 3, 1]) assert.equal(load(key)[0], key);
  assert.deepEqual(loads, [1, 2, 3, 3]);
});
