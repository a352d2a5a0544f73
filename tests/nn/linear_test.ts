import { applyLinear, feedForward, feedForwardSpec, linearSpec } from "../../lib/nn/linear.ts";
import assert from "node:assert/strict";
import { xavierBound } from "../../lib/nn/parameters.ts";
import { checkOp, random } from "../check.ts";
import * as plain from "./plain.ts";

Deno.test("applyLinear() is x wᵀ + b, and so are its gradients", () => {
  checkOp({
    inputs: {
      x: { shape: [2, 3, 4], data: random(1, 24) },
      weight: { shape: [5, 4], data: random(2, 20) },
      bias: { shape: [5], data: random(3, 5) },
    },
    run: ({ x, weight, bias }) => applyLinear({ weight, bias }, x),
    reference: ({ x, weight, bias }) => plain.linear(x, weight, bias),
  });
});

Deno.test("feedForward() is linear, GELU, linear, and so are its gradients", () => {
  checkOp({
    inputs: {
      x: { shape: [3, 4], data: random(1, 12) },
      w0: { shape: [6, 4], data: random(2, 24) },
      b0: { shape: [6], data: random(3, 6) },
      w2: { shape: [4, 6], data: random(4, 24) },
      b2: { shape: [4], data: random(5, 4) },
    },
    run: ({ x, w0, b0, w2, b2 }) => feedForward({ mlp: { 0: { weight: w0, bias: b0 }, 2: { weight: w2, bias: b2 } } }, x),
    reference: ({ x, w0, b0, w2, b2 }) => plain.linear(plain.linear(x, w0, b0).map(plain.gelu), w2, b2),
  });
});

Deno.test("linearSpec() is xavier-uniform with a bias of zero unless it is told otherwise", () => {
  assert.deepEqual(linearSpec(3, 5, "f16"), {
    weight: { shape: [5, 3], dtype: "f16", init: { uniform: xavierBound(3, 5) } },
    bias: { shape: [5], dtype: "f16", init: { fill: 0 } },
  });
  assert.deepEqual(linearSpec(3, 5, "f32", { fill: 0 }).weight.init, { fill: 0 });
  assert.deepEqual(feedForwardSpec(4, 16, "f32").mlp[2].weight.shape, [4, 16]);
});
