import assert from "node:assert/strict";
import { listCheckpoints } from "../../lib/train/checkpoint.ts";
import { INTERVAL, killRuns, stopRun } from "./kills.ts";

Deno.test("a run that is killed again and again loses an interval at most, and ends in the state of an uncut one, to the bit", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-kills-" });
  const { unusable, progressed, mostLost, equal } = await killRuns(folder, 4, 1);
  assert.deepEqual([unusable, equal], [0, true]);
  assert.ok(progressed >= 1, "the kills come too early");
  assert.ok(mostLost <= INTERVAL, `${mostLost} steps were lost`);
  assert.equal(listCheckpoints(`${folder}/killed`).length, 2);
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("a run that is asked to stop ends the step, saves, and ends with status 130 in good time", async () => {
  for (const signal of ["SIGTERM", "SIGUSR1"] as const) {
    const folder = Deno.makeTempDirSync({ prefix: "espalier-stop-" });
    const { code, seconds, logged, saved } = await stopRun(folder, signal);
    assert.deepEqual([code, saved], [130, logged], signal);
    assert.ok(seconds < 30, `${signal}: ${seconds} s`);
    Deno.removeSync(folder, { recursive: true });
  }
});
