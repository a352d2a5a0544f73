import assert from "node:assert/strict";
import { full } from "../../lib/ops/cast.ts";
import { dequantize, gradientOperands, quantize, transposeQuantized } from "../../lib/ops/fp8.ts";
import { step } from "../../lib/tensor/scope.ts";
import { empty, type Tensor, tensor, tensorFromBytes } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { decode, round, rounded, VALUES } from "../e4m3.ts";

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
    for (const [N, C] of [[1, 16], [37, 272], [3000, 48], [9, 2048], [300, 2576], [270, 4080], [140, 6160]]) {
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

Deno.test("transposeQuantized() fills up with zeros", () => {
  step(() => {
    for (const [N, C] of [[16, 16], [5, 48], [130, 272], [300, 144]]) {
      const { values } = quantize(tensor(random(1, N * C), [N, C]), [N, C]),
        x = values.readRaw(),
        y = transposeQuantized(values),
        P = y.shape[1];
      assert.deepEqual([y.shape[0], P], [C, Math.ceil(N / 16) * 16]);
      const want = Uint8Array.from({ length: C * P }, (_, i) => i % P < N ? Number(x[i % P * C + Math.floor(i / P)]) : 0);
      assert.deepEqual(y.readRaw(), want);
    }
  });
});

const powers = (count: number, of: (i: number) => number): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: count }, (_, i) => 2 ** of(i));

/** The transpose [C, P] of values [N, C], each multiplied by `by` and rounded again. */
function transposedBy(values: ArrayLike<number>, [N, C, P]: number[], by: (n: number, c: number) => number): number[] {
  return Array.from({ length: C * P }, (_, i) => {
    const n = i % P, c = Math.floor(i / P);
    return n < N ? round(values[n * C + c] * by(n, c)) + 0 : 0;
  });
}

Deno.test("gradientOperands() puts the scales of rows into one operand and those of columns out of the other", () => {
  step(() => {
    for (const [M, N, K] of [[16, 16, 16], [5, 48, 32], [130, 272, 304], [300, 144, 16]]) {
      const x = quantize(tensor(random(1, M * K).map((v, i) => v * 4 ** (Math.floor(i / K) % 5)), [M, K]), [M, K]);
      const dy = quantize(tensor(random(2, M * N), [M, N]), [M, N]), columns = powers(N, (n) => -10 - n % 5);
      dy.scale.write(powers(M, (m) => -40 - m * 7 % 19));
      const both = dy.scale.read().map((v, m) => v * x.scale.read()[m]), most = Math.max(...both), least = Math.min(...columns);
      const w = quantize(tensor(random(3, N * K), [N, K]), [N, K]).values;
      const { dy: a, x: b, w: wt, scale } = gradientOperands(dy, x, tensor(columns, [N]), w), P = a.shape[1];
      assert.equal(scale.item(), most / least);
      const plain = (t: Tensor): Float32Array => dequantize(t, null).read(), got = (t: Tensor): number[] => [...plain(t)].map((v) => v + 0);
      assert.deepEqual(got(a), transposedBy(plain(dy.values), [M, N, P], (_, n) => least / columns[n]));
      assert.deepEqual(got(b), transposedBy(plain(x.values), [M, K, P], (m) => both[m] / most));
      assert.deepEqual(got(wt!), transposedBy(plain(w), [N, K, N], () => 1));
      dy.scale.write(dy.scale.read().map((v, m) => m === 2 ? NaN : v));
      assert.ok(Number.isNaN(gradientOperands(dy, x, tensor(columns, [N])).scale.item()));
    }
  });
});
