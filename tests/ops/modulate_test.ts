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

/** Samples of `counts` rows each, as offsets. */
function offsetsOf(counts: number[]): Input {
  const ends = counts.map((_, b) => counts.slice(0, b + 1).reduce((a, c) => a + c, 0));
  return { shape: [counts.length + 1], data: Float32Array.of(0, ...ends), dtype: "i32" };
}

/** The same inputs with the rows of all samples together. */
function together<T extends { x: Input; h?: Input }>(inputs: T, counts: number[], C: number): T & { offsets: Input } {
  const N = counts.reduce((a, c) => a + c, 0), rows = (seed: number): Input => ({ shape: [N, C], data: random(seed, N * C) });
  return { ...inputs, x: rows(1), ...(inputs.h ? { h: rows(2) } : {}), offsets: offsetsOf(counts) };
}

/** Which sample each row is of. */
function samplesOf(offsets: Float64Array): number[] {
  return Array.from(offsets.subarray(1)).flatMap((end, b) => new Array<number>(end - offsets[b]).fill(b));
}

for (const counts of [[1], [3, 0, 2], [0, 4, 1, 0], [0], [0, 0, 7]]) {
  const B = counts.length, C = 5;
  Deno.test(`layerNormModulate() and its gradients match the definition for samples of ${counts} rows`, () => {
    checkOp({
      inputs: together(modulateInputs(B, 1, C), counts, C),
      run: ({ x, shift, scale, offsets }) => layerNormModulate(x, shift, scale, { eps: 1e-3, offsets }),
      reference: ({ x, shift, scale, offsets }) => {
        return samplesOf(offsets).flatMap((b, n) => {
          const [row, s, g] = [x.subarray(n * C, n * C + C), shift.subarray(b * C, b * C + C), scale.subarray(b * C, b * C + C)];
          return [...modulateReference({ x: row, shift: s, scale: g }, 1, C, 1e-3)];
        });
      },
    });
  });
  Deno.test(`gateAdd() and its gradients match the definition for samples of ${counts} rows`, () => {
    checkOp({
      inputs: together(gateInputs(B, 1, C), counts, C),
      run: ({ x, h, gate, offsets }) => gateAdd(x, h, gate, { offsets }),
      reference: ({ x, h, gate, offsets }) => {
        const samples = samplesOf(offsets);
        return x.map((v, i) => v + h[i] * gate[samples[Math.floor(i / C)] * C + i % C]);
      },
    });
  });
}

Deno.test("layerNormModulate() and gateAdd() of equal samples with offsets have the bits of those without", () => {
  step(() => {
    const B = 3, L = 5, C = 7, [x, shift, scale] = [B * L * C, B * C, B * C].map((size, i) => random(i, size));
    const offsets = tensor([0, 5, 10, 15], [4], { dtype: "i32" }), [s, g] = [shift, scale].map((v) => tensor(v, [B, C]));
    const dense = tensor(x, [B, L, C]), rows = tensor(x, [B * L, C]);
    assert.deepEqual(layerNormModulate(rows, s, g, { offsets }).read(), layerNormModulate(dense, s, g).read());
    assert.deepEqual(gateAdd(rows, rows, g, { offsets }).read(), gateAdd(dense, dense, g).read());
  });
});

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

for (const [counts, C] of [[[2817, 2817, 2817], 520], [[4200, 0, 4500, 9], 1024]] as [number[], number][]) {
  checkDevices(`layerNormModulate() of many rows, ${counts}, of ${C} channels`, import.meta.url, {
    inputs: together(modulateInputs(counts.length, 1, C), counts, C),
    run: ({ x, shift, scale, offsets }) => layerNormModulate(x, shift, scale, { eps: 1e-3, offsets }),
  });
}

for (
  const [counts, C] of [[[3, 0, 50], 3], [[1000, 7], 32], [[33, 0, 0, 600, 1], 257], [[517, 2000, 64], 1024], [[40, 9], 4096]] as [
    number[],
    number,
  ][]
) {
  checkDevices(`layerNormModulate() of samples of ${counts} rows, ${C} channels`, import.meta.url, {
    inputs: together(modulateInputs(counts.length, 1, C), counts, C),
    run: ({ x, shift, scale, offsets }) => layerNormModulate(x, shift, scale, { eps: 1e-3, offsets }),
  });
  checkDevices(`gateAdd() of samples of ${counts} rows, ${C} channels`, import.meta.url, {
    inputs: together(gateInputs(counts.length, 1, C), counts, C),
    run: ({ x, h, gate, offsets }) => gateAdd(x, h, gate, { offsets }),
  });
}
