import assert from "node:assert/strict";
import { openKernels } from "../../ffi/kernels.ts";
import { observe } from "../../ffi/observer.ts";

Deno.test("an observer sees kernels by name with their arguments, until it is taken away", () => {
  const kernels = openKernels("cpu"), seen: string[] = [], bytes = new BigUint64Array(1);
  assert.equal(observe((name, args, call) => (seen.push(`${name} of ${args.length}`), call())), undefined);
  kernels.k_fill_fwd(0n, 0n, 1, 0, 0n);
  kernels.k_sum_workspace(bytes, 1n, 1n, 1n); // a question, no work
  assert.throws(() => kernels.k_fill_fwd(0n, -1n, 1, 0, 0n), /n is -1/);
  observe(undefined);
  kernels.k_fill_fwd(0n, 0n, 1, 0, 0n);
  assert.deepEqual(seen, ["k_fill_fwd of 5", "k_fill_fwd of 5"]);
});
