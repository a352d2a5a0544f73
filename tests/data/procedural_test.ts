import assert from "node:assert/strict";
import { PROCEDURAL_KINDS, proceduralObject, proceduralObjects } from "../../lib/data/procedural.ts";
import { assemble } from "../../lib/data/procedural/assemble.ts";
import * as buildings from "../../lib/data/procedural/buildings.ts";
import * as furniture from "../../lib/data/procedural/furniture.ts";
import * as nature from "../../lib/data/procedural/nature.ts";
import { box } from "../../lib/data/procedural/shapes.ts";
import * as vehicles from "../../lib/data/procedural/vehicles.ts";
import * as vessels from "../../lib/data/procedural/vessels.ts";
import { boundsOf, expectMesh, normalizeMesh } from "../../lib/render/mesh.ts";
import { voxelize } from "../../lib/render/voxelize.ts";

Deno.test("proceduralObjects() are valid, of moderate size, and all different", () => {
  const shapes = new Set<string>(), kinds = new Set<string>();
  for (const { name, kind, category, mesh } of proceduralObjects(2 * PROCEDURAL_KINDS.length, 5)) {
    expectMesh(name, mesh);
    assert.ok(name.endsWith(kind) && category.length > 0);
    const { min, max } = boundsOf(mesh)!, extent = Math.max(...max.map((x, d) => x - min[d])), T = mesh.triangles.length / 3;
    assert.ok(extent > 0.3 && extent < 4, `${name} is ${extent} long`);
    assert.ok(T > 50 && T < 20000, `${name} has ${T} triangles`);
    const voxels = voxelize(normalizeMesh(mesh).mesh, 32, { device: "cpu" }).reduce((a, b) => a + b, 0);
    assert.ok(voxels > 60 && voxels < 32 ** 3 / 2, `${name} has ${voxels} voxels`);
    shapes.add(`${T} ${mesh.positions.slice(0, 30)}`);
    kinds.add(kind);
  }
  assert.equal(shapes.size, 2 * PROCEDURAL_KINDS.length);
  assert.equal(kinds.size, PROCEDURAL_KINDS.length);
});

Deno.test("proceduralObject() is the same for the same seed and index, whatever was made before", () => {
  const [a, b] = [proceduralObject(1, 17), [...proceduralObjects(18, 1)][17]];
  assert.deepEqual(a, b);
  assert.notDeepEqual(proceduralObject(2, 17).mesh.positions, a.mesh.positions);
  assert.match(a.name, /^000017_/);
  assert.throws(() => proceduralObject(1, -1), /its index is -1/);
  assert.throws(() => proceduralObject(1, 0.5), /its index is 0.5/);
});

Deno.test("each run of as many objects as kinds has every kind", () => {
  const kinds = Array.from({ length: PROCEDURAL_KINDS.length }, (_, i) => proceduralObject(0, PROCEDURAL_KINDS.length + i).kind);
  assert.deepEqual(kinds.toSorted(), PROCEDURAL_KINDS.toSorted());
});

for (const [file, makers] of Object.entries({ buildings, furniture, nature, vehicles, vessels })) {
  Deno.test(`${file} come out whole at the ends of their random numbers`, () => {
    for (const [name, make] of Object.entries(makers)) {
      if (!PROCEDURAL_KINDS.includes(name)) continue;
      for (const value of [0, 0.5, 1 - 2 ** -32]) expectMesh(name, assemble((make as typeof furniture.chair)(() => value)));
    }
  });
}

Deno.test("assemble() shades a box with flat sides and repeats its picture", () => {
  const picture = { width: 1, height: 1, data: new Uint8Array(4).fill(255) };
  const mesh = assemble([{ surface: { paint: picture, repeat: 3 }, shapes: [box(1, 1, 1)] }, {
    surface: { paint: [1, 0, 0.5] },
    shapes: [box(2, 2, 2)],
  }]);
  expectMesh("test", mesh);
  for (let i = 0; i < mesh.normals!.length; i += 3) assert.equal([0, 1, 2].filter((k) => Math.abs(mesh.normals![i + k]) > 0.999).length, 1);
  assert.equal(Math.max(...mesh.uvs!.subarray(0, 72)), 12);
  assert.deepEqual(mesh.materials[1].baseColor.map((c) => Math.round(c * 1000)), [1000, 0, 214, 1000]);
});
