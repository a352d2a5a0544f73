import assert from "node:assert/strict";
import { EDGE_CORNERS, NONE, patchTable } from "../../lib/mesh/patch_table.ts";

Deno.test("patchTable() gives each crossed edge a patch, of three to seven edges, and no other edge", () => {
  const { patchOf, patches } = patchTable();
  for (let id = 0; id < 256; id++) {
    const edges = new Array(patches[id]).fill(0);
    EDGE_CORNERS.forEach(([low, high], e) => {
      const crossed = ((id >> low) & 1) !== ((id >> high) & 1), patch = patchOf[id * 12 + e];
      assert.equal(patch !== NONE, crossed);
      if (crossed) edges[patch]++;
    });
    assert.ok(edges.every((count) => count >= 3 && count <= 7), `case ${id}: ${edges}`);
  }
  assert.equal(Math.max(...patches), 4);
});

Deno.test("patchTable() finds the 36 doubtful cases", () => {
  const { doubtfulFace, patches } = patchTable();
  const doubtful = [...doubtfulFace.keys()].filter((id) => doubtfulFace[id] !== NONE);
  assert.equal(doubtful.length, 36);
  assert.ok(doubtful.every((id) => patches[255 - id] === 2));
});
