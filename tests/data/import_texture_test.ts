import assert from "node:assert/strict";
import { DEFAULT_IMPORT_LIMITS } from "../../lib/data/import_files.ts";
import { decodeTexture } from "../../lib/data/import_texture.ts";
import { encodePng } from "../../lib/io/image.ts";
import { smallPng } from "./assets.ts";

Deno.test("decodeTexture() gives RGBA, also of RGB and grey, and decodes equal files once", async () => {
  const first = await decodeTexture(smallPng(), "image 0", DEFAULT_IMPORT_LIMITS);
  assert.equal(await decodeTexture(smallPng(), "image 1", DEFAULT_IMPORT_LIMITS), first);
  const grey = encodePng({ width: 2, height: 1, channels: 1, data: new Uint8Array([7, 200]) });
  assert.deepEqual([...(await decodeTexture(Uint8Array.from(grey), "image", DEFAULT_IMPORT_LIMITS)).data], [
    7,
    7,
    7,
    255,
    200,
    200,
    200,
    255,
  ]);
});

Deno.test("decodeTexture() refuses what is no picture, cut short or too large, known or not", async () => {
  await assert.rejects(
    decodeTexture(new Uint8Array(9), "image 3", DEFAULT_IMPORT_LIMITS),
    /^Error: image 3 is no picture that can be read/,
  );
  await assert.rejects(decodeTexture(smallPng().slice(0, 50), "image 3", DEFAULT_IMPORT_LIMITS), /image 3 is no picture/);
  await decodeTexture(smallPng(), "image", DEFAULT_IMPORT_LIMITS);
  await assert.rejects(decodeTexture(smallPng(), "image", { ...DEFAULT_IMPORT_LIMITS, texturePixels: 3 }), /at most 3/);
});
