import assert from "node:assert/strict";
import { diffuseColors, mirrorColors } from "../../lib/mesh/fill_colors.ts";
import { meshOf } from "../../lib/mesh/mesh.ts";
import { ballMesh, oddMesh } from "./fields.ts";

Deno.test("mirrorColors() copies from the mirror image on a symmetric mesh alone", () => {
  for (const [mesh, isSymmetric] of [[ballMesh(24, 0.4), true], [oddMesh(24), false]] as const) {
    const V = mesh.positions.length / 3, colors = new Float32Array(3 * V), known = new Uint8Array(V);
    for (let v = 0; v < V; v++) {
      if (mesh.positions[3 * v] < 0) continue;
      known[v] = 1;
      colors.fill(mesh.positions[3 * v + 2] > 0 ? 200 : 50, 3 * v, 3 * v + 3);
    }
    const before = known.reduce((sum, k) => sum + k, 0);
    mirrorColors(mesh, { colors, known });
    const after = known.reduce((sum, k) => sum + k, 0);
    assert.equal(after > 0.99 * V, isSymmetric);
    if (!isSymmetric) assert.equal(after, before);
    for (let v = 0; v < V; v++) {
      const z = mesh.positions[3 * v + 2];
      if (known[v] === 1 && Math.abs(z) > 0.03) assert.equal(colors[3 * v], z > 0 ? 200 : 50);
    }
  }
});

Deno.test("diffuseColors() blends between known vertices and gives the mean where none is in reach", () => {
  const strip = 10, positions = new Float32Array(3 * (strip + 3)), triangles: number[] = [];
  for (let v = 0; v + 2 < strip; v++) triangles.push(v, v + 1, v + 2);
  triangles.push(strip, strip + 1, strip + 2);
  const mesh = meshOf(positions, Uint32Array.from(triangles)), V = strip + 3;
  const colors = new Float32Array(3 * V), known = new Uint8Array(V);
  known[0] = known[strip - 1] = 1;
  colors.fill(90, 3 * (strip - 1), 3 * strip);
  diffuseColors(mesh, { colors, known });
  for (let v = 1; v < strip; v++) assert.ok(colors[3 * v] > colors[3 * (v - 1)], `${colors}`);
  assert.equal(colors[3 * strip], 45);
});
