import assert from "node:assert/strict";
import { join } from "node:path";
import { assetPaths } from "../../lib/data/layout.ts";
import { OutputError } from "../../lib/data/output_error.ts";
import { hasViews, writeViews } from "../../lib/data/prepare_views.ts";
import { proceduralObject } from "../../lib/data/procedural.ts";
import { renderCameras } from "../../lib/render/camera.ts";
import { normalizeMesh } from "../../lib/render/mesh.ts";
import { withFolder } from "./assets.ts";

const OBJECT = normalizeMesh(proceduralObject(0, 0).mesh), OPTIONS = { size: 16, device: "cpu" } as const;

Deno.test("writeViews() makes what hasViews() finds, over what was there", async () => {
  await withFolder({}, (folder) => {
    const { renders } = assetPaths(folder, "a"), wanted = { views: 18, size: 16 };
    assert.equal(hasViews(renders, wanted), false);
    writeViews(renders, OBJECT, renderCameras(18, () => 0.5), OPTIONS);
    assert.ok(hasViews(renders, wanted));
    assert.ok(!hasViews(renders, { views: 17, size: 16 }) && !hasViews(renders, { views: 18, size: 32 }));
    writeViews(renders, OBJECT, renderCameras(2, () => 0.5), OPTIONS);
    assert.ok(hasViews(renders, { views: 2, size: 16 }));
    assert.deepEqual([...Deno.readDirSync(renders.folder)].map(({ name }) => name).sort(), ["000.png", "001.png", "transforms.json"]);
    return Promise.resolve();
  });
});

Deno.test("writeViews() says that it cannot write, and leaves no transforms.json", async () => {
  await withFolder({ "renders": "a file" }, (folder) => {
    const { renders } = assetPaths(folder, "a");
    assert.throws(() => writeViews(renders, OBJECT, renderCameras(1, () => 0.5), OPTIONS), OutputError);
    assert.throws(() => Deno.statSync(join(renders.folder, "transforms.json")));
    return Promise.resolve();
  });
});
