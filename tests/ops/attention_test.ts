import assert from "node:assert/strict";
import { attention, crossAttention, selfAttention } from "../../lib/ops/attention.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, type Input, random, runCase } from "../check.ts";

interface Sizes {
  B: number;
  L: number;
  M: number;
  H: number;
  D: number;
}

/** The definition, on contiguous q [B, L, H, D] and k, v [B, M, H, D]. */
function reference(q: Float64Array, k: Float64Array, v: Float64Array, { B, L, M, H, D }: Sizes, scale = 1 / Math.sqrt(D)): Float64Array {
  const o = new Float64Array(B * L * H * D);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const key = (m: number) => ((b * M + m) * H + h) * D;
      for (let l = 0; l < L; l++) {
        const at = ((b * L + l) * H + h) * D,
          scores = Float64Array.from({ length: M }, (_, m) => {
            let s = 0;
            for (let d = 0; d < D; d++) s += q[at + d] * k[key(m) + d];
            return s * scale;
          });
        const top = scores.reduce((x, y) => Math.max(x, y), -Infinity), p = scores.map((s) => Math.exp(s - top));
        const sum = p.reduce((x, y) => x + y, 0);
        for (let m = 0; m < M; m++) for (let d = 0; d < D; d++) o[at + d] += p[m] / sum * v[key(m) + d];
      }
    }
  }
  return o;
}

/** Slot `slot` of a packed [tokens, slots, H D] array. */
function unpack(x: Float64Array, slots: number, slot: number, width: number): Float64Array {
  return Float64Array.from({ length: x.length / slots }, (_, i) => x[(Math.floor(i / width) * slots + slot) * width + i % width]);
}

function values(seed: number, shape: number[], size = 1): Input {
  return { shape, data: random(seed, shape.reduce((a, b) => a * b, 1)).map((x) => x * size) };
}

function separate({ B, L, M, H, D }: Sizes, size = 1): { q: Input; k: Input; v: Input } {
  return { q: values(1, [B, L, H, D], size), k: values(2, [B, M, H, D], size), v: values(3, [B, M, H, D]) };
}

for (
  const n of [
    { B: 1, L: 1, M: 1, H: 1, D: 1 },
    { B: 2, L: 5, M: 7, H: 2, D: 8 },
    { B: 1, L: 1, M: 6, H: 3, D: 5 },
    { B: 1, L: 4, M: 1, H: 1, D: 16 },
    { B: 1, L: 3, M: 259, H: 1, D: 2 },
    { B: 1, L: 67, M: 3, H: 1, D: 2 },
  ]
) {
  Deno.test(`attention() and its gradients match the definition at ${JSON.stringify(n)}`, () => {
    checkOp({ inputs: separate(n), run: ({ q, k, v }) => attention(q, k, v), reference: ({ q, k, v }) => reference(q, k, v, n) });
  });
}

Deno.test("attention() takes a scale", () => {
  const n = { B: 1, L: 3, M: 4, H: 2, D: 4 };
  checkOp({
    inputs: separate(n),
    run: ({ q, k, v }) => attention(q, k, v, { scale: 2 }),
    reference: ({ q, k, v }) => reference(q, k, v, n, 2),
  });
});

Deno.test("attention() stays exact where scores reach +-100", () => {
  const n = { B: 1, L: 6, M: 9, H: 1, D: 8 };
  checkOp({
    inputs: separate(n, 11),
    run: ({ q, k, v }) => attention(q, k, v),
    reference: ({ q, k, v }) => reference(q, k, v, n),
    rtol: 1e-4,
    atol: 1e-5,
  });
});

Deno.test("attention() over no keys gives zeros, and over no queries gives gradients of zero", () => {
  const none = { B: 2, L: 3, M: 0, H: 2, D: 8 };
  checkOp({ inputs: separate(none), run: ({ q, k, v }) => attention(q, k, v), reference: ({ q }) => new Float64Array(q.length) });
  const empty = { B: 2, L: 0, M: 3, H: 2, D: 8 };
  checkOp({ inputs: separate(empty), run: ({ q, k, v }) => attention(q, k, v), reference: () => [] });
});

Deno.test("attention() gives gradients to the inputs that want one", () => {
  const n = { B: 1, L: 3, M: 4, H: 2, D: 8 };
  for (const wanted of ["q", "k", "v"] as const) {
    const inputs = separate(n);
    for (const name of ["q", "k", "v"] as const) inputs[name].grad = name === wanted;
    checkOp({ inputs, run: ({ q, k, v }) => attention(q, k, v), reference: ({ q, k, v }) => reference(q, k, v, n) });
  }
});

Deno.test("selfAttention() reads a packed projection and gives its gradient packed", () => {
  const n = { B: 2, L: 5, M: 5, H: 2, D: 8 };
  checkOp({
    inputs: { qkv: values(4, [2, 5, 3, 2, 8]) },
    run: ({ qkv }) => selfAttention(qkv),
    reference: ({ qkv }) => reference(unpack(qkv, 3, 0, 16), unpack(qkv, 3, 1, 16), unpack(qkv, 3, 2, 16), n),
  });
});

Deno.test("crossAttention() reads packed keys and values and gives their gradient packed", () => {
  const n = { B: 2, L: 5, M: 7, H: 2, D: 8 };
  checkOp({
    inputs: { q: values(5, [2, 5, 2, 8]), kv: values(6, [2, 7, 2, 2, 8]) },
    run: ({ q, kv }) => crossAttention(q, kv),
    reference: ({ q, kv }) => reference(q, unpack(kv, 2, 0, 16), unpack(kv, 2, 1, 16), n),
  });
});

Deno.test("selfAttention() twice agrees to the bit, forward and backward", () => {
  const op = {
    inputs: { qkv: values(7, [2, 300, 3, 2, 32], 2) },
    run: ({ qkv }: { qkv: Parameters<typeof selfAttention>[0] }) => selfAttention(qkv),
  };
  assert.deepEqual(runCase(op, "f32"), runCase(op, "f32"));
});

Deno.test("attention() refuses shapes, dtypes, widths and scales that it does not know", () => {
  step(() => {
    const x = zeros([1, 2, 1, 8]), y = zeros([1, 3, 1, 8]);
    const says = (run: () => unknown, message: string) => assert.throws(run, (error: Error) => error.message === message);
    says(() => attention(zeros([2, 8]), x, x), "Cannot run attention: q is [2,8], it must be [B, L, H, D]");
    says(() => attention(x, x, y), "Cannot run attention: v is [1,3,1,8], it must be [1,2,1,8]");
    says(() => attention(x, x, zeros([1, 2, 1, 8], "f16")), "Cannot run attention: input 2 is f16, it must be f32");
    says(() => selfAttention(zeros([1, 2, 2, 1, 8])), "Cannot run selfAttention: qkv is [1,2,2,1,8], it must be [B, L, 3, H, D]");
    says(() => crossAttention(x, zeros([2, 3, 2, 1, 8])), "Cannot run crossAttention: kv is [2,3,2,1,8], it must be [1,3,2,1,8]");
    says(() => selfAttention(zeros([1, 2, 3, 1, 129])), "Cannot run k_attention_fwd: D is 129, it must be 1 to 128");
    says(() => attention(x, x, x, { scale: 0 }), "Cannot run k_attention_fwd: scale is 0, it must be finite and > 0");
    says(() => attention(x, x, x, { scale: NaN }), "Cannot run k_attention_fwd: scale is nan, it must be finite and > 0");
  });
});

Deno.test("selfAttention() keeps what its backward pass needs and no more", () => {
  step(() => {
    const qkv = tensor(random(8, 2 * 3 * 8), [1, 2, 3, 1, 8], { requiresGrad: true }), y = selfAttention(qkv);
    assert.deepEqual(y.node!.saved.map((t) => t.shape), [[1, 2, 3, 1, 8], [1, 2, 1, 8], [1, 1, 2]]);
    backward(y, zeros(y.shape));
    assert.deepEqual(qkv.grad!.read(), new Float32Array(48));
  });
});

for (const D of [8, 32, 64, 80, 128]) {
  checkDevices(`attention() at [2, 257, 3, ${D}] over 130 keys`, import.meta.url, {
    inputs: separate({ B: 2, L: 257, M: 130, H: 3, D }, 2),
    run: ({ q, k, v }) => attention(q, k, v),
  });
}
checkDevices("attention() of an odd width", import.meta.url, {
  inputs: separate({ B: 1, L: 70, M: 65, H: 2, D: 97 }),
  run: ({ q, k, v }) => attention(q, k, v),
  dtypes: ["f32"],
});
checkDevices("attention() of one query in many heads", import.meta.url, {
  inputs: separate({ B: 1, L: 1, M: 3, H: 200, D: 64 }),
  run: ({ q, k, v }) => attention(q, k, v),
});
checkDevices("attention() over no keys", import.meta.url, {
  inputs: separate({ B: 1, L: 130, M: 0, H: 2, D: 64 }),
  run: ({ q, k, v }) => attention(q, k, v),
});
checkDevices("attention() where scores reach +-100", import.meta.url, {
  inputs: separate({ B: 1, L: 129, M: 200, H: 2, D: 64 }, 9),
  run: ({ q, k, v }) => attention(q, k, v),
});
checkDevices("selfAttention() of a packed projection", import.meta.url, {
  inputs: { qkv: values(9, [2, 193, 3, 3, 64], 2) },
  run: ({ qkv }) => selfAttention(qkv),
});
checkDevices("crossAttention() of a packed context", import.meta.url, {
  inputs: { q: values(10, [2, 100, 3, 96], 2), kv: values(11, [2, 1374, 2, 3, 96], 2) },
  run: ({ q, kv }) => crossAttention(q, kv),
});
checkDevices("selfAttention() of 4096 tokens", import.meta.url, {
  inputs: { qkv: values(12, [1, 4096, 3, 1, 64], 2) },
  run: ({ qkv }) => selfAttention(qkv),
});
