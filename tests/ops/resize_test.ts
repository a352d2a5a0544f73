import assert from "node:assert/strict";
import { bicubicWeights, resizeBicubic } from "../../lib/ops/resize.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, random } from "../check.ts";

Deno.test("bicubicWeights() of the same size is the identity", () => {
  for (const antialias of [false, true]) {
    assertClose("weights", bicubicWeights(3, 3, antialias), [1, 0, 0, 0, 1, 0, 0, 0, 1], { atol: 1e-7 });
  }
});

Deno.test("bicubicWeights() has rows that sum to 1 and keep a linear ramp inside", () => {
  for (const [from, to] of [[37, 20], [16, 37], [5, 3], [2, 7]]) {
    for (const antialias of [false, true]) {
      const w = bicubicWeights(from, to, antialias);
      for (let i = 0; i < to; i++) {
        const row = w.subarray(i * from, (i + 1) * from), total = row.reduce((a, b) => a + b, 0), centre = (i + 0.5) * from / to - 0.5;
        assert.ok(Math.abs(total - 1) < 1e-5, `row ${i} sums to ${total}`);
        if (!antialias || to < from || centre < 1 || centre > from - 3) continue; // a = -0.5 alone is exact for ramps
        assert.ok(Math.abs(row.reduce((s, v, j) => s + v * j, 0) - centre) < 1e-4, `row ${i} is not at its centre`);
      }
    }
  }
});

Deno.test("bicubicWeights() upsamples 4 to 8 with the known taps", () => {
  // output 3 is centred at 1.25: a quarter past pixel 1
  const plain = [-0.10546875, 0.87890625, 0.26171875, -0.03515625], keys = [-0.0703125, 0.8671875, 0.2265625, -0.0234375];
  assertClose("a = -0.75", bicubicWeights(4, 8, false).subarray(12, 16), plain, { atol: 1e-7 });
  assertClose("a = -0.5", bicubicWeights(4, 8, true).subarray(12, 16), keys, { atol: 1e-7 });
});

for (const antialias of [false, true]) {
  Deno.test(`resizeBicubic() ${antialias ? "with" : "without"} antialiasing is the product of both axes' weights`, () => {
    const [B, H, W, C, h, w] = [2, 4, 5, 3, 3, 7], tall = bicubicWeights(H, h, antialias), wide = bicubicWeights(W, w, antialias);
    checkOp({
      inputs: { x: { shape: [B, H, W, C], data: random(1, B * H * W * C) } },
      run: ({ x }) => resizeBicubic(x, [h, w], { antialias }),
      reference: ({ x }) =>
        Float64Array.from({ length: B * h * w * C }, (_, k) => {
          const c = k % C, j = Math.floor(k / C) % w, i = Math.floor(k / C / w) % h, b = Math.floor(k / C / w / h);
          let sum = 0;
          for (let p = 0; p < H; p++) {
            for (let q = 0; q < W; q++) sum += tall[i * H + p] * wide[j * W + q] * x[((b * H + p) * W + q) * C + c];
          }
          return sum;
        }),
    });
  });
}

Deno.test("resizeBicubic() says what it cannot resize", () =>
  step(() => {
    assert.throws(() => resizeBicubic(tensor([1, 2], [1, 2, 1]), [2, 2]), RangeError);
    assert.throws(() => resizeBicubic(tensor([1, 2], [1, 2, 1, 1]), [0, 2]), RangeError);
  }));

checkDevices("resizeBicubic", import.meta.url, {
  inputs: { x: { shape: [1, 37, 37, 64], data: random(1, 37 * 37 * 64) } },
  run: ({ x }) => resizeBicubic(x, [20, 45], { antialias: true }),
  tolerance: { f32: 1e-4 },
});
