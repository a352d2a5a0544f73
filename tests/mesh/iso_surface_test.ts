import assert from "node:assert/strict";
import { isoSurface } from "../../lib/mesh/iso_surface.ts";
import { type Mesh, meshStats, subMesh } from "../../lib/mesh/mesh.ts";
import { ballField, fieldOf } from "./fields.ts";

function expectClosed(stats: ReturnType<typeof meshStats>): void {
  assert.deepEqual([stats.openEdges, stats.badEdges], [0, 0]);
}

Deno.test("isoSurface() of a ball is a sphere of its area and volume, facing outwards", () => {
  const mesh = isoSurface(ballField(40, 0.4)), stats = meshStats(mesh);
  expectClosed(stats);
  assert.equal(stats.eulerNumber, 2);
  assert.ok(Math.abs(stats.area / (4 * Math.PI * 0.4 ** 2) - 1) < 0.005, `area ${stats.area}`);
  assert.ok(Math.abs(stats.volume / (4 / 3 * Math.PI * 0.4 ** 3) - 1) < 0.005, `volume ${stats.volume}`);
  for (let i = 0; i < mesh.positions.length; i += 3) {
    const [x, y, z] = mesh.positions.subarray(i, i + 3), [nx, ny, nz] = mesh.normals.subarray(i, i + 3);
    assert.ok((x * nx + y * ny + z * nz) / Math.hypot(x, y, z) > 0.98);
  }
});

Deno.test("isoSurface() takes a level and either side, and keeps x slowest", () => {
  const distances = fieldOf(24, (x, y, z) => Math.hypot(x - 0.2, y, z)), mesh = isoSurface(distances, { level: 0.25, inside: "below" });
  const { min, max, volume } = meshStats(mesh);
  assert.ok(volume > 0);
  [min, max].forEach((corner, i) => {
    [-0.05, -0.25, -0.25].forEach((low, k) => assert.ok(Math.abs(corner[k] - (low + 0.5 * i)) < 0.01, `${corner}`));
  });
});

Deno.test("isoSurface() of a torus has Euler number 0", () => {
  const stats = meshStats(isoSurface(fieldOf(32, (x, y, z) => 0.12 - Math.hypot(Math.hypot(x, y) - 0.3, z))));
  expectClosed(stats);
  assert.equal(stats.eulerNumber, 0);
});

Deno.test("isoSurface() closes a solid on the border of the unit cube", () => {
  for (const R of [1, 2, 5]) {
    const mesh = isoSurface(new Float32Array(R ** 3).fill(3)), stats = meshStats(mesh);
    expectClosed(stats);
    assert.equal(stats.eulerNumber, 2);
    assert.ok(stats.volume > 0 && mesh.positions.every((x) => Math.abs(x) <= 0.5));
    if (R > 1) assert.deepEqual([stats.min, stats.max], [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]);
  }
});

Deno.test("isoSurface() of noise is a manifold: edges of two triangles, one fan around each vertex", () => {
  let seed = 1;
  const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (const solid of [0.2, 0.5, 0.8]) {
    const mesh = isoSurface(Float32Array.from({ length: 16 ** 3 }, () => random() - 1 + solid));
    expectClosed(meshStats(mesh));
    const next = new Map<number, Map<number, number>>();
    for (let t = 0; t < mesh.triangles.length; t += 3) {
      for (let k = 0; k < 3; k++) {
        const [a, b, c] = [0, 1, 2].map((j) => mesh.triangles[t + (k + j) % 3]);
        if (!next.has(a)) next.set(a, new Map());
        next.get(a)!.set(b, c);
      }
    }
    for (const fan of next.values()) {
      const start = fan.keys().next().value!;
      let length = 0;
      for (let v = start; length === 0 || v !== start; v = fan.get(v)!) length++;
      assert.equal(length, fan.size);
    }
  }
});

Deno.test("isoSurface() with a prefilter rounds a grid of jumps", () => {
  const jumps = ballField(32, 0.35).map((x) => x > 0 ? 9 : -9), rough = isoSurface(jumps), round = isoSurface(jumps, { prefilter: 1 });
  const leastFacing = ({ positions, normals }: Mesh): number => {
    let least = 1;
    for (let i = 0; i < positions.length; i += 3) {
      const [x, y, z] = positions.subarray(i, i + 3), [nx, ny, nz] = normals.subarray(i, i + 3);
      least = Math.min(least, (x * nx + y * ny + z * nz) / Math.hypot(x, y, z));
    }
    return least;
  };
  expectClosed(meshStats(round));
  assert.ok(leastFacing(rough) < 0.975 && leastFacing(round) > 0.99, `${leastFacing(rough)} ${leastFacing(round)}`);
  assert.ok(Math.abs(meshStats(round).area / (4 * Math.PI * 0.35 ** 2) - 1) < 0.025);
});

Deno.test("isoSurface() of a field that never crosses its level is empty", () => {
  const mesh = isoSurface(new Float32Array(27).fill(-1));
  assert.deepEqual([mesh.positions.length, mesh.triangles.length], [0, 0]);
  assert.deepEqual(subMesh(mesh, mesh.triangles), mesh);
});

Deno.test("isoSurface() refuses what is no finite cube", () => {
  assert.throws(() => isoSurface(new Float32Array(10)), /Cannot take a field as a grid: it has 10 values, it must be \[R,R,R\]/);
  assert.throws(() => isoSurface(Float32Array.of(1, NaN, 1, 1, 1, 1, 1, 1)), /value 1 of the field is NaN, it must be finite/);
});
