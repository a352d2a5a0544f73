import assert from "node:assert/strict";
import { maxPool2d } from "../../lib/ops/max_pool2d.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

function reference(x: Float64Array, [B, H, W, C]: number[]): Float64Array {
  const h = Math.floor(H / 2), w = Math.floor(W / 2);
  return Float64Array.from({ length: B * h * w * C }, (_, at) => {
    const c = at % C, j = Math.floor(at / C) % w, i = Math.floor(at / C / w) % h, b = Math.floor(at / C / w / h);
    return Math.max(...[0, 1, 2, 3].map((k) => x[((b * H + 2 * i + (k >> 1)) * W + 2 * j + k % 2) * C + c]));
  });
}

for (const shape of [[2, 4, 6, 3], [1, 5, 7, 4], [1, 1, 3, 2], [0, 4, 4, 2]]) {
  const size = shape.reduce((a, b) => a * b);
  Deno.test(`maxPool2d() of [${shape}] and its gradient match the definition`, () =>
    checkOp({
      inputs: { x: { shape, data: random(1, size) } },
      run: ({ x }) => maxPool2d(x),
      reference: ({ x }) => reference(x, shape),
    }));
}

Deno.test("maxPool2d() gives the gradient to the first of equal values, keeps what is no number, and wants an image", () =>
  step(() => {
    const x = tensor([2, 2, 2, 2], [1, 2, 2, 1], { requiresGrad: true });
    backward(maxPool2d(x), tensor([3], [1, 1, 1, 1]));
    assert.deepEqual([...x.grad!.read()], [3, 0, 0, 0]);
    assert.ok(Number.isNaN(maxPool2d(tensor([1, NaN, 2, 3], [1, 2, 2, 1])).read()[0]));
    assert.throws(() => maxPool2d(zeros([2, 2, 2])), /x is \[2,2,2\], it must be \[B, H, W, C\]/);
  }));

for (const [name, shape] of Object.entries({ "maxPool2d": [2, 64, 48, 64], "maxPool2d of odd sizes": [2, 33, 47, 5] })) {
  checkDevices(name, import.meta.url, {
    inputs: { x: { shape, data: random(1, shape.reduce((a, b) => a * b)) } },
    run: ({ x }) => maxPool2d(x),
  });
}
