import assert from "node:assert/strict";
import { importMesh, MESH_ENDINGS } from "../../lib/data/import_mesh.ts";
import { expectMesh, normalizeMesh } from "../../lib/render/mesh.ts";
import { withFolder } from "./assets.ts";

const DATA = new URL("../../../shared/data/", import.meta.url).pathname;
const hasData = (() => {
  try {
    return Deno.statSync(DATA).isDirectory;
  } catch {
    return false;
  }
})();

Deno.test("importMesh() refuses other endings, folders and files that are not there", async () => {
  assert.deepEqual(MESH_ENDINGS, [".glb", ".gltf", ".obj"]);
  await withFolder({ "a.fbx": "x", "b.glb/c": "x" }, async (folder) => {
    await assert.rejects(importMesh(`${folder}/a.fbx`), /its ending is ".fbx", it must be one of .glb .gltf .obj/);
    await assert.rejects(importMesh(`${folder}/b.glb`), /the file is not a regular file/);
    await assert.rejects(importMesh(`${folder}/none.glb`), /the file is missing/);
  });
});

Deno.test({
  name: `importMesh() reads real assets${hasData ? "" : " (skipped: ../shared/data is not there)"}`,
  ignore: !hasData,
  fn: async () => {
    for (
      const [name, triangles] of [["kaykit/city/base.gltf", 12], ["kaykit/dungeon/banner_blue.gltf.glb", 0], [
        "meshes/suzanne.obj",
        968,
      ]] as const
    ) {
      const mesh = await importMesh(DATA + name);
      expectMesh("test", mesh);
      normalizeMesh(mesh);
      if (triangles) assert.ok(mesh.triangles.length / 3 >= triangles, name);
      assert.equal(mesh.materials.some(({ texture }) => texture !== undefined), name.startsWith("kaykit"));
    }
  },
});
