import assert from "node:assert/strict";
import { feedForward } from "../../lib/ops/feed_forward.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { step, tidy } from "../../lib/tensor/scope.ts";
import { withChoice } from "../../lib/tensor/storage.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices, checkOp, random } from "../check.ts";

const GELU_SCALE = Math.sqrt(2 / Math.PI);

function gelu(x: number): number {
  return 0.5 * x * (1 + Math.tanh(GELU_SCALE * (x + 0.044715 * x ** 3)));
}

function linearReference(x: Float64Array, w: Float64Array, b: Float64Array | undefined, K: number, N: number): Float64Array {
  const M = x.length / K, y = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let s = b?.[n] ?? 0;
      for (let k = 0; k < K; k++) s += x[m * K + k] * w[n * K + k];
      y[m * N + n] = s;
    }
  }
  return y;
}

function feedForwardInputs(M: number, K: number, N: number) {
  return {
    x: { shape: [M, K], data: random(1, M * K) },
    w1: { shape: [N, K], data: random(2, N * K) },
    b1: { shape: [N], data: random(3, N) },
    w2: { shape: [K, N], data: random(4, N * K) },
    b2: { shape: [K], data: random(5, K) },
  };
}

for (const [M, K, N] of [[1, 1, 1], [3, 5, 7], [9, 4, 16]]) {
  Deno.test(`feedForward() and its gradients match the definition at [${M}, ${K}] through ${N}`, () => {
    checkOp({
      inputs: feedForwardInputs(M, K, N),
      run: ({ x, w1, b1, w2, b2 }) => feedForward(x, [w1, b1], [w2, b2]),
      reference: ({ x, w1, b1, w2, b2 }) => linearReference(linearReference(x, w1, b1, K, N).map(gelu), w2, b2, N, K),
      rtol: 1e-4,
    });
  });
}

Deno.test("feedForward() has the values and gradients of two linear layers", () => {
  const inputs = feedForwardInputs(6, 8, 32),
    run = (make: (t: Record<string, Tensor>) => Tensor): Float32Array[] =>
      step(() => {
        const leaves = Object.entries(inputs).map(([name, { data, shape }]) =>
          [name, tensor(data, shape, { requiresGrad: true })] as const
        );
        const y = make(Object.fromEntries(leaves));
        backward(y, tensor(random(6, y.size), y.shape));
        return [y.read(), ...leaves.map(([, t]) => t.grad!.read())];
      });
  const got = run(({ x, w1, b1, w2, b2 }) => feedForward(x, [w1, b1], [w2, b2]));
  const want = run(({ x, w1, b1, w2, b2 }) => linear(linear(x, w1, b1, { activation: "gelu" }), w2, b2));
  for (const choice of ["keep", "drop"] as const) {
    const again = run(({ x, w1, b1, w2, b2 }) => withChoice(() => choice, () => tidy(() => feedForward(x, [w1, b1], [w2, b2]))));
    assert.deepEqual(again, got, choice);
  }
  got.forEach((g, i) => assertClose(`output or gradient ${i}`, g, want[i], { rtol: 1e-6, atol: 1e-6 }));
});

for (const [M, K, N] of [[64, 32, 96], [1000, 128, 512], [130, 24, 40], [7, 6, 10]]) {
  checkDevices(`feedForward() [${M}, ${K}] through ${N}`, import.meta.url, {
    inputs: feedForwardInputs(M, K, N),
    run: ({ x, w1, b1, w2, b2 }) => feedForward(x, [w1, b1], [w2, b2]),
    tolerance: { f16: 4e-3, bf16: 3e-2 },
  });
}
