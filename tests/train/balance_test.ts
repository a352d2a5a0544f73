import assert from "node:assert/strict";
import { balancedGroups } from "../../lib/train/balance.ts";

Deno.test("balancedGroups() gives the heaviest that is left to the lightest group", () => {
  const even = [5, 3, 9, 1, 7, 2, 8, 4], uneven = [30000, 100, 200, 300, 400, 500, 600, 700];
  assert.deepEqual(balancedGroups(even, 4), [[2, 3], [6, 5], [4, 1], [0, 7]]);
  assert.deepEqual(balancedGroups(even, 4, { equalSize: true }), [[2, 3], [6, 5], [4, 1], [0, 7]]);
  assert.deepEqual(balancedGroups(uneven, 4), [[0], [7, 2, 1], [6, 3], [5, 4]]);
  assert.deepEqual(balancedGroups(uneven, 2, { equalSize: true }), [[0, 3, 2, 1], [7, 6, 5, 4]]);
});

Deno.test("balancedGroups() refuses more groups than samples", () => {
  assert.throws(() => balancedGroups([1, 2], 3), /batch\.split is 3, it must be from 1 to the number of samples, 2/);
  assert.throws(() => balancedGroups([1, 2], 0), /batch\.split is 0/);
});
