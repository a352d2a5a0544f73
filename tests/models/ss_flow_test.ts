import assert from "node:assert/strict";
import { ssFlow, type SsFlowArgs, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { initialize, leaves, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";
import { checkGradients, expectSameBits, gradientsOf, randomize, trained } from "../gradients.ts";

const ARGS: SsFlowArgs = {
  ...{ resolution: 4, in_channels: 2, out_channels: 3, model_channels: 12, cond_channels: 5, num_blocks: 2, num_heads: 2, mlp_ratio: 2 },
  ...{ patch_size: 2, qk_rms_norm: true },
};
const x = tensor(random(80, 2 * 2 * 64), [2, 2, 4, 4, 4], { requiresGrad: true });
const cond = tensor(random(81, 2 * 3 * 5), [2, 3, 5], { requiresGrad: true });
const t = tensor([30, 700], [2]);

/** A model with random parameters. */
function make(args: SsFlowArgs) {
  const spec = ssFlowSpec(args), params = initialize(spec, new Generator(1));
  randomize(params, spec);
  return { args, dtype: "f32", params, spec } as const;
}

function free(params: unknown): void {
  for (const [, p] of leaves<Tensor>(params)) p.free();
}

for (
  const [name, changes] of Object.entries({
    "patches of 2": {},
    "shared modulation, q/k norms everywhere": { share_mod: true, qk_rms_norm_cross: true, patch_size: 1 },
  })
) {
  Deno.test(`ssFlow() with ${name} has a gradient that is its differences`, () => {
    const model = make({ ...ARGS, ...changes });
    step(() => assert.deepEqual(ssFlow(model, x, t, cond).shape, [2, 3, 4, 4, 4]));
    checkGradients({ ...trained(model.params, model.spec), x, cond }, () => ssFlow(model, x, t, cond));
    free(model.params);
  });
}

Deno.test("ssFlow() with blocks computed again has the same output and gradients to the bit", () => {
  const model = make(ARGS), wrt = { ...trained(model.params, model.spec), x, cond };
  const output = (recompute?: number) => step(() => ssFlow(model, x, t, cond, { recompute }).read());
  const grads = (recompute: number) => gradientsOf(wrt, () => ssFlow(model, x, t, cond, { recompute }));
  const want = grads(0);
  for (const recompute of [1, 2]) {
    assert.deepEqual(output(recompute), output(0));
    expectSameBits(grads(recompute), want, `${recompute} blocks computed again`);
  }
  const all = { ...model, args: { ...ARGS, use_checkpoint: true } };
  expectSameBits(gradientsOf(wrt, () => ssFlow(all, x, t, cond)), want, "computed again");
  free(model.params);
});

Deno.test("ssFlow() starts at zero, and each sample sees its own time and condition alone", () => {
  const fresh = initialize(ssFlowSpec(ARGS), new Generator(2)), model = make(ARGS);
  const run = (params: typeof fresh, x: Tensor, t: Tensor, cond: Tensor) =>
    step(() => noGrad(() => [...ssFlow({ args: ARGS, dtype: "f32", params }, x, t, cond).read()]));
  assert.ok(run(fresh, x, t, cond).every((v) => v === 0));
  const both = run(model.params, x, t, cond), half = both.length / 2;
  const second = step(() =>
    run(model.params, tensor(x.read().slice(128), [1, 2, 4, 4, 4]), tensor([700], [1]), tensor(cond.read().slice(15), [1, 3, 5]))
  );
  const apart = Math.max(...second.map((v, i) => Math.abs(v - both[half + i])));
  assert.ok(apart < 1e-5, `${apart}`);
  const later = step(() => run(model.params, x, tensor([30, 701], [2]), cond));
  assert.deepEqual(later.slice(0, half), both.slice(0, half));
  assert.notDeepEqual(later.slice(half), both.slice(half));
  free(fresh);
  free(model.params);
});

Deno.test({
  name: "ssFlow() keeps one activation at a time where no backward pass is to come",
  ignore: device().name !== "cpu", // a GPU frees in its own time
  fn: () => {
    const peak = (num_blocks: number): number => {
      const model = make({ ...ARGS, num_blocks });
      const bytes = step(() =>
        noGrad(() => {
          device().memory.resetPeak();
          const before = device().memory.use().used;
          ssFlow(model, x, t, cond);
          return device().memory.use().peak - before;
        })
      );
      free(model.params);
      return bytes;
    };
    assert.equal(peak(9), peak(2));
  },
});

Deno.test("ssFlowSpec() keeps the trunk in the model's dtype and the rest in f32", () => {
  const dtypes = (spec: unknown) => new Map(leaves<ParameterSpec>(spec).map(([path, s]) => [path, s.dtype]));
  const half = dtypes(ssFlowSpec({ ...ARGS, use_fp16: true })), bf16 = dtypes(ssFlowSpec(ARGS, "bf16"));
  assert.equal(half.get("blocks.0.mlp.mlp.0.weight"), "f16");
  assert.equal(half.get("blocks.1.adaLN_modulation.1.bias"), "f16");
  assert.equal(bf16.get("blocks.1.cross_attn.to_kv.weight"), "bf16");
  for (
    const path of [
      "pos_emb",
      "t_embedder.mlp.0.weight",
      "input_layer.weight",
      "out_layer.bias",
      "blocks.0.norm2.weight",
      "blocks.0.self_attn.q_rms_norm.gamma",
    ]
  ) {
    assert.equal(half.get(path), "f32", path);
  }
});

Deno.test("ssFlow() refuses options and inputs that do not fit", () => {
  assert.throws(() => ssFlowSpec({ ...ARGS, num_heads: 5 }), /num_heads is 5, it must divide model_channels, which is 12/);
  assert.throws(() => ssFlowSpec({ ...ARGS, num_heads: undefined }), /num_heads is 0, it must divide/);
  assert.throws(() => ssFlowSpec({ ...ARGS, resolution: 5 }), /resolution is 5, it must be a multiple of patch_size, 2/);
  assert.throws(() => ssFlowSpec({ ...ARGS, pe_mode: "rope" as "ape" }), /pe_mode is "rope", it must be "ape"/);
  const model = make(ARGS), run = (x: Tensor, t: Tensor, cond: Tensor) => () => step(() => void ssFlow(model, x, t, cond));
  assert.throws(run(zeros([2, 1, 4, 4, 4]), t, cond), /^RangeError: Cannot run ssFlow: x is \[2,1,4,4,4\], it must be \[2,2,4,4,4\]/);
  assert.throws(run(x, tensor([1], [1]), cond), /^RangeError: Cannot run ssFlow: t is \[1\], it must be \[2\]/);
  assert.throws(run(x, t, zeros([2, 3, 6])), /^RangeError: Cannot run ssFlow: cond is \[2,3,6\], it must be \[2,3,5\]/);
  free(model.params);
});
