import assert from "node:assert/strict";
import { createEpochSampler } from "../../lib/data/epoch_sampler.ts";

Deno.test("createEpochSampler() gives each index once an epoch, in another order each time", () => {
  const sampler = createEpochSampler({ length: 20, seed: 3 });
  const [a, b] = [sampler.next(20), sampler.next(20)], sorted = (x: number[]): number[] => x.toSorted((p, q) => p - q);
  assert.deepEqual(sorted(a), Array.from({ length: 20 }, (_, i) => i));
  assert.deepEqual(sorted(b), sorted(a));
  assert.notDeepEqual(a, b);
  assert.deepEqual(createEpochSampler({ length: 20, seed: 3 }).next(20), a);
  assert.deepEqual(createEpochSampler({ length: 20, seed: 4 }).next(20), b); // epoch e of seed s is epoch 0 of seed s + e
});

Deno.test("createEpochSampler() goes on exactly where a state was taken, over the end of an epoch too", () => {
  const whole = createEpochSampler({ length: 13, seed: 1 }), all = whole.next(70);
  for (const taken of [0, 1, 12, 13, 14, 40]) {
    const first = createEpochSampler({ length: 13, seed: 1 });
    assert.deepEqual(first.next(taken), all.slice(0, taken));
    const state = JSON.parse(JSON.stringify(first.state()));
    assert.deepEqual(createEpochSampler({ length: 13, seed: 1, state }).next(30), all.slice(taken, taken + 30));
  }
});

Deno.test("createEpochSampler() shares an epoch out among ranks, filled up from the front or cut", () => {
  const take = (dropLast: boolean, count: number): number[] =>
    [0, 1, 2].flatMap((rank) => createEpochSampler({ length: 10, rank, worldSize: 3, dropLast }).next(count));
  assert.equal(new Set(take(false, 4)).size, 10);
  assert.equal(new Set(take(true, 3)).size, 9);
  const first = createEpochSampler({ length: 10 }).next(10), third = createEpochSampler({ length: 10, rank: 2, worldSize: 3 }).next(4);
  assert.deepEqual(third, [first[2], first[5], first[8], first[1]]);
});

Deno.test("createEpochSampler() without shuffle is in order, and refuses an empty set and a wrong rank", () => {
  assert.deepEqual(createEpochSampler({ length: 3, shuffle: false }).next(7), [0, 1, 2, 0, 1, 2, 0]);
  assert.throws(() => createEpochSampler({ length: 0 }), /has 0 samples/);
  assert.throws(() => createEpochSampler({ length: 2, worldSize: 3, dropLast: true }), /2 samples for 3 ranks/);
  assert.throws(() => createEpochSampler({ length: 2, rank: 2, worldSize: 2 }), /rank is 2/);
});

Deno.test("createEpochSampler() of a run that overfits gives the same samples every step", () => {
  const sampler = createEpochSampler({ length: 100, seed: 3, batch: { size: 4, overfit: true } }),
    steps = [1, 2, 3].map(() => sampler.next(4).sort());
  assert.deepEqual(steps, [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]);
  assert.deepEqual(createEpochSampler({ length: 2, batch: { size: 4, overfit: true } }).next(4).sort(), [0, 0, 1, 1]);
  assert.notDeepEqual(createEpochSampler({ length: 100, batch: { size: 4 } }).next(4).sort(), [0, 1, 2, 3]);
});
