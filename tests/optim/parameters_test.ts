import assert from "node:assert/strict";
import type { Parameters, ParameterSpec } from "../../lib/nn/parameters.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { mul } from "../../lib/ops/elementwise.ts";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import {
  type FlatParameters,
  flattenParameters,
  freeParameters,
  namedViews,
  parametersFrom,
  refreshCopy,
} from "../../lib/optim/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { Tensor, tensor } from "../../lib/tensor/tensor.ts";

type Specs = { norm: { weight: ParameterSpec; bias: ParameterSpec }; blocks: { w: ParameterSpec }[]; table: ParameterSpec };

function specs(dtype: FloatDType): Specs {
  return {
    norm: { weight: { shape: [3], dtype: "f32", init: { normal: 1 } }, bias: { shape: [3], dtype: "f32", init: { uniform: 1 } } },
    blocks: [{ w: { shape: [5, 2], dtype, init: { normal: 1 } } }, { w: { shape: [7], dtype, init: { fill: 2 } } }],
    table: { shape: [4], dtype: "f32", init: { fill: 3 }, buffer: true },
  };
}

function usedMemory(): number {
  device().memory.synchronize();
  return device().memory.use().used;
}

function withModel(
  dtype: FloatDType,
  body: (flat: FlatParameters, params: Parameters<Specs>, before: Map<string, Float32Array>) => void,
): void {
  const used = usedMemory(), made = initialize(specs(dtype), new Generator(1));
  const values = new Map(leaves<Tensor>(made).map(([name, t]) => [name, t.read()]));
  const { flat, params } = flattenParameters(specs(dtype), made);
  step(() => body(flat, params, values));
  freeParameters(flat, params);
  assert.equal(usedMemory(), used, "all memory is given back");
}

for (const dtype of ["f32", "f16", "bf16"] as const) {
  Deno.test(`flattenParameters() keeps values, names and order of a model with ${dtype} parameters`, () => {
    withModel(dtype, (flat, params, before) => {
      assert.deepEqual(flat.entries.map((e) => e.name), ["norm.weight", "norm.bias", "blocks.0.w", "blocks.1.w"]);
      for (const [name, t] of leaves<Tensor>(params)) assert.deepEqual(t.read(), before.get(name), name);
      for (const [name, t] of Object.entries(namedViews(flat, flat.master))) assert.deepEqual(t.read(), before.get(name), name);
      assert.deepEqual(params.blocks.map(({ w }) => [w.dtype, w.requiresGrad]), [[dtype, true], [dtype, true]]);
      assert.deepEqual([params.table.requiresGrad, params.table.grad], [false, null]);
      for (const { offset } of flat.entries) assert.equal(offset % 8, 0);
      assert.deepEqual([flat.copy?.dtype, flat.copy?.size], dtype === "f32" ? [undefined, undefined] : [dtype, 24]);
      assert.equal(flat.master.size, 40);
    });
  });
}

Deno.test("flattenParameters() gathers the gradients of several backward passes in one buffer", () => {
  withModel("f32", (flat, { norm, blocks }) => {
    const x = tensor([1, 2, 4], [1, 3]), dy = tensor([1, -2, 3], [1, 3]), ones = tensor([1, 1, 1, 1, 1, 1, 1], [7]);
    for (let i = 0; i < 2; i++) backward(layerNorm(x, { w: norm.weight, b: norm.bias }), dy);
    backward(mul(blocks[1].w, ones), ones);
    const grads = namedViews(flat, flat.grad, "grad/");
    assert.deepEqual([...grads["grad/norm.bias"].read()], [2, -4, 6]);
    assert.deepEqual([...grads["grad/blocks.1.w"].read()], [1, 1, 1, 1, 1, 1, 1]);
    assert.deepEqual([...grads["grad/blocks.0.w"].read()], new Array(10).fill(0));
    assert.notEqual(grads["grad/norm.weight"].read()[0], 0);
  });
});

Deno.test("refreshCopy() shows written masters to the model, and f32 parameters are the masters", () => {
  withModel("bf16", (flat, { norm, blocks }) => {
    const views = namedViews(flat, flat.master);
    views["blocks.1.w"].write([1.001, 2, 3, 4, 5, 6, 7]);
    views["norm.bias"].write([8, 9, 10]);
    assert.deepEqual([...norm.bias.read()], [8, 9, 10]);
    refreshCopy(flat);
    assert.deepEqual([...blocks[1].w.read()], [1, 2, 3, 4, 5, 6, 7]);
  });
});

Deno.test("parametersFrom() gives a model of other values that leaves the first alone", () => {
  withModel("f16", (flat, params, before) => {
    const other = tensor(Array.from({ length: flat.master.size }, (_, i) => i), flat.master.shape);
    const made = parametersFrom(flat, params, other);
    const start = flat.entries.find((e) => e.name === "norm.weight")!.offset;
    assert.deepEqual([...made.norm.weight.read()], [start, start + 1, start + 2]);
    assert.deepEqual([...made.blocks[0].w.read()], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual([made.blocks[0].w.dtype, made.blocks[0].w.requiresGrad], ["f16", false]);
    assert.equal(made.table, params.table);
    assert.deepEqual(params.blocks[0].w.read(), before.get("blocks.0.w"));
  });
});

Deno.test("flattenParameters() refuses two 16-bit dtypes in one model", () => {
  const both = {
    a: { shape: [1], dtype: "f16", init: { fill: 0 } } satisfies ParameterSpec,
    b: { shape: [1], dtype: "bf16", init: { fill: 0 } } satisfies ParameterSpec,
  };
  const made = initialize(both, new Generator(1));
  assert.throws(() => flattenParameters(both, made), {
    message: "Cannot lay out parameters: b is bf16 and a f16, 16-bit ones must be alike",
  });
  for (const [, t] of leaves<Tensor>(made)) t.free();
});
