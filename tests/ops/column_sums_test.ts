import assert from "node:assert/strict";
import { columnSumsFor, passColumnSums, takeColumnSums } from "../../lib/ops/column_sums.ts";
import { add } from "../../lib/ops/elementwise.ts";
import { feedForward } from "../../lib/ops/feed_forward.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { gateAdd } from "../../lib/ops/modulate.ts";
import { concat } from "../../lib/ops/movement.ts";
import { modulationParts } from "../../lib/ops/norm.ts";
import { residualNorm } from "../../lib/ops/residual_norm.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, type Input, random } from "../check.ts";

const EPS = 1e-3;

function inputsOf(B: number, L: number, C: number, offsets?: number[]): Record<string, Input> {
  const N = offsets ? offsets.at(-1)! : B * L, rows = offsets ? [N, C] : [B, L, C], scale = 1 / Math.sqrt(C);
  const small = (seed: number, n: number) => random(seed, n).map((v) => scale * v);
  return {
    x: { shape: rows, data: random(1, N * C) },
    m: { shape: [B, 3 * C], data: random(2, 3 * B * C) },
    w: { shape: [C, C], data: small(3, C * C) },
    b: { shape: [C], data: random(4, C) },
    ...(offsets && { offsets: { shape: [B + 1], data: Float32Array.from(offsets), dtype: "i32" } }),
  };
}

/** Each has a layer whose result is added to the residual; `between` may stand between the two. */
const ops = {
  "a gated residual and its norm": ({ x, m, w, b, offsets }: Record<string, Tensor>, between: (h: Tensor) => Tensor) => {
    const [gate, scale, shift] = modulationParts(m, 3);
    return concat(residualNorm(x, between(linear(x, w, b)), gate, { scale, shift, eps: EPS, offsets }), x.shape.length - 1);
  },
  "a residual and its norm": ({ x, w, b, offsets }: Record<string, Tensor>, between: (h: Tensor) => Tensor) =>
    concat(residualNorm(x, between(linear(x, w, b)), null, { eps: EPS, offsets }), x.shape.length - 1),
  "a residual whose norm alone is used": ({ x, m, w, b, offsets }: Record<string, Tensor>, between: (h: Tensor) => Tensor) => {
    const [, scale, shift] = modulationParts(m, 3);
    return residualNorm(x, between(linear(x, w, b)), null, { scale, shift, eps: EPS, offsets })[1];
  },
  "a gated residual": ({ x, m, w, b, offsets }: Record<string, Tensor>, between: (h: Tensor) => Tensor) =>
    gateAdd(x, between(feedForward(x, [w, b], [w, b])), modulationParts(m, 3)[1], { offsets }),
  "a gated residual that is used twice": ({ x, m, w, b, offsets }: Record<string, Tensor>, between: (h: Tensor) => Tensor) => {
    const h = between(linear(x, w, b));
    return add(gateAdd(x, h, modulationParts(m, 3)[1], { offsets }), h);
  },
};

/** B, L, C, and the offsets of samples of their own lengths. */
const SHAPES = [
  [3, 5, 16],
  [2, 77, 64],
  [8, 300, 256],
  [2, 70, 520],
  [3, 0, 96, [0, 130, 130, 311]],
  [3, 0, 1024, [0, 0, 40, 311]],
] as const;

/** Half of the distance from 1 to the next number of 24 bits. */
const ROUNDING = 2 ** -24;

for (const [name, run] of Object.entries(ops)) {
  Deno.test(`a bias before ${name} has the gradient that it has where nothing sums on the way, to the bit on the CPU`, () => {
    for (const offsets of [undefined, [0, 3, 3, 10]]) {
      const inputs = inputsOf(3, 4, 6, offsets), { shape } = inputs.x, columns = shape.at(-1)!, rows = inputs.x.data.length / columns;
      const gradients = (between: (h: Tensor, zero: Tensor) => Tensor): Record<string, Float32Array> =>
        step(() => {
          const leaves = Object.entries(inputs).map(([name, { shape, data, dtype = "f32" }]) =>
            [name, tensor(data, shape, { dtype, requiresGrad: dtype !== "i32" })] as const
          );
          const zero = tensor(new Float32Array(rows * columns), shape, { requiresGrad: true });
          const y = run(Object.fromEntries(leaves), (h) => between(h, zero));
          backward(y, tensor(random(9, y.size), y.shape));
          return Object.fromEntries(
            [...leaves, ["zero", zero] as const].filter(([, t]) => t.grad).map(([name, t]) => [name, t.grad!.read()]),
          );
        });
      let asked = 0;
      const { b: fused, ...others } = gradients((h) => {
        if (columnSumsFor(h)) asked++;
        return h;
      });
      const { b: apart, zero: dh, ...same } = gradients((h, zero) => add(h, zero));
      assert.deepEqual([asked, others], [1, same]);
      if (device().name === "cpu") assert.deepEqual(fused, apart);
      // In any two orders f32 sums of n terms differ by up to 2 (n - 1) roundings of the sum of their sizes. One more each for the gate, which may
      // multiply the terms or their sum, and one each for what a bias used twice has from its other layer.
      for (let c = 0; c < columns; c++) {
        let sizes = 0;
        for (let r = 0; r < rows; r++) sizes += Math.abs(dh[r * columns + c]);
        const most = 2 * ROUNDING * (rows * sizes + Math.abs(apart[c])), off = Math.abs(fused[c] - apart[c]);
        assert.ok(off <= most, `db[${c}] is ${fused[c]}, it must be within ${most} of ${apart[c]}`);
      }
    }
  });
  for (const [B, L, C, offsets] of SHAPES) {
    checkDevices(`a bias before ${name}, for ${offsets ?? `${B} x ${L}`} rows of ${C}`, import.meta.url, {
      inputs: inputsOf(B, L, C, offsets as unknown as number[] | undefined),
      run: (t) => run(t, (h) => h),
    });
  }
}

Deno.test("column sums go with one gradient, once, and nobody asks for those that no layer wants", () =>
  step(() => {
    const dy = tensor([1, 2, 3, 4], [2, 2]), sums = tensor([4, 6], [2]);
    passColumnSums(dy, sums);
    assert.equal(takeColumnSums(dy.view([2, 2])), null);
    assert.deepEqual([takeColumnSums(dy), takeColumnSums(dy)], [sums, null]);
    passColumnSums(dy, null);
    assert.deepEqual([takeColumnSums(dy), columnSumsFor(dy)], [null, null]);
  }));
