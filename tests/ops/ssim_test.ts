import assert from "node:assert/strict";
import { ssim, ssimMap } from "../../lib/ops/ssim.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, random } from "../check.ts";

const WINDOW = [.00102838, .00759876, .03600077, .10936069, .21300554, .26601172];

function image(seed: number, size: number): Float32Array<ArrayBuffer> {
  return random(seed, size).map((v) => 0.5 + 0.45 * v);
}

/** The definition, pixel by pixel, with the full window of 11 x 11. */
function reference(x: Float64Array, y: Float64Array, [B, H, W, C]: number[]): Float64Array {
  const w = Array.from({ length: 11 }, (_, i) => Math.exp(-((i - 5) ** 2) / 4.5)), total = w.reduce((a, b) => a + b);
  return Float64Array.from({ length: B * H * W * C }, (_, at) => {
    const c = at % C, j = Math.floor(at / C) % W, i = Math.floor(at / C / W) % H, b = Math.floor(at / C / W / H);
    let mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
    for (let k = 0; k < 121; k++) {
      const u = i + Math.floor(k / 11) - 5, v = j + k % 11 - 5;
      if (u < 0 || u >= H || v < 0 || v >= W) continue;
      const weight = w[Math.floor(k / 11)] * w[k % 11] / total ** 2,
        p = x[((b * H + u) * W + v) * C + c],
        q = y[((b * H + u) * W + v) * C + c];
      mx += weight * p, my += weight * q, xx += weight * p * p, yy += weight * q * q, xy += weight * p * q;
    }
    return (2 * mx * my + 1e-4) * (2 * (xy - mx * my) + 9e-4) / ((mx * mx + my * my + 1e-4) * (xx - mx * mx + yy - my * my + 9e-4));
  });
}

for (const shape of [[1, 13, 4, 1], [2, 3, 5, 3], [1, 1, 1, 2]]) {
  const size = shape.reduce((a, b) => a * b);
  Deno.test(`ssimMap() of [${shape}] and both its gradients match the definition`, () =>
    checkOp({
      inputs: { x: { shape, data: image(1, size) }, y: { shape, data: image(2, size) } },
      run: ({ x, y }) => ssimMap(x, y),
      reference: ({ x, y }) => reference(x, y, shape),
    }));
}

Deno.test("ssim() is the mean in f32, 1 for equal images, and its window is the published one", () =>
  step(() => {
    const [B, H, W, C] = [2, 12, 15, 3], a = image(1, B * H * W * C), b = image(2, a.length), shape = [B, H, W, C];
    const want = reference(Float64Array.from(a), Float64Array.from(b), shape);
    assertClose("mean", ssim(tensor(a, shape), tensor(b, shape)).read(), [want.reduce((s, v) => s + v) / want.length]);
    assertClose("equal", ssim(tensor(a, shape), tensor(a, shape)).read(), [1]);
    const point = new Float32Array(23 * 23);
    point[11 * 23 + 11] = 1;
    const map = ssimMap(tensor(point, [1, 23, 23, 1]), zeros([1, 23, 23, 1])).read();
    WINDOW.forEach((w, i) => {
      const v = w * WINDOW[5]; // the mean, and the mean square, at i - 5 columns from the point
      assertClose(`window ${i}`, [map[11 * 23 + 6 + i]], [1e-4 * 9e-4 / ((v * v + 1e-4) * (v - v * v + 9e-4))], { rtol: 1e-4 });
    });
  }));

Deno.test("ssimMap() takes no pixels, and refuses images of two shapes or dtypes", () =>
  step(() => {
    assert.deepEqual(ssimMap(zeros([0, 4, 4, 3]), zeros([0, 4, 4, 3])).shape, [0, 4, 4, 3]);
    assert.throws(() => ssimMap(zeros([1, 4, 4, 3]), zeros([1, 4, 5, 3])), {
      message: "Cannot run ssimMap: y is [1,4,5,3], it must be [1,4,4,3]",
    });
    assert.throws(() => ssimMap(zeros([4, 4, 3]), zeros([4, 4, 3])), /x is \[4,4,3\], it must be \[B, H, W, C\]/);
    assert.throws(() => ssimMap(zeros([1, 4, 4, 3], "f16"), zeros([1, 4, 4, 3])), /x is f16, it must be f32/);
  }));

for (const [name, shape] of Object.entries({ "ssim": [2, 97, 131, 3], "ssim of one channel": [3, 33, 16, 1] })) {
  const size = shape.reduce((a, b) => a * b);
  checkDevices(name, import.meta.url, {
    inputs: { a: { shape, data: image(1, size) }, b: { shape, data: image(2, size) } }, // an input called y would be taken for the output
    run: ({ a, b }) => ssimMap(a, b),
    dtypes: ["f32"],
    tolerance: { f32: 1e-4 }, // variances are differences of sums of squares
  });
}
