import assert from "node:assert/strict";
import { KernelError, openKernels } from "../../ffi/kernels.ts";
import { addressOf } from "../../ffi/host.ts";
import type { Surface } from "../../lib/render/mesh.ts";
import { occupiedVoxels, voxelize } from "../../lib/render/voxelize.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";
import { random } from "../check.ts";

const cross = (a: number[], b: number[]) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a: number[], b: number[]) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** Every cube against every triangle on all 13 axes, in f64; `gap` (in voxels) still counts as touching. */
function reference({ positions, triangles }: Surface, R: number, gap: number): Uint8Array {
  const out = new Uint8Array(R ** 3), limit = 0.5 - 1e-6, axes = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  for (let t = 0; t < triangles.length; t += 3) {
    const p = [0, 1, 2].map((k) =>
      [0, 1, 2].map((d) => (Math.min(Math.max(positions[triangles[t + k] * 3 + d], -limit), limit) + 0.5) * R)
    );
    const edges = [0, 1, 2].map((k) => p[(k + 1) % 3].map((x, d) => x - p[k][d]));
    const tests = [...axes, cross(edges[0], edges[1]), ...axes.flatMap((a) => edges.map((e) => cross(a, e)))].map((axis) => {
      const s = p.map((corner) => dot(corner, axis)), reach = (0.5 + gap) * axis.reduce((sum, x) => sum + Math.abs(x), 0);
      return { axis, least: Math.min(...s) - reach, most: Math.max(...s) + reach };
    });
    for (let i = 0; i < out.length; i++) {
      const c = [Math.floor(i / R / R) + 0.5, Math.floor(i / R) % R + 0.5, i % R + 0.5];
      if (tests.every(({ axis, least, most }) => dot(axis, c) >= least && dot(axis, c) <= most)) out[i] = 1;
    }
  }
  return out;
}

/** `T` triangles of edge about `size`, some of them beyond the cube. */
function soup(seed: number, T: number, size: number): Surface {
  const middles = random(seed, T * 3), corners = random(seed + 100, T * 9);
  return {
    positions: corners.map((x, i) => middles[Math.floor(i / 9) * 3 + i % 3] * 0.55 + x * size),
    triangles: new Uint32Array(T * 3).map((_, i) => i),
  };
}

function expectBetween(mesh: Surface, R: number): void {
  const got = voxelize(mesh, R, { device: "cpu" }), least = reference(mesh, R, 0), most = reference(mesh, R, 3e-6);
  for (let i = 0; i < got.length; i++) {
    assert.ok(got[i] >= least[i] && got[i] <= most[i], `voxel ${i} of ${R}^3 is ${got[i]}, it must be from ${least[i]} to ${most[i]}`);
  }
}

for (const [R, T, size] of [[1, 3, 0.5], [2, 4, 0.3], [5, 20, 0.1], [16, 12, 0.8], [17, 90, 0.05], [31, 3, 2]]) {
  Deno.test(`voxelize() marks what the 13 axes say: ${T} triangles of about ${size} at ${R}^3`, () => expectBetween(soup(R, T, size), R));
}

Deno.test("voxelize() marks both sides of a face that lies on a grid plane", () => {
  const positions = new Float32Array([0.25, -0.4, -0.4, 0.25, 0.4, -0.4, 0.25, 0, 0.4]),
    mesh = { positions, triangles: new Uint32Array([0, 1, 2]) };
  const coords = occupiedVoxels(voxelize(mesh, 8, { device: "cpu" }), 8), xs = new Set(coords.filter((_, i) => i % 3 === 0));
  assert.deepEqual([...xs].sort(), [5, 6]);
  expectBetween(mesh, 8);
});

Deno.test("voxelize() treats degenerate triangles as the segment or point they are", () => {
  const point = { positions: new Float32Array(9).fill(0.1), triangles: new Uint32Array([0, 1, 2]) };
  assert.deepEqual([...occupiedVoxels(voxelize(point, 64, { device: "cpu" }), 64)], [38, 38, 38]);
  const a = [-0.43, -0.31, 0.4], b = [0.37, 0.22, -0.11];
  expectBetween({ positions: new Float32Array([...a, ...b, ...a]), triangles: new Uint32Array([0, 1, 2]) }, 16);
  const middle = a.map((x, d) => (x + b[d]) / 2 + 1e-5);
  expectBetween({ positions: new Float32Array([...a, ...middle, ...b]), triangles: new Uint32Array([0, 1, 2]) }, 16);
});

Deno.test("voxelize() clamps what is outside to the outermost voxels", () => {
  const mesh = {
    positions: new Float32Array([9, 9, 9, 8, 9, 9, 9, 8, 9, -9, 0.12, 0.12, -9, 0.12, 0.12, -9, 0.12, 0.12]),
    triangles: new Uint32Array([0, 1, 2, 3, 4, 5]),
  };
  assert.deepEqual([...occupiedVoxels(voxelize(mesh, 10, { device: "cpu" }), 10)], [0, 6, 6, 9, 9, 9]);
});

Deno.test("voxelize() of many triangles, in parallel, is the union of its parts", () => {
  const mesh = soup(3, 10000, 0.01), all = voxelize(mesh, 32, { device: "cpu" }), union = new Uint8Array(all.length);
  for (let first = 0; first < 30000; first += 3000) {
    voxelize({ ...mesh, triangles: mesh.triangles.slice(first, first + 3000) }, 32, { device: "cpu" }).forEach((x, i) => union[i] |= x);
  }
  assert.deepEqual(all, union);
  assert.deepEqual(voxelize(mesh, 32, { device: "cpu" }), all);
});

Deno.test("voxelize() of an empty mesh is empty", () => {
  assert.ok(voxelize({ positions: new Float32Array(0), triangles: new Uint32Array(0) }, 4, { device: "cpu" }).every((x) => x === 0));
});

Deno.test("voxelize() says what is wrong", () => {
  const mesh = soup(1, 1, 0.1);
  assert.throws(
    () => voxelize(mesh, 0),
    /^RangeError: Cannot voxelize the mesh: resolution is 0, it must be a whole number from 1 to 1024/,
  );
  assert.throws(
    () => voxelize({ ...mesh, positions: mesh.positions.fill(NaN) }, 8),
    /Cannot voxelize the mesh: positions\[0\] is NaN, it must be finite/,
  );
  assert.throws(
    () => openKernels("cpu").k_voxelize_fwd(0n, 0n, 0n, 0, 0, 2000, 0n),
    (e) => e instanceof KernelError && /R = 2000, it must be 1 to 1024/.test(e.message),
  );
});

Deno.test("k_voxelize_fwd passes over triangles with an index out of range", () => {
  const out = new Uint8Array(8).fill(7),
    positions = new Float32Array(9).fill(0.1),
    triangles = new Int32Array([0, 1, 3, -1, 0, 1, 0, 1, 2]);
  openKernels("cpu").k_voxelize_fwd(addressOf(out), addressOf(positions), addressOf(triangles), 3, 3, 2, 0n);
  assert.deepEqual([...out], [0, 0, 0, 0, 0, 0, 0, 1]);
});

Deno.test("occupiedVoxels() lists x y z in ascending order", () => {
  const occupancy = new Uint8Array(27);
  for (const i of [26, 5, 10]) occupancy[i] = 1;
  assert.deepEqual([...occupiedVoxels(occupancy, 3)], [0, 1, 2, 1, 0, 1, 2, 2, 2]);
  assert.throws(() => occupiedVoxels(occupancy, 4), /the occupancy has 27 values, it must have 4\^3/);
});

Deno.test({
  name: "voxelize() on CUDA agrees with the CPU",
  ignore: !hasCuda() || device().name !== "cuda",
  fn: () => {
    for (const [R, T, size] of [[1, 2, 1], [7, 0, 1], [33, 500, 0.1], [64, 5000, 0.02], [64, 40, 2], [256, 100, 0.5]]) {
      const mesh = soup(R + T, T, size);
      assert.deepEqual(voxelize(mesh, R, { device: "cuda" }), voxelize(mesh, R, { device: "cpu" }));
    }
  },
});
