import assert from "node:assert/strict";
import { coarsenRows } from "../../lib/data/latents.ts";
import { openDataset } from "../../lib/data/dataset.ts";
import { assetPaths } from "../../lib/data/layout.ts";
import { openObjects } from "../../lib/data/loaded_objects.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { conditionCamerasOf, fourSides, loadRender, renderCamerasOf } from "../../lib/data/renders.ts";
import { readImage, writePng } from "../../lib/io/image.ts";
import { renderCameras } from "../../lib/render/camera.ts";

const root = Deno.makeTempDirSync({ prefix: "espalier_renders_" });
globalThis.addEventListener("unload", () => Deno.removeSync(root, { recursive: true }));
const prepare = prepareDataset({
  ...{ output: root, objects: 1, views: 0, renders: 5, renderSize: 20, resolution: 16, workers: 0 },
  features: ["appearance"],
});

Deno.test("loadRender() gives straight colours and alpha plane by plane, at any size, and renderCamerasOf() their cameras", async () => {
  await prepare;
  const [item] = openDataset(root, { require: ["rendered", "feature_appearance"] }).items, { renders } = assetPaths(root, item.sha256);
  const image = readImage(renders.view(3)), planes = loadRender(item, 3, 20);
  for (let i = 0; i < 400; i++) assert.deepEqual([0, 1, 2, 3].map((c) => planes[c * 400 + i]), [...image.data.subarray(4 * i, 4 * i + 4)]);
  assert.ok(planes.subarray(1200).includes(255) && planes.subarray(1200).includes(0));
  const small = loadRender(item, 3, 10), mean = (a: Uint8Array) => a.reduce((x, y) => x + y, 0) / a.length;
  assert.equal(small.length, 400);
  assert.ok(Math.abs(mean(small.subarray(300)) - mean(planes.subarray(1200))) < 2);
  assert.throws(() => conditionCamerasOf(item), /transforms\.json: No such file .* `deno task prepare -- --views` makes it/);
  const cameras = renderCamerasOf(item);
  assert.equal(cameras.length, 5);
  for (const { cameraToWorld: m } of cameras) assert.ok(Math.abs(Math.hypot(m[0][3], m[1][3], m[2][3]) - 2) < 1e-6);
});

Deno.test("openObjects() reads an object's rows, cameras and pictures once", async () => {
  await prepare;
  const resolution = { prepared: 16, model: 16 }, options = { features: "appearance", channels: 9, resolution, size: 20 };
  const { items } = openDataset(root), [object] = openObjects(items, options);
  const rows = object.rows();
  assert.deepEqual([rows.feats.length, rows.coords.length], [9 * items[0].numVoxels, 3 * items[0].numVoxels]);
  assert.ok(object.rows() === rows && object.picture(2) === object.picture(2) && object.cameras() === object.cameras());
  assert.deepEqual(object.picture(2), loadRender(items[0], 2, 20));
  const [coarse] = openObjects(items, { ...options, resolution: { prepared: 16, model: 8 } }), half = coarse.rows();
  assert.deepEqual(half, coarsenRows(rows, 2));
  assert.throws(
    () => openObjects(items, { ...options, resolution: { prepared: 16, model: 5 } }),
    /the model's resolution is 5, it must divide/,
  );
  assert.throws(
    () => openObjects(items, { ...options, resolution: { prepared: 8, model: 8 } })[0].rows(),
    /a voxel index is \d+, it must be below 8/,
  );
  assert.throws(() => openObjects(items, { ...options, channels: 8 })[0].rows(), {
    message: /npz: it has 9 channels, the encoder's in_channels must say so and is 8$/,
  });
});

Deno.test("fourSides() are the views from around, in order", () => {
  const cameras = renderCameras(150, () => 0.25), sides = fourSides(cameras);
  assert.equal(new Set(sides).size, 4);
  sides.forEach((at, i) => {
    const [x, y, z] = [0, 1, 2].map((d) => cameras[at].cameraToWorld[d][3]);
    const yaw = (Math.atan2(y, x) * 180 / Math.PI + 360) % 360, pitch = Math.asin(z / 2) * 180 / Math.PI;
    assert.ok(Math.abs(yaw - (45 + 90 * i)) < 15 && Math.abs(pitch - 20) < 15, `${yaw} ${pitch}`);
  });
});

Deno.test("damaged views are named", async () => {
  await prepare;
  const [item] = openDataset(root).items, { renders } = assetPaths(root, item.sha256);
  writePng(renders.view(4), { width: 2, height: 2, channels: 3, data: new Uint8Array(12) });
  assert.throws(() => loadRender(item, 4, 20), /Cannot use the view .*004\.png: it has 3 channels, it must have 4 \(RGBA\)/);
  Deno.writeTextFileSync(renders.transforms, '{"frames": []}');
  assert.throws(() => renderCamerasOf(item), /Cannot read .*transforms\.json: it has no frames; `deno task prepare -- --renders` makes it/);
});
