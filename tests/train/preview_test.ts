import assert from "node:assert/strict";
import { splatsOf } from "../../lib/render/gaussians.ts";
import { step } from "../../lib/tensor/scope.ts";
import { meshPictures, pictureOnWhite, splatPictures, turntable } from "../../lib/train/preview.ts";
import { ballMesh } from "../mesh/fields.ts";

/** The colour of a picture's middle pixel. */
function middle({ width, data }: { width: number; data: Uint8Array }): number[] {
  const at = (Math.floor(width / 2) * width + Math.floor(width / 2)) * 3;
  return Array.from(data.subarray(at, at + 3));
}

Deno.test("meshPictures() shows a mesh on white from all sides, grey or in its colours", () => {
  const ball = ballMesh(16, 0.4), options = { count: 3, from: { yaw: 0, pitch: 0.3 }, size: 32 };
  const grey = meshPictures(ball, options);
  assert.equal(grey.length, 3);
  for (const picture of grey) {
    assert.deepEqual([picture.width, picture.height, picture.channels], [32, 32, 3]);
    assert.deepEqual(Array.from(picture.data.subarray(0, 3)), [255, 255, 255]);
    const [r, g, b] = middle(picture);
    assert.ok(Math.max(r, g, b) - Math.min(r, g, b) < 12 && r > 60 && r < 240, `${[r, g, b]}`);
  }
  // green where y > 0: the first view looks from x, the second and third from both sides of y
  const colors = Uint8Array.from(ball.positions, (_, i) => (ball.positions[i - i % 3 + 1] > 0 ? [20, 200, 20] : [200, 20, 20])[i % 3]);
  const [, left, right] = meshPictures({ ...ball, colors }, options).map(middle);
  assert.ok(left[1] > 2 * left[0] && right[0] > 2 * right[1], `${left} ${right}`);
});

Deno.test("splatPictures() draws Gaussians with straight alpha, from many cameras", () => {
  const red = 0.5 / 0.28209479177387814;
  const splats = {
    positions: Float32Array.of(0, 0, 0),
    colors: Float32Array.of(red, -red, -red),
    opacities: Float32Array.of(0.9),
    scales: Float32Array.of(0.05, 0.05, 0.05),
    rotations: Float32Array.of(1, 0, 0, 0),
  };
  const pictures = step(() => splatPictures(splatsOf([splats]), turntable(10, { yaw: 0, pitch: 0.2 }), { size: 32 }));
  assert.equal(pictures.length, 10);
  for (const picture of pictures) {
    const at = 4 * (16 * 32 + 16), pixel = Array.from(picture.data.subarray(at, at + 4));
    assert.ok(pixel[0] > 250 && pixel[1] < 5 && pixel[2] < 5 && pixel[3] > 150, `${pixel}`);
    assert.deepEqual(Array.from(picture.data.subarray(0, 4)), [0, 0, 0, 0]);
    const white = pictureOnWhite(picture);
    assert.deepEqual([white.channels, ...white.data.subarray(0, 3)], [3, 255, 255, 255]);
  }
});
