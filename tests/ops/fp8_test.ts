import assert from "node:assert/strict";
import { feedForward } from "../../lib/ops/feed_forward.ts";
import { canQuantize, dequantize, quantize, transposeQuantized } from "../../lib/ops/fp8.ts";
import { full } from "../../lib/ops/cast.ts";
import { add, mul } from "../../lib/ops/elementwise.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { gateAdd, layerNormModulate } from "../../lib/ops/modulate.ts";
import { modulationParts } from "../../lib/ops/norm.ts";
import { residualNorm } from "../../lib/ops/residual_norm.ts";
import { device } from "../../lib/tensor/device.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { type Choice, withChoice } from "../../lib/tensor/storage.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { empty, type Tensor, tensor, tensorFromBytes } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, random } from "../check.ts";

/** The value of the bits of E4M3: sign, 4 bits of exponent, 3 of mantissa. */
function decode(bits: number): number {
  const exponent = bits >> 3 & 15, mantissa = bits & 7, sign = bits & 128 ? -1 : 1;
  if (exponent === 15 && mantissa === 7) return NaN;
  return sign * (exponent ? (1 + mantissa / 8) * 2 ** (exponent - 7) : mantissa * 2 ** -9);
}

const VALUES = Array.from({ length: 127 }, (_, bits) => decode(bits)); // of the bits 0 to 126, ascending

/** v rounded to the nearest value of E4M3, of two that are as near to that with even bits. */
function round(v: number): number {
  const size = Math.abs(v);
  let best = 0;
  VALUES.forEach((value, bits) => {
    const better = Math.abs(value - size) - Math.abs(VALUES[best] - size);
    if (better < 0 || (better === 0 && bits % 2 === 0)) best = bits;
  });
  return Math.sign(v) * VALUES[best];
}

/** What the rows [N, C] of `x` are in 8 bits, and their scales. */
function rounded(x: ArrayLike<number>, C: number): { values: Float64Array; scale: number[] } {
  const scale = Array.from({ length: x.length / C }, (_, n) => {
    const most = Array.from({ length: C }, (_, c) => Math.abs(x[n * C + c])).reduce((a, b) => Math.max(a, b), 0);
    return most === 0 ? 1 : 2 ** Math.ceil(Math.log2(most / 448));
  });
  return { values: Float64Array.from(x, (v, i) => round(v / scale[Math.floor(i / C)])), scale };
}

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

Deno.test("dequantize() knows all values of E4M3", () => {
  step(() => {
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i),
      scale = tensor(Float32Array.from({ length: 32 }, (_, n) => 2 ** (n % 4)), [32]);
    const values = tensorFromBytes(bytes, [32, 8], "u8"), want = Array.from(bytes, decode);
    assert.deepEqual([...dequantize(values, null).read()], want);
    assert.deepEqual([...dequantize(values, scale).read()], want.map((v, i) => v * 2 ** (Math.floor(i / 8) % 4)));
  });
});

Deno.test("quantize() rounds to the nearest value, halves to even, and fills the range of each row", () => {
  step(() => {
    const [N, C] = [9, 64], wide = random(1, N * C).map((v, i) => v * 10 ** (i % 7 - 5));
    const halves = VALUES.slice(0, 126).flatMap((v, i) => [v, (v + VALUES[i + 1]) / 2]), row = [448, ...halves.slice(0, 251), 0, 0, 0, 0];
    for (const [x, width] of [[wide, C], [Float32Array.from(row), 256]] as [Float32Array<ArrayBuffer>, number][]) {
      const rows = x.length / width, { values, scale } = quantize(tensor(x, [rows, width]), [rows, width]), want = rounded(x, width);
      assert.deepEqual([...scale.read()], want.scale);
      assert.deepEqual([...dequantize(values, null).read()].map((v) => v + 0), [...want.values].map((v) => v + 0));
    }
  });
});

Deno.test("quantize() of zeros is zero with scale 1, and of what is not finite is not finite", () => {
  step(() => {
    const x = tensor([...new Array(16).fill(0), ...new Array(15).fill(1), NaN, ...new Array(15).fill(1), Infinity], [3, 16]);
    const { values, scale } = quantize(x, [3, 16]), back = dequantize(values, scale).read();
    assert.deepEqual([...back.subarray(0, 16)], new Array(16).fill(0));
    assert.deepEqual([...scale.read()], [1, NaN, NaN]);
    for (const row of [1, 2]) assert.ok(!back.subarray(16 * row, 16 * row + 16).every(Number.isFinite));
    assert.deepEqual(quantize(tensor([], [0, 16]), [0, 16]).scale.shape, [0]);
  });
});

Deno.test("quantize() multiplies by columns and applies the GELU first", () => {
  step(() => {
    const x = random(1, 48),
      by = random(2, 16),
      gelu = (v: number): number => v / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
    const { values, scale } = quantize(tensor(x, [3, 16]), [3, 16], { activation: "gelu", columns: tensor(by, [16]) });
    const want = Array.from(x, (v, i) => gelu(v) * by[i % 16]), largest = Math.max(...want.map(Math.abs));
    assertClose("values", dequantize(values, scale).read(), want, { rtol: 0.07, atol: largest / 448 });
  });
});

Deno.test("quantize() sums columns on its way", () => {
  step(() => {
    for (const [N, C] of [[1, 16], [37, 272], [3000, 48], [9, 2048]]) {
      const x = random(1, N * C), sums = empty([C]), { values } = quantize(tensor(x, [N, C]), [N, C], { columns: full([C], 0.25), sums });
      const want = Array.from({ length: C }, (_, c) => Array.from({ length: N }, (_, n) => x[n * C + c]).reduce((a, v) => a + v, 0));
      assertClose("sums", sums.read(), want, { rtol: 1e-5, atol: 1e-4 });
      assert.deepEqual(values.readRaw(), quantize(tensor(x, [N, C]), [N, C]).values.readRaw());
    }
  });
});

Deno.test("rows of any size have a scale within f32's range", () => {
  step(() => {
    const sizes = [2.9e38, 448, 448.1, 1, 1e-20, 1e-38, 1e-44],
      { values, scale } = quantize(tensor(sizes.flatMap((v) => new Array(16).fill(v)), [7, 16]), [7, 16]);
    const scales = [...scale.read()], back = dequantize(values, scale).read();
    assert.deepEqual(scales.slice(0, 4), [2 ** 119, 1, 2, 2 ** -8]);
    assert.ok(scales.every((v) => v >= 2 ** -120 && Number.isFinite(v)));
    sizes.slice(0, 5).forEach((v, n) => assert.ok(Math.abs(back[16 * n] / v - 1) <= 1 / 16));
    for (const n of [5, 6]) assert.ok(Math.abs(back[16 * n] - sizes[n]) <= 2 ** -129);
  });
});

Deno.test("transposeQuantized() multiplies rows by powers of two and fills up with zeros", () => {
  step(() => {
    for (const [N, C] of [[16, 16], [5, 48], [130, 272], [300, 144]]) {
      const { values } = quantize(tensor(random(1, N * C), [N, C]), [N, C]), P = Math.ceil(N / 16) * 16;
      const by = Float32Array.from({ length: N }, (_, n) => 2 ** -(n % 23)), x = dequantize(values, null).read();
      for (const factor of [null, tensor(by, [N])]) {
        const y = transposeQuantized(values, factor);
        assert.deepEqual(y.shape, [C, P]);
        const want = Array.from({ length: C * P }, (_, i) => {
          const n = i % P, c = Math.floor(i / P);
          return n < N ? round(x[n * C + c] * (factor ? by[n] : 1)) + 0 : 0;
        });
        assert.deepEqual([...dequantize(y, null).read()].map((v) => v + 0), want);
      }
    }
  });
});

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

Deno.test("layers whose extents no 8-bit product takes are as without fp8 to the bit", () => {
  assert.equal(canQuantize("f32", 4, 24, 16), false);
  assert.equal(canQuantize("f32", 0, 16, 16), false);
  step(() => {
    const x = tensor(random(1, 4 * 10), [4, 10]), w = tensor(random(2, 60), [6, 10]);
    assert.deepEqual(linear(x, w, null, { fp8: true }).read(), linear(x, w).read());
  });
});

const SHAPES = [[2, 8, 32], [3, 5, 272], [1, 40, 1040]] as const; // B, L, C

/** A norm of a residual sum and two linear layers after it, the tokens' sums among the results; `fused` is whether the norm is made in 8 bits. */
function normed(fused: boolean, [B, L, C]: readonly number[], choice: Choice = "keep", bad = 0): Float32Array[] {
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
        const a = gateAdd(sum, feedForward(n, [w1, b1], [w2, b2], { fp8: true }), gate2);
        const p = linear(layerNormModulate(a, shift2, scale2, { fp8: fused }), w1, b1, { fp8: true });
        return linear(p, w2, b2, { fp8: true, activation: "gelu" });
      }));
    backward(y, tensor(random(8, y.size), y.shape));
    return [y, ...leaves.map((t) => t.grad!)].map((t) => t.read());
  });
}

Deno.test("norms that are made in 8 bits give the layers after them the same bits, kept or made again", () => {
  for (const shape of SHAPES) {
    const want = normed(false, shape);
    assert.deepEqual(normed(true, shape), want);
    assert.deepEqual(normed(true, shape, "drop"), want);
    assert.deepEqual(normed(false, shape, "drop"), want);
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

for (const [M, N, K] of [[64, 32, 96], [1000, 512, 128], [130, 48, 1040], [5, 16, 2048]]) {
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
  checkDevices(`feedForward() in fp8 [${M}, ${K}] through ${N}`, import.meta.url, {
    inputs: { ...inputs, w2: { shape: [K, N], data: random(4, K * N) }, b2: { shape: [K], data: random(5, K) } },
    run: ({ x, w, b, w2, b2 }) => feedForward(x, [w, b], [w2, b2], { fp8: true }),
    ...cases,
    tolerance: { f16: 4e-2, bf16: 4e-2 },
  });
}
