import assert from "node:assert/strict";
import { join } from "node:path";
import { DEFAULT_IMPORT_LIMITS, type ImportLimits } from "../../lib/data/import_files.ts";
import { importMesh } from "../../lib/data/import_mesh.ts";
import type { RenderMesh } from "../../lib/render/mesh.ts";
import { CUBE_OBJ, smallPng, withFolder } from "./assets.ts";

async function importObj(text: string, files: Record<string, string | Uint8Array> = {}, limits?: ImportLimits): Promise<RenderMesh> {
  let mesh: RenderMesh | undefined;
  await withFolder({ "a.obj": text, ...files }, async (folder) => {
    mesh = await importMesh(join(folder, "a.obj"), limits);
  });
  return mesh!;
}

Deno.test("importMesh() reads an OBJ: polygons as fans, Z up, shared vertices kept", async () => {
  const mesh = await importObj(CUBE_OBJ);
  assert.equal(mesh.triangles.length, 36);
  assert.equal(mesh.positions.length, 24);
  assert.deepEqual([...mesh.positions.subarray(0, 3)], [-1, 1, -1]);
});

Deno.test("importMesh() reads negative indices, uvs, normals, continued lines and Windows line ends", async () => {
  const mesh = await importObj(
    "v 0 0 0\r\nv 1 0 0\r\nv 0 1 0 # a comment is not here\r\nvt 0 0\r\nvt 1 0\r\nvt 0 1\r\nvn 0 0 2\r\nf -3/-3/-1 \\\r\n -2/-2/-1 -1/-1/-1\r\n",
  );
  assert.deepEqual([...mesh.uvs!], [0, 1, 1, 1, 0, 0]);
  assert.deepEqual([...mesh.normals!.subarray(0, 3)], [0, -1, 0]);
});

Deno.test("importMesh() reads MTL materials, their pictures and vertex colours", async () => {
  const mtl = "newmtl red\nKd 1 0 0\nnewmtl picture\nmap_Kd -s 2 2 2 -clamp on tex\\my file.png\nKd 0 0 0\n";
  const obj = "mtllib a.mtl\nv 0 0 0 1 0.5 0\nv 1 0 0 1 1 1\nv 0 1 0 1 1 1\nusemtl red\nf 1 2 3\nusemtl picture\nf 3 2 1\n";
  const mesh = await importObj(obj, { "a.mtl": mtl, "tex/my file.png": smallPng() });
  assert.deepEqual(mesh.materials.map(({ baseColor }) => baseColor), [[1, 0, 0, 1], [1, 1, 1, 1]]);
  assert.equal(mesh.materials[1].texture!.width, 2);
  assert.deepEqual([...mesh.materialOfTriangle!], [0, 1]);
  assert.ok(Math.abs(mesh.colors![1] - 0.21404) < 1e-4);
});

const TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n";
const BROKEN: [string, string, RegExp][] = [
  ["no faces", TRIANGLE, /it has no triangles/],
  ["nothing at all", "", /it has no triangles/],
  ["an index out of range", TRIANGLE + "f 1 2 4\n", /a face has vertex 4, there are 3/],
  ["index 0", TRIANGLE + "f 0 1 2\n", /a face has vertex 0/],
  ["a face of two corners", TRIANGLE + "f 1 2\n", /a face has 2 corners/],
  ["a texture vertex that is not there", TRIANGLE + "f 1/1 2/1 3/1\n", /texture vertex 1, there are 0/],
  ["text for a coordinate", "v 0 0 x\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", /a coordinate NaN|coordinate NaN/],
  ["an infinite coordinate", "v 0 0 1e999\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", /coordinate -?Infinity/],
  ["a missing MTL file", "mtllib none.mtl\n" + TRIANGLE, /"none.mtl" is missing/],
  ["an MTL file elsewhere", "mtllib ../../etc/a.mtl\n" + TRIANGLE, /leads out of the asset's folder/],
  ["an absolute Windows path", "mtllib C:\\a.mtl\n" + TRIANGLE, /is absolute/],
];
for (const [what, text, message] of BROKEN) {
  Deno.test(`importMesh() refuses an OBJ with ${what}`, async () => {
    await assert.rejects(importObj(text), (error: Error) => /^Cannot import .*a\.obj: /.test(error.message) && message.test(error.message));
  });
}

Deno.test("importMesh() refuses an OBJ beyond the limits, a material and a picture that are not there", async () => {
  await assert.rejects(importObj(CUBE_OBJ, {}, { ...DEFAULT_IMPORT_LIMITS, triangles: 11 }), /more than 11 triangles/);
  await assert.rejects(importObj(CUBE_OBJ, {}, { ...DEFAULT_IMPORT_LIMITS, vertices: 7 }), /more than 7 vertices/);
  await assert.rejects(importObj("mtllib a.mtl\nusemtl blue\n" + CUBE_OBJ, { "a.mtl": "newmtl red\n" }), /the material "blue"/);
  await assert.rejects(
    importObj("mtllib a.mtl\n" + CUBE_OBJ, { "a.mtl": "newmtl a\nmap_Kd a.png\n", "a.png": "no picture" }),
    /"a.png" is no picture/,
  );
  const limits = { ...DEFAULT_IMPORT_LIMITS, texturePixels: 3 };
  await assert.rejects(
    importObj("mtllib a.mtl\n" + CUBE_OBJ, { "a.mtl": "newmtl a\nmap_Kd a.png\n", "a.png": smallPng() }, limits),
    /at most 3/,
  );
});
