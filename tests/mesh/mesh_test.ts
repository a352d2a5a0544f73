import assert from "node:assert/strict";
import { meshOf, meshStats, subMesh, triangleParts, vertexNeighbors } from "../../lib/mesh/mesh.ts";

const TETRAHEDRON = meshOf(Float32Array.of(0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1), Uint32Array.of(0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3));

Deno.test("meshStats() measures a tetrahedron", () => {
  const stats = meshStats(TETRAHEDRON);
  assert.equal(stats.parts, 1);
  assert.equal(stats.eulerNumber, 2);
  assert.equal(stats.openEdges, 0);
  assert.equal(stats.badEdges, 0);
  assert.ok(Math.abs(stats.volume - 1 / 6) < 1e-6);
  assert.ok(Math.abs(stats.area - (1.5 + Math.sqrt(3) / 2)) < 1e-6);
  assert.deepEqual([stats.min, stats.max], [[0, 0, 0], [1, 1, 1]]);
});

Deno.test("meshStats() counts open and bad edges, and takes an empty mesh", () => {
  const open = meshStats(subMesh(TETRAHEDRON, TETRAHEDRON.triangles.slice(0, 9)));
  assert.equal(open.openEdges, 3);
  const flipped = meshOf(TETRAHEDRON.positions, Uint32Array.of(0, 1, 2, 0, 1, 3, 0, 3, 2, 1, 2, 3));
  assert.equal(meshStats(flipped).badEdges, 3);
  const empty = meshStats(meshOf(new Float32Array(0), new Uint32Array(0)));
  assert.deepEqual([empty.vertices, empty.triangles, empty.parts, empty.volume], [0, 0, 0, 0]);
});

Deno.test("subMesh() drops unused vertices and keeps colours with theirs", () => {
  const mesh = { ...TETRAHEDRON, colors: Uint8Array.from({ length: 12 }, (_, i) => i) };
  const part = subMesh(mesh, Uint32Array.of(3, 1, 2));
  assert.deepEqual([...part.triangles], [0, 1, 2]);
  assert.deepEqual([...part.positions], [0, 0, 1, 1, 0, 0, 0, 1, 0]);
  assert.deepEqual([...part.colors!], [9, 10, 11, 3, 4, 5, 6, 7, 8]);
});

Deno.test("triangleParts() tells parts apart and vertexNeighbors() lists each neighbour once", () => {
  const V = TETRAHEDRON.positions.length / 3, twice = Uint32Array.of(...TETRAHEDRON.triangles, ...TETRAHEDRON.triangles.map((v) => v + V));
  const mesh = meshOf(Float32Array.of(...TETRAHEDRON.positions, ...TETRAHEDRON.positions), twice);
  const parts = triangleParts(mesh);
  assert.equal(new Set(parts).size, 2);
  assert.equal(new Set(parts.subarray(0, 4)).size, 1);
  const { start, neighbors } = vertexNeighbors(mesh);
  assert.deepEqual([...start], [0, 3, 6, 9, 12, 15, 18, 21, 24]);
  assert.deepEqual([...neighbors.subarray(15, 18)].sort(), [4, 6, 7]);
});
