/** Every file-system call of a save is counted, and at each of them the process dies or the disk fails. */
import assert from "node:assert/strict";
import { listCheckpoints } from "../../lib/train/checkpoint_write.ts";
import { withFolder } from "../io/corrupt.ts";
import { crashStates, diskCalls, FAULTS, newestStep, restoreFolder, saveOn, withFault } from "./faulty_disk.ts";
import { killAt } from "./killed_save.ts";

/** A folder with the checkpoints of steps 1 and 2; what is saved next, keeping two, is step 3. */
function withRun(body: (folder: string) => void): void {
  withFolder((folder) => {
    for (const step of [1, 2]) saveOn(folder, step);
    body(folder);
  });
}

Deno.test("a save makes these calls, in this order", () => {
  withRun((folder) => {
    const calls = diskCalls(folder, 3).map((c) => c.call);
    assert.deepEqual(calls, [
      ...["create", "write", "write", "sync", "rename", "syncFolder"], // the tensors: header, data
      ...["create", "write", "sync", "rename", "syncFolder"], // the manifest
      ...["remove", "remove"], // step 1
    ]);
    assert.equal(newestStep(folder), 3);
    assert.deepEqual(listCheckpoints(folder), [3, 2]);
  });
});

Deno.test("a save at whose n-th call the disk fails throws a clear error, and the last good checkpoint stays", () => {
  withRun((folder) => {
    const whole = restoreFolder(folder), calls = diskCalls(folder, 3).length;
    for (const fault of FAULTS) {
      for (let n = 0; n < calls; n++) {
        whole();
        const failed = withFault(folder, 3, fault, n);
        if (fault === "short") assert.equal(failed, null, "a short write is gone on with");
        else assert.match(failed?.message ?? "none", /^Cannot (write|remove) .*\/ckpts\/.*: /, `${fault} at call ${n}`);
        assert.ok(newestStep(folder) >= 2, `${fault} at call ${n}`);
        if (failed) { // the disk is well again: the same save works, and nothing of the failed one is left
          saveOn(folder, 3);
          assert.equal(Deno.readDirSync(`${folder}/ckpts`).toArray().length, 4);
        }
        assert.equal(newestStep(folder), 3);
      }
    }
  });
});

Deno.test("whatever a power cut leaves of a save, a whole checkpoint loads", () => {
  withRun((folder) => {
    let states = 0;
    const whole = restoreFolder(folder), seen = new Set<number>();
    for (const { label, apply, least } of crashStates(folder, 3)) {
      whole();
      apply();
      const step = newestStep(folder);
      assert.ok(step >= least, `${label}: step ${step}`);
      seen.add(step);
      states++;
    }
    assert.ok(states > 40);
    assert.deepEqual([...seen].sort(), [2, 3]);
  });
});

Deno.test("a process killed at any call of a save leaves a whole checkpoint, and the next save tidies up", () => {
  withRun((folder) => {
    const whole = restoreFolder(folder), calls = diskCalls(folder, 3);
    for (let n = 0; n < calls.length; n++) {
      whole();
      killAt(folder, 3, n);
      const manifest = calls.slice(0, n).filter((c) => c.call === "rename").length === 2;
      assert.equal(newestStep(folder), manifest ? 3 : 2, `killed at call ${n}`);
      saveOn(folder, 3);
      assert.equal(Deno.readDirSync(`${folder}/ckpts`).toArray().length, 4);
    }
  });
});
