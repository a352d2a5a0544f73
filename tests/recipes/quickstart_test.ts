import assert from "node:assert/strict";
import { readMetrics } from "../../lib/train/metrics.ts";
import { expectValidGlb } from "../gltf_rules.ts";
import { openFolder, quickstart, type QuickstartResult } from "../../recipes/quickstart.ts";

const SMALL = { objects: 2, views: 1, size: 32, renders: 2, vaeSteps: 3, flowSteps: 2, slatVaeSteps: 2, slatFlowSteps: 2, samplerSteps: 2 };

function withTemp<T>(body: (folder: string) => T): T {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-quickstart-" }), remove = () => Deno.removeSync(folder, { recursive: true });
  const result = body(folder);
  if (result instanceof Promise) return result.finally(remove) as T;
  remove();
  return result;
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

Deno.test("openFolder() empties what a quickstart made, or leaves it for --resume", () => {
  withTemp((temp) => {
    const folder = `${temp}/a/b`, file = `${folder}/asset.glb`;
    openFolder(folder, false);
    Deno.writeTextFileSync(file, "x");
    openFolder(folder, true);
    assert.ok(isThere(file));
    openFolder(folder, false);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), [".espalier-quickstart"]);
  });
});

Deno.test("openFolder() takes an empty folder and refuses one with other files", () => {
  withTemp((temp) => {
    openFolder(temp, false);
    Deno.removeSync(`${temp}/.espalier-quickstart`);
    Deno.writeTextFileSync(`${temp}/thesis.txt`, "x");
    for (const resume of [false, true]) assert.throws(() => openFolder(temp, resume), /has files and no \.espalier-quickstart/);
    assert.ok(isThere(`${temp}/thesis.txt`));
  });
});

Deno.test("quickstart() goes all the way, and again from what is there", () =>
  withTemp(async (temp) => {
    const output = `${temp}/out`, { log, error } = console, said: string[] = [];
    const run = (resume: boolean): Promise<QuickstartResult> => quickstart(SMALL, { output, resume });
    console.log = console.error = (text: string) => void said.push(text);
    try {
      const first = await run(false);
      const files = [
        "asset.glb",
        "viewer.html",
        "preview.png",
        "curves.html",
        "voxels.ply",
        "asset.ply",
        "results.json",
        "slat_flow/models/pipeline.json",
      ];
      for (const name of files) assert.ok(isThere(`${output}/${name}`), name);
      assert.deepEqual(readMetrics(`${output}/ss_vae/metrics.jsonl`).loss.step, [3]);
      assert.ok(
        first.shape.triangles > 0 && first.vaeIou >= 0 && first.shapeIou >= 0 && first.slatPsnr > 0 && first.picturePsnr > 0 &&
          first.memory > 0,
      );
      const again = await run(true);
      assert.deepEqual(again.shape.voxels, first.shape.voxels);
      assert.deepEqual(again.shape.splats, first.shape.splats);
      await expectValidGlb(Deno.readFileSync(`${output}/asset.glb`));
      assert.ok(said.some((line) => /2 there before/.test(line)), said.join("\n"));
    } finally {
      Object.assign(console, { log, error });
    }
  }));
