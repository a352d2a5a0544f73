import assert from "node:assert/strict";
import { sum } from "../../lib/ops/reduce.ts";
import { linear, matmul } from "../../lib/ops/matmul.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward, parameter } from "../../lib/tensor/tape.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
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

for (const [M, N, K] of [[1, 1, 1], [3, 5, 7], [4, 16, 9], [130, 3, 2]]) {
  for (const activation of ["none", "gelu"] as const) {
    Deno.test(`linear() and its gradients match the definition at [${M}, ${K}] to ${N} with activation ${activation}`, () => {
      checkOp({
        inputs: {
          x: { shape: [M, K], data: random(1, M * K) },
          w: { shape: [N, K], data: random(2, N * K) },
          b: { shape: [N], data: random(3, N) },
        },
        run: ({ x, w, b }) => linear(x, w, b, { activation }),
        reference: ({ x, w, b }) => {
          const y = linearReference(x, w, b, K, N);
          return activation === "gelu" ? y.map(gelu) : y;
        },
      });
    });
  }
}

Deno.test("linear() adds to the gradients that parameters have, and to no other memory", () =>
  step(() => {
    const [M, K, N] = [5, 3, 4], x = tensor(random(1, M * K), [M, K]);
    const [w, b] = [[N, K], [N]].map((shape) => parameter(tensor(random(2, shape.reduce((a, n) => a * n)), shape), zeros(shape)));
    const memory = w.grad, once = (): void => backward(sum(linear(x, w, b)));
    once();
    const first = [w, b].map((t) => t.grad!.read());
    once();
    once();
    assert.equal(w.grad, memory);
    [w, b].forEach((t, i) => assertClose("three passes", t.grad!.read(), first[i].map((v) => 3 * v), { rtol: 1e-6, atol: 1e-6 }));
  }));

Deno.test("linear() without a bias is the product alone", () => {
  checkOp({
    inputs: { x: { shape: [2, 2, 3], data: random(1, 12) }, w: { shape: [4, 3], data: random(2, 12) } },
    run: ({ x, w }) => linear(x, w),
    reference: ({ x, w }) => linearReference(x, w, undefined, 3, 4),
  });
});

Deno.test("linear() of no rows is empty and its gradients are zero", () => {
  const x = tensor([], [0, 3]), w = tensor(random(1, 6), [2, 3]);
  assert.deepEqual(linear(x, w).shape, [0, 2]);
});

Deno.test("linear() says which shape or dtype is wrong and what it must be", () => {
  const x = tensor(random(1, 6), [2, 3]), w = tensor(random(2, 8), [2, 4]);
  assert.throws(() => linear(x, w), { message: "Cannot run linear: w is [2,4], it must be [2,3]" });
  assert.throws(() => linear(x, tensor(random(2, 6), [2, 3], { dtype: "bf16" })), {
    message: "Cannot run linear: w is bf16, it must be f32",
  });
});

for (const transposeA of [false, true]) {
  for (const transposeB of [false, true]) {
    for (const [leadA, leadB] of [[[], []], [[3], [3]], [[3], []], [[], [2]]]) {
      const [M, N, K] = [3, 4, 5], batch = Math.max(...leadA, ...leadB, 1);
      Deno.test(`matmul() of leading axes [${leadA}] and [${leadB}], transposed ${transposeA} and ${transposeB}, matches the definition`, () => {
        checkOp({
          inputs: {
            a: { shape: [...leadA, ...(transposeA ? [K, M] : [M, K])], data: random(1, (leadA[0] ?? 1) * M * K) },
            b: { shape: [...leadB, ...(transposeB ? [N, K] : [K, N])], data: random(2, (leadB[0] ?? 1) * N * K) },
          },
          run: ({ a, b }) => matmul(a, b, { transposeA, transposeB }),
          reference: ({ a, b }) => {
            const y = new Float64Array(batch * M * N);
            for (let z = 0; z < batch; z++) {
              const a0 = leadA.length ? z * M * K : 0, b0 = leadB.length ? z * N * K : 0;
              for (let m = 0; m < M; m++) {
                for (let n = 0; n < N; n++) {
                  for (let k = 0; k < K; k++) {
                    y[(z * M + m) * N + n] += a[a0 + (transposeA ? k * M + m : m * K + k)] * b[b0 + (transposeB ? n * K + k : k * N + n)];
                  }
                }
              }
            }
            return y;
          },
        });
      });
    }
  }
}

for (const [M, N, K] of [[1, 8, 16], [77, 24, 40], [1025, 192, 64], [512, 1024, 256], [33, 7, 5]]) {
  for (const activation of ["none", "gelu"] as const) {
    checkDevices(`linear() [${M}, ${K}] to ${N} with activation ${activation}`, import.meta.url, {
      inputs: {
        x: { shape: [M, K], data: random(1, M * K) },
        w: { shape: [N, K], data: random(2, N * K) },
        b: { shape: [N], data: random(3, N) },
      },
      run: ({ x, w, b }) => linear(x, w, b, { activation }),
    });
  }
}
checkDevices("linear() twice with one weight adds its gradients", import.meta.url, {
  inputs: { x: { shape: [200, 64], data: random(1, 200 * 64) }, w: { shape: [64, 64], data: random(2, 64 * 64) } },
  run: ({ x, w }) => linear(linear(x, w), w),
});

checkDevices("matmul() of batches", import.meta.url, {
  inputs: { a: { shape: [3, 40, 24], data: random(1, 3 * 960) }, b: { shape: [3, 56, 24], data: random(2, 3 * 1344) } },
  run: ({ a, b }) => matmul(a, b, { transposeB: true }),
});
