import assert from "node:assert/strict";
import { conv2d } from "../../lib/ops/conv2d.ts";
import { step } from "../../lib/tensor/scope.ts";
import { zeros } from "../../lib/tensor/tensor.ts";
import { checkOp, random } from "../check.ts";

Deno.test("conv2d() is the sum over windows of 3 x 3, with zeros around", () => {
  const [B, H, W, Cin, Cout] = [2, 3, 4, 2, 3];
  checkOp({
    inputs: {
      x: { shape: [B, H, W, Cin], data: random(1, B * H * W * Cin) },
      weight: { shape: [Cout, Cin, 3, 3], data: random(2, Cout * Cin * 9) },
      bias: { shape: [Cout], data: random(3, Cout) },
    },
    run: ({ x, weight, bias }) => conv2d(x, weight, bias),
    reference: ({ x, weight, bias }) =>
      Float64Array.from({ length: B * H * W * Cout }, (_, at) => {
        const o = at % Cout, cell = Math.floor(at / Cout), w = cell % W, h = Math.floor(cell / W) % H, b = Math.floor(cell / W / H);
        let sum = bias[o];
        for (let t = 0; t < 9; t++) {
          const u = h + Math.floor(t / 3) - 1, v = w + t % 3 - 1;
          if (u < 0 || u >= H || v < 0 || v >= W) continue;
          for (let c = 0; c < Cin; c++) sum += weight[(o * Cin + c) * 9 + t] * x[((b * H + u) * W + v) * Cin + c];
        }
        return sum;
      }),
  });
});

Deno.test("conv2d() refuses other windows and other channels", () => {
  const run = (...weight: number[]) => () => step(() => void conv2d(zeros([1, 2, 2, 2]), zeros(weight)));
  assert.throws(run(3, 2, 2, 2), /conv2d: x is \[1,2,2,2\] and weight \[3,2,2,2\]/);
  assert.throws(run(3, 4, 3, 3), /they must be \[B, H, W, Cin\] and \[Cout, Cin, 3, 3\]/);
});
