import assert from "node:assert/strict";
import { initialize, leaves, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { attentionPattern, sparseTransformer, type SparseTransformerArgs, sparseTransformerSpec } from "../../lib/nn/sparse_transformer.ts";
import { makeVoxels, type Voxels } from "../../lib/sparse/voxels.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { persist, step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";
import { checkGradients, expectSameBits, gradientsOf, randomize, trained } from "../gradients.ts";
import { scatter } from "../voxels.ts";

const ARGS: SparseTransformerArgs = { resolution: 8, model_channels: 12, num_blocks: 3, num_heads: 2, mlp_ratio: 2, window_size: 4 };
const INPUTS = 3, COORDS = scatter(1, [7, 0, 12], 8), N = COORDS.length / 4;
const voxels: Voxels = persist(() => makeVoxels(COORDS));
const x = tensor(random(1, N * INPUTS), [N, INPUTS], { requiresGrad: true });

/** A model with random parameters. */
function make(changes: Partial<SparseTransformerArgs> = {}) {
  const args = { ...ARGS, ...changes },
    spec = sparseTransformerSpec("Model", args, INPUTS, "f32"),
    params = initialize(spec, new Generator(1));
  randomize(params, spec);
  return { args, dtype: "f32", params, spec } as const;
}

function free(params: unknown): void {
  for (const [, p] of leaves<Tensor>(params)) p.free();
}

for (const attn_mode of ["full", "swin", "shift_window", "shift_sequence", "shift_order"] as const) {
  Deno.test(`sparseTransformer() with ${attn_mode} attention has a gradient that is its differences, and recomputes it to the bit`, () => {
    const model = make({ attn_mode, qk_rms_norm: attn_mode === "swin" }), wrt = { ...trained(model.params, model.spec), x };
    const run = (recompute?: number): Tensor => sparseTransformer(model, { features: x, voxels }, { recompute });
    step(() => assert.deepEqual(run().shape, [N, 12]));
    checkGradients(wrt, () => run());
    expectSameBits(gradientsOf(wrt, () => run(2)), gradientsOf(wrt, () => run()), "computed again");
    free(model.params);
  });
}

Deno.test("sparseTransformer() sees each sample alone", () => {
  for (const attn_mode of ["full", "swin", "shift_sequence"] as const) {
    const model = make({ attn_mode });
    const both = step(() => noGrad(() => [...sparseTransformer(model, { features: x, voxels }).read()]));
    const second = step(() =>
      noGrad(() => {
        const coords = COORDS.slice(28).map((c, i) => i % 4 ? c : 0), features = tensor(x.read().slice(7 * INPUTS), [12, INPUTS]);
        return [...sparseTransformer(model, { features, voxels: makeVoxels(coords) }).read()];
      })
    );
    assert.ok(second.every((v, i) => Math.abs(v - both[7 * 12 + i]) < 1e-5));
    free(model.params);
  }
});

Deno.test("attentionPattern() is the reference's for each mode, with windows of 8", () => {
  const args = (attn_mode?: SparseTransformerArgs["attn_mode"]) => ({ ...ARGS, window_size: undefined, attn_mode });
  const curve = { curve: "zOrder", window: 8, coordinateShift: 0, sequenceShift: 0 };
  assert.deepEqual(attentionPattern(args("full"), 1), "full");
  assert.deepEqual([0, 1, 2].map((i) => attentionPattern(args(), i)), [{ window: 8, shift: 0 }, { window: 8, shift: 4 }, {
    window: 8,
    shift: 0,
  }]);
  assert.deepEqual([0, 1].map((i) => attentionPattern(args("shift_window"), i)), [curve, { ...curve, coordinateShift: 16 }]);
  assert.deepEqual([2, 3].map((i) => attentionPattern(args("shift_sequence"), i)), [curve, { ...curve, sequenceShift: 4 }]);
  const curves = ["zOrder", "zOrderTransposed", "hilbert", "hilbertTransposed", "zOrder"];
  assert.deepEqual(curves.map((_, i) => attentionPattern(args("shift_order"), i)), curves.map((name) => ({ ...curve, curve: name })));
});

Deno.test("sparseTransformerSpec() keeps the blocks in the model's dtype and the rest in f32", () => {
  const dtypes = new Map(
    leaves<ParameterSpec>(sparseTransformerSpec("Model", { ...ARGS, qk_rms_norm: true }, INPUTS, "f16")).map((
      [path, s],
    ) => [path, s.dtype]),
  );
  assert.equal(dtypes.get("blocks.2.mlp.mlp.2.bias"), "f16");
  assert.equal(dtypes.get("blocks.0.attn.q_rms_norm.gamma"), "f32");
  assert.equal(dtypes.get("input_layer.weight"), "f32");
});

Deno.test("sparseTransformer() refuses options and inputs that do not fit", () => {
  const spec = (changes: object) => () => void sparseTransformerSpec("Model", { ...ARGS, ...changes }, INPUTS, "f32");
  assert.throws(spec({ num_heads: 5 }), { message: "Cannot make Model: num_heads is 5, it must divide model_channels, which is 12" });
  assert.throws(spec({ pe_mode: "rope" }), { message: 'Cannot make Model: pe_mode is "rope", it must be "ape"' });
  assert.throws(spec({ window_size: 0 }), { message: "Cannot make Model: window_size is 0, it must be a whole number from 1 up" });
  const model = make(), run = (features: Tensor) => () => step(() => void sparseTransformer(model, { features, voxels }));
  assert.throws(run(zeros([N, 4])), { message: `Cannot run sparseTransformer: features is [${N},4], it must be [${N},3]` });
  assert.throws(run(zeros([N + 1, 3])), { message: `Cannot run sparseTransformer: features is [${N + 1},3], it must be [${N},3]` });
  assert.throws(run(zeros([N, 3], "bf16")), { message: "Cannot run sparseTransformer: features is bf16, it must be f32" });
  free(model.params);
});
