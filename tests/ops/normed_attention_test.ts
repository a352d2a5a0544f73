import assert from "node:assert/strict";
import { selfAttention } from "../../lib/ops/attention.ts";
import { normedSelfAttention } from "../../lib/ops/normed_attention.ts";
import { headRmsNorm } from "../../lib/ops/rms_norm.ts";
import { step } from "../../lib/tensor/scope.ts";
import { withChoice } from "../../lib/tensor/storage.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { backward, noGrad } from "../../lib/tensor/tape.ts";
import { assertClose, checkDevices, checkOp, type Input, random } from "../check.ts";
import { denseSpans, reference } from "./attention_reference.ts";

type Inputs = Record<"qkv" | "gq" | "gk", Input>;

function inputsOf(rows: number[], H: number, D: number): Inputs {
  const size = rows.reduce((a, b) => a * b);
  const gamma = (seed: number): Input => ({ shape: [H, D], data: random(seed, H * D), dtype: "f32" });
  return { qkv: { shape: [...rows, 3, H, D], data: random(1, size * 3 * H * D) }, gq: gamma(2), gk: gamma(3) };
}

const OFFSETS: Input = { shape: [4], data: Float32Array.of(0, 3, 3, 10), dtype: "i32" };

const run = ({ qkv, gq, gk }: Record<string, Tensor>): Tensor => normedSelfAttention(qkv, [gq, gk]);
const ragged = ({ qkv, gq, gk, offsets }: Record<string, Tensor>): Tensor => {
  return normedSelfAttention(qkv, [gq, gk], { sequences: { offsets, longest: 7 } });
};

Deno.test("normedSelfAttention() and its gradients match the definition", () => {
  const [B, L, H, D] = [2, 3, 2, 4];
  checkOp({
    inputs: inputsOf([B, L], H, D),
    run,
    reference: ({ qkv, gq, gk }) => {
      const part = (k: number, gamma?: Float64Array): Float64Array =>
        Float64Array.from({ length: B * L * H * D }, (_, i) => {
          const at = Math.floor(i / (H * D)) * 3 * H * D + k * H * D + i % (H * D), first = at - at % D;
          const size = Math.hypot(...qkv.subarray(first, first + D));
          return gamma ? qkv[at] / size * gamma[i % (H * D)] * Math.sqrt(D) : qkv[at];
        });
      return reference(part(0, gq), part(1, gk), part(2), { spans: denseSpans(B, L, L), H, D });
    },
    rtol: 2e-4,
  });
});

for (const sequences of [false, true]) {
  Deno.test(`normedSelfAttention() ${sequences ? "of sequences " : ""}has the bits of a norm and attention, kept or made again`, () => {
    const inputs: Record<string, Input> = sequences ? { ...inputsOf([10], 2, 8), offsets: OFFSETS } : inputsOf([2, 5], 2, 8);
    const outcome = (body: (t: Record<string, Tensor>) => Tensor): Float32Array[] =>
      step(() => {
        const leaves = Object.entries(inputs).map(([name, { data, shape, dtype }]) => {
          return [name, tensor(data, shape, { dtype: dtype ?? "f32", requiresGrad: dtype !== "i32" })] as const;
        });
        const y = body(Object.fromEntries(leaves));
        backward(y, tensor(random(9, y.size), y.shape));
        return [y.read(), ...leaves.filter(([, t]) => t.grad).map(([, t]) => t.grad!.read())];
      });
    const want = outcome(({ qkv, gq, gk, offsets }) => {
      return selfAttention(headRmsNorm(qkv, [gq, gk]), sequences ? { sequences: { offsets, longest: 7 } } : {});
    });
    const got = outcome(sequences ? ragged : run);
    assert.deepEqual(got, want);
    const kept = outcome(({ qkv, gq, gk, offsets }) => {
      return normedSelfAttention(qkv, [gq, gk], { kept: true, sequences: sequences ? { offsets, longest: 7 } : undefined });
    });
    assert.deepEqual(kept, want);
    for (const choice of ["keep", "drop"] as const) {
      assert.deepEqual(outcome((t) => withChoice(() => choice, () => (sequences ? ragged : run)(t))), want);
    }
  });
}

Deno.test("normedSelfAttention() gives only the gradients that are wanted, and keeps nothing without them", () => {
  const inputs = inputsOf([1, 3], 2, 4);
  step(() => {
    const [qkv, gq, gk] = [inputs.qkv, inputs.gq, inputs.gk].map(({ data, shape }) => tensor(data, shape));
    const plain = noGrad(() => normedSelfAttention(qkv, [gq, gk])).read();
    gq.requiresGrad = true;
    const y = normedSelfAttention(qkv, [gq, gk]);
    assertClose("y", y.read(), plain);
    backward(y, tensor(random(4, y.size), y.shape));
    assert.ok(gq.grad && !gk.grad && !qkv.grad);
    assert.throws(() => normedSelfAttention(gq, [gq, gk]), {
      message: "Cannot run normedSelfAttention: qkv is [2,4], it must be [B, L, 3, H, D]",
    });
    assert.throws(() => normedSelfAttention(qkv, [gq, qkv]), /gammas\[1\] is \[1,3,3,2,4\], it must be \[2,4\]/);
  });
});

checkDevices("normedSelfAttention() [2, 130, 3, 4, 64]", import.meta.url, { inputs: inputsOf([2, 130], 4, 64), run });
checkDevices("normedSelfAttention() [1, 33, 3, 2, 32]", import.meta.url, { inputs: inputsOf([1, 33], 2, 32), run });
checkDevices("normedSelfAttention() of sequences", import.meta.url, {
  inputs: { ...inputsOf([10], 3, 16), offsets: OFFSETS },
  run: ragged,
});
