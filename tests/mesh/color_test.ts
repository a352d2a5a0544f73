import assert from "node:assert/strict";
import { bakeColors, projectColors } from "../../lib/mesh/color.ts";
import { meshCamera, projectVertices, rasterizeDepth } from "../../lib/mesh/raster.ts";
import { orbitCamera } from "../../lib/render/camera.ts";
import { ballMesh } from "./fields.ts";

const SIZE = { width: 128, height: 128 };
const RED = [220, 40, 30, 255], BLUE = [20, 60, 210, 255];

Deno.test("projectColors() of a two-coloured ball gives each half its colour, on the far side too", () => {
  const mesh = ballMesh(32, 0.4), camera = meshCamera(orbitCamera({ yaw: 0.3, pitch: 0 }, 2, 0.8)), data = new Uint8Array(4 * 128 * 128);
  rasterizeDepth(projectVertices(mesh.positions, camera, SIZE), mesh.triangles, SIZE).forEach((d, i) => {
    if (d > 0) data.set(i < 64 * 128 ? RED : BLUE, 4 * i);
  });
  for (const mirror of [true, false]) {
    const colors = projectColors(mesh, { ...SIZE, data }, camera, { mirror });
    let right = 0, total = 0;
    for (let v = 0; v < colors.length; v += 3) {
      const z = mesh.positions[v + 2];
      if (Math.abs(z) < 0.05) continue;
      total++;
      if (colors[v] > colors[v + 2] === z > 0) right++;
    }
    assert.ok(right / total > 0.97, `${right} of ${total}, mirror ${mirror}`);
  }
});

Deno.test("projectColors() refuses a picture that shows nothing of the mesh", () => {
  const camera = meshCamera(orbitCamera({ yaw: 0, pitch: 0 }, 2, 0.8)), data = new Uint8Array(4 * 128 * 128);
  assert.throws(() => projectColors(ballMesh(12, 0.4), { ...SIZE, data }, camera), /the camera sees 0 vertices in the opaque part/);
});

Deno.test("bakeColors() blends what pictures all around show, and the nearer to the front a view is the more it counts", () => {
  const mesh = ballMesh(24, 0.4), turns = [0, 1, 2, 3].map((k) => k * Math.PI / 2);
  const views = turns.map((yaw, k) => {
    const camera = meshCamera(orbitCamera({ yaw, pitch: 0 }, 2, 0.8)), data = new Uint8Array(4 * 128 * 128);
    for (let i = 0; i < 128 * 128; i++) data.set([k % 2 ? 200 : 0, 0, k % 2 ? 0 : 200, 255], 4 * i);
    return { camera, picture: { ...SIZE, data } };
  });
  const colors = bakeColors(mesh, views);
  for (let v = 0; v < colors.length; v += 3) {
    const [x, y] = mesh.positions.subarray(v, v + 2);
    if (Math.abs(x) > 0.37) assert.ok(colors[v + 2] > 190, `${colors.subarray(v, v + 3)} at x ${x}`);
    if (Math.abs(y) > 0.37) assert.ok(colors[v] > 190, `${colors.subarray(v, v + 3)} at y ${y}`);
    if (Math.abs(Math.abs(x) - Math.abs(y)) < 0.02 && Math.abs(x) > 0.2) assert.ok(Math.abs(colors[v] - 100) < 30 && colors[v + 1] === 0);
  }
  const clear = views.map((view) => ({ ...view, picture: { ...SIZE, data: new Uint8Array(4 * 128 * 128) } }));
  assert.throws(() => bakeColors(mesh, clear), /in 4 views 0 vertices are seen in an opaque part/);
});
