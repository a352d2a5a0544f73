import assert from "node:assert/strict";
import { boundsOf, expectMesh, normalizeMesh, type RenderMesh, vertexNormals } from "../../lib/render/mesh.ts";
import { random } from "../check.ts";

function triangle(): RenderMesh {
  return {
    positions: new Float32Array([0, 0, 0, 1, 0, 0, 0, 1, 0]),
    triangles: new Uint32Array([0, 1, 2]),
    materials: [{ baseColor: [1, 1, 1, 1] }],
  };
}

Deno.test("normalizeMesh() makes the longest side 1 about the origin and tells the map", () => {
  for (let seed = 1; seed < 20; seed++) {
    const positions = random(seed, 300).map((x, i) => x * [3, 0.1, 7][i % 3] + 100), triangles = new Uint32Array(100).map((_, i) => i);
    const before = positions.slice(), { mesh, scale, offset } = normalizeMesh({ positions, triangles: triangles.subarray(0, 99) });
    const { min, max } = boundsOf(mesh)!;
    assert.equal(Math.max(...max.map((x, d) => x - min[d])), 1);
    max.forEach((x, d) => assert.ok(Math.abs(x + min[d]) < 1e-6));
    mesh.positions.forEach((x, i) => assert.ok(Math.abs(x - (before[i] * scale + offset[i % 3])) < 1e-5));
    assert.deepEqual(positions, before);
  }
});

Deno.test("normalizeMesh() leaves vertices that no triangle uses out of the box", () => {
  const positions = new Float32Array([0, 0, 0, 2, 0, 0, 0, 2, 0, 99, 99, 99]), triangles = new Uint32Array([0, 1, 2]);
  assert.equal(normalizeMesh({ positions, triangles }).scale, 0.5);
});

Deno.test("normalizeMesh() refuses what has no size", () => {
  const none = { positions: new Float32Array(0), triangles: new Uint32Array(0) };
  assert.throws(() => normalizeMesh(none), /^RangeError: Cannot normalize the mesh: it has 0 triangles, it must have one or more/);
  const point = { positions: new Float32Array(9).fill(3), triangles: new Uint32Array([0, 1, 2]) };
  assert.throws(() => normalizeMesh(point), /its extent is 0, it must be above 0/);
});

Deno.test("vertexNormals() weighs by area and skips degenerate triangles", () => {
  const positions = new Float32Array([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 5, 5, 5]);
  const normals = vertexNormals({ positions, triangles: new Uint32Array([0, 1, 2, 0, 3, 1, 4, 4, 4]) });
  const length = Math.hypot(1, 3), want = [0, 3 / length, 1 / length];
  want.forEach((x, d) => assert.ok(Math.abs(normals[d] - x) < 1e-6));
  assert.deepEqual([...normals.subarray(6, 9)], [0, 0, 1]);
  assert.deepEqual([...normals.subarray(12, 15)], [0, 0, 0]);
});

Deno.test("expectMesh() names the array, the value and what it must be", () => {
  const m = triangle(), f = (n: number) => new Float32Array(n);
  const cases: [Partial<RenderMesh>, RegExp][] = [
    [{ positions: f(8) }, /positions has 8 values, it must be a multiple of 3/],
    [{ triangles: new Uint32Array([0, 1]) }, /triangles has 2 values, it must be a multiple of 3/],
    [
      { positions: new Float32Array([0, 0, 0, 1, NaN, 0, 0, 1, 0]) },
      /^RangeError: Cannot render the mesh: positions\[4\] is NaN, it must be finite/,
    ],
    [{ triangles: new Uint32Array([0, 1, 3]) }, /triangles\[2\] is 3, it must be below the 3 vertices/],
    [{ normals: f(8) }, /normals has 8 values, it must have 9/],
    [{ uvs: f(6).fill(Infinity) }, /uvs\[0\] is Infinity/],
    [{ colors: f(9) }, /colors has 9 values, it must have 12/],
    [{ materials: [] }, /it has 0 materials, it must have one or more/],
    [{ materialOfTriangle: new Uint16Array(2) }, /materialOfTriangle has 2 values, it must have 1/],
    [{ materialOfTriangle: new Int32Array([-1]) }, /materialOfTriangle\[0\] is -1, it must be below the 1 materials/],
    [
      { materials: [{ baseColor: [1, 1, 1, 1], texture: { width: 0, height: 1, data: new Uint8Array(0) } }] },
      /texture is 0 x 1, it must have pixels/,
    ],
    [
      { materials: [{ baseColor: [1, 1, 1, 1], texture: { width: 2, height: 1, data: new Uint8Array(4) } }] },
      /texture.data has 4 values, it must have 8/,
    ],
  ];
  expectMesh("render", m);
  for (const [change, message] of cases) assert.throws(() => expectMesh("render", { ...m, ...change }), message);
});
