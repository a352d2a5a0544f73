import assert from "node:assert/strict";
import { join } from "node:path";
import { clearestView, countViews, holdOut, loadCondition, loadVoxels, openDataset } from "../../lib/data/dataset.ts";
import { readFeatures } from "../../lib/data/latents.ts";
import { assetPaths, viewName } from "../../lib/data/layout.ts";
import { readMetadata } from "../../lib/data/metadata.ts";
import { prepareDataset, type PrepareOptions } from "../../lib/data/prepare.ts";
import { OutputError } from "../../lib/data/output_error.ts";
import { lostRow, prepareAsset } from "../../lib/data/prepare_asset.ts";
import { startWorker, WorkerLost } from "../../lib/data/prepare_worker.ts";
import { readImage } from "../../lib/io/image.ts";
import { readPly } from "../../lib/io/ply.ts";
import { type Camera, cameraOf, projectPoint } from "../../lib/render/camera.ts";
import { assertClose } from "../check.ts";
import { CUBE_OBJ, glb, square, withFolder } from "./assets.ts";

const SMALL: Omit<PrepareOptions, "output"> = { views: 3, size: 40, resolution: 16, workers: 0, device: "cpu" };
const GLB = glb(square().json, square().bin);
const INPUT = {
  "in/cube.obj": CUBE_OBJ,
  "in/deep/er/square.glb": GLB,
  "in/bad.glb": "no GLB at all",
  "in/notes.txt": "x",
  "in/.hidden/c.obj": CUBE_OBJ,
};

/** Every file below a folder and when it was written. */
function filesOf(folder: string): Record<string, number> {
  const out: Record<string, number> = {};
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) Object.assign(out, filesOf(path));
    else out[path] = Deno.statSync(path).mtime!.getTime();
  }
  return out;
}

Deno.test("prepareDataset() makes voxel features where they are asked for and missing", async () => {
  await withFolder({ "in/cube.obj": CUBE_OBJ }, async (folder) => {
    const root = join(folder, "out"), options: PrepareOptions = { ...SMALL, input: join(folder, "in"), output: root, views: 0 };
    await prepareDataset(options);
    const withFeatures = { ...options, features: ["appearance"] as const };
    assert.deepEqual(await prepareDataset(withFeatures).then(({ made, skipped }) => [made, skipped]), [1, 0]);
    assert.deepEqual(await prepareDataset(withFeatures).then(({ made, skipped }) => [made, skipped]), [0, 1]);
    const [item] = openDataset(root, { require: ["feature_appearance"] }).items;
    const { coords, feats } = readFeatures(assetPaths(root, item.sha256).features("appearance"));
    assert.deepEqual([coords.length / 3, feats.length / 9], [item.numVoxels, item.numVoxels]);
    await assert.rejects(
      prepareDataset({ ...options, features: ["dino" as "appearance"] }),
      /the feature is dino, it must be one of appearance/,
    );
  });
});

Deno.test("prepareDataset() makes the layout, quarantines what is broken, and leaves complete objects alone", async () => {
  await withFolder(INPUT, async (folder) => {
    const root = join(folder, "out"), options = { ...SMALL, input: join(folder, "in"), output: root };
    const first = await prepareDataset(options);
    assert.deepEqual([first.total, first.made, first.skipped, first.duplicates], [3, 2, 0, []]);
    assert.deepEqual(first.failed.map(({ name }) => name), ["bad.glb"]);
    assert.match(first.failed[0].reason, /its JSON is broken/);

    const rows = [...readMetadata(root).values()];
    assert.deepEqual(rows.map((row) => [row.file_identifier, row.voxelized, row.cond_rendered]), [["bad.glb", "False", "False"], [
      "cube.obj",
      "True",
      "True",
    ], ["deep/er/square.glb", "True", "True"]]);
    assert.match(rows[0].error, /^Cannot import/);
    const cube = rows[1], hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(CUBE_OBJ))).toHex();
    assert.equal(cube.sha256, hash);
    assert.equal(Number(cube.num_voxels), 16 ** 3 - 14 ** 3);
    const paths = assetPaths(root, hash), { frames, scale, offset, aabb } = JSON.parse(Deno.readTextFileSync(paths.transforms));
    assert.deepEqual([scale, offset, aabb], [0.5, [0, 0, 0], [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]]);
    assert.deepEqual(frames.map((f: { file_path: string }) => f.file_path), [0, 1, 2].map(viewName));
    frames.forEach(cameraOf);
    const image = readImage(paths.view(2));
    assert.deepEqual([image.width, image.channels], [40, 4]);

    const before = filesOf(join(root, "renders_cond")), again = await prepareDataset(options);
    assert.deepEqual([again.made, again.skipped, again.failed.length], [0, 2, 1]);
    assert.deepEqual(filesOf(join(root, "renders_cond")), before);

    Deno.removeSync(paths.transforms);
    Deno.writeFileSync(assetPaths(root, rows[2].sha256).voxels, new Uint8Array(10));
    assert.deepEqual(await prepareDataset(options).then(({ made, skipped }) => [made, skipped]), [2, 0]);
    assert.deepEqual(await prepareDataset({ ...options, views: 2 }).then(({ made, skipped }) => [made, skipped]), [2, 0]);
    assert.deepEqual([...Deno.readDirSync(paths.views)].map((e) => e.name).sort(), ["000.png", "001.png", "transforms.json"]);
  });
});

Deno.test("prepareDataset() makes training views with the mesh beside them, and leaves those that are complete alone", async () => {
  await withFolder({ "in/cube.obj": CUBE_OBJ }, async (folder) => {
    const options = { ...SMALL, views: 0, renders: 17, renderSize: 24, input: join(folder, "in"), output: join(folder, "out") };
    assert.equal((await prepareDataset(options)).made, 1);
    const [row] = readMetadata(options.output).values(), { renders } = assetPaths(options.output, row.sha256);
    assert.deepEqual([row.rendered, row.cond_rendered ?? ""], ["True", ""]);
    const { frames, aabb } = JSON.parse(Deno.readTextFileSync(renders.transforms)), cameras = frames.map(cameraOf) as Camera[];
    assert.deepEqual([frames.length, aabb], [17, [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]]);
    for (const { fov, cameraToWorld: m } of cameras) {
      assertClose("camera", [fov, Math.hypot(m[0][3], m[1][3], m[2][3])], [40 * Math.PI / 180, 2], { rtol: 1e-6 });
    }
    assert.ok(cameras.filter(({ cameraToWorld: m }) => m[2][3] > 0).length >= 12, "three quarters are seen from above");
    cameras.forEach((camera, i) => {
      const { width, channels, data } = readImage(renders.view(i)), { u, v } = projectPoint(camera, [0, 0, 0]);
      assert.deepEqual([width, channels, data[(Math.floor(v * 24) * 24 + Math.floor(u * 24)) * 4 + 3]], [24, 4, 255]);
    });
    const { vertex, face } = readPly(renders.mesh).elements;
    assert.deepEqual([vertex.count, face.count, Math.max(...vertex.columns.z)], [8, 12, 0.5]);
    const before = filesOf(options.output);
    delete before[join(options.output, "metadata.csv")];
    assert.equal((await prepareDataset(options)).skipped, 1);
    const after = filesOf(options.output);
    for (const [path, time] of Object.entries(before)) assert.equal(after[path], time, path);
    assert.deepEqual(await prepareDataset({ ...options, renders: 3 }).then(({ made }) => made), 1);
    assert.deepEqual([...Deno.readDirSync(renders.folder)].map(({ name }) => name).sort(), [
      ...[0, 1, 2].map(viewName),
      "mesh.ply",
      "transforms.json",
    ]);
  });
});

Deno.test("prepareDataset() clears an error once the object is mended, and counts equal files once", async () => {
  await withFolder(
    { "in/a.glb": glb({ asset: { version: "2.0" } }, new Uint8Array(4)), "in/b.obj": CUBE_OBJ, "in/c.obj": CUBE_OBJ },
    async (folder) => {
      const options = { ...SMALL, views: 0, input: join(folder, "in"), output: join(folder, "out") };
      const { made, failed, duplicates } = await prepareDataset(options);
      assert.deepEqual([made, failed.length, duplicates], [1, 1, ["c.obj"]]);
      Deno.writeTextFileSync(join(folder, "in/a.mtl"), "newmtl a\n");
      assert.equal(readMetadata(join(folder, "out")).size, 2);
      assert.equal([...readMetadata(join(folder, "out")).values()][1].file_identifier, "b.obj");
    },
  );
});

Deno.test("prepareDataset() of the generator gives the same dataset in one process, in workers and in shares", async () => {
  await withFolder({}, async (folder) => {
    const options = { ...SMALL, objects: 3, seed: 7, views: 1 };
    await prepareDataset({ ...options, output: join(folder, "one") });
    await prepareDataset({ ...options, output: join(folder, "workers"), workers: 2 });
    for (const rank of [1, 0]) await prepareDataset({ ...options, output: join(folder, "shares"), rank, worldSize: 2 });
    const [one, ...others] = ["one", "workers", "shares"].map((name) => readMetadata(join(folder, name)));
    for (const other of others) assert.deepEqual(other, one);
    for (const sha256 of one.keys()) {
      const [a, b, c] = ["one", "workers", "shares"].map((name) => Deno.readFileSync(assetPaths(join(folder, name), sha256).view(0)));
      assert.deepEqual(b, a);
      assert.deepEqual(c, a);
    }
    assert.match([...one.values()][0].file_identifier, /^procedural\/7\/000000_/);
  });
});

Deno.test("prepareDataset() stops with one clear error where it cannot write or has no input", async () => {
  await withFolder({ "file": "x", "in/readme.txt": "x" }, async (folder) => {
    await assert.rejects(prepareDataset({ ...SMALL, output: join(folder, "file/out") }), /^Error: Cannot write the dataset .*file\/out/);
    await assert.rejects(
      prepareDataset({ ...SMALL, output: join(folder, "out"), input: join(folder, "none") }),
      /--input must be a readable folder/,
    );
    await assert.rejects(
      prepareDataset({ ...SMALL, output: join(folder, "out"), input: join(folder, "in") }),
      /it has no file that ends with .glb/,
    );
    await assert.rejects(
      prepareDataset({ ...SMALL, output: join(folder, "out"), rank: 2, worldSize: 2 }),
      /rank is 2, it must be a whole number from 0 to 1/,
    );
    Deno.writeTextFileSync(join(folder, "voxels"), "a file where the folder must be");
    await assert.rejects(prepareDataset({ ...SMALL, output: folder, objects: 2 }), OutputError);
  });
});

Deno.test("prepareDataset() stops early at a signal and records what is done", async () => {
  await withFolder({}, async (folder) => {
    const stop = new AbortController(), options = { ...SMALL, views: 0, objects: 4, output: folder };
    const { made } = await prepareDataset({ ...options, signal: stop.signal, onProgress: ({ made }) => made === 2 && stop.abort() });
    assert.equal(made, 2);
    assert.equal(readMetadata(folder).size, 2);
    assert.deepEqual(await prepareDataset(options).then(({ made, skipped }) => [made, skipped]), [2, 2]);
  });
});

Deno.test("prepareDataset() quarantines objects that take too long and goes on with a new worker", async () => {
  await withFolder({}, async (folder) => {
    const { made, failed } = await prepareDataset({ ...SMALL, objects: 2, output: folder, workers: 1, seconds: 0.001 });
    assert.deepEqual([made, failed.map(({ reason }) => reason)], [0, Array(2).fill("it took longer than 0.001 s")]);
    assert.equal(readMetadata(folder).size, 2);
  });
});

Deno.test("startWorker() prepares as this process does, and says why it ended or cannot start", async () => {
  await withFolder({}, async (folder) => {
    const options = { output: folder, views: 2, size: 64, resolution: 16, seed: 0, device: "cpu" as const };
    const worker = await startWorker(options, { threads: 1, seconds: 20 });
    const source = { name: "a", seed: 0, index: 0 }, made = await worker.run(source);
    assert.equal(made.row.voxelized, "True");
    assert.deepEqual(await prepareAsset(source, options), { ...made, skipped: true });
    worker.stop();
    await assert.rejects(worker.run(source), (error: Error) => error instanceof WorkerLost && /ended with SIGKILL/.test(error.message));
    const nowhere = startWorker({ ...options, device: "tpu" as "cpu" }, { threads: 1, seconds: 20 });
    await assert.rejects(nowhere, /Cannot open a device.*"tpu"/);
    const lost = await lostRow(source, "it took longer than 1 s");
    assert.deepEqual([lost.sha256, lost.error, lost.voxelized], [made.row.sha256, "it took longer than 1 s", "False"]);
  });
});

Deno.test("openDataset() lists and filters objects in name order, loadVoxels() and loadCondition() read them", async () => {
  await withFolder(INPUT, async (folder) => {
    const root = join(folder, "out");
    await prepareDataset({ ...SMALL, input: join(folder, "in"), output: root });
    const { items, counts } = openDataset(root, { require: ["voxelized", "cond_rendered"], minAestheticScore: 4.5 });
    assert.deepEqual(items.map(({ name, place }) => [name, place]), [["cube.obj", 1], ["deep/er/square.glb", 2]]);
    assert.deepEqual(counts.map(({ filter, left }) => [filter, left]), [["all", 3], ["voxelized", 2], ["cond_rendered", 2], [
      "aesthetic score >= 4.5",
      2,
    ]]);
    const voxels = loadVoxels(items[0], 16), coarse = loadVoxels(items[0], 8);
    assert.equal(voxels.reduce((a, b) => a + b), items[0].numVoxels);
    assert.deepEqual([voxels[0], voxels[(8 * 16 + 8) * 16 + 8], coarse.reduce((a, b) => a + b)], [1, 0, 8 ** 3 - 6 ** 3]);
    assert.throws(
      () => loadVoxels(items[0], 32),
      /Cannot read .* at resolution 32: voxel 0 lies at .*, on a border of cells; the resolution/,
    );
    const flat = loadVoxels(items[1], 16); // the square stands upright in x, z: y is the middle
    assert.deepEqual([flat[(3 * 16 + 8) * 16 + 3], flat[(3 * 16 + 2) * 16 + 3]], [1, 0]);
    assert.equal(countViews(items[0]), 3);
    const condition = loadCondition(items[0], 1, 20);
    assert.equal(condition.length, 3 * 400);
    assert.ok(condition.every((v) => v >= 0 && v <= 1) && condition.some((v) => v > 0.2));
    assert.throws(() => loadCondition(items[0], 3, 20), /Cannot use the view .*003.png/);
    assert.throws(() => openDataset(root, { require: ["feature_x"] }), /no object is left \(all: 3, feature_x: 0\)/);
    assert.equal(openDataset(root, { require: ["voxelized"], maxVoxels: 600 }).items.length, 1);
    assert.throws(() => openDataset(join(folder, "in")), /it has no metadata.csv/);
  });
});

Deno.test("holdOut() takes every tenth object of all, whatever was filtered", () => {
  const all = Array.from({ length: 25 }, (_, place) => ({ place })), { train, heldOut } = holdOut(all);
  assert.deepEqual([heldOut.map(({ place }) => place), train.length], [[9, 19], 23]);
  const some = holdOut(all.filter(({ place }) => place % 3 === 0));
  assert.deepEqual([some.heldOut.map(({ place }) => place), some.train.length], [[9], 8]);
  for (const every of [1, 26]) assert.throws(() => holdOut(all, every), /Cannot hold out one object in .* data\.holdOut must be from 2 to/);
});

Deno.test("clearestView() is the one from nearest to 25 degrees above", () => {
  const root = Deno.makeTempDirSync(),
    at = (degrees: number) => {
      const e = degrees * Math.PI / 180;
      return { transform_matrix: [[1, 0, 0, 2 * Math.cos(e)], [0, 1, 0, 0], [0, 0, 1, 2 * Math.sin(e)], [0, 0, 0, 1]] };
    };
  Deno.mkdirSync(`${root}/renders_cond/a`, { recursive: true });
  Deno.writeTextFileSync(`${root}/renders_cond/a/transforms.json`, JSON.stringify({ frames: [at(-89), at(60), at(20), at(-25)] }));
  assert.equal(clearestView({ root, sha256: "a", name: "a", numVoxels: 0, place: 0, row: { sha256: "a" } }), 2);
  Deno.removeSync(root, { recursive: true });
});
