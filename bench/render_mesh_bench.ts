/**
 * Times pictures of textured meshes on CUDA as `prepare` takes them: 150 views of 512 x 512 with 2 x 2 samples a pixel, from host arrays to host
 * arrays, and writes bench/results/render_mesh.json. The limit is a view's 1 MiB on its way to the host at 55 GB/s.
 *
 *   deno task bench bench/render_mesh_bench.ts
 */
import { renderCameras } from "../lib/render/camera.ts";
import type { RenderMesh } from "../lib/render/mesh.ts";
import { renderMesh } from "../lib/render/render_mesh.ts";
import { benchmark, measured, type Row } from "./harness.ts";

const SIZE = 512, VIEWS = 150, TO_HOST = 55e9, RUNS = 5;

/** A bumpy sphere of 2 n² triangles with a texture of 1024 x 1024. */
function bumpy(n: number): RenderMesh {
  const side = n + 1,
    positions = new Float32Array(3 * side * side),
    uvs = new Float32Array(2 * side * side),
    triangles = new Uint32Array(6 * n * n);
  for (let i = 0; i < side; i++) {
    for (let j = 0; j < side; j++) {
      const at = i * side + j,
        theta = Math.PI * i / n,
        phi = 2 * Math.PI * j / n,
        r = 0.42 + 0.05 * Math.sin(9 * theta) * Math.sin(7 * phi);
      positions.set([r * Math.sin(theta) * Math.cos(phi), r * Math.sin(theta) * Math.sin(phi), r * Math.cos(theta)], 3 * at);
      uvs.set([j / n, i / n], 2 * at);
    }
  }
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j < n; j++, at += 6) {
      const a = i * side + j;
      triangles.set([a, a + side, a + 1, a + 1, a + side, a + side + 1], at);
    }
  }
  const data = Uint8Array.from({ length: 4 * 1024 ** 2 }, (_, i) => i % 4 === 3 ? 255 : (i >> 2) * 37 >> (i % 4) & 255);
  const normals = positions.map((v, i) => v / (Math.hypot(...positions.subarray(i - i % 3, i - i % 3 + 3)) || 1));
  return { positions, uvs, normals, triangles, materials: [{ baseColor: [1, 1, 1, 1], texture: { width: 1024, height: 1024, data } }] };
}

function rate(n: number): Row {
  const mesh = bumpy(n), cameras = renderCameras(VIEWS, () => 0.3), seconds: number[] = [];
  for (let i = -1; i < RUNS; i++) {
    const start = performance.now();
    renderMesh(mesh, cameras, { size: SIZE });
    if (i >= 0) seconds.push((performance.now() - start) / 1e3);
  }
  const ours = VIEWS / seconds.sort((a, b) => a - b)[RUNS >> 1], limit = TO_HOST / (4 * SIZE ** 2);
  return measured({ case: `${2 * n * n} triangles`, metric: "rate", unit: "views/s", ours, limit, fraction_of_limit: ours / limit });
}

benchmark("render_mesh", () => [70, 320, 1000].map(rate));
