import assert from "node:assert/strict";
import { joinParts } from "../../lib/data/mesh_parts.ts";
import { expectMesh } from "../../lib/render/mesh.ts";

const TRIANGLE = { positions: new Float32Array([0, 0, 0, 1, 0, 0, 0, 1, 0]), triangles: new Uint32Array([0, 1, 2]) };

Deno.test("joinParts() fills in what a part lacks: flat normals, zero uvs, white", () => {
  const rich = {
    ...TRIANGLE,
    normals: new Float32Array([1, 0, 0, 1, 0, 0, 1, 0, 0]),
    uvs: new Float32Array(6).fill(0.5),
    colors: new Float32Array(12).fill(0.25),
    material: 1,
  };
  const mesh = joinParts([{ ...TRIANGLE, material: 0 }, rich], [{ baseColor: [1, 1, 1, 1] }, { baseColor: [1, 0, 0, 1] }]);
  expectMesh("test", mesh);
  assert.deepEqual([...mesh.triangles], [0, 1, 2, 3, 4, 5]);
  assert.deepEqual([...mesh.materialOfTriangle!], [0, 1]);
  assert.deepEqual([...mesh.normals!.subarray(0, 3), ...mesh.normals!.subarray(9, 12)], [0, 0, 1, 1, 0, 0]);
  assert.deepEqual([...mesh.uvs!.subarray(4, 8)], [0, 0, 0.5, 0.5]);
  assert.deepEqual([mesh.colors![0], mesh.colors![12]], [1, 0.25]);
});

Deno.test("joinParts() of parts without attributes makes none", () => {
  const mesh = joinParts([{ ...TRIANGLE, material: 0 }], [{ baseColor: [1, 1, 1, 1] }]);
  assert.deepEqual([mesh.normals, mesh.uvs, mesh.colors], [undefined, undefined, undefined]);
});
