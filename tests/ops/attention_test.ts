import assert from "node:assert/strict";
import { attention, crossAttention, selfAttention } from "../../lib/ops/attention.ts";
import { concat, reshape, slice } from "../../lib/ops/movement.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, type DeviceCase, type Input, random, runCase } from "../check.ts";
import { denseSpans, reference as definition, unpack, values, withFields } from "./attention_reference.ts";

interface Sizes {
  B: number;
  L: number;
  M: number;
  H: number;
  D: number;
}

/** The definition, on contiguous q [B, L, H, D] and k, v [B, M, H, D]. */
function reference(q: Float64Array, k: Float64Array, v: Float64Array, { B, L, M, H, D }: Sizes, scale?: number): Float64Array {
  return definition(q, k, v, { spans: denseSpans(B, L, M), H, D, scale });
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

function says(run: () => unknown, message: string): void {
  assert.throws(() => step(run), (error: Error) => (assert.equal(error.message, message), true));
}

Deno.test("attention() refuses shapes, dtypes, widths and scales that it does not know", () => {
  const x = (M = 2) => zeros([1, M, 1, 8]);
  says(() => attention(zeros([2, 8]), x(), x()), "Cannot run attention: q is [2,8], it must be [B, L, H, D]");
  says(() => attention(x(), x(), x(3)), "Cannot run attention: v is [1,3,1,8], it must be [1,2,1,8]");
  says(() => attention(x(), x(), zeros([1, 2, 1, 8], "f16")), "Cannot run attention: input 2 is f16, it must be f32");
  says(() => selfAttention(zeros([1, 2, 2, 1, 8])), "Cannot run selfAttention: qkv is [1,2,2,1,8], it must be [B, L, 3, H, D]");
  says(() => crossAttention(x(), zeros([2, 3, 2, 1, 8])), "Cannot run crossAttention: kv is [2,3,2,1,8], it must be [1,3,2,1,8]");
  says(() => selfAttention(zeros([1, 2, 3, 1, 129])), "Cannot run k_attention_workspace: D is 129, it must be 1 to 128");
  says(() => attention(x(), x(), x(), { scale: 0 }), "Cannot run k_attention_fwd: scale is 0, it must be finite and > 0");
  says(() => attention(x(), x(), x(), { scale: NaN }), "Cannot run k_attention_fwd: scale is nan, it must be finite and > 0");
});

Deno.test("k_attention refuses what no caller may pass, and names it", () => {
  const x = () => tensor(random(1, 16), [1, 2, 1, 8], { requiresGrad: true }), run = () => attention(x(), x(), x());
  const refused = (fields: Parameters<typeof withFields>[0], message: string): void => says(() => withFields(fields, run), message);
  refused({ struct_size: 392n }, "Cannot run k_attention_workspace: struct_size is 392, it must be 400");
  refused({ dtype: 3n }, "Cannot run k_attention_workspace: dtype is 3, it must be f32 (0), f16 (1) or bf16 (2)");
  refused({ flags: 1n }, "Cannot run k_attention_workspace: flags is 1, it must be a sum of 2 and 4");
  refused({ B: -1n }, "Cannot run k_attention_workspace: B is -1, it must be 0 to 2^31 - 1");
  refused({ L: 1n << 40n }, "Cannot run k_attention_workspace: L is 1099511627776, it must be 0 to 2^31 - 1");
  refused({ dtype: 2n, D: 12n }, "Cannot run k_attention_workspace: D is 12, in f16 and bf16 it must be a multiple of 8");
  refused({ dtype: 1n, k_token: 12n }, "Cannot run k_attention_fwd: k_token is 12, in f16 and bf16 it must be a multiple of 8");
  refused({ dtype: 2n, o_batch: -4n }, "Cannot run k_attention_fwd: o_batch is -4, in f16 and bf16 it must be a multiple of 8");
  refused({ dtype: 1n, v: 4104n }, "Cannot run k_attention_fwd: v lies 8 bytes behind a multiple of 16, it must lie at one");
  refused({ q: 4098n }, "Cannot run k_attention_fwd: q lies 2 bytes behind a multiple of 4, it must lie at one");
  refused({ k: 0n }, "Cannot run k_attention_fwd: k is 0, it must be an address");
  refused({ lse: 0n }, "Cannot run k_attention_fwd: lse is 0, it must be an address");
  step(() => {
    const short = (fields: Parameters<typeof withFields>[0], message: RegExp): void => {
      const y = run();
      assert.throws(() => withFields(fields, () => backward(y, zeros(y.shape))), message);
    };
    short({ workspace_bytes: 7n }, /^KernelError: Cannot run k_attention_bwd: workspace_bytes is 7, it must be at least \d+$/);
    short({ workspace: 0n }, /^KernelError: Cannot run k_attention_bwd: workspace is 0, it must be an address$/);
    short(
      { workspace: 4104n },
      /^KernelError: Cannot run k_attention_bwd: workspace lies 8 bytes behind a multiple of 16, it must lie at one$/,
    );
    short({ d_o: 0n }, /^KernelError: Cannot run k_attention_bwd: d_o is 0, it must be an address$/);
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

const LENGTHS = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129];

/** Attention of H heads over several [L, M] one after the other, as one op: their q, k and v lie behind each other. */
function severalCase(pairs: [L: number, M: number][], H: number, D: number): DeviceCase<"q" | "k" | "v"> {
  const N = pairs.reduce((n, [L]) => n + L, 0), total = pairs.reduce((n, [, M]) => n + M, 0);
  return {
    get inputs() {
      return { q: values(13, [N, H, D], 2), k: values(14, [total, H, D], 2), v: values(15, [total, H, D]) };
    },
    run: ({ q, k, v }) => {
      let l = 0, m = 0;
      const part = (x: Tensor, from: number, n: number): Tensor => reshape(slice(x, 0, from, from + n), [1, n, H, D]);
      return concat(
        pairs.map(([L, M]) => attention(part(q, (l += L, l - L), L), part(k, (m += M, m - M), M), part(v, m - M, M))),
        1,
      );
    },
  };
}

for (const D of [8, 32, 64, 80, 96, 128]) {
  checkDevices(`attention() at [2, 257, 3, ${D}] over 130 keys`, import.meta.url, {
    inputs: separate({ B: 2, L: 257, M: 130, H: 3, D }, 2),
    run: ({ q, k, v }) => attention(q, k, v),
  });
  const pairs = LENGTHS.map((L, i): [number, number] => [L, LENGTHS[i * 4 % 11]]);
  checkDevices(
    `attention() of edge lengths of width ${D}`,
    import.meta.url,
    severalCase([...pairs, [64, 64], [128, 128], [129, 129]], 2, D),
  );
}
for (const D of [64, 128]) {
  checkDevices(`attention() of long sequences of width ${D}`, import.meta.url, {
    ...severalCase([[1000, 1374], [1374, 1000], [4096, 1374], [53_000, 17], [17, 65_537]], 1, D),
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
checkDevices("attention() where scores reach +-1e5", import.meta.url, {
  inputs: {
    q: { ...values(1, [1, 129, 2, 64], 300), grad: false },
    k: { ...values(2, [1, 200, 2, 64], 300), grad: false },
    v: values(3, [1, 200, 2, 64]),
  },
  run: ({ q, k, v }) => attention(q, k, v),
});

/** Adds to the scores of batch 0's odd keys, and of all of batch 1's, about -5000: as good as masked, but for rows that see nothing else. */
function maskedCase(): Record<"q" | "k" | "v", Input> {
  const { q, k, v } = separate({ B: 2, L: 130, M: 150, H: 2, D: 64 }, 2);
  for (let i = 0; i < q.data.length; i += 64) q.data[i] = 200;
  for (let i = 0; i < k.data.length; i += 64) k.data[i] = i >= k.data.length / 2 || Math.floor(i / 128) % 2 ? -200 : 0;
  return { q, k, v };
}
checkDevices("attention() where scores are as good as -inf", import.meta.url, {
  inputs: maskedCase(),
  run: ({ q, k, v }) => attention(q, k, v),
  tolerance: { f32: 2e-3, f16: 1e-2, bf16: 5e-2 }, // f32 scores near -5000 keep four digits, and delta that is summed from a rounded o is multiplied by 200
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
