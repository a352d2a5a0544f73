import assert from "node:assert/strict";
import { APPEARANCE_CHANNELS, appearanceFeatures } from "../../lib/data/appearance.ts";
import type { RenderMesh, Texture } from "../../lib/render/mesh.ts";
import { occupiedVoxels, voxelize } from "../../lib/render/voxelize.ts";
import { assertClose, random } from "../check.ts";

const C = APPEARANCE_CHANNELS;

/** Triangles with vertices of their own, in one colour. */
function soup(positions: number[], rest: Partial<RenderMesh> = {}): RenderMesh {
  const triangles = Uint32Array.from({ length: positions.length / 3 }, (_, i) => i);
  return { positions: Float32Array.from(positions), triangles, materials: [{ baseColor: [1, 0.21404, 0, 1] }], ...rest };
}

function rowsOf(mesh: RenderMesh, R: number): { voxels: Int32Array; features: Float32Array } {
  const voxels = occupiedVoxels(voxelize(mesh, R, { device: "cpu" }), R);
  return { voxels, features: appearanceFeatures(mesh, voxels, R) };
}

const close = (what: string, got: Float32Array, want: number[]): void => assertClose(what, got, want, { rtol: 0, atol: 1e-5 });

Deno.test("appearanceFeatures() of a level square has its colour, its normal, and the height within the voxels", () => {
  const z = 0.05, square = [-0.5, -0.5, z, 0.5, -0.5, z, 0.5, 0.5, z, -0.5, -0.5, z, 0.5, 0.5, z, -0.5, 0.5, z];
  const { voxels, features } = rowsOf(soup(square), 4);
  assert.equal(voxels.length, 16 * 3);
  for (let n = 0; n < 16; n++) {
    // z is at (0.05 + 0.5) * 4 = 2.2 cells: 0.3 below the centre of the third
    close(`voxel ${n}`, features.subarray(n * C, n * C + C), [1, 0, -1, 0, 0, 1, 0, 0, -0.6]);
  }
});

Deno.test("appearanceFeatures() is the mean by area of many places on the surface", () => {
  const R = 3, positions = Array.from(random(4, 9 * 5), (x) => 0.3 * Math.max(-1.6, Math.min(1.6, x))), mesh = soup(positions);
  const { voxels, features } = rowsOf(mesh, R), sums = new Float64Array(R ** 3 * 4), steps = 400;
  for (let t = 0; t < positions.length; t += 9) {
    const [a, b, c] = [0, 3, 6].map((k) => positions.slice(t + k, t + k + 3)), u = b.map((x, d) => x - a[d]), v = c.map((x, d) => x - a[d]);
    const area = Math.hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]);
    for (let i = 0; i < steps; i++) {
      for (let j = 0; j < steps - i; j++) {
        const s = (i + 1 / 3) / steps, q = (j + 1 / 3) / steps, p = a.map((x, d) => (x + s * u[d] + q * v[d] + 0.5) * R);
        const at = 4 * ((Math.floor(p[0]) * R + Math.floor(p[1])) * R + Math.floor(p[2]));
        sums[at + 3] += area;
        for (let d = 0; d < 3; d++) sums[at + d] += area * (2 * (p[d] % 1) - 1);
      }
    }
  }
  let compared = 0;
  for (let n = 0; n < voxels.length / 3; n++) {
    const [x, y, z] = voxels.subarray(3 * n, 3 * n + 3), at = 4 * ((x * R + y) * R + z);
    if (sums[at + 3] < steps) continue;
    const want = [0, 1, 2].map((d) => sums[at + d] / sums[at + 3]);
    assertClose(`voxel ${n}`, features.subarray(n * C + 6, n * C + 9), want, { rtol: 0, atol: 0.02 });
    compared++;
  }
  assert.ok(compared >= 8, `${compared} voxels compared`);
});

Deno.test("appearanceFeatures() reads textures, vertex colours and materials as they are rendered", () => {
  const texture: Texture = { width: 2, height: 1, data: Uint8Array.from([255, 0, 0, 255, 0, 0, 255, 255]), wrap: "clamp" };
  const triangle = [-0.4, -0.4, 0.1, 0.4, -0.4, 0.1, 0, 0.4, 0.1], uvs = Float32Array.from([0.25, 0.5, 0.25, 0.5, 0.25, 0.5]);
  const white: [number, number, number, number] = [1, 1, 1, 1];
  const first = (mesh: RenderMesh): Float32Array => rowsOf(mesh, 1).features.subarray(0, 3);
  close("left texel", first(soup(triangle, { uvs, materials: [{ baseColor: white, texture }] })), [1, -1, -1]);
  close("the other", first(soup(triangle, { uvs: uvs.map(() => 0.75), materials: [{ baseColor: white, texture }] })), [-1, -1, 1]);
  const colors = Float32Array.from(Array(3).fill([0, 1, 1, 1]).flat());
  close("vertex colours", first(soup(triangle, { colors, materials: [{ baseColor: [1, 1, 0, 1] }] })), [-1, 1, -1]);
});

Deno.test("appearanceFeatures() has finite values where the surface only touches, is cut away, or is nowhere", () => {
  const R = 2, touching = soup([0, 0, 0, 0, 0, 0, 0, 0, 0]), { voxels, features } = rowsOf(touching, R);
  assert.equal(voxels.length, 8 * 3);
  assert.ok(features.every((x) => Math.abs(x) <= 1));
  const cut = soup([-0.4, -0.4, 0.1, 0.4, -0.4, 0.1, 0, 0.4, 0.1], { materials: [{ baseColor: [1, 1, 1, 0.2], alphaCutoff: 0.5 }] });
  close("cut away", rowsOf(cut, 1).features, [1, 1, 1, 0, 0, 1, 0, -2 / 3 * 0.4, 0.2].map((x, c) => c === 7 ? 2 * (-0.4 / 3) : x));
  const lone = appearanceFeatures(cut, Int32Array.from([0, 0, 0, 1, 1, 1, 7, 7, 7]), 8);
  assert.ok(lone.every((x) => Math.abs(x) <= 1));
});
