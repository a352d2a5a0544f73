import assert from "node:assert/strict";
import { type Lpips, lpips, LPIPS_VGG, type LpipsArgs, lpipsSpec } from "../../lib/models/lpips.ts";
import { countParameters, freeLeaves, initialize, leaves, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { mul } from "../../lib/ops/elementwise.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, random } from "../check.ts";

const SMALL: LpipsArgs = { levels: [[4, 3], [5]] };

/** A model with random weights; heads are positive, as learned ones are. */
function make(args: LpipsArgs, dtype: FloatDType = "f32"): Lpips {
  const spec = lpipsSpec(args, dtype), params = initialize(spec, new Generator(1));
  leaves<Tensor>(params).forEach(([path, t], i) => {
    const size = Math.sqrt(6 * t.shape[0] / t.size), values = random(10 + i, t.size);
    t.write(path.startsWith("lin") ? values.map(Math.abs) : values.map((v) => path.endsWith("bias") ? 0.1 * v : size * v));
  });
  return { args, dtype, params };
}

function values(model: Lpips): Record<string, Float64Array> {
  return Object.fromEntries(leaves<Tensor>(model.params).map(([path, t]) => [path, Float64Array.from(t.read())]));
}

/** The features of [H, W, 3] at each level, by the definition: convolution and relu, levels parted by maxima over 2 x 2. */
function features({ levels }: LpipsArgs, p: Record<string, Float64Array>, image: Float64Array, H: number, W: number) {
  const shift = [-.030, -.088, -.188], scale = [.458, .448, .450], out: { f: Float64Array; C: number }[] = [];
  let x = image.map((v, i) => (2 * v - 1 - shift[i % 3]) / scale[i % 3]), C = 3, index = 0;
  levels.forEach((channels, level) => {
    if (level) {
      const h = H >> 1, w = W >> 1;
      const before = x, width = W, depth = C;
      x = Float64Array.from({ length: h * w * C }, (_, at) => {
        const c = at % depth, j = Math.floor(at / depth) % w, i = Math.floor(at / depth / w);
        return Math.max(...[0, 1, 2, 3].map((k) => before[((2 * i + (k >> 1)) * width + 2 * j + k % 2) * depth + c]));
      });
      [H, W] = [h, w];
    }
    for (const out of channels) {
      const before = x, inputs = C, weight = p[`net.slice${level + 1}.${index}.weight`], bias = p[`net.slice${level + 1}.${index}.bias`];
      x = Float64Array.from({ length: H * W * out }, (_, at) => {
        const o = at % out, j = Math.floor(at / out) % W, i = Math.floor(at / out / W);
        let sum = bias[o];
        for (let t = 0; t < 9; t++) {
          const u = i + Math.floor(t / 3) - 1, v = j + t % 3 - 1;
          if (u < 0 || u >= H || v < 0 || v >= W) continue;
          for (let c = 0; c < inputs; c++) sum += weight[(o * inputs + c) * 9 + t] * before[(u * W + v) * inputs + c];
        }
        return Math.max(0, sum);
      });
      [C, index] = [out, index + 2];
    }
    index++;
    out.push({ f: x, C });
  });
  return out;
}

function reference(args: LpipsArgs, p: Record<string, Float64Array>, x: Float64Array, y: Float64Array, [B, H, W]: number[]): number {
  let total = 0;
  for (let b = 0; b < B; b++) {
    const [u, v] = [x, y].map((images) => features(args, p, images.subarray(b * H * W * 3, (b + 1) * H * W * 3), H, W));
    u.forEach(({ f, C }, level) => {
      const g = v[level].f, head = p[`lin${level}.model.1.weight`], N = f.length / C;
      for (let n = 0; n < N; n++) {
        const a = f.subarray(n * C, n * C + C),
          c = g.subarray(n * C, n * C + C),
          p = Math.hypot(...a) + 1e-10,
          q = Math.hypot(...c) + 1e-10;
        total += head.reduce((sum, w, k) => sum + w * (a[k] / p - c[k] / q) ** 2, 0) / N / B;
      }
    });
  }
  return total;
}

function image(seed: number, shape: number[]): Float32Array<ArrayBuffer> {
  return random(seed, shape.reduce((a, b) => a * b)).map((v) => 0.5 + v / 2);
}

Deno.test("lpips() and its gradient match the definition", () => {
  const model = make(SMALL), p = values(model), shape = [2, 5, 6, 3];
  checkOp({
    inputs: { x: { shape, data: image(1, shape) }, y: { shape, data: image(2, shape), grad: false } },
    run: ({ x, y }) => lpips(model, x, y),
    reference: ({ x, y }) => [reference(SMALL, p, x, y, shape)],
  });
  freeLeaves(model.params);
});

Deno.test("lpips() of VGG-16 with random weights matches the definition, and is 0 for equal images", () => {
  const model = make(LPIPS_VGG), shape = [1, 16, 17, 3], [x, y] = [image(1, shape), image(2, shape)];
  const want = reference(LPIPS_VGG, values(model), Float64Array.from(x), Float64Array.from(y), shape);
  step(() => {
    assertClose("distance", lpips(model, tensor(x, shape), tensor(y, shape)).read(), [want], { rtol: 1e-4 });
    assert.equal(lpips(model, tensor(x, shape), tensor(x, shape)).item(), 0);
  });
  freeLeaves(model.params);
});

Deno.test("the parameters of LPIPS are those of the lpips package's VGG, by name and shape", () => {
  const spec = lpipsSpec(), shapes = new Map(leaves<ParameterSpec>(spec).map(([path, { shape }]) => [path, `${shape}`]));
  const slices = { 1: [0, 2], 2: [5, 7], 3: [10, 12, 14], 4: [17, 19, 21], 5: [24, 26, 28] };
  const names = Object.entries(slices).flatMap(([s, list]) =>
    list.flatMap((i) => [`net.slice${s}.${i}.weight`, `net.slice${s}.${i}.bias`])
  );
  assert.deepEqual([...shapes.keys()].sort(), [...names, ...[0, 1, 2, 3, 4].map((i) => `lin${i}.model.1.weight`)].sort());
  assert.deepEqual(["net.slice1.0.weight", "net.slice5.28.bias", "lin4.model.1.weight"].map((n) => shapes.get(n)), [
    "64,3,3,3",
    "512",
    "1,512,1,1",
  ]);
  assert.equal(countParameters(spec), 14_714_688 + 1472);
});

Deno.test("lpips() refuses images that are too small or of two sizes", () =>
  step(() => {
    const model = make(SMALL);
    assert.throws(
      () => lpips(model, zeros([1, 1, 4, 3]), zeros([1, 1, 4, 3])),
      /x is \[1,1,4,3\], it must be \[B, H, W, 3\] with H and W from 2 up/,
    );
    assert.throws(() => lpips(model, zeros([1, 4, 4, 3]), zeros([1, 4, 5, 3])), /y is \[1,4,5,3\], it must be \[1,4,4,3\]/);
    freeLeaves(model.params);
  }));

// In 16 bits gradients differ where rounding moves a value over a relu's kink: about 2^-11 (2^-8) of them a layer, which the root makes 2 % (6 %).
for (const dtype of ["f32", "f16", "bf16"] as const) {
  const shape = [2, 32, 32, 3], cpu = dtype === "f32" ? 2e-5 : dtype === "f16" ? 4e-2 : 6e-2;
  let model: Lpips | undefined; // made on the device that the case runs on; on the CPU always in f32
  checkDevices(`lpips in ${dtype}`, import.meta.url, {
    inputs: { x: { shape, data: image(1, shape), dtype: "f32" }, y: { shape, data: image(2, shape), dtype: "f32", grad: false } },
    run: ({ x, y }) =>
      mul(lpips(model ??= make({ levels: [[32, 32], [64]] }, Deno.env.get("DEVICE") === "cpu" ? "f32" : dtype), x, y), 2 ** 10),
    dtypes: ["f32"],
    tolerance: { f32: cpu },
  });
}
