import assert from "node:assert/strict";
import { removeSmallParts, simplifyMesh, smoothMesh } from "../../lib/mesh/clean.ts";
import { isoSurface } from "../../lib/mesh/iso_surface.ts";
import { meshStats } from "../../lib/mesh/mesh.ts";
import { ballField, ballMesh, fieldOf } from "./fields.ts";

Deno.test("smoothMesh() takes the steps off a voxel ball without shrinking it", () => {
  const steps = isoSurface(ballField(32, 0.35).map((x) => x > 0 ? 9 : -9)), smooth = smoothMesh(steps);
  const before = meshStats(steps), after = meshStats(smooth);
  assert.ok(after.area < 0.99 * before.area);
  assert.ok(Math.abs(after.volume / before.volume - 1) < 0.01, `${after.volume} ${before.volume}`);
  const held = smoothMesh(steps, { maxMove: 0.001 });
  assert.ok(held.positions.every((x, i) => Math.abs(x - steps.positions[i]) <= 0.001 + 1e-7));
});

Deno.test("removeSmallParts() keeps the parts that are large enough", () => {
  const field = fieldOf(32, (x, y, z) => Math.max(0.2 - Math.hypot(x + 0.25, y, z), 0.1 - Math.hypot(x - 0.3, y, z)));
  const mesh = isoSurface(field);
  assert.equal(meshStats(mesh).parts, 2);
  assert.equal(meshStats(removeSmallParts(mesh, 0.1)).parts, 2);
  const alone = removeSmallParts(mesh, 0.5);
  assert.equal(meshStats(alone).parts, 1);
  assert.ok(alone.positions.length < mesh.positions.length && meshStats(alone).max[0] < 0);
  assert.equal(removeSmallParts(isoSurface(new Float32Array(8).fill(-1)), 0.5).triangles.length, 0);
});

Deno.test("simplifyMesh() reaches its target and keeps a closed mesh closed", async () => {
  const mesh = ballMesh(48, 0.4), colors = Uint8Array.from(mesh.normals, (n) => 128 + 120 * n);
  for (const targetTriangles of [2000, 300]) {
    const small = await simplifyMesh({ ...mesh, colors }, { targetTriangles }), stats = meshStats(small);
    assert.ok(stats.triangles <= targetTriangles && stats.triangles > 0.8 * targetTriangles, `${stats.triangles}`);
    assert.deepEqual([stats.openEdges, stats.badEdges, stats.eulerNumber], [0, 0, 2]);
    assert.ok(Math.abs(stats.volume / meshStats(mesh).volume - 1) < 0.05);
    assert.ok(small.normals.every((n, i) => Math.abs(n - (small.colors![i] - 128) / 120) < 0.5));
  }
  assert.equal(await simplifyMesh(mesh, { targetTriangles: 1e6 }), mesh);
  await assert.rejects(simplifyMesh(mesh, { targetTriangles: 0 }), /targetTriangles is 0, it must be at least 1/);
});
