import assert from "node:assert/strict";
import { formatManifest, readManifest, stepOfFile } from "../../lib/train/manifest.ts";
import { codeVersion } from "../../lib/train/version.ts";
import { assertRefused, withFolder } from "../io/corrupt.ts";
import { damageCheckpoint } from "./damage.ts";

Deno.test("every changed bit and every missing byte of a checkpoint is noticed", () => {
  withFolder((folder) => {
    const { flips, truncations, bytes, missed } = damageCheckpoint(folder, { elements: 5, flips: null });
    assert.deepEqual([flips, truncations, missed], [bytes * 8, bytes, 0]);
  });
});

Deno.test("formatManifest() and readManifest() keep a state as it is", () => {
  withFolder((folder) => {
    const path = `${folder}/step0000001.json`,
      manifest = {
        step: 1,
        files: [],
        state: { small: 5e-324, text: 'ü "quoted"\n', list: [0.1, null, true], nested: { a: {} } },
        config: { lr: 1e-4 },
        version: codeVersion(),
      };
    Deno.writeTextFileSync(path, formatManifest(manifest));
    assert.deepEqual({ ...readManifest(path) }, { format: "espalier-checkpoint-1", ...manifest });
    assert.equal(JSON.parse(Deno.readTextFileSync(path)).step, 1, "it is plain JSON");
    Deno.writeTextFileSync(path, "{}\n");
    assertRefused(() => readManifest(path), "its end is not that of a checkpoint's manifest");
    assert.throws(
      () => formatManifest({ ...manifest, state: { scale: [NaN] } }),
      /^RangeError: Cannot write a checkpoint: 0 of its state is NaN/,
    );
  });
});

Deno.test("stepOfFile() knows a checkpoint's files", () => {
  assert.deepEqual(stepOfFile("step0000500.json"), { step: 500, manifest: true });
  assert.deepEqual(stepOfFile("step12345678-1.safetensors"), { step: 12345678, manifest: false });
  assert.deepEqual(stepOfFile("step0000500.rank1.safetensors"), { step: 500, manifest: false });
  for (const name of ["step500.json", "step0000500.txt", "notes.json", "step0000500x.safetensors"]) assert.equal(stepOfFile(name), null);
});
