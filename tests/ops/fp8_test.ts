import assert from "node:assert/strict";
import { feedForward } from "../../lib/ops/feed_forward.ts";
import { canQuantize, dequantize, quantize } from "../../lib/ops/fp8.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, tensorFromBytes } from "../../lib/tensor/tensor.ts";
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
    return most === 0 ? 1 : most / 448;
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
      assertClose("scale", scale.read(), want.scale, { rtol: 1e-6 });
      assert.deepEqual([...dequantize(values, null).read()].map((v) => v + 0), [...want.values].map((v) => v + 0));
    }
  });
});

Deno.test("quantize() of zeros is zero with scale 1, and of what is not finite is not finite", () => {
  step(() => {
    const x = tensor([...new Array(16).fill(0), ...new Array(15).fill(1), NaN, ...new Array(15).fill(1), Infinity], [3, 16]);
    const { values, scale } = quantize(x, [3, 16]), back = dequantize(values, scale).read();
    assert.deepEqual([...back.subarray(0, 16)], new Array(16).fill(0));
    assert.equal(scale.read()[0], 1);
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
  "linear() in fp8 on the CPU is the product of rounded rows; its gradients are of those weights, of dy rounded, and in full",
  emulated,
  () => {
    const { x, w, b, dy, y, grads: [dx, dw, db] } = layer(true), w8 = rounded(w, K), close = { rtol: 1e-4, atol: 1e-4 };
    const want = product(restored(rounded(x, K), K), restored(w8, K), [M, N, K]).map((v, i) => v + b[i % N]);
    assertClose("y", y, want, close);
    const scaled = Float64Array.from(dy, (v, i) => v * w8.scale[i % N]), dy8 = restored(rounded(scaled, N), N);
    assertClose("dx", dx, product(dy8, transposed(w8.values, [N, K]), [M, K, N]), close);
    assertClose("dw", dw, product(transposed(dy, [M, N]), transposed(x, [M, K]), [N, K, M]), close);
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
  got.grads.forEach((g, i) => assert.ok(error(g, want.grads[i]) < (i ? 1e-6 : 0.05), `gradient ${i}: ${error(g, want.grads[i])}`));
});

Deno.test("layers whose extents no 8-bit product takes are as without fp8 to the bit", () => {
  assert.equal(canQuantize("f32", 4, 24, 16), false);
  assert.equal(canQuantize("f32", 0, 16, 16), false);
  step(() => {
    const x = tensor(random(1, 4 * 10), [4, 10]), w = tensor(random(2, 60), [6, 10]);
    assert.deepEqual(linear(x, w, null, { fp8: true }).read(), linear(x, w).read());
  });
});

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
