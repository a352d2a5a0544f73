import assert from "node:assert/strict";
import { observe } from "../../ffi/observer.ts";
import { roundOnce } from "../../lib/ops/fp8_layer.ts";
import { feedForward } from "../../lib/ops/feed_forward.ts";
import { canQuantize } from "../../lib/ops/fp8.ts";
import { add, mul } from "../../lib/ops/elementwise.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { gateAdd, layerNormModulate } from "../../lib/ops/modulate.ts";
import { modulationParts } from "../../lib/ops/norm.ts";
import { residualNorm } from "../../lib/ops/residual_norm.ts";
import { device } from "../../lib/tensor/device.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { type Choice, withChoice } from "../../lib/tensor/storage.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, random } from "../check.ts";
import { rounded } from "../e4m3.ts";

/** As a matrix again. */
function restored({ values, scale }: ReturnType<typeof rounded>, C: number): Float64Array {
  return values.map((v, i) => v * scale[Math.floor(i / C)]);
}

/** a [M, K] times the transpose of b [N, K]. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, [M, N, K]: number[]): Float64Array {
  return Float64Array.from({ length: M * N }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < K; k++) sum += a[Math.floor(i / N) * K + k] * b[i % N * K + k];
    return sum;
  });
}

function transposed(a: ArrayLike<number>, [M, N]: number[]): Float64Array {
  return Float64Array.from({ length: M * N }, (_, i) => a[i % M * N + Math.floor(i / M)]);
}

const [M, N, K] = [6, 32, 48];

function layer(
  fp8: boolean,
): { x: Float32Array; w: Float32Array; b: Float32Array; dy: Float32Array; y: Float32Array; grads: Float32Array[] } {
  const [x, w, b, dy] = [M * K, N * K, N, M * N].map((size, i) => random(i + 1, size));
  return step(() => {
    const leaf = (data: Float32Array<ArrayBuffer>, shape: number[]): Tensor => tensor(data, shape, { requiresGrad: true });
    const leaves = [leaf(x, [M, K]), leaf(w, [N, K]), leaf(b, [N])], y = linear(leaves[0], leaves[1], leaves[2], { fp8 });
    backward(y, tensor(dy, [M, N]));
    return { x, w, b, dy, y: y.read(), grads: leaves.map((t) => t.grad!.read()) };
  });
}

/** The CPU's emulation is in f32, which CUDA does not round. */
const emulated = { ignore: device().name !== "cpu" };

Deno.test(
  "linear() in fp8 on the CPU is the product of rounded rows; its gradients are of those rows, those weights and dy rounded",
  emulated,
  () => {
    const { x, w, b, dy, y, grads: [dx, dw, db] } = layer(true), w8 = rounded(w, K), close = { rtol: 1e-4, atol: 1e-4 };
    const want = product(restored(rounded(x, K), K), restored(w8, K), [M, N, K]).map((v, i) => v + b[i % N]);
    assertClose("y", y, want, close);
    const scaled = Float64Array.from(dy, (v, i) => v * w8.scale[i % N]), dy8 = restored(rounded(scaled, N), N);
    assertClose("dx", dx, product(dy8, transposed(w8.values, [N, K]), [M, K, N]), close);
    const unscaled = dy8.map((v, i) => v / w8.scale[i % N]), x8 = restored(rounded(x, K), K);
    assertClose("dw", dw, product(transposed(unscaled, [M, N]), transposed(x8, [M, K]), [N, K, M]), close);
    assertClose(
      "db",
      db,
      Array.from({ length: N }, (_, n) => Array.from({ length: M }, (_, m) => dy[m * N + n]).reduce((a, v) => a + v)),
      close,
    );
  },
);

Deno.test("linear() in fp8 on the CPU is within the format's rounding of the layer in f32", emulated, () => {
  const got = layer(true), want = layer(false);
  const error = (a: Float32Array, b: Float32Array): number => Math.hypot(...a.map((v, i) => v - b[i])) / Math.hypot(...b);
  assert.ok(error(got.y, want.y) < 0.05, `y: ${error(got.y, want.y)}`);
  got.grads.forEach((g, i) => assert.ok(error(g, want.grads[i]) < (i === 2 ? 1e-6 : 0.05), `gradient ${i}: ${error(g, want.grads[i])}`));
});

Deno.test("feedForward() in fp8 has the results of the layers without it, to the bit, and gradients within the format's rounding", () => {
  const data = [[5, 32], [48, 32], [48], [16, 48], [16]].map((shape, i) => ({ shape, data: random(i + 1, shape.reduce((a, b) => a * b)) }));
  const dtype = device().name === "cpu" ? "f32" as const : "bf16" as const;
  const run = (fp8: boolean): Float32Array[] =>
    step(() => {
      const leaves = data.map(({ shape, data }) => tensor(data, shape, { dtype, requiresGrad: true })), [x, w1, b1, w2, b2] = leaves;
      const y = feedForward(x, [w1, b1], [w2, b2], { fp8 });
      backward(y, tensor(random(9, y.size), y.shape, { dtype }));
      return [y, ...leaves.map((t) => t.grad!)].map((t) => t.read());
    });
  const [y, ...grads] = run(true), [want, ...wanted] = run(false);
  assert.deepEqual(y, want);
  grads.forEach((g, i) => {
    const error = Math.hypot(...g.map((v, j) => v - wanted[i][j])) / Math.hypot(...wanted[i]);
    assert.ok(error < 0.08, `gradient ${i}: ${error}`);
    assert.ok(error > 0 || i === 4, `gradient ${i} was not rounded`);
  });
});

Deno.test("layers whose extents no 8-bit product takes are as without fp8 to the bit", () => {
  assert.equal(canQuantize("f32", 4, 24, 16), false);
  assert.equal(canQuantize("f32", 0, 16, 16), false);
  step(() => {
    const x = tensor(random(1, 4 * 10), [4, 10]), w = tensor(random(2, 60), [6, 10]);
    assert.deepEqual(linear(x, w, null, { fp8: true }).read(), linear(x, w).read());
  });
});

const SHAPES = [[2, 8, 32], [3, 5, 272], [1, 40, 1040]] as const; // B, L, C

/** A norm of a residual sum and two linear layers after it, the tokens' sums among the results; `fused` is whether the norms are made in 8 bits. */
function normed(
  fused: boolean | "both",
  [B, L, C]: readonly number[],
  choice: Choice = "keep",
  bad = 0,
  fp8: true | "all" = true,
): Float32Array[] {
  return step(() => {
    const leaf = (seed: number, shape: number[]): Tensor => {
      const size = shape.reduce((a, b) => a * b);
      return tensor(random(seed, size).map((v, i) => i === 7 && seed === bad ? NaN : v), shape, { requiresGrad: true });
    };
    const leaves = [
      leaf(1, [B, L, C]),
      leaf(2, [B, L, C]),
      leaf(3, [B, 6 * C]),
      leaf(4, [32, C]),
      leaf(5, [32]),
      leaf(6, [C, 32]),
      leaf(7, [C]),
    ];
    const [x, h, m, w1, b1, w2, b2] = leaves, [shift, scale, gate, shift2, scale2, gate2] = modulationParts(m, 6);
    const y = withChoice(() => choice, () =>
      tidy(() => {
        const [sum, n] = residualNorm(x, h, gate, { shift, scale, eps: 1e-6, fp8: fused });
        const a = gateAdd(sum, feedForward(n, [w1, b1], [w2, b2], { fp8 }), gate2);
        const p = linear(layerNormModulate(a, shift2, scale2, { fp8: fused }), w1, b1, { fp8: true });
        return linear(p, w2, b2, { fp8: true, activation: "gelu" });
      }));
    backward(y, tensor(random(8, y.size), y.shape));
    return [y, ...leaves.map((t) => t.grad!)].map((t) => t.read());
  });
}

Deno.test("norms that are made in 8 bits give the layers after them the same bits, kept or made again", () => {
  for (const [fp8, shape] of ([true, "all"] as const).flatMap((fp8) => SHAPES.map((shape) => [fp8, shape] as const))) {
    const want = normed(false, shape, "keep", 0, fp8);
    for (const fused of [true, "both", false] as const) {
      for (const choice of ["keep", "drop"] as const) assert.deepEqual(normed(fused, shape, choice, 0, fp8), want);
    }
  }
});

Deno.test("norms of as many rows as take rings on CUDA are in 8 bits as those that are made in the dtype and then rounded, to the bit", () => {
  const dtype = device().name === "cpu" ? "f32" as const : "bf16" as const, [B, L] = [2, 4300];
  for (const C of [528, 1024]) {
    const run = (fp8: boolean): Float32Array[] =>
      step(() => {
        const make = (seed: number, shape: number[]): Tensor => tensor(random(seed, shape.reduce((a, b) => a * b)), shape, { dtype });
        const [x, h, m, w] = [make(1, [B, L, C]), make(2, [B, L, C]), make(3, [B, 3 * C]), make(4, [16, C])];
        const [shift, scale, gate] = modulationParts(m, 3), at = { shift, scale, eps: 1e-6, fp8 }, [sum, y] = residualNorm(x, h, gate, at);
        const alone = layerNormModulate(x, shift, scale, { fp8 });
        return [sum, ...[y, alone].map((t) => linear(t, w, null, { fp8: true }))].map((t) => t.read());
      });
    assert.deepEqual(run(true), run(false));
  }
});

Deno.test("a norm that is made in 8 bits can be read by other ops, as often as they like", () => {
  step(() => {
    const x = tensor(random(1, 96), [2, 48]), [shift, scale] = [random(2, 96), random(3, 96)].map((v) => tensor(v, [2, 48]));
    const eight = layerNormModulate(x, shift, scale, { fp8: true }), plain = layerNormModulate(x, shift, scale);
    assert.deepEqual(eight.read(), plain.read());
    assert.deepEqual(add(eight, eight).read(), add(plain, plain).read());
    x.requiresGrad = true;
    const grad = (fp8: boolean): Float32Array => {
      const y = layerNormModulate(x, shift, scale, { fp8 });
      backward(mul(y, y), tensor(random(4, 96), [2, 48]));
      const g = x.grad!.read();
      x.grad = null;
      return g;
    };
    assert.deepEqual(grad(true), grad(false));
  });
});

Deno.test("what is not finite reaches the results and every gradient that it belongs to", () => {
  for (const bad of [1, 4]) {
    const [y, dx, , , dw1] = normed(true, SHAPES[1], "keep", bad);
    for (const g of [y, dx, dw1]) assert.ok(g.some((v) => !Number.isFinite(v)));
  }
});

for (const [B, L, C] of [[2, 64, 96], [3, 77, 272], [2, 100, 1040], [1, 130, 2048]]) {
  checkDevices(`norms in fp8 [${B}, ${L}, ${C}]`, import.meta.url, {
    inputs: {
      x: { shape: [B, L, C], data: random(1, B * L * C) },
      h: { shape: [B, L, C], data: random(2, B * L * C) },
      m: { shape: [B, 3 * C], data: random(3, B * 3 * C) },
      w: { shape: [32, C], data: random(4, 32 * C) },
    },
    run({ x, h, m, w }) {
      const [shift, scale, gate] = modulationParts(m, 3), [sum, y] = residualNorm(x, h, gate, { shift, scale, eps: 1e-6, fp8: true });
      return add(linear(y, w, null, { fp8: true }), linear(layerNormModulate(sum, shift, scale, { fp8: true }), w, null, { fp8: true }));
    },
    dtypes: ["f16", "bf16"],
    tolerance: { f16: 4e-2, bf16: 4e-2 },
  });
}

const LAYERS = [[64, 32, 96], [1000, 512, 128], [1500, 1040, 16], [700, 2576, 16], [130, 48, 1040], [5, 16, 2048], [1500, 4080, 32], [
  300,
  6160,
  16,
]];
for (const [M, N, K] of LAYERS) {
  const inputs = {
    x: { shape: [M, K], data: random(1, M * K) },
    w: { shape: [N, K], data: random(2, N * K) },
    b: { shape: [N], data: random(3, N) },
  };
  const cases = { dtypes: ["f16", "bf16"] as ("f16" | "bf16")[], tolerance: { f16: 2e-2, bf16: 2e-2 } };
  checkDevices(`linear() in fp8 [${M}, ${K}] to ${N}`, import.meta.url, {
    inputs,
    run: ({ x, w, b }) => linear(x, w, b, { fp8: true }),
    ...cases,
  });
  for (const fp8 of [true, "all"] as const) {
    checkDevices(`feedForward() in fp8${fp8 === "all" ? " all" : ""} [${M}, ${K}] through ${N}`, import.meta.url, {
      inputs: { ...inputs, w2: { shape: [K, N], data: random(4, K * N) }, b2: { shape: [K], data: random(5, K) } },
      run: ({ x, w, b, w2, b2 }) => feedForward(x, [w, b], [w2, b2], { fp8 }),
      ...cases,
      tolerance: { f16: 4e-2, bf16: 4e-2 },
    });
  }
}

Deno.test("roundOnce() rounds what several layers in fp8 read once, with the same results and gradients to the bit", () => {
  const [x, w, dy] = [M * K, N * K, M * N].map((size, i) => random(i + 1, size)), dtype = device().name === "cpu" ? "f32" : "bf16";
  const found = [false, true].map((once) =>
    step(() => {
      const [a, b] = [w, w.map((v) => -v)].map((data) => tensor(data, [N, K], { dtype, requiresGrad: true }));
      const input = tensor(x, [M, K], { dtype, requiresGrad: true });
      let quantized = 0;
      const before = observe((name, _, call) => (quantized += Number(name === "k_fp8_quantize_fwd"), call()));
      if (once) roundOnce(input);
      const y = add(tidy(() => linear(input, a, null, { fp8: true })), tidy(() => linear(input, b, null, { fp8: true })));
      observe(before);
      const values = y.read();
      backward(y, tensor(dy, [M, N], { dtype }));
      return { quantized, values: [values, ...[input, a, b].map((t) => t.grad!.read())] };
    })
  );
  assert.deepEqual(found[1].values, found[0].values);
  assert.deepEqual(found.map((f) => f.quantized), [4, 3]);
});
