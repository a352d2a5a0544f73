import assert from "node:assert/strict";
import { WebIO } from "@gltf-transform/core";
import { encode } from "fast-png";
import { glbBytes, writeGlb } from "../../lib/mesh/glb.ts";
import { srgbToLinear } from "../../lib/render/srgb.ts";
import { isoSurface } from "../../lib/mesh/iso_surface.ts";
import { expectValidGlb } from "../gltf_rules.ts";
import { ballMesh } from "./fields.ts";

Deno.test("writeGlb() round trip: Y up, linear colours, outward triangles, one rough material", async () => {
  const mesh = ballMesh(16, 0.4), colors = Uint8Array.from({ length: mesh.positions.length }, (_, i) => i % 256);
  const path = await Deno.makeTempFile({ suffix: ".glb" });
  try {
    await writeGlb(path, { ...mesh, colors });
    const document = await new WebIO().readBinary(await Deno.readFile(path)), [node] = document.getRoot().listNodes();
    const [primitive] = node.getMesh()!.listPrimitives(), attribute = (name: string) => primitive.getAttribute(name)!;
    assert.deepEqual([...primitive.getIndices()!.getArray()!], [...mesh.triangles]);
    const position = attribute("POSITION").getArray()!, color = attribute("COLOR_0");
    assert.equal(position.length, mesh.positions.length);
    for (let v = 0; v < position.length; v += 3) {
      const [x, y, z] = mesh.positions.subarray(v, v + 3);
      assert.deepEqual([...position.slice(v, v + 3)], [x, z, -y]);
      const linear = color.getElement(v / 3, []);
      for (let k = 0; k < 3; k++) assert.ok(Math.abs(linear[k] - srgbToLinear(colors[v + k] / 255)) < 1e-5);
      assert.equal(linear[3], 1);
    }
    assert.equal(primitive.getMaterial()!.getRoughnessFactor(), 1);
    assert.equal(primitive.getMaterial()!.getMetallicFactor(), 0);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("glbBytes() carries uvs and a texture", async () => {
  const mesh = ballMesh(8, 0.4), V = mesh.positions.length / 3, uvs = Float32Array.from({ length: 2 * V }, (_, i) => i / (2 * V));
  const texture = new Uint8Array(encode({ width: 1, height: 1, data: Uint8Array.of(1, 2, 3), channels: 3 }));
  const document = await new WebIO().readBinary(await glbBytes({ ...mesh, uvs, texture })), [material] = document.getRoot().listMaterials();
  assert.deepEqual(material.getBaseColorTexture()!.getImage(), texture);
  assert.equal(material.getBaseColorTexture()!.getMimeType(), "image/png");
  const [primitive] = document.getRoot().listMeshes()[0].listPrimitives();
  assert.deepEqual([...primitive.getAttribute("TEXCOORD_0")!.getArray()!], [...uvs]);
});

Deno.test("glbBytes() refuses an empty or inconsistent mesh", async () => {
  await assert.rejects(glbBytes(isoSurface(new Float32Array(8).fill(-1))), /the mesh has 0 triangles, it must have at least 1/);
  const mesh = ballMesh(8, 0.4);
  await assert.rejects(glbBytes({ ...mesh, colors: new Uint8Array(4) }), /colors has 4 values/);
  await assert.rejects(glbBytes({ ...mesh, triangles: Uint32Array.of(0, 1, 99999) }), /triangle index 2 is 99999/);
  await assert.rejects(glbBytes({ ...mesh, positions: mesh.positions.map((x, i) => i === 5 ? NaN : x) }), /position value 5 is NaN/);
  await assert.rejects(glbBytes({ ...mesh, texture: new Uint8Array(4) }), /a texture and no uvs/);
  await assert.rejects(
    glbBytes({ ...mesh, uvs: new Float32Array(mesh.positions.length / 3 * 2), texture: new Uint8Array(4) }),
    /unknown kind/,
  );
});

Deno.test("glbBytes() obeys the Khronos validator's rules", async () => {
  const mesh = ballMesh(12, 0.4), V = mesh.positions.length / 3, colors = new Uint8Array(3 * V).fill(100);
  const texture = new Uint8Array(encode({ width: 1, height: 1, data: Uint8Array.of(1, 2, 3), channels: 3 })), uvs = new Float32Array(2 * V);
  for (const made of [mesh, { ...mesh, colors }, { ...mesh, uvs, texture }]) await expectValidGlb(await glbBytes(made));
});
