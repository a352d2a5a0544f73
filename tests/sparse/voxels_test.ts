import assert from "node:assert/strict";
import { batchCoords, expectFeatures, makeVoxels, mapOf, startsOf, voxelsAt } from "../../lib/sparse/voxels.ts";
import { device } from "../../lib/tensor/device.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { scatter, shuffle } from "../voxels.ts";

Deno.test("makeVoxels() counts samples, rows and the grid", () => {
  step(() => {
    const coords = scatter(1, [5, 0, 9], 7), v = makeVoxels(coords, { B: 4 });
    assert.deepEqual([v.N, v.B, v.longest, v.starts], [14, 4, 9, [0, 5, 5, 14, 14]]);
    assert.equal(v.side, 1 + Math.max(...coords.filter((_, i) => i % 4)));
    assert.deepEqual([...v.offsets.read()], v.starts);
    assert.deepEqual([...v.coords.read()], [...coords]);
    assert.equal(makeVoxels(coords).B, 3);
  });
});

Deno.test("makeVoxels() takes the rows of a sample in any order, one voxel, and none", () => {
  step(() => {
    const coords = shuffle(2, scatter(1, [5, 9], 7));
    assert.deepEqual([...makeVoxels(coords).coords.read()], [...coords]);
    const one = makeVoxels(Int32Array.of(0, 1023, 0, 4)),
      none = makeVoxels(new Int32Array(0)),
      empty = makeVoxels(new Int32Array(0), { B: 2 });
    assert.deepEqual([one.N, one.B, one.longest, one.side], [1, 1, 1, 1024]);
    assert.deepEqual([none.N, none.B, none.longest, none.side], [0, 0, 0, 1]);
    assert.deepEqual([empty.N, empty.B, empty.longest, [...empty.offsets.read()]], [0, 2, 0, [0, 0, 0]]);
  });
});

Deno.test("makeVoxels() refuses coordinates that are no places", () => {
  const refused = (coords: number[], message: string, B?: number): void => {
    assert.throws(() => step(() => void makeVoxels(Int32Array.from(coords), { B })), { name: "RangeError", message });
  };
  refused([0, 1, 2], "Cannot make voxels: there are 3 coordinates, it must be 4 a voxel");
  refused([1, 0, 0, 0, 0, 0, 0, 0], "Cannot make voxels: row 1 is of sample 0, it must be at least 1 like the row before");
  refused([-1, 0, 0, 0], "Cannot make voxels: row 0 is of sample -1, it must be at least 0 like the row before");
  refused([0, 0, 0, 0, 2, 0, 0, 0], "Cannot make voxels: row 1 is of sample 2, it must be below 2", 2);
  refused([65536, 0, 0, 0], "Cannot make voxels: row 0 is of sample 65536, it must be below 65536");
  refused([0, 0, -1, 0], "Cannot make voxels: row 0 is at (0, -1, 0), it must be from 0 to 1023 on each axis");
  refused([0, 0, 1, 1024], "Cannot make voxels: row 0 is at (0, 1, 1024), it must be from 0 to 1023 on each axis");
  refused([0, 1, 2, 3, 0, 1, 2, 3], "Cannot make voxels: row 1 is at (1, 2, 3) of sample 0 like row 0, it must be there once");
  refused([0, 1, 2, 3, 0, 0, 0, 0, 0, 1, 2, 3], "Cannot make voxels: row 2 is at (1, 2, 3) of sample 0 like row 0, it must be there once");
});

Deno.test("mapOf() builds a map once, and it lives as long as the voxels", () => {
  const before = device().memory.use().used;
  step(() => {
    const v = makeVoxels(scatter(1, [5], 7));
    let built = 0;
    const build = () => {
      built++;
      return { table: zeros([100]), kernel: 3 };
    };
    const first = tidy(() => mapOf(v, "a map", build)), second = step(() => mapOf(v, "a map", build));
    assert.ok(first === second && !first.table.freed);
    assert.equal(built, 1);
    assert.notEqual(mapOf(v, "another map", build), first);
  });
  if (device().name === "cpu") assert.equal(device().memory.use().used, before);
});

Deno.test("voxelsAt() and startsOf() take places from the device", () => {
  step(() => {
    const coords = scatter(1, [2, 0, 1], 4),
      starts = startsOf(coords, 4),
      v = voxelsAt(tensor(coords, [3, 4], { dtype: "i32" }), starts, 4);
    assert.deepEqual(starts, [0, 2, 2, 3, 3]);
    assert.deepEqual([v.N, v.B, v.longest], [3, 4, 2]);
    assert.throws(() => voxelsAt(zeros([2, 4], "i32"), starts, 4), { message: "Cannot run voxelsAt: coords is [2,4], it must be [3,4]" });
  });
});

Deno.test("expectFeatures() wants a row for each voxel", () => {
  step(() => {
    const voxels = makeVoxels(scatter(1, [5], 7));
    expectFeatures("op", { features: zeros([5, 3]), voxels }, 3);
    assert.throws(() => expectFeatures("op", { features: zeros([4, 3]), voxels }, 3), {
      message: "Cannot run op: features is [4,3], it must be [5,3]",
    });
    assert.throws(() => expectFeatures("op", { features: zeros([5, 2]), voxels }, 3), {
      message: "Cannot run op: features is [5,2], it must be [5,3]",
    });
  });
});

Deno.test("batchCoords() puts samples one after the other", () => {
  assert.deepEqual([...batchCoords([[1, 2, 3, 4, 5, 6], [], Uint8Array.of(7, 8, 9)])], [0, 1, 2, 3, 0, 4, 5, 6, 2, 7, 8, 9]);
  assert.equal(batchCoords([]).length, 0);
});
