import assert from "node:assert/strict";
import { countParameters, type Init, initialize, leaves, mapLeaves, type ParameterSpec, xavierBound } from "../../lib/nn/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, zeros } from "../../lib/tensor/tensor.ts";

function leaf(shape: number[], init: Init = { fill: 0 }, dtype: FloatDType = "f32"): ParameterSpec {
  return { shape, dtype, init };
}

/** A tree with records, arrays, number keys and an absent part. */
function tree() {
  const table: ParameterSpec = { ...leaf([5], { values: () => Float32Array.of(1, 2, 3, 4, 5) }), buffer: true };
  return {
    mlp: { 0: { weight: leaf([4, 3], { uniform: 0.5 }), bias: leaf([4]) }, 2: { weight: leaf([2, 4], { normal: 0.1 }) } },
    norm: undefined,
    blocks: [{ gamma: leaf([3], { fill: 1 }) }, { gamma: leaf([3], { fill: -2 }, "bf16") }],
    table,
  };
}

const PATHS = ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "blocks.0.gamma", "blocks.1.gamma", "table"];

Deno.test("leaves() lists paths as a checkpoint names them, in order", () => {
  assert.deepEqual(leaves(tree()).map(([path]) => path), PATHS);
  assert.deepEqual(leaves(leaf([1])).map(([path]) => path), [""]);
  assert.deepEqual(leaves(undefined), []);
  assert.deepEqual(leaves(tree().blocks, "b").map(([path]) => path), ["b.0.gamma", "b.1.gamma"]);
  assert.throws(() => leaves({ a: { b: 3 } }), /^TypeError: Cannot list parameters: a\.b is 3, it must be a record, an array or a leaf/);
  assert.throws(() => leaves({ a: null }), /^TypeError: Cannot list parameters: a is null/);
});

Deno.test("mapLeaves() keeps the tree and gives each leaf its path", () => {
  step(() => {
    const seen: string[] = [];
    const made = mapLeaves(tree(), (spec, path) => {
      seen.push(path);
      return zeros((spec as ParameterSpec).shape);
    });
    assert.deepEqual(seen, PATHS);
    assert.deepEqual(
      leaves<Tensor>(made).map(([path, t]) => [path, t.shape]),
      leaves<ParameterSpec>(tree()).map(([path, s]) => [path, s.shape]),
    );
    assert.ok(Array.isArray(made.blocks) && made.norm === undefined && "norm" in made);
    const again = mapLeaves(made, (t) => t as Tensor);
    assert.equal(again.mlp[2].weight, made.mlp[2].weight);
  });
});

Deno.test("countParameters() counts what is trained", () => {
  assert.equal(countParameters(tree()), 12 + 4 + 8 + 3 + 3);
});

Deno.test("initialize() follows each leaf's init and dtype, and outlives the step it is called in", () => {
  const before = device().memory.use().used, p = step(() => ({ params: initialize(tree(), new Generator(7)) })).params;
  const values = (t: Tensor): number[] => [...t.read()];
  assert.deepEqual(values(p.mlp[0].bias), [0, 0, 0, 0]);
  assert.deepEqual(values(p.blocks[0].gamma), [1, 1, 1]);
  assert.deepEqual([p.blocks[1].gamma.dtype, ...values(p.blocks[1].gamma)], ["bf16", -2, -2, -2]);
  assert.deepEqual(values(p.table), [1, 2, 3, 4, 5]);
  assert.ok(values(p.mlp[0].weight).every((v) => v >= -0.5 && v < 0.5 && v !== 0));
  for (const [, t] of leaves<Tensor>(p)) t.free();
  assert.equal(device().memory.use().used, before, "nothing else is left");
});

Deno.test("initialize() repeats itself for a seed, and differs for another", () => {
  const drawn = (seed: number): string => {
    const p = initialize(tree(), new Generator(seed)), text = JSON.stringify(leaves<Tensor>(p).map(([, t]) => [...t.read()]));
    for (const [, t] of leaves<Tensor>(p)) t.free();
    return text;
  };
  assert.equal(drawn(3), drawn(3));
  assert.notEqual(drawn(3), drawn(4));
});

Deno.test("initialize() draws uniform values up to the bound and normal values of the deviation", () => {
  const size = 20000,
    spec = { u: leaf([size], { uniform: 0.3 }), n: leaf([size], { normal: 0.02 }), h: leaf([size], { normal: 0.02 }, "bf16") };
  const p = initialize(spec, new Generator(1));
  const moments = (values: ArrayLike<number>): [mean: number, deviation: number, most: number] => {
    const list = Array.from(values), mean = list.reduce((a, v) => a + v, 0) / size;
    const square = list.reduce((a, v) => a + (v - mean) ** 2, 0) / size;
    return [mean, Math.sqrt(square), list.reduce((a, v) => Math.max(a, Math.abs(v)), 0)];
  };
  const [meanU, deviationU, mostU] = moments(p.u.read());
  assert.ok(Math.abs(meanU) < 0.005 && Math.abs(deviationU - 0.3 / Math.sqrt(3)) < 0.003 && mostU <= 0.3 && mostU > 0.299);
  for (const t of [p.n, p.h]) {
    const [mean, deviation, most] = moments(t.read());
    assert.ok(Math.abs(mean) < 0.001 && Math.abs(deviation - 0.02) < 0.0005 && most > 0.06 && most < 0.12);
  }
  assert.deepEqual([p.h.dtype, xavierBound(2, 4)], ["bf16", 1]);
  for (const t of [p.u, p.n, p.h]) t.free();
});
