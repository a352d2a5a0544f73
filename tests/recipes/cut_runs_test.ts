import assert from "node:assert/strict";
import { listCheckpoints } from "../../lib/train/checkpoint.ts";
import { compareCuts, drawCuts, tinyRuns } from "./cut_runs.ts";

/** So many that passes are run from a recording before and after a cut. */
const STEPS = 12;

Deno.test("runs that are cut end in the state of uncut ones, to the bit", async (t) => {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-cut-" });
  for (const run of await tinyRuns(folder, { resolution: 16, objects: 4, narrow: true, record: true })) {
    await t.step(run.name, () => {
      const { uncut, cut } = compareCuts(run, folder, STEPS, drawCuts(STEPS, 2, 1));
      assert.equal(uncut.step, STEPS);
      assert.deepEqual(cut, uncut);
      assert.equal(listCheckpoints(`${folder}/${run.name}_cut`).length, 2);
    });
  }
  Deno.removeSync(folder, { recursive: true });
});
