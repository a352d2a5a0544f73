import assert from "node:assert/strict";
import { join } from "node:path";
import {
  coarsenRows,
  loadLatents,
  readFeatures,
  readLatents,
  readSsLatent,
  readStatistics,
  sumStatistics,
  writeFeatures,
  writeLatents,
  writeSsLatent,
  writeStatistics,
} from "../../lib/data/latents.ts";
import { assetPaths } from "../../lib/data/layout.ts";
import { readNpz, writeNpz } from "../../lib/io/npz.ts";
import { random } from "../check.ts";
import { withFolder } from "./assets.ts";

const ROWS = { coords: Int32Array.from([0, 1, 2, 255, 0, 63]), feats: Float32Array.from([0.5, -1, 2, 0.25, 3, -4]) };

Deno.test("features, latents and sparse-structure latents come back from TRELLIS's layout", async () => {
  await withFolder({}, (root) => {
    const paths = assetPaths(root, "abc");
    writeFeatures(paths.features("appearance"), ROWS);
    assert.deepEqual(readFeatures(join(root, "features/appearance/abc.npz")), ROWS);
    const { indices, patchtokens } = readNpz(paths.features("appearance"));
    assert.deepEqual([indices.dtype, indices.shape, patchtokens.dtype, patchtokens.shape], ["u1", [2, 3], "f2", [2, 3]]);

    writeLatents(paths.latents("m"), ROWS);
    assert.deepEqual(readLatents(join(root, "latents/m/abc.npz")), ROWS);
    const { coords, feats } = readNpz(paths.latents("m"));
    assert.deepEqual([coords.dtype, coords.shape, feats.dtype, feats.shape], ["u1", [2, 3], "f4", [2, 3]]);

    const mean = Float32Array.from(random(1, 2 * 27));
    writeSsLatent(paths.ssLatents("m"), mean, 2);
    assert.deepEqual(readSsLatent(join(root, "ss_latents/m/abc.npz")), { mean, C: 2 });
    assert.deepEqual(readNpz(paths.ssLatents("m")).mean.shape, [2, 3, 3, 3]);
  });
});

Deno.test("what no latents can be is refused, with nothing written", async () => {
  await withFolder({}, (root) => {
    const path = join(root, "a.npz"), { coords, feats } = ROWS, NaNs = feats.map(() => NaN);
    assert.throws(() => writeLatents(path, { coords, feats: NaNs }), /a\.npz: element 0 is NaN, all must be finite/);
    assert.throws(() => writeFeatures(path, { coords, feats: feats.map(() => 1e6) }), /element 0 is Infinity/);
    assert.throws(() => writeLatents(path, { feats, coords: coords.map(() => 256) }), /a voxel index is 256, it must be from 0 to 255/);
    assert.throws(() => writeSsLatent(path, NaNs, 6), /is NaN/);
    assert.deepEqual([...Deno.readDirSync(root)], []);
    writeNpz(path, { coords: { shape: [2, 3], data: Uint8Array.from(coords) }, feats: { shape: [3, 2], data: feats } });
    assert.throws(() => readLatents(path), /"feats\.npy": it is f4 \[3, 2\], it must be f2 or f4 \[N = 2, C\]/);
    writeNpz(path, { coords: { shape: [2, 3], data: Uint8Array.from(coords) }, feats: { shape: [2, 3], data: NaNs } });
    assert.throws(() => readLatents(path), /is NaN, all must be finite/);
    writeNpz(path, { coords: { shape: [0, 3], data: new Uint8Array(0) }, feats: { shape: [0, 3], data: new Float32Array(0) } });
    assert.throws(() => readLatents(path), /it has 0 voxels/);
  });
});

Deno.test("sumStatistics() lets each object count alike", () => {
  const sum = sumStatistics(2), volume = sumStatistics(2, { channelsFirst: true });
  sum.add(Float32Array.from([1, 10, 3, 20])); // means 2 and 15, mean squares 5 and 250
  sum.add(Float32Array.from([4, 5])); // 4 and 5, 16 and 25
  const { mean, std } = sum.result();
  assert.deepEqual(mean, [3, 10]);
  assert.deepEqual(std.map((s) => Math.round(s ** 2 * 1e6) / 1e6), [10.5 - 9, 137.5 - 100]);
  volume.add(Float32Array.from([1, 3, 10, 20]));
  assert.deepEqual(volume.result().mean, [2, 15]);
  assert.throws(() => sumStatistics(2).result(), /there are 0 objects/);
});

Deno.test("readStatistics() takes what writeStatistics() wrote, and nothing else", async () => {
  await withFolder({}, (root) => {
    Deno.mkdirSync(join(root, "latents/m"), { recursive: true });
    assert.throws(() => readStatistics(root, "m", 2), /Cannot read the latents' statistics .*stats\.json.*`deno task encode` writes them/);
    writeStatistics(root, "m", { mean: [1, 2], std: [3, 4] });
    assert.deepEqual(readStatistics(root, "m", 2), { mean: [1, 2], std: [3, 4] });
    assert.throws(() => readStatistics(root, "m", 3), /are not 3 finite numbers each/);
    writeStatistics(root, "m", { mean: [1, 2], std: [3, 0] });
    assert.throws(() => readStatistics(root, "m", 2), /the deviations above 0/);
  });
});

Deno.test("loadLatents() normalises by channel and refuses what is not the model's", async () => {
  await withFolder({}, (root) => {
    const item = { root, sha256: "abc", name: "", numVoxels: 2, place: 0, row: {} },
      normalization = { mean: [0.5, 0, 2], std: [0.5, 1, 2] };
    writeLatents(assetPaths(root, "abc").latents("m"), ROWS);
    const { coords, feats } = loadLatents(item, "m", { C: 3, R: 256, normalization });
    assert.deepEqual([coords, [...feats]], [ROWS.coords, [0, -1, 0, -0.5, 3, -3]]);
    assert.throws(() => loadLatents(item, "m", { C: 2, R: 256, normalization }), /it has 3 channels, it must have the model's 2/);
    assert.throws(() => loadLatents(item, "m", { C: 3, R: 64, normalization }), /a voxel index is 255, it must be below the model's 64/);
    assert.throws(() => loadLatents(item, "other", { C: 3, R: 64, normalization }), /Cannot read .*other/);
  });
});

Deno.test("coarsenRows() takes means over what lies in a coarser voxel, in order of places", () => {
  const coords = Int32Array.of(5, 4, 4, 0, 1, 1, 1, 0, 0, 4, 5, 5), feats = Float32Array.of(1, 10, 2, 20, 4, 40, 3, 30);
  const { coords: places, feats: means } = coarsenRows({ coords, feats }, 2);
  assert.deepEqual([[...places], [...means]], [[0, 0, 0, 2, 2, 2], [3, 30, 2, 20]]);
});
