import assert from "node:assert/strict";
import { chance, createRandom, integer, permutation, pick, uniform } from "../../lib/data/random.ts";

Deno.test("createRandom() is the same for the same words and spread evenly", () => {
  const take = (...words: number[]): number[] => {
    const random = createRandom(...words);
    return Array.from({ length: 4000 }, random);
  };
  assert.deepEqual(take(1, 2), take(1, 2));
  const streams = [take(0), take(1), take(0, 0), take(2 ** 40), take(2 ** 40 + 1)];
  assert.equal(new Set(streams.map((s) => s[0])).size, streams.length);
  for (const values of streams) {
    assert.ok(values.every((x) => x >= 0 && x < 1));
    assert.ok(Math.abs(values.reduce((a, b) => a + b) / values.length - 0.5) < 0.02);
  }
});

Deno.test("integer(), uniform(), pick() and chance() stay in their ranges and reach the ends", () => {
  const random = createRandom(5), whole = Array.from({ length: 300 }, () => integer(random, 2, 4));
  assert.deepEqual([...new Set(whole)].sort(), [2, 3, 4]);
  assert.ok(Array.from({ length: 300 }, () => uniform(random, -1, 3)).every((x) => x >= -1 && x < 3));
  assert.equal(new Set(Array.from({ length: 300 }, () => pick(random, ["a", "b"]))).size, 2);
  assert.equal(chance(random, 0), false);
  assert.equal(chance(random, 1), true);
});

Deno.test("permutation() holds every number once", () => {
  assert.deepEqual([...permutation(createRandom(1), 1000)].sort((a, b) => a - b), Array.from({ length: 1000 }, (_, i) => i));
  assert.equal(permutation(createRandom(1), 0).length, 0);
});
