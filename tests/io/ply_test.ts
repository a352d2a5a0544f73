import assert from "node:assert/strict";
import { readPly, readPlyMesh, readVoxels, writePly, writeVoxels } from "../../lib/io/ply.ts";
import { assertRefused, concat, latin1, withFolder } from "./corrupt.ts";

Deno.test("writePly() writes exactly these bytes", () => {
  withFolder((folder) => {
    const path = `${folder}/a.ply`;
    writePly(path, {
      vertex: { x: new Float32Array([1, -2]), red: new Uint8Array([9, 255]) },
      faces: new Uint32Array([0, 1, 1]),
      comments: ["two\nlines"],
    });
    const header = "ply\nformat binary_little_endian 1.0\ncomment two lines\nelement vertex 2\nproperty float x\nproperty uchar red\n" +
      "element face 1\nproperty list uchar int vertex_indices\nend_header\n";
    const rows = [0, 0, 0x80, 0x3f, 9, 0, 0, 0, 0xc0, 255, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
    assert.deepEqual(Deno.readFileSync(path), concat(latin1(header), new Uint8Array(rows)));
  });
});

Deno.test("readPly() reads back what writePly() wrote, also beyond one chunk of rows", () => {
  withFolder((folder) => {
    const path = `${folder}/a.ply`, N = 40_000;
    const x = Float32Array.from({ length: N }, (_, i) => i / 7), id = Int32Array.from({ length: N }, (_, i) => -i);
    const faces = Int32Array.from({ length: 3 * N }, (_, i) => i % N);
    writePly(path, { vertex: { x, y: x, z: x, id, w: new Float64Array(x) }, faces });
    const { vertex, face } = readPly(path).elements;
    assert.deepEqual(vertex.columns, { x, y: x, z: x, id, w: new Float64Array(x) });
    assert.deepEqual(face.lists.vertex_indices.values, faces);
    const mesh = readPlyMesh(path);
    assert.deepEqual(mesh.triangles, new Uint32Array(faces));
    assert.deepEqual([...mesh.positions.subarray(3, 6)], [x[1], x[1], x[1]]);
    writePly(path, { vertex: { x: new Float32Array() } });
    assert.equal(readPly(path).elements.vertex.count, 0);
  });
});

Deno.test("writePly() refuses columns and faces that do not fit", () => {
  const write = (vertex: Record<string, Float32Array<ArrayBuffer>>, faces?: Int32Array): void =>
    writePly("/nowhere/a.ply", { vertex, faces });
  assertRefused(() => write({ x: new Float32Array(2), y: new Float32Array(3) }), "y has 3 rows, x has 2");
  assertRefused(() => write({ "x y": new Float32Array(2) }), "it must be one word");
  assertRefused(() => write({ x: new Float32Array(2) }, new Int32Array([0, 1, 2])), "a face index is not below 2");
  assertRefused(() => write({ x: new Float32Array(2) }, new Int32Array([0, 1, -1])), "a face index is not below 2");
  assertRefused(() => write({ x: new Float32Array(2) }, new Int32Array(4)), "4 face indices");
});

Deno.test("readPlyMesh() cuts polygons into fans and refuses an index without a vertex", () => {
  const mesh = (faces: string): Uint8Array<ArrayBuffer> =>
    latin1(
      "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\nproperty float nx\n" +
        "element face 3\nproperty list uchar uint vertex_index\nend_header\n" + "0 0 0 1\n1 0 0 1\n1 1 0 1\n0 1 0 1\n2 2 2 1\n" + faces,
    );
  assert.deepEqual([...readPlyMesh(mesh("4 0 1 2 3\n2 0 1\n3 4 2 1\n")).triangles], [0, 1, 2, 0, 2, 3, 4, 2, 1]);
  assertRefused(() => readPlyMesh(mesh("3 0 1 5\n0\n0\n")), "a face has the vertex 5, it must be from 0 to 4");
  assertRefused(() => readPlyMesh(latin1("ply\nformat ascii 1.0\nend_header\n")), "no vertex x, y and z");
});

Deno.test("writeVoxels() writes TRELLIS's centres and readVoxels() gives the indices back", () => {
  withFolder((folder) => {
    const path = `${folder}/v.ply`;
    writeVoxels(path, new Uint8Array([0, 31, 63]), 64);
    const { x, y, z } = readPly(path).elements.vertex.columns;
    assert.deepEqual([x[0], y[0], z[0]], [-0.4921875, -0.0078125, 0.4921875]);
    for (const R of [1, 3, 64, 100, 256]) {
      const indices = Int32Array.from({ length: 3 * R }, (_, i) => Math.floor(i / 3) * (i % 3) % R);
      writeVoxels(path, indices, R);
      assert.deepEqual(readVoxels(path, R), indices);
    }
    writeVoxels(path, new Int32Array(), 64);
    assert.deepEqual(readVoxels(path, 64), new Int32Array());
  });
});

Deno.test("readVoxels() and writeVoxels() refuse what is no voxel of the grid", () => {
  withFolder((folder) => {
    const path = `${folder}/v.ply`;
    writeVoxels(path, new Int32Array([1, 2, 3, 60, 2, 3]), 64);
    assertRefused(() => readVoxels(path, 32), "vertex 0 lies at");
    for (const x of [NaN, Infinity, 0.51, -0.51]) {
      writePly(path, { vertex: { x: new Float32Array([x]), y: new Float32Array(1), z: new Float32Array(1) } });
      assertRefused(() => readVoxels(path, 64), "no centre of a voxel at resolution 64");
    }
    assertRefused(() => writeVoxels(path, new Int32Array([0, 0, 64]), 64), "not from 0 to 63");
    assertRefused(() => writeVoxels(path, new Int32Array([0, 0, -1]), 64), "not from 0 to 63");
    assertRefused(() => writeVoxels(path, new Int32Array(4), 64), "4 voxel indices");
    writePly(path, { vertex: { x: new Float32Array(1) } });
    assertRefused(() => readVoxels(path, 64), "no vertex x, y and z");
  });
});
