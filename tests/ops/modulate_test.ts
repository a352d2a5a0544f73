import assert from "node:assert/strict";
import { gateAdd, layerNormModulate } from "../../lib/ops/modulate.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, type Input, random } from "../check.ts";

type Arrays = Record<string, Float64Array>;

function modulateReference({ x, shift, scale }: Arrays, L: number, C: number, eps: number): Float64Array {
  return x.map((v, i) => {
    const n = Math.floor(i / C), m = Math.floor(n / L) * C + i % C, row = x.subarray(n * C, n * C + C);
    const mean = row.reduce((s, v) => s + v, 0) / C, variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / C;
    return (v - mean) / Math.sqrt(variance + eps) * (1 + scale[m]) + shift[m];
  });
}

function modulateInputs(B: number, L: number, C: number): Record<"x" | "shift" | "scale", Input> {
  return {
    x: { shape: [B, L, C], data: random(1, B * L * C) },
    shift: { shape: [B, C], data: random(2, B * C) },
    scale: { shape: [B, C], data: random(3, B * C) },
  };
}

function gateInputs(B: number, L: number, C: number): Record<"x" | "h" | "gate", Input> {
  return {
    x: { shape: [B, L, C], data: random(1, B * L * C) },
    h: { shape: [B, L, C], data: random(2, B * L * C) },
    gate: { shape: [B, C], data: random(3, B * C) },
  };
}

for (const [B, L, C] of [[1, 1, 1], [2, 3, 5], [3, 2, 8], [2, 5, 17]]) {
  Deno.test(`layerNormModulate() and its gradients match the definition at [${B}, ${L}, ${C}]`, () => {
    checkOp({
      inputs: modulateInputs(B, L, C),
      run: ({ x, shift, scale }) => layerNormModulate(x, shift, scale, { eps: 1e-3 }),
      reference: (a) => modulateReference(a, L, C, 1e-3),
    });
  });
  Deno.test(`gateAdd() and its gradients match the definition at [${B}, ${L}, ${C}]`, () => {
    checkOp({
      inputs: gateInputs(B, L, C),
      run: ({ x, h, gate }) => gateAdd(x, h, gate),
      reference: ({ x, h, gate }) => x.map((v, i) => v + h[i] * gate[Math.floor(i / C / L) * C + i % C]),
    });
  });
}

Deno.test("layerNormModulate() takes volumes and gives only the gradients that are wanted", () => {
  const { x, shift, scale } = modulateInputs(2, 6, 4);
  checkOp({
    inputs: { x: { ...x, shape: [2, 3, 1, 2, 4] }, shift: { ...shift, grad: false }, scale },
    run: (t) => layerNormModulate(t.x, t.shift, t.scale),
    reference: (a) => modulateReference(a, 6, 4, 1e-6),
    rtol: 1e-4,
  });
});

Deno.test("gateAdd() gives only the gradients that are wanted", () => {
  const { x, h, gate } = gateInputs(2, 3, 4);
  const reference = (a: Arrays) => a.x.map((v, i) => v + a.h[i] * a.gate[Math.floor(i / 12) * 4 + i % 4]);
  checkOp({ inputs: { x, h: { ...h, grad: false }, gate }, run: (t) => gateAdd(t.x, t.h, t.gate), reference });
  checkOp({ inputs: { x, h, gate: { ...gate, grad: false } }, run: (t) => gateAdd(t.x, t.h, t.gate), reference });
  checkOp({
    inputs: { x, h: { ...h, grad: false }, gate: { ...gate, grad: false } },
    run: (t) => gateAdd(t.x, t.h, t.gate),
    reference,
  });
});

Deno.test("layerNormModulate() and gateAdd() of no tokens give zero gradients", () => {
  step(() => {
    const row = () => tensor([1, 2, 3, 4], [2, 2], { requiresGrad: true });
    const [shift, scale, gate] = [row(), row(), row()], none = tensor([], [2, 0, 2]);
    backward(layerNormModulate(none, shift, scale), none);
    backward(gateAdd(none, none, gate), none);
    for (const t of [shift, scale, gate]) assert.deepEqual([...t.grad!.read()], [0, 0, 0, 0]);
  });
});

Deno.test("layerNormModulate() and gateAdd() say which shape or dtype is wrong", () => {
  step(() => {
    const x = tensor(random(1, 12), [2, 2, 3]), row = tensor(random(2, 6), [2, 3]), short = tensor([1, 2, 3], [3]);
    assert.throws(() => layerNormModulate(x, row, short), { message: "Cannot run layerNormModulate: scale is [3], it must be [2,3]" });
    assert.throws(() => layerNormModulate(short, row, row), { message: "Cannot run layerNormModulate: x is [3], it must be [B, ..., C]" });
    assert.throws(() => gateAdd(x, row, row), { message: "Cannot run gateAdd: h is [2,3], it must be [2,2,3]" });
    assert.throws(() => gateAdd(x, x, tensor(random(2, 6), [2, 3], { dtype: "bf16" })), {
      message: "Cannot run gateAdd: gate is bf16, it must be f32",
    });
  });
});

for (const [B, L, C] of [[1, 1, 1], [3, 50, 3], [2, 1000, 32], [5, 33, 257], [8, 517, 1024], [2, 65, 1030], [300, 2, 40], [2, 9, 4096]]) {
  checkDevices(`layerNormModulate() at [${B}, ${L}, ${C}]`, import.meta.url, {
    inputs: modulateInputs(B, L, C),
    run: ({ x, shift, scale }) => layerNormModulate(x, shift, scale, { eps: 1e-3 }),
  });
  checkDevices(`gateAdd() at [${B}, ${L}, ${C}]`, import.meta.url, {
    inputs: gateInputs(B, L, C),
    run: ({ x, h, gate }) => gateAdd(x, h, gate),
  });
}
