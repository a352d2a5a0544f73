import assert from "node:assert/strict";
import {
  byteDistance,
  bytesTensor,
  channelStatistics,
  denormalize,
  formatCount,
  inGroups,
  joinFloats,
  meanOf,
  microBatches,
  normalizeChannels,
  readScalars,
  splitEvenly,
  stepGenerator,
  toBytes,
  trainingDtype,
} from "../../lib/train/batch.ts";
import { device } from "../../lib/tensor/device.ts";
import { OutOfMemoryError } from "../../lib/tensor/memory.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";

Deno.test("splitEvenly() keeps the order and leaves no part empty", () => {
  assert.deepEqual(splitEvenly([1, 2, 3, 4, 5], 2), [[1, 2], [3, 4, 5]]);
  assert.deepEqual(splitEvenly([1, 2, 3], 3), [[1], [2], [3]]);
  assert.throws(
    () => splitEvenly([1, 2], 3),
    /^RangeError: Cannot split a batch: batch\.split times the processes is 3, it must be at most batch\.size, 2$/,
  );
});

Deno.test("microBatches() gives each part of each step a number of its own", () => {
  assert.deepEqual(microBatches([5, 6, 7], 1, 4), [{ stream: 4, list: [5, 6, 7] }]);
  assert.deepEqual(microBatches([5, 6, 7], 2, 4), [{ stream: 8, list: [5] }, { stream: 9, list: [6, 7] }]);
});

Deno.test("inGroups() gives each element its values, whatever the groups", () => {
  const list = Array.from({ length: 37 }, (_, i) => i), seen: number[] = [];
  const values = inGroups(list, (group, first) => {
    assert.equal(group[0], first);
    seen.push(group.length);
    return Float32Array.from(group.flatMap((i) => [i, -i]));
  });
  assert.deepEqual(values.map((v) => [...v]), list.map((i) => [i, -i]));
  assert.ok(seen.length === 3 && Math.max(...seen) <= 16);
  assert.deepEqual(inGroups([], () => new Float32Array()), []);
});

Deno.test("inGroups() cuts a group that does not fit in two", () => {
  const list = Array.from({ length: 11 }, (_, i) => i),
    sizes: number[] = [],
    tries = (most: number) =>
      inGroups(list, (group, first) => {
        assert.equal(group[0], first);
        if (group.length > most) throw new OutOfMemoryError("Cannot allocate: a test says so");
        sizes.push(group.length);
        return Float32Array.from(group.flatMap((i) => [i, -i]));
      });
  assert.deepEqual(tries(3).map((v) => [...v]), list.map((i) => [i, -i]));
  assert.deepEqual(sizes, [2, 3, 3, 3]);
  assert.throws(() => tries(0), OutOfMemoryError);
});

Deno.test("meanOf() averages each key over the records that have it", () => {
  assert.deepEqual(meanOf([{ a: 1, b: 5 }, { a: 3 }]), { a: 2, b: 5 });
  assert.deepEqual(meanOf([]), {});
});

Deno.test("readScalars() gives the values that one-element tensors had, whenever it is asked", () => {
  const a = tensor([1.5], []), values = step(() => readScalars({ a, b: tensor([2], [1]) }));
  a.write([3]).free();
  assert.deepEqual([values(), values()], [{ a: 1.5, b: 2 }, { a: 1.5, b: 2 }]);
});

Deno.test("stepGenerator() is a function of seed and step alone", () => {
  const draw = (seed: number, at: number): string => step(() => `${stepGenerator(seed, at).normal([8]).read()}`);
  assert.equal(draw(3, 5), draw(3, 5));
  assert.equal(new Set([draw(0, 0), draw(0, 1), draw(1, 0), draw(5, 3), draw(3, 5)]).size, 5);
});

Deno.test("trainingDtype() is f32 on the CPU, and f16 on a GPU where the model says so", () => {
  const cpu = device().name === "cpu";
  assert.equal(trainingDtype("auto", true), cpu ? "f32" : "f16");
  assert.equal(trainingDtype("auto", false), "f32");
  assert.equal(trainingDtype("f32", true), "f32");
  if (!cpu) return assert.equal(trainingDtype("bf16", true), "bf16");
  assert.throws(() => trainingDtype("bf16", true), /^RangeError: Cannot train in bf16 on the CPU: precision must be f32 or auto there$/);
});

Deno.test("formatCount() gives three digits or so", () => {
  assert.deepEqual([12, 1200, 85_240_000, 1_250_000_000].map(formatCount), ["12", "1.2 k", "85.2 M", "1.25 G"]);
});

Deno.test("bytes and floats join, and differ by squares", () => {
  assert.deepEqual([...toBytes(Float32Array.of(0, 0.5, 1))], [0, 128, 255]);
  step(() => assertClose("bytes", bytesTensor([Uint8Array.of(0, 255), Uint8Array.of(51)], [3, 1]).read(), [0, 1, 0.2]));
  assert.deepEqual([...joinFloats([Float32Array.of(1, 2), new Float32Array(), Float32Array.of(3)])], [1, 2, 3]);
  assert.equal(byteDistance(Uint8Array.of(0, 255, 7), Uint8Array.of(255, 254, 7)), 255 ** 2 + 1);
  const far = new Uint8Array(1000).fill(1), none = new Uint8Array(1000);
  assert.equal(byteDistance(far, none), 1000);
  assert.equal(byteDistance(far, none, 200), 256, "it stops where it has seen enough");
});

Deno.test("normalizeChannels() brings channels to mean 0 and deviation 1, and denormalize() back", () => {
  const arrays = [random(1, 24), random(2, 24).map((v) => 3 * v + 1)], statistics = channelStatistics(arrays, 3);
  const again = channelStatistics(arrays.map((a) => normalizeChannels(a, statistics)), 3);
  assertClose("mean", again.mean, [0, 0, 0], { rtol: 0, atol: 1e-6 });
  assertClose("std", again.std, [1, 1, 1]);
  step(() => {
    const back = denormalize(tensor(normalizeChannels(arrays[1], statistics), [1, 3, 2, 2, 2]), statistics);
    assertClose("back", back.read(), arrays[1]);
  });
});
