import assert from "node:assert/strict";
import { orbitCamera } from "../../lib/render/camera.ts";
import { expectMesh, vertexNormals } from "../../lib/render/mesh.ts";
import { renderVoxels, voxelMesh } from "../../lib/render/render_voxels.ts";

Deno.test("voxelMesh() has a cube's six faces, looking outward", () => {
  const mesh = voxelMesh(new Int32Array([1, 2, 0]), 4);
  expectMesh("render", mesh);
  assert.equal(mesh.triangles.length, 36);
  const { positions: p } = mesh, normals = vertexNormals(mesh), center = [-0.125, 0.125, -0.375];
  for (let v = 0; v < p.length; v += 3) {
    const offset = [0, 1, 2].map((d) => p[v + d] - center[d]);
    offset.forEach((x) => assert.equal(Math.abs(x), 0.125));
    assert.equal(offset.reduce((sum, x, d) => sum + x * normals[v + d], 0), 0.125);
  }
});

Deno.test("voxelMesh() leaves out the faces between voxels", () => {
  const coords = Int32Array.from({ length: 81 }, (_, i) => [Math.floor(i / 27), Math.floor(i / 9) % 3, Math.floor(i / 3) % 3][i % 3]);
  assert.equal(voxelMesh(coords, 3).triangles.length, 6 * 9 * 6);
  assert.equal(voxelMesh(new Int32Array(0), 3).triangles.length, 0);
});

Deno.test("voxelMesh() says what is wrong", () => {
  assert.throws(
    () => voxelMesh(new Int32Array([0, 0, 4]), 4),
    /^RangeError: Cannot make a voxel mesh: coords\[2\] is 4, it must be in 0..3/,
  );
  assert.throws(() => voxelMesh(new Int32Array(3), 4, new Float32Array(2)), /colors has 2 values, it must have 3/);
});

Deno.test("renderVoxels() shows a voxel where it is, in its colour", () => {
  const camera = orbitCamera({ yaw: 0, pitch: 0 }, 2, 0.7), lights = { above: [1, 1, 1], below: [1, 1, 1], points: [] } as const;
  const colors = new Float32Array([0.2, 0.4, 0.6]);
  const [{ rgba }] = renderVoxels(new Int32Array([0, 0, 0]), 1, [camera], { size: 9, lights, colors, device: "cpu" });
  assert.deepEqual([...rgba.subarray(40 * 4, 41 * 4)], [51, 102, 153, 255]);
  const [{ ids }] = renderVoxels(new Int32Array([0, 1, 1]), 2, [camera], { size: 9, ids: true, device: "cpu" });
  const seen = (x: number, y: number) => ids![y * 9 + x] >= 0;
  assert.deepEqual([seen(5, 3), seen(3, 3), seen(3, 5), seen(5, 5)], [true, false, false, false]);
});
