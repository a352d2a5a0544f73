import assert from "node:assert/strict";
import { importMesh } from "../../lib/data/import_mesh.ts";
import { type Image, readImage, writePng } from "../../lib/io/image.ts";
import { readVoxels } from "../../lib/io/ply.ts";
import { meshStats } from "../../lib/mesh/mesh.ts";
import { device } from "../../lib/tensor/device.ts";
import { generate, type GenerateOptions, type GenerateResult, meshOfLogits } from "../../recipes/generate.ts";
import { fieldOf } from "../mesh/fields.ts";
import { hasFfmpeg } from "../../lib/io/video.ts";
import { readGaussians } from "../../lib/io/ply_gaussians.ts";
import { saveSlatStage } from "../../lib/train/slat_stage.ts";
import { expectValidGlb } from "../gltf_rules.ts";
import { tinyPipelineFolder, tinySlatStage } from "../tiny_pipeline.ts";

const ROOT = new URL("../../", import.meta.url).pathname, FILES = ["asset.glb", "preview.png", "viewer.html", "voxels.ply"];

/** A red disc of `radius` on a ground of another colour, or on none. */
function picture({ radius = 12, ground }: { radius?: number; ground?: [number, number, number] } = {}): Image {
  const side = 40, data = new Uint8Array(side * side * 4);
  for (let i = 0; i < side * side; i++) {
    const inside = Math.hypot(i % side - 20, Math.floor(i / side) - 18) < radius;
    data.set(inside ? [200, 30 + i % side, 20, 255] : ground ? [...ground, 255] : [0, 0, 0, 0], i * 4);
  }
  return { width: side, height: side, channels: 4, data };
}

/** Bytes on the device that were left of the last pictures. */
let kept = 0;

/** A folder with a pipeline, one with Gaussians where `whole` says so, pictures by name, and a place for the output. */
async function inFolder(
  { pictures, bias, whole = false, ...options }:
    & { pictures: Record<string, Image | null>; bias?: number; whole?: boolean }
    & Partial<GenerateOptions>,
  check: (result: GenerateResult, output: string) => Promise<void> | void,
): Promise<void> {
  const model = tinyPipelineFolder({ bias }), { log, error } = console;
  try {
    if (whole) saveSlatStage(model, { ...tinySlatStage(model), structure: model });
    for (const [name, image] of Object.entries(pictures)) if (image) writePng(`${model}/${name}`, image);
    console.log = console.error = () => {};
    const { used } = device().memory.use();
    const result = await generate(Object.keys(pictures).map((name) => `${model}/${name}`), { model, output: `${model}/out`, ...options });
    kept = device().memory.use().used - used;
    await check(result, `${model}/out`);
  } finally {
    Object.assign(console, { log, error });
    Deno.removeSync(model, { recursive: true });
  }
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

Deno.test("generate() writes a coloured asset, voxels, a preview and a page", async () => {
  await inFolder({ pictures: { "disc.png": picture() } }, async ({ made: [shape], failed }, output) => {
    assert.deepEqual(failed, []);
    assert.deepEqual(namesIn(output), [...FILES, ...(hasFfmpeg() ? ["turntable.mp4"] : [])].sort());
    assert.deepEqual(readVoxels(`${output}/voxels.ply`, 8), shape.voxels);
    await expectValidGlb(Deno.readFileSync(`${output}/asset.glb`));
    const mesh = await importMesh(`${output}/asset.glb`);
    assert.equal(mesh.triangles.length / 3, shape.triangles);
    assert.ok(mesh.colors!.some((c, i) => i % 4 === 0 && c > 0.3));
    const { width, height } = readImage(`${output}/preview.png`);
    assert.equal(width, 5 * height);
    assert.match(Deno.readTextFileSync(`${output}/viewer.html`), /<title>disc<\/title>/);
    assert.ok(shape.outlineIou! > 0 && shape.peak > 0 && shape.seconds.voxels > 0);
    assert.deepEqual(shape.warnings.filter((w) => !/colours are a guess/.test(w)), []);
  });
});

Deno.test("generate() with a whole pipeline writes Gaussians too, and colours the mesh from them", async () => {
  await inFolder({ pictures: { "disc.png": picture() }, whole: true }, async ({ made: [shape], failed }, output) => {
    assert.deepEqual(failed, []);
    assert.deepEqual(namesIn(output), ["asset.ply", ...FILES, ...(hasFfmpeg() ? ["turntable.mp4"] : [])].sort());
    const cloud = readGaussians(`${output}/asset.ply`), N = shape.voxels.length / 3 * 4;
    assert.deepEqual([cloud.opacities.length, shape.splats?.opacities.length], [N, N]);
    cloud.positions.forEach((x, i) => assert.ok(Math.abs(x - shape.splats!.positions[i]) < 1e-6));
    const { width, height } = readImage(`${output}/preview.png`);
    assert.equal(2 * width, 5 * height);
    await expectValidGlb(Deno.readFileSync(`${output}/asset.glb`));
    assert.match(Deno.readTextFileSync(`${output}/viewer.html`), /id="splats"/);
    assert.ok(shape.outlineIou === null && shape.seconds.latents > 0 && shape.seconds.gaussians > 0);
    assert.deepEqual(shape.warnings, []);
  });
});

Deno.test("generate() repeats itself, and writes the formats that are asked for alone", async () => {
  const runs: Float32Array[] = [],
    options = { pictures: { "disc.png": picture() }, whole: true, slatSteps: 1, slatCfg: 0 };
  for (let k = 0; k < 2; k++) {
    await inFolder({ ...options, formats: ["ply", "voxels"] }, ({ made: [shape] }, output) => {
      assert.deepEqual(namesIn(output), ["asset.ply", "voxels.ply"]);
      runs.push(shape.splats!.colors);
    });
  }
  assert.deepEqual(runs[0], runs[1]);
  assert.equal(kept, 0);
  await inFolder({ ...options, formats: ["ply"], seed: 1 }, ({ made: [shape] }) => assert.notDeepEqual(shape.splats!.colors, runs[0]));
});

Deno.test("generate() gives Gaussians the picture's mean colour where it is asked to", async () => {
  const brightness = async (matchColors?: boolean): Promise<number> => {
    let mean = 0;
    const options = { pictures: { "disc.png": picture() }, whole: true, matchColors, slatSteps: 1, formats: ["ply"] as const };
    await inFolder(options, ({ made: [{ splats }] }) => {
      mean = splats!.colors.reduce((a, b) => a + b, 0) / splats!.colors.length;
    });
    return mean;
  };
  const [byItself, left, matched] = [await brightness(), await brightness(false), await brightness(true)];
  assert.equal(byItself, left);
  assert.notEqual(matched, left);
});

Deno.test("generate() gives each picture and each sample a folder, samples with seeds that follow on each other", async () => {
  const pictures = { "disc.png": picture(), "other.png": picture({ radius: 6 }) };
  let second: Int32Array | undefined;
  await inFolder({ pictures, samples: 2, seed: 4, color: false, steps: 2, cfg: 0, formats: ["glb", "preview"] }, ({ made }, output) => {
    assert.deepEqual(namesIn(output), ["disc", "other"]);
    assert.deepEqual(namesIn(`${output}/disc`), ["sample_0", "sample_1"]);
    for (const { folder } of made) assert.deepEqual(namesIn(folder), ["asset.glb", "preview.png"]);
    assert.notDeepEqual(made[0].voxels, made[1].voxels);
    assert.equal(made[0].outlineIou, null);
    second = made[1].voxels;
  });
  await inFolder({ pictures: { "disc.png": picture() }, seed: 5, color: false, steps: 2, cfg: 0 }, ({ made: [shape] }) => {
    if (device().name === "cpu") assert.deepEqual(shape.voxels, second);
  });
});

Deno.test("generate() takes an opaque picture with a plain ground, and says so", async () => {
  await inFolder({ pictures: { "plain.png": picture({ ground: [240, 240, 240] }) } }, ({ made: [shape] }) => {
    assert.match(shape.warnings[0], /its background .* was taken away/);
    assert.ok(shape.outlineIou! > 0);
  });
});

Deno.test("generate() simplifies to the triangles that are asked for", async () => {
  await inFolder({ pictures: { "disc.png": picture() }, faces: 60, color: false }, ({ made: [shape] }) => {
    assert.ok(shape.triangles > 0 && shape.triangles <= 200, `${shape.triangles} triangles`);
  });
});

Deno.test("generate() goes on with the other pictures where one cannot be used", async () => {
  const pictures = { "missing.png": null, "empty.png": { ...picture({ radius: 0 }) }, "disc.png": picture() };
  await inFolder({ pictures, color: false }, ({ made, failed }, output) => {
    assert.deepEqual(made.map(({ folder }) => folder), [`${output}/disc`]);
    assert.match(failed[0].reason, /Cannot read .*missing\.png: there is no such file/);
    assert.match(failed[1].reason, /no pixel has alpha above 0\.8/);
  });
});

Deno.test("generate() says where nothing is occupied, and writes nothing", async () => {
  await inFolder({ pictures: { "disc.png": picture(), "other.png": picture() }, bias: -100 }, ({ made, failed }, output) => {
    assert.deepEqual(made, []);
    assert.equal(failed.length, 2);
    for (const { reason } of failed) assert.match(reason, /of 8\^3 voxels none is occupied, the largest logit is -\d/);
    assert.deepEqual(namesIn(output), []);
  });
});

Deno.test("generate() refuses settings and models that cannot be used", async () => {
  const pictures = { "disc.png": picture() };
  const wrong: [Partial<GenerateOptions>, RegExp][] = [
    [{ steps: 0 }, /--steps is 0, it must be a whole number from 1 up/],
    [{ samples: 1.5 }, /--samples is 1\.5/],
    [{ seed: -1 }, /--seed is -1/],
    [{ faces: NaN }, /--faces is NaN/],
    [{ cfg: Infinity }, /--cfg is Infinity/],
    [{ output: "/dev/null" }, /Cannot write to \/dev\/null: .*; --output must be a folder/],
    [{ slatSteps: 0 }, /--slat-steps is 0/],
    [{ slatCfg: -1 }, /--slat-cfg is -1/],
    [{ formats: ["obj" as "ply"] }, /the format is "obj", it must be one of glb, ply, /],
    [{ formats: ["ply"] }, /the format is ply, and the pipeline must have a structured-latent stage/],
    [{ slat: "/nowhere" }, /Cannot read \/nowhere\/pipeline\.json/],
    [{ model: "/nowhere" }, /Cannot read \/nowhere\/pipeline\.json/],
  ];
  for (const [options, message] of wrong) await assert.rejects(inFolder({ pictures, ...options }, () => {}), message);
});

Deno.test("generate.ts ends with status 1 and one line where a picture is missing", async () => {
  const folder = tinyPipelineFolder();
  try {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-P=train", "recipes/generate.ts", "--", "nowhere.png", "--model", folder, "--output", `${folder}/out`],
      cwd: ROOT,
      stdout: "piped",
      stderr: "piped",
    }).output();
    assert.equal(code, 1);
    assert.equal(new TextDecoder().decode(stderr), "nowhere.png: Cannot read nowhere.png: there is no such file\n");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("meshOfLogits() fills a shell, also one with a small hole", async () => {
  const R = 32, shell = (x: number, y: number, z: number): number => 1.2 / R - Math.abs(Math.hypot(x, y, z) - 0.35);
  for (const hole of [0, 0.05]) {
    const field = fieldOf(R, (x, y, z) => z > 0 && Math.hypot(x, y) < hole ? -5 : 300 * shell(x, y, z));
    const { parts, openEdges, volume } = meshStats(await meshOfLogits(field));
    assert.deepEqual([parts, openEdges], [1, 0]);
    assert.ok(Math.abs(volume / (4 / 3 * Math.PI * (0.35 + 1.2 / R) ** 3) - 1) < 0.1, `volume ${volume} with a hole of ${hole}`);
  }
});

Deno.test("meshOfLogits() keeps a single voxel", async () => {
  const { triangles } = await meshOfLogits(Float32Array.from({ length: 8 ** 3 }, (_, i) => i === 100 ? 1 : -1));
  assert.ok(triangles.length > 0);
});
