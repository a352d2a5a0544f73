import assert from "node:assert/strict";
import { fitCamera } from "../../lib/mesh/fit_camera.ts";
import { isoSurface } from "../../lib/mesh/iso_surface.ts";
import { meshCamera, type Picture, projectVertices, rasterizeDepth } from "../../lib/mesh/raster.ts";
import type { Mesh } from "../../lib/mesh/mesh.ts";
import { orbitCamera } from "../../lib/render/camera.ts";
import { oddMesh } from "./fields.ts";

const DEGREE = Math.PI / 180;

function silhouette(
  mesh: Mesh,
  view: { yaw: number; pitch: number; radius: number },
  size = { width: 160, height: 160 },
): Picture & { data: Uint8Array } {
  const camera = meshCamera(orbitCamera(view, view.radius, 40 * DEGREE)), data = new Uint8Array(4 * size.width * size.height);
  rasterizeDepth(projectVertices(mesh.positions, camera, size), mesh.triangles, size).forEach((d, i) => data[4 * i + 3] = d > 0 ? 255 : 0);
  return { ...size, data };
}

Deno.test("fitCamera() finds the view of an asymmetric shape", () => {
  const mesh = oddMesh();
  for (const view of [{ yaw: 0.4, pitch: 0.5, radius: 2 }, { yaw: 2.9, pitch: 0.2, radius: 1.8 }, { yaw: 5, pitch: 0.7, radius: 4 }]) {
    const fit = fitCamera(mesh, silhouette(mesh, view));
    const turn = Math.abs((fit.yaw - view.yaw + 3 * Math.PI) % (2 * Math.PI) - Math.PI);
    assert.ok(turn < 4 * DEGREE && Math.abs(fit.pitch - view.pitch) < 4 * DEGREE, `${fit.yaw} ${fit.pitch} for ${view.yaw} ${view.pitch}`);
    assert.ok(fit.iou > 0.93, `${fit.iou}`);
  }
});

Deno.test("fitCamera() gives a camera that lays the mesh over the picture, off-centre and not square", () => {
  const mesh = oddMesh(), { data } = silhouette(mesh, { yaw: 1, pitch: 0.4, radius: 2 }), width = 240, height = 180;
  const picture = { width, height, data: new Uint8Array(4 * width * height) };
  for (let row = 0; row < 160; row++) picture.data.set(data.subarray(4 * 160 * row, 4 * 160 * (row + 1)), 4 * ((row + 20) * width + 70));
  const { camera } = fitCamera(mesh, picture);
  const nearest = rasterizeDepth(projectVertices(mesh.positions, camera, picture), mesh.triangles, picture);
  let both = 0, either = 0;
  nearest.forEach((d, i) => {
    both += d > 0 && picture.data[4 * i + 3] > 0 ? 1 : 0;
    either += d > 0 || picture.data[4 * i + 3] > 0 ? 1 : 0;
  });
  assert.ok(both / either > 0.93, `${both / either}`);
});

Deno.test("fitCamera() refuses an alpha that cuts nothing out, and an empty mesh", () => {
  const picture = { width: 2, height: 2, data: new Uint8Array(16) };
  assert.throws(() => fitCamera(oddMesh(8), picture), /alpha is empty, it must cut out the object/);
  picture.data.fill(255);
  assert.throws(() => fitCamera(oddMesh(8), picture), /alpha is opaque everywhere/);
  assert.throws(() => fitCamera(isoSurface(new Float32Array(8).fill(-1)), picture), /the mesh has 0 triangles/);
});
