import assert from "node:assert/strict";
import { meshCamera, projectVertices, rasterizeDepth } from "../../lib/mesh/raster.ts";
import { orbitCamera, projectPoint } from "../../lib/render/camera.ts";
import { ballMesh } from "./fields.ts";

Deno.test("projectVertices() agrees with the renderer's camera", () => {
  const camera = orbitCamera({ yaw: 0.7, pitch: 0.4 }, 2, 0.8), points = Float32Array.of(0.3, -0.2, 0.4, -0.5, 0.5, -0.1);
  const { x, y, inverseDepth } = projectVertices(points, meshCamera(camera), { width: 200, height: 100 });
  for (let v = 0; v < 2; v++) {
    const { u, v: down, depth } = projectPoint(camera, [...points.subarray(3 * v, 3 * v + 3)]);
    assert.ok(Math.abs(x[v] - 200 * u) < 1e-3 && Math.abs(y[v] - 100 * down) < 1e-3 && Math.abs(1 / inverseDepth[v] - depth) < 1e-5);
  }
});

Deno.test("projectVertices() marks what is behind the camera", () => {
  const camera = meshCamera(orbitCamera({ yaw: 0, pitch: 0 }, 2, 0.8));
  assert.deepEqual([...projectVertices(Float32Array.of(3, 0, 0), camera, { width: 8, height: 8 }).inverseDepth], [0]);
});

Deno.test("rasterizeDepth() draws a ball as a disc with its near side in front", () => {
  const size = { width: 65, height: 65 }, mesh = ballMesh(32, 0.3), camera = meshCamera(orbitCamera({ yaw: 1, pitch: 0.3 }, 2, 0.8));
  const nearest = rasterizeDepth(projectVertices(mesh.positions, camera, size), mesh.triangles, size);
  assert.ok(Math.abs(1 / nearest[32 * 65 + 32] - 1.7) < 0.01);
  assert.equal(nearest[0], 0);
  const covered = nearest.reduce((sum, x) => sum + (x > 0 ? 1 : 0), 0), radius = 32.5 / Math.tan(0.4) * 0.3 / Math.sqrt(2 ** 2 - 0.3 ** 2);
  assert.ok(Math.abs(covered / (Math.PI * radius ** 2) - 1) < 0.03, `${covered} ${Math.PI * radius ** 2}`);
});
