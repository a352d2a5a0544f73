import assert from "node:assert/strict";
import { log } from "../../lib/ops/elementwise.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { profileRun } from "../../lib/train/run_profile.ts";
import { withFolder } from "../io/corrupt.ts";

Deno.test("profileRun() profiles steps 4 to 6, a run that ends before has no profile", () => {
  withFolder((folder) => {
    const x = tensor([1], [1]), said: string[] = [], profile = profileRun(folder, (text) => said.push(text));
    for (let done = 1; done <= 8; done++) {
      step(() => log(x));
      profile.stepDone(done);
      assert.equal(said.length, done < 6 ? 0 : 1);
    }
    assert.match(said[0], /k_unary_fwd 1 f32 +1 /);
    assert.match(Deno.readTextFileSync(`${folder}/profile.txt`), /k_unary_fwd 1 f32 +1 /);
    assert.equal(JSON.parse(Deno.readTextFileSync(`${folder}/profile.json`)).traceEvents.length, 2 + 2 * 3);
    x.free();
  });
});
