/**
 * Times views of meshes at 512 x 512 on CUDA, as the preparation of a dataset makes them: host arrays in, pictures on the host out, so copies and
 * waiting included, and beside it what the copy of the pictures alone takes. Writes bench/results/render_mesh.json.
 *
 *   deno task bench bench/render_mesh_bench.ts
 */
import { proceduralObject } from "../lib/data/procedural.ts";
import { createRandom } from "../lib/data/random.ts";
import { renderCameras } from "../lib/render/camera.ts";
import { normalizeMesh, type RenderMesh, vertexNormals } from "../lib/render/mesh.ts";
import { renderMesh } from "../lib/render/render_mesh.ts";
import { device } from "../lib/tensor/device.ts";
import { benchmark, measured, type Row } from "./harness.ts";

const S = 512, VIEWS = 150, RUNS = 5;

function median(run: () => void): number {
  run();
  const all = Array.from({ length: RUNS }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  });
  return all.sort((a, b) => a - b)[RUNS >> 1];
}

/** A bumpy sphere of 2 n^2 triangles with smooth normals and a random texture. */
function bumpySphere(n: number, textureSide: number): RenderMesh {
  const random = createRandom(1), positions = new Float32Array((n + 1) ** 2 * 3), uvs = new Float32Array((n + 1) ** 2 * 2);
  for (let i = 0; i <= n; i++) {
    for (let j = 0; j <= n; j++) {
      const at = i * (n + 1) + j,
        pitch = Math.PI * i / n,
        yaw = 2 * Math.PI * j / n,
        r = 0.45 + 0.04 * Math.sin(9 * pitch) * Math.sin(7 * yaw);
      positions.set([r * Math.sin(pitch) * Math.cos(yaw), r * Math.sin(pitch) * Math.sin(yaw), r * Math.cos(pitch)], at * 3);
      uvs.set([j / n, i / n], at * 2);
    }
  }
  const triangles = new Uint32Array(n * n * 6);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const a = i * (n + 1) + j, b = a + n + 1;
      triangles.set([a, b, a + 1, a + 1, b, b + 1], (i * n + j) * 6);
    }
  }
  const data = Uint8Array.from({ length: textureSide ** 2 * 4 }, (_, i) => i % 4 === 3 ? 255 : 256 * random());
  const texture = { width: textureSide, height: textureSide, data };
  return { positions, triangles, uvs, normals: vertexNormals({ positions, triangles }), materials: [{ baseColor: [1, 1, 1, 1], texture }] };
}

function measure(): Row[] {
  const cameras = renderCameras(VIEWS, createRandom(1)), { memory } = device();
  const picture = new Uint8Array(VIEWS * S * S * 4), address = memory.alloc(picture.length);
  const copying = median(() => memory.download(picture, address));
  memory.free(address, picture.length);
  const procedural = normalizeMesh(proceduralObject(0, 1).mesh).mesh;
  const meshes: Record<string, RenderMesh> = {
    [`procedural object, ${procedural.triangles.length / 3} triangles`]: procedural,
    "bumpy sphere, 20,000 triangles, 1024^2 texture": bumpySphere(100, 1024),
    "bumpy sphere, 1,000,000 triangles, 2048^2 texture": bumpySphere(707, 2048),
  };
  return Object.entries(meshes).map(([name, mesh]) => {
    const ms = median(() => void renderMesh(mesh, cameras, { size: S, device: "cuda" })), limit = VIEWS / copying * 1e3;
    return measured({
      case: `${name}, ${VIEWS} views of 512 x 512, 4 samples a pixel`,
      metric: "rate",
      unit: "views/s",
      ours: VIEWS / ms * 1e3,
      limit,
      fraction_of_limit: copying / ms,
    });
  });
}

benchmark("render_mesh", measure);
