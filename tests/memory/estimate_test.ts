import assert from "node:assert/strict";
import { pack } from "../../ffi/struct.ts";
import { K_ATTENTION, type KAttention } from "../../ffi/symbols.ts";
import { cardFor, CARDS } from "../../lib/memory/cards.ts";
import { attentionWork, kernelTime, matmulTime } from "../../lib/memory/estimate.ts";

const H200 = CARDS.H200;

function attention(values: Partial<KAttention>): BigUint64Array {
  const none = Object.fromEntries(K_ATTENTION.map(([name, kind]) => [name, kind === "u64" ? 0n : 0])) as unknown as KAttention;
  return pack(K_ATTENTION, { ...none, ...values }).slice();
}

Deno.test("cardFor() knows a card by what its driver calls it", () => {
  assert.equal(cardFor("NVIDIA H200").name, "H200");
  assert.equal(cardFor("NVIDIA H100 80GB HBM3").name, "H100 80 GB");
  assert.equal(cardFor("NVIDIA A100-SXM4-80GB").name, "A100 80 GB");
  assert.equal(cardFor("NVIDIA A100-PCIE-40GB").name, "A100 40 GB");
  assert.equal(cardFor("NVIDIA GeForce RTX 4090").name, "RTX 4090");
  assert.equal(cardFor("an unknown card").name, "H100 80 GB");
});

Deno.test("matmulTime() is the larger of arithmetic and bytes", () => {
  const at = {
    y: 0n,
    a: 0n,
    b: 0n,
    bias: 0n,
    aux: 0n,
    transposeA: false,
    transposeB: false,
    strideA: 0,
    strideB: 0,
    epilogue: "none",
  } as const;
  const large = matmulTime({ ...at, batch: 1, M: 8192, N: 8192, K: 8192, type: "bf16", outType: "bf16" }, H200);
  assert.ok(Math.abs(large - 2 * 8192 ** 3 / H200.products) < 1e-5);
  const thin = matmulTime({ ...at, batch: 1, M: 8192, N: 1, K: 8192, type: "bf16", outType: "bf16" }, H200);
  assert.ok(Math.abs(thin - 2 * 8192 ** 2 / H200.bandwidth) < 1e-5);
});

Deno.test("attentionWork() counts pairs of queries and keys: dense, sequences, windows", () => {
  const dense = attention({ dtype: 2, B: 8, L: 4096, M: 1374, H: 16, D: 64 });
  assert.equal(attentionWork(dense, "fwd").flops, 4 * 8 * 4096 * 1374 * 16 * 64);
  assert.equal(attentionWork(dense, "bwd").flops, 10 * 8 * 4096 * 1374 * 16 * 64);
  const sequences = attention({ dtype: 2, B: 4, L: 3000, M: 3000, H: 16, D: 64, q_total: 8000, k_total: 8000 });
  assert.equal(attentionWork(sequences, "fwd").flops, 4 * 8000 * 2000 * 16 * 64);
  assert.equal(attentionWork(attention({ dtype: 0, B: 1, L: 2, M: 2, H: 1, D: 8 }), "fwd").wide, true);
  assert.equal(attentionWork(dense, "bwd").sums, 8 * 4096 * 16 * 66 * 4);
});

Deno.test("kernelTime() takes arithmetic of convolutions and products, bytes of everything else", () => {
  const close = (got: number, want: number): void => assert.ok(Math.abs(got - want) < 1e-5, `${got}, it must be ${want}`);
  close(kernelTime("k_layer_norm_fwd", [0n, 5, 6], 1e-3 * H200.bandwidth, H200), 1e-3);
  close(kernelTime("k_spconv_fwd", [0n, 60000, 27, 1024, 1024, 2], 0, H200), 2 * 60000 * 12.7 * 1024 ** 2 / H200.convolution);
  close(kernelTime("k_conv3d_fwd", [0n, 8, 64, 64, 64, 128, 128, 3, 1, 1], 0, H200), 2 * 8 * 64 ** 3 * 128 ** 2 * 27 / H200.convolution);
  close(kernelTime("k_matmul_fwd", [0n, 1, 1000, 1000, 1000], 0, H200), 2e9 / H200.products32);
  close(
    kernelTime("k_attention_fwd", [attention({ dtype: 2, B: 8, L: 4096, M: 4096, H: 16, D: 64 })], 0, H200),
    5.497558e11 / H200.attention.forward,
  );
});
