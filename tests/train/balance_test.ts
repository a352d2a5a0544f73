import assert from "node:assert/strict";
import { balancedGroups, balancedMicroBatches, groupByLoad } from "../../lib/train/balance.ts";

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

Deno.test("balancedMicroBatches() covers the batch with parts of nearly equal load, each with a stream of its own", () => {
  const loads = [900, 100, 500, 400, 300, 250], batch = [3, 1, 0, 2, 5, 4];
  const parts = balancedMicroBatches(batch, (k) => loads[k], 3, 7), sums = parts.map(({ list }) => list.reduce((s, k) => s + loads[k], 0));
  assert.deepEqual(parts.flatMap(({ list }) => list).sort(), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(parts.map(({ stream }) => stream), [21, 22, 23]);
  assert.ok(parts.every(({ weight }) => weight === 1 / 3) && Math.max(...sums) === 900 && Math.min(...sums) >= 750);
});

Deno.test("balancedMicroBatches() takes as many parts as keep each within a load, the streams of a step apart from the next one's", () => {
  const loads = [900, 100, 500, 400, 300, 250], batch = [0, 1, 2, 3, 4, 5], load = (k: number): number => loads[k];
  const parts = balancedMicroBatches(batch, load, 1, 7, { most: 700 }),
    sums = parts.map(({ list }) => list.reduce((s, k) => s + loads[k], 0));
  assert.deepEqual(parts.flatMap(({ list }) => list).sort(), batch);
  assert.ok(sums.every((sum, k) => sum <= 700 || parts[k].list.length === 1), `${sums}`);
  assert.deepEqual(parts.map(({ stream }) => stream), parts.map((_, k) => 42 + k));
  assert.ok(parts.length < 6 && parts.every(({ weight }) => weight === 1 / parts.length));
  assert.equal(balancedMicroBatches(batch, load, 2, 7, { most: 5000 }).length, 2);
});

Deno.test("groupByLoad() keeps the order and the limit, and takes what is too large alone", () => {
  assert.deepEqual(groupByLoad([3, 4, 3, 11, 2, 9], 10), [[0, 1, 2], [3], [4], [5]]);
  assert.deepEqual(groupByLoad([], 10), []);
});
