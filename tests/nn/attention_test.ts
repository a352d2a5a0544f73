import assert from "node:assert/strict";
import { crossAttentionSpec, multiHeadCrossAttention, multiHeadSelfAttention, selfAttentionSpec } from "../../lib/nn/attention.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";
import * as plain from "./plain.ts";

const B = 2, L = 5, M = 3, C = 8, X = 6, H = 2;
const x = tensor(random(50, B * L * C), [B, L, C], { requiresGrad: true });
const context = tensor(random(51, B * M * X), [B, M, X], { requiresGrad: true });

/** The samples of a batch. */
function samples(t: Tensor): Float32Array[] {
  const values = t.read(), each = values.length / B;
  return Array.from({ length: B }, (_, b) => values.slice(b * each, (b + 1) * each));
}

for (const qkRmsNorm of [false, true]) {
  const how = qkRmsNorm ? "with q/k norms" : "without norms";
  Deno.test(`multiHeadSelfAttention() ${how} equals plain attention, and its gradient its differences`, () => {
    const spec = selfAttentionSpec(C, H, { qkRmsNorm, dtype: "f32" }), p = initialize(spec, new Generator(1));
    randomize(p, spec);
    const named = Object.fromEntries(leaves<Tensor>(p).map(([path, t]) => [path, t.read()]));
    assert.equal("q_rms_norm.gamma" in named, qkRmsNorm);
    const want = samples(x).flatMap((s) => [...plain.selfAttention(named, "", s, C, H)]);
    assertClose("self-attention", step(() => multiHeadSelfAttention(p, x, H).read()), want, { rtol: 1e-4, atol: 1e-5 });
    checkGradients({ ...trained(p, spec), x }, () => multiHeadSelfAttention(p, x, H));
    for (const [, t] of leaves<Tensor>(p)) t.free();
  });

  Deno.test(`multiHeadCrossAttention() ${how} equals plain attention, and its gradient its differences`, () => {
    const spec = crossAttentionSpec(C, X, H, { qkRmsNorm, dtype: "f32" }), p = initialize(spec, new Generator(2));
    randomize(p, spec);
    const named = Object.fromEntries(leaves<Tensor>(p).map(([path, t]) => [path, t.read()]));
    const contexts = samples(context), want = samples(x).flatMap((s, b) => [...plain.crossAttention(named, "", s, contexts[b], C, H)]);
    assertClose("cross-attention", step(() => multiHeadCrossAttention(p, x, context, H).read()), want, { rtol: 1e-4, atol: 1e-5 });
    checkGradients({ ...trained(p, spec), x, context }, () => multiHeadCrossAttention(p, x, context, H));
    for (const [, t] of leaves<Tensor>(p)) t.free();
  });
}
