import assert from "node:assert/strict";
import { DEFAULT_IMPORT_LIMITS } from "../../lib/data/import_files.ts";
import { at, checkRanges, parseGltfJson } from "../../lib/data/import_gltf_json.ts";
import { square } from "./assets.ts";

Deno.test("parseGltfJson() keeps what importing uses, fills in defaults, and names the place of an error", () => {
  const json = parseGltfJson(JSON.stringify({ ...square().json, extras: { any: "thing" }, animations: 3 }));
  assert.deepEqual(json.nodes[0].translation, [0, 0, 0]);
  assert.equal(json.bufferViews[0].byteOffset, 0);
  assert.equal("animations" in json, false);
  assert.throws(() => parseGltfJson("{"), /its JSON is broken/);
  assert.throws(() => parseGltfJson("[]"), /its JSON does not follow glTF 2: the top/);
  assert.throws(
    () => parseGltfJson('{"asset":{"version":"2.0"},"accessors":[{"componentType":5126,"count":-1,"type":"VEC3"}]}'),
    /accessors.0.count/,
  );
  assert.throws(() => parseGltfJson('{"asset":{"version":"2.0"},"nodes":[{"rotation":[0,0,1e999,1]}]}'), /nodes.0.rotation.2/);
});

Deno.test("checkRanges() bounds sparse values and packed views", () => {
  const { json } = square();
  json.accessors[0].sparse = { count: 2, indices: { bufferView: 2, componentType: 5123 }, values: { bufferView: 1 } };
  const check = (): void => checkRanges(parseGltfJson(JSON.stringify(json)), [92], DEFAULT_IMPORT_LIMITS);
  check();
  json.accessors[0].sparse.count = 3;
  assert.throws(check, /accessor 0 \(sparse values\) ends at byte 36, its buffer view has 32/);
  json.accessors[0].sparse.count = 5;
  assert.throws(check, /accessor 0 replaces 5 of 4/);
  delete json.accessors[0].sparse;
  const packed = { buffer: 0, byteLength: 10, byteStride: 4, count: 2 ** 40, mode: "ATTRIBUTES" };
  json.bufferViews[0].extensions = { EXT_meshopt_compression: packed };
  assert.throws(check, /buffer view 0 unpacks to 1099511627776 x 4 bytes, it must be 48/);
  packed.byteLength = 100;
  assert.throws(check, /buffer view 0 ends at byte 100/);
});

Deno.test("at() names what is not there", () => {
  assert.equal(at(["a"], 0, "mesh"), "a");
  assert.throws(() => at([], 0, "mesh"), /it refers to mesh 0, there are 0/);
});
