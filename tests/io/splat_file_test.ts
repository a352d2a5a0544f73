import assert from "node:assert/strict";
import { splatFile } from "../../lib/io/splat_file.ts";

Deno.test("splatFile() packs 32 bytes a Gaussian, the most visible first", () => {
  const white = 0.5 / 0.28209479177387814;
  const file = splatFile({
    positions: Float32Array.of(1, 2, 3, -1, -2, -3),
    colors: Float32Array.of(white, 0, -white, white, white, white),
    opacities: Float32Array.of(0.5, 1),
    scales: Float32Array.of(0.1, 0.1, 0.1, 0.2, 0.2, 0.25),
    rotations: Float32Array.of(2, 0, 0, 0, 0, 0, -1, 0),
  });
  assert.equal(file.length, 64);
  const view = new DataView(file.buffer), floats = (at: number) => Array.from({ length: 6 }, (_, i) => view.getFloat32(at + 4 * i, true));
  assert.deepEqual(floats(0), [-1, -2, -3, 0.2, 0.2, 0.25].map(Math.fround));
  assert.deepEqual([...file.subarray(24, 32)], [255, 255, 255, 255, 128, 128, 0, 128]);
  assert.deepEqual(floats(32), [1, 2, 3, 0.1, 0.1, 0.1].map(Math.fround));
  assert.deepEqual([...file.subarray(56, 64)], [255, 128, 0, 128, 255, 128, 128, 128]);
  const none = new Float32Array();
  assert.equal(splatFile({ positions: none, colors: none, opacities: none, scales: none, rotations: none }).length, 0);
});
