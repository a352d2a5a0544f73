import assert from "node:assert/strict";
import { add } from "../../lib/ops/elementwise.ts";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { gateAdd, layerNormModulate } from "../../lib/ops/modulate.ts";
import { concat, slice } from "../../lib/ops/movement.ts";
import { modulationParts } from "../../lib/ops/norm.ts";
import { residualNorm } from "../../lib/ops/residual_norm.ts";
import { sum } from "../../lib/ops/reduce.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward, checkpoint } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, type Input, random } from "../check.ts";

const EPS = 1e-3;

/** Rows of a batch: B samples of L rows, or ragged ones. */
interface Shape {
  counts: number[];
  C: number;
  dense: boolean;
}

function inputsOf({ counts, C, dense }: Shape): Record<"x" | "h" | "m" | "w" | "b" | "offsets", Input> {
  const B = counts.length, N = counts.reduce((a, n) => a + n, 0), rows = dense ? [B, counts[0], C] : [N, C];
  const ends = counts.map((_, b) => counts.slice(0, b + 1).reduce((a, n) => a + n, 0));
  return {
    x: { shape: rows, data: random(1, N * C) },
    h: { shape: rows, data: random(2, N * C) },
    m: { shape: [B, 3 * C], data: random(3, 3 * B * C) },
    w: { shape: [C], data: random(4, C), dtype: "f32" },
    b: { shape: [C], data: random(5, C), dtype: "f32" },
    offsets: { shape: [B + 1], data: Float32Array.of(0, ...ends), dtype: "i32" },
  };
}

/** The sum and the norm side by side, as the op makes them. */
const fused = {
  modulated: ({ dense }: Shape) => ({ x, h, m, offsets }: Record<string, Tensor>) => {
    const [gate, scale, shift] = modulationParts(m, 3);
    return concat(residualNorm(x, h, gate, { scale, shift, eps: EPS, offsets: dense ? undefined : offsets }), x.shape.length - 1);
  },
  affine: ({ dense }: Shape) => ({ x, h, m, w, b, offsets }: Record<string, Tensor>) => {
    const [gate] = modulationParts(m, 3);
    return concat(residualNorm(x, h, gate, { w, b, eps: EPS, offsets: dense ? undefined : offsets }), x.shape.length - 1);
  },
  plain: ({ dense }: Shape) => ({ x, h, offsets }: Record<string, Tensor>) => {
    return concat(residualNorm(x, h, null, { eps: EPS, offsets: dense ? undefined : offsets }), x.shape.length - 1);
  },
};

type Kind = keyof typeof fused;

const USED: Record<Kind, string[]> = { modulated: ["x", "h", "m"], affine: ["x", "h", "m", "w", "b"], plain: ["x", "h"] };

function pick(kind: Kind, shape: Shape): Record<string, Input> {
  const inputs = inputsOf(shape) as Record<string, Input>;
  return Object.fromEntries([...USED[kind], ...(shape.dense ? [] : ["offsets"])].map((name) => [name, inputs[name]]));
}

function reference(kind: Kind, { counts, C }: Shape, a: Record<string, Float64Array>): number[] {
  const samples = counts.flatMap((n, b) => new Array<number>(n).fill(b)), columns = Array.from({ length: C }, (_, c) => c);
  return samples.flatMap((b, n) => {
    const part = (k: number, c: number): number => a.m[b * 3 * C + k * C + c];
    const row = columns.map((c) => a.x[n * C + c] + a.h[n * C + c] * (kind === "plain" ? 1 : part(0, c)));
    const mean = row.reduce((s, v) => s + v, 0) / C, variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / C;
    const y = row.map((v, c) => {
      const xhat = (v - mean) / Math.sqrt(variance + EPS);
      return kind === "modulated" ? xhat * (1 + part(1, c)) + part(2, c) : kind === "affine" ? xhat * a.w[c] + a.b[c] : xhat;
    });
    return [...row, ...y];
  });
}

const SMALL: Shape[] = [
  { counts: [1], C: 2, dense: true },
  { counts: [3, 3], C: 5, dense: true },
  { counts: [2, 2, 2], C: 8, dense: true },
  { counts: [3, 0, 2], C: 5, dense: false },
  { counts: [0, 0], C: 3, dense: false },
];

for (const kind of Object.keys(fused) as Kind[]) {
  for (const shape of SMALL) {
    Deno.test(`residualNorm(), ${kind}, and its gradients match the definition for ${shape.counts} rows of ${shape.C}`, () => {
      checkOp({
        inputs: pick(kind, shape),
        run: fused[kind](shape),
        reference: (a) => Float64Array.from(reference(kind, shape, a as Record<string, Float64Array>)),
        rtol: 1e-4,
      });
    });
  }
  const large: Shape[] = [
    ...[[1, 1, 3], [2, 100, 32], [5, 33, 257], [8, 517, 1024], [2, 65, 1030], [3, 7, 2048], [2, 9, 4096]].map(([B, L, C]) => {
      return { counts: new Array(B).fill(L), C, dense: true };
    }),
    { counts: [33, 0, 0, 600, 1], C: 257, dense: false },
    { counts: [517, 2000, 64], C: 1024, dense: false },
    { counts: [2200, 2200, 2200], C: 520, dense: true },
    { counts: [2100, 0, 4500, 33], C: 1024, dense: false },
  ];
  for (const shape of large) {
    checkDevices(`residualNorm(), ${kind}, for ${shape.counts} rows of ${shape.C}`, import.meta.url, {
      inputs: pick(kind, shape),
      run: fused[kind](shape),
    });
  }
}

Deno.test("the norm of residualNorm() has the bits of a norm of its sum, however many rows there are", () => {
  const dtype = device().name === "cuda" ? "bf16" : "f32", make = ({ data, shape }: Input) => tensor(data, shape, { dtype });
  for (const counts of [[3], [1500, 1500], [3500, 3500], [4500, 4500]]) {
    step(() => {
      const { x, h, m } = inputsOf({ counts, C: 520, dense: true }), [gate, scale, shift] = modulationParts(make(m), 3);
      const [sum, y] = residualNorm(make(x), make(h), gate, { scale, shift, eps: EPS });
      assert.deepEqual(y.read(), layerNormModulate(sum, shift, scale, { eps: EPS }).read());
    });
  }
});

/** Gradients of all leaves under a fixed cotangent of what `run` makes of them. */
function gradients(run: (t: Record<string, Tensor>) => Tensor, shape: Shape): Record<string, Float32Array> {
  return step(() => {
    const inputs = Object.entries(inputsOf(shape)).map(([name, { shape, data, dtype }]): [string, Tensor] => {
      return [name, tensor(data, shape, { dtype: dtype ?? "f32", requiresGrad: dtype !== "i32" })];
    });
    const leaves = Object.fromEntries(inputs), y = run(leaves);
    backward(y, tensor(random(9, y.size), y.shape));
    return Object.fromEntries(inputs.filter(([, t]) => t.grad).map(([name, t]) => [name, t.grad!.read()]));
  });
}

Deno.test("a block's chain of residualNorm() has the values and gradients of the ops that it is made of", () => {
  const shape: Shape = { counts: [7, 7], C: 12, dense: true };
  const chain = ({ x, h, m, w, b }: Record<string, Tensor>): Tensor => {
    const [gate, scale, shift] = modulationParts(m, 3);
    const first = layerNormModulate(x, shift, scale, { eps: EPS }), [sum1, n1] = residualNorm(x, add(first, h), gate, { w, b, eps: EPS });
    const [sum2, n2] = residualNorm(sum1, n1, null, { scale, shift, eps: EPS });
    return gateAdd(sum2, n2, gate);
  };
  const apart = ({ x, h, m, w, b }: Record<string, Tensor>): Tensor => {
    const [gate, scale, shift] = [0, 1, 2].map((k) => slice(m, 1, 12 * k, 12 * k + 12));
    const first = layerNormModulate(x, shift, scale, { eps: EPS }), sum1 = gateAdd(x, add(first, h), gate);
    const sum2 = add(sum1, layerNorm(sum1, { w, b, eps: EPS }));
    return gateAdd(sum2, layerNormModulate(sum2, shift, scale, { eps: EPS }), gate);
  };
  step(() => {
    const { x, h, m, w, b } = inputsOf(shape), make = ({ data, shape, dtype }: Input) => tensor(data, shape, { dtype: dtype ?? "f32" });
    const t = { x: make(x), h: make(h), m: make(m), w: make(w), b: make(b) };
    assert.deepEqual(chain(t).read(), apart(t).read());
  });
  const got = gradients(chain, shape), want = gradients(apart, shape);
  assert.deepEqual(Object.keys(got), Object.keys(want));
  for (const name of Object.keys(want)) assertClose(`d${name}`, got[name], want[name], { rtol: 2e-5, atol: 2e-6 });
  const again = gradients((t) => checkpoint((x, h, m, w, b) => chain({ x, h, m, w, b }), [t.x, t.h, t.m, t.w, t.b]), shape);
  for (const name of Object.keys(want)) assertClose(`d${name}, computed again`, again[name], got[name], { rtol: 2e-6, atol: 2e-7 });
});

Deno.test("residualNorm() has the gradients of its sum alone, and of its norm alone", () => {
  const shape: Shape = { counts: [3, 3], C: 4, dense: true };
  for (const which of [0, 1]) {
    const got = gradients(({ x, h, m }) => {
      const [gate, scale, shift] = modulationParts(m, 3);
      return residualNorm(x, h, gate, { scale, shift, eps: EPS })[which];
    }, shape);
    const want = gradients(({ x, h, m }) => {
      const [gate, scale, shift] = [0, 1, 2].map((k) => slice(m, 1, 4 * k, 4 * k + 4)), sum = gateAdd(x, h, gate);
      return which === 0 ? sum : layerNormModulate(sum, shift, scale, { eps: EPS });
    }, shape);
    for (const name of Object.keys(want)) assertClose(`d${name}`, got[name], want[name], { rtol: 2e-5, atol: 2e-6 });
  }
});

Deno.test("residualNorm() and modulationParts() say which shape is wrong", () => {
  step(() => {
    const x = tensor(random(1, 12), [2, 2, 3]), m = tensor(random(2, 12), [2, 6]);
    assert.throws(() => modulationParts(m, 4), { message: "Cannot run modulationParts: m is [2,6], it must be [B, 4 C]" });
    assert.throws(() => residualNorm(x, m, null, { eps: EPS }), { message: "Cannot run residualNorm: h is [2,6], it must be [2,2,3]" });
    assert.throws(() => residualNorm(x, x, modulationParts(m, 3)[0], { eps: EPS }), {
      message: "Cannot run residualNorm: the tensor of gate is [2,6], it must be [2,9]",
    });
    assert.throws(() => residualNorm(x, x, sum(m, { axes: [1] }), { eps: EPS }), /gate is \[2\], it must be \[2,3\]/);
  });
});
