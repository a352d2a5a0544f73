import assert from "node:assert/strict";
import {
  cameraOf,
  clipMatrix,
  conditionCameras,
  extrinsicsOf,
  frameOf,
  intrinsicsOf,
  lookAt,
  orbitCamera,
  projectPoint,
  radicalInverse,
  renderCameras,
  sphereHammersley,
} from "../../lib/render/camera.ts";
import { random } from "../check.ts";

function uniform(seed: number): () => number {
  const values = random(seed, 1000);
  let at = 0;
  return () => (values[at++] + 1) / 2;
}

function near(got: readonly number[], want: readonly number[], tolerance = 1e-6): void {
  assert.equal(got.length, want.length);
  got.forEach((x, i) => assert.ok(Math.abs(x - want[i]) <= tolerance, `[${got}] must be [${want}]`));
}

Deno.test("radicalInverse() mirrors the digits", () => {
  near([0, 1, 2, 3, 6].map((n) => radicalInverse(2, n)), [0, 0.5, 0.25, 0.75, 0.375], 0);
  near([1, 2, 3, 5].map((n) => radicalInverse(3, n)), [1 / 3, 2 / 3, 1 / 9, 7 / 9], 1e-15);
});

Deno.test("sphereHammersley() gives the known directions of 150", () => {
  const known: [n: number, yaw: number, pitch: number, remapped: number][] = [
    [0, 0, -1.570796, -1.570796],
    [1, 3.141593, -1.407315, -1.339340],
    [2, 1.570796, -1.339340, -1.242728],
    [3, 4.712389, -1.287002, -1.168080],
    [75, 5.154175, 0, 0.339837],
    [149, 4.147884, 1.407315, 1.437364],
  ];
  for (const [n, yaw, pitch, remapped] of known) {
    const plain = sphereHammersley(n, 150), remap = sphereHammersley(n, 150, { remap: true });
    near([plain.yaw, plain.pitch, remap.yaw, remap.pitch], [yaw, pitch, yaw, remapped]);
  }
});

Deno.test("sphereHammersley() with an offset moves by a part of a step", () => {
  const moved = sphereHammersley(3, 10, { offset: [1, 0.125] }), next = sphereHammersley(4, 10);
  near([moved.pitch, moved.yaw], [next.pitch, 2 * Math.PI * (0.75 + 0.125)], 1e-12);
});

Deno.test("orbitCamera() sees the origin in the middle and up upward, at the poles too", () => {
  for (const pitch of [-Math.PI / 2, -1, 0, 0.7, Math.PI / 2]) {
    for (const yaw of [0, 1, 4]) {
      const camera = orbitCamera({ yaw, pitch }, 2, 0.7), m = camera.cameraToWorld;
      near(
        [m[0][3], m[1][3], m[2][3]],
        [2 * Math.cos(yaw) * Math.cos(pitch), 2 * Math.sin(yaw) * Math.cos(pitch), 2 * Math.sin(pitch)],
        1e-12,
      );
      const middle = projectPoint(camera, [0, 0, 0]);
      near([middle.u, middle.v, middle.depth], [0.5, 0.5, 2], 1e-12);
      if (Math.abs(pitch) < 1.5) assert.ok(projectPoint(camera, [0, 0, 0.1]).v < 0.5);
      for (let i = 0; i < 3; i++) {
        for (let j = 0; j < 3; j++) near([m[0][i] * m[0][j] + m[1][i] * m[1][j] + m[2][i] * m[2][j]], [i === j ? 1 : 0], 1e-12);
      }
    }
  }
});

Deno.test("lookAt() agrees with orbitCamera() and refuses a view along up", () => {
  const orbit = orbitCamera({ yaw: 0.4, pitch: -0.3 }, 3, 0.7).cameraToWorld;
  const look = lookAt([orbit[0][3], orbit[1][3], orbit[2][3]], [0, 0, 0], { fov: 0.7 }).cameraToWorld;
  near(look.flat(), orbit.flat(), 1e-12);
  assert.throws(() => lookAt([0, 0, 2], [0, 0, 0], { fov: 1 }), /^RangeError: Cannot look from \[0,0,2\] at \[0,0,0\]: up is \[0,0,1\]/);
});

Deno.test("extrinsicsOf() is the inverse of the camera with y and z turned", () => {
  const camera = orbitCamera({ yaw: 1, pitch: 0.5 }, 2, 0.7), E = extrinsicsOf(camera);
  const turned = camera.cameraToWorld.map((row) => [row[0], -row[1], -row[2], row[3]]);
  const product = E.map((row) => [0, 1, 2, 3].map((j) => row.reduce((sum, x, k) => sum + x * turned[k][j], 0)));
  near(product.flat(), [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], 1e-12);
});

Deno.test("projectPoint() agrees with intrinsics and extrinsics", () => {
  const camera = orbitCamera({ yaw: 2, pitch: -0.2 }, 2, 0.9), p = [0.3, -0.2, 0.4, 1];
  const c = extrinsicsOf(camera).map((row) => row.reduce((sum, x, k) => sum + x * p[k], 0));
  const uvw = intrinsicsOf(0.9).map((row) => row[0] * c[0] + row[1] * c[1] + row[2] * c[2]);
  const { u, v, depth } = projectPoint(camera, p);
  near([u, v, depth], [uvw[0] / uvw[2], uvw[1] / uvw[2], uvw[2]], 1e-12);
});

Deno.test("clipMatrix() has its near plane where it is asked for", () => {
  const camera = orbitCamera({ yaw: 0, pitch: 0 }, 2, 0.9);
  const [, , z, w] = clipMatrix(camera, 0.5).map((r) => r[0] * 1.5 + r[3]);
  near([z, w], [0, 0.5], 1e-12);
});

Deno.test("renderCameras() are 2 away with 40 degrees, three quarters of them above", () => {
  const cameras = renderCameras(100, uniform(1));
  for (const { fov, cameraToWorld: m } of cameras) near([Math.hypot(m[0][3], m[1][3], m[2][3]), fov], [2, 40 * Math.PI / 180], 1e-9);
  const above = cameras.filter((c) => c.cameraToWorld[2][3] > 0).length;
  assert.ok(above >= 74 && above <= 76, `${above} are above`);
});

Deno.test("conditionCameras() fit the object's sphere into 10 to 70 degrees", () => {
  const cameras = conditionCameras(200, uniform(2)), fovs = cameras.map((c) => c.fov * 180 / Math.PI);
  assert.ok(Math.min(...fovs) >= 10 && Math.max(...fovs) <= 70 && Math.min(...fovs) < 20 && Math.max(...fovs) > 60);
  for (const { fov, cameraToWorld: m } of cameras) {
    near([Math.sin(fov / 2) * Math.hypot(m[0][3], m[1][3], m[2][3])], [Math.sqrt(3) / 2], 1e-9);
  }
});

Deno.test("frameOf() and cameraOf() are inverse, also through JSON", () => {
  const camera = orbitCamera({ yaw: 1, pitch: 1 }, 2, 0.7), frame = frameOf(camera, "000.png");
  assert.deepEqual(Object.keys(frame), ["file_path", "camera_angle_x", "transform_matrix"]);
  assert.deepEqual(cameraOf(JSON.parse(JSON.stringify(frame))), camera);
  assert.throws(() => cameraOf({ ...frame, camera_angle_x: 0 }), /camera_angle_x is 0, it must be between 0 and pi/);
  assert.throws(() => cameraOf({ ...frame, transform_matrix: [[1]] }), /it must be 4 rows of 4 numbers/);
});
