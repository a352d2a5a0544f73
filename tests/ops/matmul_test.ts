import assert from "node:assert/strict";
import { linear, matmul } from "../../lib/ops/matmul.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";

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
checkDevices("matmul() of batches", import.meta.url, {
  inputs: { a: { shape: [3, 40, 24], data: random(1, 3 * 960) }, b: { shape: [3, 56, 24], data: random(2, 3 * 1344) } },
  run: ({ a, b }) => matmul(a, b, { transposeB: true }),
});
