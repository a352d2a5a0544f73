import assert from "node:assert/strict";
import { join } from "node:path";
import { WebIO } from "@gltf-transform/core";
import { EXTMeshoptCompression, KHRMeshQuantization } from "@gltf-transform/extensions";
import { MeshoptDecoder, MeshoptEncoder } from "meshoptimizer";
import { DEFAULT_IMPORT_LIMITS } from "../../lib/data/import_files.ts";
import { importMesh } from "../../lib/data/import_mesh.ts";
import { createRandom, integer } from "../../lib/data/random.ts";
import { expectMesh, type RenderMesh } from "../../lib/render/mesh.ts";
import { glb, smallPng, square, withFolder } from "./assets.ts";

async function importGlb(json: unknown, bin: Uint8Array): Promise<RenderMesh> {
  let mesh: RenderMesh | undefined;
  await withFolder({ "a.glb": glb(json, bin) }, async (folder) => {
    mesh = await importMesh(join(folder, "a.glb"));
  });
  return mesh!;
}

Deno.test("importMesh() reads a GLB, Y up made Z up", async () => {
  const { json, bin } = square(), mesh = await importGlb(json, bin);
  assert.deepEqual([...mesh.positions], [0, -0, 0, 1, -0, 0, 1, -0, 1, 0, -0, 1]);
  assert.deepEqual([...mesh.triangles], [0, 1, 2, 0, 2, 3]);
  assert.deepEqual([...mesh.uvs!], [0, 1, 1, 1, 1, 0, 0, 0]);
  assert.deepEqual(mesh.materials[0].baseColor, [0.5, 0.25, 1, 1]);
  assert.equal(mesh.normals, undefined);
});

Deno.test("importMesh() reads a glTF with its .bin and .png in a folder below", async () => {
  const { json, bin } = square();
  json.buffers[0].uri = "my%20data/a.bin";
  Object.assign(json, { images: [{ uri: "my%20data/t.png" }], textures: [{ source: 0, sampler: 0 }], samplers: [{ wrapS: 33071 }] });
  json.materials = [{ pbrMetallicRoughness: { baseColorTexture: { index: 0 } }, alphaMode: "MASK", alphaCutoff: 0.3, doubleSided: true }];
  await withFolder({ "a.gltf": JSON.stringify(json), "my data/a.bin": bin, "my data/t.png": smallPng() }, async (folder) => {
    const { materials: [material] } = await importMesh(join(folder, "a.gltf"));
    assert.deepEqual([...material.texture!.data.subarray(0, 8)], [255, 0, 0, 255, 0, 255, 0, 255]);
    assert.equal(material.texture!.wrap, "clamp");
    assert.equal(material.alphaCutoff, 0.3);
    assert.equal(material.doubleSided, true);
  });
});

Deno.test("importMesh() reads a picture in the GLB and moves uvs by KHR_texture_transform", async () => {
  const { json, bin } = square(), png = smallPng(), all = new Uint8Array(92 + png.length);
  all.set(bin);
  all.set(png, 92);
  json.buffers[0].byteLength = all.length;
  json.bufferViews.push({ buffer: 0, byteOffset: 92, byteLength: png.length });
  Object.assign(json, { images: [{ bufferView: 3, mimeType: "image/png" }], textures: [{ source: 0 }] });
  const change = { KHR_texture_transform: { offset: [0.5, 0], scale: [2, 3] } };
  json.materials = [{ pbrMetallicRoughness: { baseColorTexture: { index: 0, extensions: change } } }];
  const mesh = await importGlb(json, all);
  assert.equal(mesh.materials[0].texture!.width, 2);
  assert.deepEqual([...mesh.uvs!], [0.5, 3, 2.5, 3, 2.5, 0, 0.5, 0]);
});

Deno.test("importMesh() applies node transforms, places one mesh by several nodes and turns mirrored triangles round", async () => {
  const { json, bin } = square();
  json.nodes = [{ children: [1, 2], translation: [10, 0, 0] }, { mesh: 0, scale: [-2, 1, 1] }, {
    mesh: 0,
    matrix: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1],
  }];
  const mesh = await importGlb(json, bin);
  assert.deepEqual([...mesh.positions.subarray(0, 6)], [10, -0, 0, 8, -0, 0]);
  assert.deepEqual([...mesh.triangles.subarray(0, 3)], [0, 2, 1]);
  assert.deepEqual([...mesh.positions.subarray(12, 15)], [10, -5, 0]);
  assert.equal(mesh.triangles.length, 12);
});

Deno.test("importMesh() carries normals by the inverse transpose", async () => {
  const { json, bin } = square(), all = new Uint8Array(92 + 48), h = Math.SQRT1_2;
  all.set(bin);
  new Float32Array(all.buffer, 92, 12).set([h, h, 0, h, h, 0, h, h, 0, h, h, 0]);
  json.buffers[0].byteLength = all.length;
  json.bufferViews.push({ buffer: 0, byteOffset: 92, byteLength: 48 });
  json.accessors.push({ bufferView: 3, componentType: 5126, count: 4, type: "VEC3" });
  json.meshes[0].primitives[0].attributes.NORMAL = 3;
  json.nodes = [{ mesh: 0, scale: [1, 2, 1] }];
  const { normals } = await importGlb(json, all); // (1, 1, 0) becomes (1, 1/2, 0), Z up (1, 0, 1/2)
  [1 / Math.hypot(1, 0.5), 0, 0.5 / Math.hypot(1, 0.5)].forEach((want, i) => assert.ok(Math.abs(normals![i] - want) < 1e-6));
});

for (const [mode, want] of [[5, [0, 1, 2, 1, 3, 2]], [6, [1, 2, 0, 2, 3, 0]]] as const) {
  Deno.test(`importMesh() reads triangles of mode ${mode} without indices`, async () => {
    const { json, bin } = square();
    Object.assign(json.meshes[0].primitives[0], { mode, indices: undefined });
    assert.deepEqual([...(await importGlb(json, bin)).triangles], want);
  });
}

Deno.test("importMesh() unpacks normalized colours and quantized positions, interleaved", async () => {
  const { json } = square(), bin = new Uint8Array(4 * 12), view = new DataView(bin.buffer);
  [[0, 0], [32767, 0], [32767, 32767], [0, 32767]].forEach(([x, y], i) => {
    view.setInt16(i * 12, x, true);
    view.setInt16(i * 12 + 2, y, true);
    bin.set([255, 51, 0], i * 12 + 8);
  });
  json.buffers = [{ byteLength: 48 }];
  json.bufferViews = [{ buffer: 0, byteLength: 48, byteStride: 12 }];
  json.accessors = [
    { bufferView: 0, componentType: 5122, count: 4, type: "VEC3", normalized: true },
    { bufferView: 0, byteOffset: 8, componentType: 5121, count: 4, type: "VEC3", normalized: true },
  ];
  json.extensionsRequired = ["KHR_mesh_quantization"];
  json.meshes[0].primitives[0] = { attributes: { POSITION: 0, COLOR_0: 1 }, mode: 5 };
  const mesh = await importGlb(json, bin);
  assert.deepEqual([...mesh.positions.subarray(6, 9)], [0 + 1, -0, 1]);
  assert.deepEqual([...mesh.colors!.subarray(0, 4)], [1, Math.fround(0.2), 0, 1]);
  assert.deepEqual(mesh.materials[mesh.materialOfTriangle![0]].baseColor, [1, 1, 1, 1]);
});

Deno.test("importMesh() places instances of EXT_mesh_gpu_instancing", async () => {
  const { json, bin } = square(), all = new Uint8Array(92 + 24);
  all.set(bin);
  new Float32Array(all.buffer, 92, 6).set([0, 0, 0, 0, 0, 7]);
  json.buffers[0].byteLength = all.length;
  json.bufferViews.push({ buffer: 0, byteOffset: 92, byteLength: 24 });
  json.accessors.push({ bufferView: 3, componentType: 5126, count: 2, type: "VEC3" });
  json.nodes = [{ mesh: 0, extensions: { EXT_mesh_gpu_instancing: { attributes: { TRANSLATION: 3 } } } }];
  const mesh = await importGlb(json, all);
  assert.equal(mesh.triangles.length, 12);
  assert.equal(mesh.positions[4 * 3 + 1], -7);
});

// deno-lint-ignore no-explicit-any -- tests break the JSON in every way
const BROKEN: [string, (json: any) => void, RegExp][] = [
  ["an accessor that is too long", (j) => j.accessors[0].count = 5, /accessor 0 ends at byte 60, its buffer view has 48/],
  ["attributes of different lengths", (j) => j.accessors[1].count = 3, /TEXCOORD_0 is 3 x 2, it must be 4 x 2/],
  ["a view beyond its buffer", (j) => j.bufferViews[2].byteOffset = 90, /buffer view 2 ends at byte 102, its buffer has 92/],
  ["a buffer that is cut short", (j) => j.buffers[0].byteLength = 4000, /buffer 0 has 92 bytes, it must have 4000/],
  ["an index out of range", (j) => j.accessors[0].count = 3, /TEXCOORD_0|a triangle has vertex 3, there are 3/],
  ["a broken triangle list", (j) => j.accessors[2].count = 5, /a triangle list has 5 indices/],
  ["a missing accessor", (j) => j.meshes[0].primitives[0].attributes.POSITION = 9, /accessor 9, there are 3/],
  ["a missing mesh", (j) => j.nodes[0].mesh = 1, /mesh 1, there are 1/],
  ["a missing material", (j) => j.meshes[0].primitives[0].material = 4, /material 4, there are 1/],
  ["a node inside itself", (j) => j.nodes[0].children = [0], /node 0 has two parents or is inside itself/],
  ["no triangles", (j) => j.meshes[0].primitives[0].mode = 1, /it has no triangles/],
  ["nothing in the scene", (j) => j.scenes[0].nodes = [], /it has no triangles/],
  [
    "a huge zero-filled accessor",
    (j) => j.accessors[0] = { componentType: 5126, count: 2 ** 40, type: "VEC3" },
    /its accessors hold more than/,
  ],
  ["a component type that does not exist", (j) => j.accessors[0].componentType = 5124, /accessor 0 has type VEC3 of 5124/],
  ["a stride less than the element", (j) => j.bufferViews[0].byteStride = 4, /elements of 12 bytes, its stride is 4/],
  ["glTF 1", (j) => j.asset.version = "1.0", /asset.version: is not 2.x/],
  ["a string for a list", (j) => j.nodes = "all", /nodes: /],
  ["a required extension that is not known", (j) => j.extensionsRequired = ["ACME_secret"], /requires the extension ACME_secret/],
  ["Draco", (j) => j.meshes[0].primitives[0].extensions = { KHR_draco_mesh_compression: {} }, /Draco/],
  ["an absolute URI", (j) => j.buffers[0].uri = "/etc/passwd", /"\/etc\/passwd" is absolute/],
  ["a URI that leads out", (j) => j.buffers[0].uri = "x/%2e%2e/../a.bin", /leads out of the asset's folder/],
  ["an address", (j) => j.buffers[0].uri = "https://example.com/a.bin", /is not relative/],
  ["a file: URI", (j) => j.buffers[0].uri = "file:///etc/passwd", /is not relative/],
  ["a missing file", (j) => j.buffers[0].uri = "none.bin", /"none.bin" is missing/],
  ["a data URI that is none", (j) => j.buffers[0].uri = "data:application/octet-stream;base64,@@", /not valid base64/],
];
for (const [what, damage, message] of BROKEN) {
  Deno.test(`importMesh() refuses a GLB with ${what}`, async () => {
    const { json, bin } = square();
    damage(json);
    await assert.rejects(importGlb(json, bin), (error: Error) => {
      assert.match(error.message, /^Cannot import .*a\.glb: /);
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("importMesh() refuses positions that are not finite, and mends texture coordinates", async () => {
  const { json, bin } = square();
  new Float32Array(bin.buffer, 48, 1)[0] = Infinity;
  assert.deepEqual([...(await importGlb(json, bin)).uvs!.subarray(0, 2)], [0, 1]);
  new Float32Array(bin.buffer, 0, 1)[0] = NaN;
  await assert.rejects(importGlb(json, bin), /vertex 0 has a coordinate NaN/);
});

Deno.test("importMesh() refuses a GLB that is cut anywhere", async () => {
  const { json, bin } = square(), whole = glb(json, bin);
  await withFolder({}, async (folder) => {
    for (let length = 0; length < whole.length; length += 7) {
      Deno.writeFileSync(join(folder, "a.glb"), whole.subarray(0, length));
      await assert.rejects(importMesh(join(folder, "a.glb")), /^Error: Cannot import/);
    }
  });
});

Deno.test("importMesh() refuses a link out of the folder, and more than the limits", async () => {
  const { json, bin } = square();
  json.buffers[0].uri = "a.bin";
  await withFolder({ "in/a.gltf": JSON.stringify(json), "b.bin": bin, "in/b.glb": glb(square().json, bin) }, async (folder) => {
    Deno.symlinkSync(join(folder, "b.bin"), join(folder, "in/a.bin"));
    await assert.rejects(importMesh(join(folder, "in/a.gltf")), /is a link that leads out/);
    const limits = { ...DEFAULT_IMPORT_LIMITS, triangles: 1 };
    await assert.rejects(importMesh(join(folder, "in/b.glb"), limits), /more than 20000000 vertices or 1 triangles/);
    await assert.rejects(importMesh(join(folder, "in/b.glb"), { ...DEFAULT_IMPORT_LIMITS, fileBytes: 100 }), /it must have at most 100/);
  });
});

Deno.test("importMesh() unpacks EXT_meshopt_compression", async () => {
  const { json, bin } = square(), plain = await importGlb(json, bin);
  await MeshoptEncoder.ready;
  const io = new WebIO().registerExtensions([EXTMeshoptCompression, KHRMeshQuantization]).registerDependencies({
    "meshopt.encoder": MeshoptEncoder,
    "meshopt.decoder": MeshoptDecoder,
  });
  const document = await io.readBinary(glb(json, bin));
  document.createExtension(EXTMeshoptCompression).setRequired(true).setEncoderOptions({
    method: EXTMeshoptCompression.EncoderMethod.QUANTIZE,
  });
  await withFolder({ "a.glb": await io.writeBinary(document) }, async (folder) => {
    const mesh = await importMesh(join(folder, "a.glb"));
    const sorted = (m: RenderMesh): string[] =>
      Array.from(m.triangles, (v) => m.positions.slice(v * 3, v * 3 + 3).map((x) => x + 0).join(" ")).sort();
    assert.deepEqual(sorted(mesh), sorted(plain));
  });
});

Deno.test("importMesh() of a damaged GLB either reads it or refuses it with its name", async () => {
  const { json, bin } = square(), whole = glb(json, bin), random = createRandom(1);
  await withFolder({}, async (folder) => {
    for (let i = 0; i < 400; i++) {
      const damaged = whole.slice();
      for (let k = 0; k < 1 + i % 3; k++) damaged[integer(random, 0, whole.length - 1)] = integer(random, 0, 255);
      Deno.writeFileSync(join(folder, "a.glb"), damaged);
      try {
        expectMesh("test", await importMesh(join(folder, "a.glb")));
      } catch (error) {
        assert.match((error as Error).message, /^Cannot import .*a\.glb: /);
      }
    }
  });
});
