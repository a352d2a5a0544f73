import assert from "node:assert/strict";
import {
  modulatedCrossBlock,
  modulatedCrossBlockSpec,
  normSpec,
  runBlocks,
  transformerBlock,
  transformerBlockSpec,
} from "../../lib/nn/block.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { checkpoint } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, expectSameBits, gradientsOf, randomize, trained } from "../gradients.ts";
import { scatter } from "../voxels.ts";
import * as plain from "./plain.ts";

const B = 2, L = 5, M = 3, C = 8, X = 6, H = 2, HIDDEN = 12, EPS = 1e-6;
const OPTIONS = { C, X, hidden: HIDDEN, H, qkRmsNorm: true, qkRmsNormCross: false, dtype: "f32" } as const;
const x = tensor(random(60, B * L * C), [B, L, C], { requiresGrad: true });
const context = tensor(random(61, B * M * X), [B, M, X], { requiresGrad: true });

/** The block in f64, one sample at a time: modulation m [6 C], x [L, C], context [M, X]. */
function plainBlock(p: plain.Named, x: Float32Array, m: Float64Array, context: Float32Array): Float64Array {
  const part = (i: number) => m.subarray(i * C, (i + 1) * C), rows = (v: ArrayLike<number>) => plain.layerNorm(v, C, EPS);
  const modulated = (v: ArrayLike<number>, shift: number): Float64Array =>
    rows(v).map((u, i) => u * (1 + part(shift + 1)[i % C]) + part(shift)[i % C]);
  let h = plain.selfAttention(p, "self_attn.", modulated(x, 0), C, H);
  let y = Float64Array.from(x, (v, i) => v + h[i] * part(2)[i % C]);
  const normed = rows(y).map((u, i) => u * p["norm2.weight"][i % C] + p["norm2.bias"][i % C]);
  h = plain.crossAttention(p, "cross_attn.", normed, context, C, H);
  y = y.map((v, i) => v + h[i]);
  h = plain.feedForward(p, "mlp.", modulated(y, 3));
  return y.map((v, i) => v + h[i] * part(5)[i % C]);
}

for (const shareMod of [false, true]) {
  Deno.test(`modulatedCrossBlock() ${shareMod ? "with shared modulation " : ""}equals the plain block, and its gradient its differences`, () => {
    const spec = modulatedCrossBlockSpec({ ...OPTIONS, shareMod }), p = initialize(spec, new Generator(1));
    randomize(p, spec);
    const width = shareMod ? 6 * C : C, mod = tensor(random(62, B * width), [B, width], { requiresGrad: true });
    const run = (): Tensor => modulatedCrossBlock(p, x, mod, context, H);
    const named = Object.fromEntries(leaves<Tensor>(p).map(([path, t]) => [path, t.read()]));
    const [xs, contexts, mods] = [x, context, mod].map((t) => t.read());
    const want = [0, 1].flatMap((b) => {
      const given = mods.subarray(b * width, (b + 1) * width);
      const m = shareMod
        ? Float64Array.from(given)
        : plain.linear(Array.from(given), named["adaLN_modulation.1.weight"], named["adaLN_modulation.1.bias"]);
      return [...plainBlock(named, xs.slice(b * L * C, (b + 1) * L * C), m, contexts.slice(b * M * X, (b + 1) * M * X))];
    });
    assertClose("block", step(() => run().read()), want, { rtol: 1e-4, atol: 2e-5 });
    checkGradients({ ...trained(p, spec), x, mod, context }, () => run());
    for (const [, t] of [...leaves<Tensor>(p), ["mod", mod] as const]) t.free();
  });
}

Deno.test("modulatedCrossBlock() of voxels is the block of each sample, and its gradient its differences", () => {
  const spec = modulatedCrossBlockSpec({ ...OPTIONS, shareMod: false }), p = initialize(spec, new Generator(5));
  randomize(p, spec);
  const mod = tensor(random(62, B * C), [B, C], { requiresGrad: true }), coords = scatter(1, [3, 7], 5);
  const rows = tensor(random(60, 10 * C), [10, C], { requiresGrad: true });
  const run = (): Tensor => modulatedCrossBlock(p, rows, mod, context, H, { voxels: makeVoxels(coords) });
  const alone = (b: number, first: number, end: number): number[] =>
    step(() => {
      const part = (t: Tensor, from: number, shape: number[]): Tensor =>
        tensor(t.read().slice(from, from + shape.reduce((a, n) => a * n)), shape);
      const x = part(rows, first * C, [1, end - first, C]);
      return [...modulatedCrossBlock(p, x, part(mod, b * C, [1, C]), part(context, b * M * X, [1, M, X]), H).read()];
    });
  assertClose("block", step(() => run().read()), [...alone(0, 0, 3), ...alone(1, 3, 10)], { rtol: 1e-5, atol: 1e-5 });
  checkGradients({ ...trained(p, spec), rows, mod, context }, run);
  for (const t of [...leaves<Tensor>(p).map(([, t]) => t), mod, rows]) t.free();
});

Deno.test("transformerBlock() equals the plain block, dense and of voxels, and its gradient its differences", () => {
  const spec = transformerBlockSpec({ C, hidden: HIDDEN, H, qkRmsNorm: true, dtype: "f32" }), p = initialize(spec, new Generator(6));
  randomize(p, spec);
  const named = Object.fromEntries(leaves<Tensor>(p).map(([path, t]) => [path, t.read()])), xs = x.read();
  const want = [0, 1].flatMap((b) => {
    const sample = xs.slice(b * L * C, (b + 1) * L * C), h = plain.selfAttention(named, "attn.", plain.layerNorm(sample, C, EPS), C, H);
    const y = Float64Array.from(sample, (v, i) => v + h[i]), m = plain.feedForward(named, "mlp.", plain.layerNorm(y, C, EPS));
    return [...y.map((v, i) => v + m[i])];
  });
  assertClose("dense", step(() => transformerBlock(p, x, H).read()), want, { rtol: 1e-4, atol: 2e-5 });
  const rows = tensor(xs, [B * L, C]), coords = scatter(1, [L, L], 5);
  assertClose("voxels", step(() => transformerBlock(p, rows, H, { voxels: makeVoxels(coords) }).read()), want, { rtol: 1e-4, atol: 2e-5 });
  checkGradients({ ...trained(p, spec), x }, () => transformerBlock(p, x, H));
  for (const t of [...leaves<Tensor>(p).map(([, t]) => t), rows]) t.free();
});

Deno.test("runBlocks() runs one block after the other, and those to recompute have the same gradients to the bit", () => {
  const spec = transformerBlockSpec({ C, hidden: HIDDEN, H, qkRmsNorm: false, dtype: "f32" }),
    p = [1, 2, 3].map((s) => initialize(spec, new Generator(s)));
  const wrt = { ...trained(p, [spec, spec, spec]), x },
    run = (recompute: number): Tensor => {
      return runBlocks(p, [x], recompute, (block, i, h) => transformerBlock(block, i ? h : x, H));
    };
  const want = step(() => p.reduce((h, block) => transformerBlock(block, h, H), x).read());
  for (const recompute of [0, 2]) assert.deepEqual(step(() => run(recompute).read()), want);
  expectSameBits(
    gradientsOf(wrt, () => run(0)),
    gradientsOf(wrt, () => p.reduce((h, block) => transformerBlock(block, h, H), x)),
    "blocks one by one",
  );
  for (const [, t] of leaves<Tensor>(p)) t.free();
});

Deno.test("modulatedCrossBlock() starts as cross-attention alone", () => {
  const spec = modulatedCrossBlockSpec({ ...OPTIONS, shareMod: false }), p = initialize(spec, new Generator(3));
  const mod = tensor(random(62, B * C), [B, C]), named = Object.fromEntries(leaves<Tensor>(p).map(([path, t]) => [path, t.read()]));
  const [xs, contexts] = [x.read(), context.read()];
  const want = [0, 1].flatMap((b) => {
    const sample = xs.slice(b * L * C, (b + 1) * L * C), cond = contexts.slice(b * M * X, (b + 1) * M * X);
    const h = plain.crossAttention(named, "cross_attn.", plain.layerNorm(sample, C, EPS), cond, C, H);
    return Array.from(sample, (v, i) => v + h[i]);
  });
  assertClose("block", step(() => modulatedCrossBlock(p, x, mod, context, H).read()), want, { rtol: 1e-4, atol: 1e-5 });
  for (const [, t] of [...leaves<Tensor>(p), ["mod", mod] as const]) t.free();
});

Deno.test("modulatedCrossBlock() computed again in the backward pass has the same gradients to the bit, and keeps less", () => {
  const spec = modulatedCrossBlockSpec({ ...OPTIONS, shareMod: false }), p = initialize(spec, new Generator(4));
  randomize(p, spec);
  const mod = tensor(random(63, B * C), [B, C], { requiresGrad: true }), wrt = { ...trained(p, spec), x, mod, context };
  const block = (x: Tensor, mod: Tensor, context: Tensor): Tensor => tidy(() => modulatedCrossBlock(p, x, mod, context, H));
  const kept = (run: () => Tensor): number =>
    step(() => {
      const before = device().memory.use().used, y = run();
      return device().memory.use().used - before - y.bytes;
    });
  const plainly = (): Tensor => block(x, mod, context), again = (): Tensor => checkpoint(block, [x, mod, context]);
  expectSameBits(gradientsOf(wrt, () => again()), gradientsOf(wrt, () => plainly()), "computed again");
  if (device().name === "cpu") assert.ok(kept(again) < kept(plainly) / 5, `${kept(again)} bytes, ${kept(plainly)} without`);
  for (const [, t] of [...leaves<Tensor>(p), ["mod", mod] as const]) t.free();
});

Deno.test("normSpec() is scale 1 and shift 0 in f32", () => {
  assert.deepEqual(normSpec(3), {
    weight: { shape: [3], dtype: "f32", init: { fill: 1 } },
    bias: { shape: [3], dtype: "f32", init: { fill: 0 } },
  });
});
