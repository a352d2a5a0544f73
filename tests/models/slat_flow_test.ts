import assert from "node:assert/strict";
import { wholeVolumeConv } from "../../bench/whole_volumes.ts";
import { slatFlow, type SlatFlowArgs, slatFlowSpec } from "../../lib/models/slat_flow.ts";
import { initialize, leaves, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { persist, step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, expectSameBits, gradientsOf, randomize, trained } from "../gradients.ts";
import { scatter } from "../voxels.ts";

const ARGS: SlatFlowArgs = {
  ...{ resolution: 8, in_channels: 2, out_channels: 3, model_channels: 12, cond_channels: 5, num_blocks: 2, num_heads: 2, mlp_ratio: 2 },
  ...{ patch_size: 2, io_block_channels: [4], num_io_res_blocks: 2, qk_rms_norm: true },
};
const COORDS = scatter(1, [7, 15], 8), N = COORDS.length / 4, B = 2;
const voxels = persist(() => makeVoxels(COORDS));
const x = tensor(random(80, N * 2), [N, 2], { requiresGrad: true }),
  cond = tensor(random(81, B * 3 * 5), [B, 3, 5], { requiresGrad: true });
const t = tensor([30, 700], [B]);

/** A model with random parameters. */
function make(changes: Partial<SlatFlowArgs> = {}) {
  const args = { ...ARGS, ...changes }, spec = slatFlowSpec(args), params = initialize(spec, new Generator(1));
  randomize(params, spec);
  return { args, dtype: "f32", params, spec } as const;
}

function free(params: unknown): void {
  for (const [, p] of leaves<Tensor>(params)) p.free();
}

for (
  const [name, changes] of Object.entries<Partial<SlatFlowArgs>>({
    "one level": {},
    "two levels, one block each": { io_block_channels: [4, 6], patch_size: 4, num_io_res_blocks: 1 },
    "no skip connections": { use_skip_connection: false, num_io_res_blocks: 1 },
    "no levels, shared modulation, q/k norms everywhere": {
      io_block_channels: null,
      patch_size: 1,
      share_mod: true,
      qk_rms_norm_cross: true,
    },
  })
) {
  Deno.test(`slatFlow() with ${name} has a gradient that is its differences, and recomputes it to the bit`, () => {
    const model = make(changes), wrt = { ...trained(model.params, model.spec), x, cond };
    const run = (recompute?: number): Tensor => slatFlow(model, { features: x, voxels }, t, cond, { recompute });
    step(() => assert.deepEqual(run().shape, [N, 3]));
    checkGradients(wrt, () => run(), { tolerance: 3e-2 });
    const want = gradientsOf(wrt, () => run(0));
    for (const recompute of [1, 2]) expectSameBits(gradientsOf(wrt, () => run(recompute)), want, `${recompute} blocks computed again`);
    free(model.params);
  });
}

Deno.test("slatFlow() with convolutions of whole volumes in place of the sparse ones gives the same, and the same gradients", () => {
  const model = make(), wrt = { ...trained(model.params, model.spec), x, cond };
  const run = (convolve?: typeof wholeVolumeConv): Tensor => slatFlow(model, { features: x, voxels }, t, cond, { convolve });
  step(() => assertClose("velocity", run(wholeVolumeConv).read(), run().read()));
  const [want, got] = [undefined, wholeVolumeConv].map((convolve) => gradientsOf(wrt, () => run(convolve)));
  for (const [name, values] of Object.entries(want)) assertClose(name, got[name], values, { rtol: 1e-4, atol: 1e-5 });
  free(model.params);
});

Deno.test("slatFlow() starts at zero, and each sample sees its own time and condition alone", () => {
  const fresh = initialize(slatFlowSpec(ARGS), new Generator(2)), model = make();
  const run = (params: typeof fresh, times = t): number[] =>
    step(() => noGrad(() => [...slatFlow({ ...model, params }, { features: x, voxels }, times, cond).read()]));
  assert.ok(run(fresh).every((v) => v === 0));
  const both = run(model.params), later = run(model.params, tensor([30, 701], [2])), first = 7 * 3;
  assert.deepEqual(later.slice(0, first), both.slice(0, first));
  assert.notDeepEqual(later.slice(first), both.slice(first));
  const second = step(() =>
    noGrad(() => {
      const alone = makeVoxels(COORDS.slice(28).map((c, i) => i % 4 ? c : 0)), features = tensor(x.read().slice(14), [15, 2]);
      return slatFlow(model, { features, voxels: alone }, tensor([700], [1]), tensor(cond.read().slice(15), [1, 3, 5])).read();
    })
  );
  assert.ok(second.every((v, i) => Math.abs(v - both[first + i]) < 1e-5));
  free(fresh);
  free(model.params);
});

Deno.test("slatFlow() takes samples without voxels, one voxel, and none at all", () => {
  const model = make(),
    run = (coords: Int32Array<ArrayBuffer>): Tensor => {
      const at = makeVoxels(coords, { B });
      return slatFlow(model, { features: tensor(random(1, 2 * at.N), [at.N, 2]), voxels: at }, t, cond.view(cond.shape));
    };
  for (const coords of [scatter(1, [0, 9], 8), scatter(1, [9, 0], 8), Int32Array.of(1, 3, 3, 7), new Int32Array(0)]) {
    const y = step(() => run(coords).read());
    assert.equal(y.length, coords.length / 4 * 3);
    assert.ok(y.every(Number.isFinite));
    const grads = gradientsOf(trained(model.params, model.spec), () => run(coords));
    for (const [name, g] of Object.entries(grads)) assert.ok(g.every(Number.isFinite), name);
  }
  free(model.params);
});

Deno.test("slatFlow() with a true mean differs from the reference's n + 1", () => {
  const model = make(),
    run = (pooling?: "mean" | "meanWithZero") =>
      step(() => noGrad(() => [...slatFlow(model, { features: x, voxels }, t, cond, { pooling }).read()]));
  assert.deepEqual(run(), run("meanWithZero"));
  assert.notDeepEqual(run(), run("mean"));
  free(model.params);
});

Deno.test({
  name: "slatFlow() keeps one activation at a time where no backward pass is to come, and its maps with the voxels",
  ignore: device().name !== "cpu", // a GPU frees in its own time
  fn: () => {
    const peak = (num_blocks: number): number => {
      const model = make({ num_blocks }), { memory } = device();
      const bytes = step(() =>
        noGrad(() => {
          const at = { features: x, voxels: makeVoxels(COORDS) };
          step(() => void slatFlow(model, at, t, cond));
          memory.resetPeak();
          const before = memory.use().used;
          step(() => void slatFlow(model, at, t, cond));
          assert.equal(memory.use().used, before);
          return memory.use().peak - before;
        })
      );
      free(model.params);
      return bytes;
    };
    assert.equal(peak(9), peak(2));
  },
});

Deno.test("slatFlowSpec() keeps the trunk in the model's dtype and the rest in f32", () => {
  const dtypes = (spec: unknown) => new Map(leaves<ParameterSpec>(spec).map(([path, s]) => [path, s.dtype]));
  const half = dtypes(slatFlowSpec({ ...ARGS, use_fp16: true })), bf16 = dtypes(slatFlowSpec(ARGS, "bf16"));
  for (const path of ["input_blocks.1.conv1.conv.weight", "out_blocks.0.skip_connection.bias", "input_blocks.0.emb_layers.1.weight"]) {
    assert.equal(half.get(path), "f16", path);
    assert.equal(bf16.get(path), "bf16", path);
  }
  for (
    const path of ["t_embedder.mlp.0.weight", "input_layer.weight", "out_layer.bias", "input_blocks.0.norm1.weight", "blocks.0.norm2.bias"]
  ) {
    assert.equal(half.get(path), "f32", path);
  }
});

Deno.test("slatFlow() refuses options and inputs that do not fit", () => {
  const spec = (changes: object) => () => void slatFlowSpec({ ...ARGS, ...changes });
  assert.throws(
    spec({ num_heads: 5 }),
    /^RangeError: Cannot make SLatFlowModel: num_heads is 5, it must divide model_channels, which is 12/,
  );
  assert.throws(spec({ pe_mode: "rope" }), /pe_mode is "rope", it must be "ape"/);
  assert.throws(spec({ patch_size: 4 }), /patch_size is 4, it must be 2 with 1 io_block_channels/);
  assert.throws(spec({ share_mod: true }), /share_mod is true with io_block_channels, it must be false/);
  const model = make(),
    run = (features: Tensor, t: Tensor, cond: Tensor) => () => step(() => void slatFlow(model, { features, voxels }, t, cond));
  assert.throws(run(zeros([N, 3]), t, cond), { message: `Cannot run slatFlow: features is [${N},3], it must be [${N},2]` });
  assert.throws(run(zeros([N, 2], "bf16"), t, cond), { message: "Cannot run slatFlow: features is bf16, it must be f32" });
  assert.throws(run(x, tensor([1], [1]), cond), { message: "Cannot run slatFlow: t is [1], it must be [2]" });
  assert.throws(run(x, t, zeros([2, 3, 6])), { message: "Cannot run slatFlow: cond is [2,3,6], it must be [2,3,5]" });
  assert.throws(run(x, t, zeros([3, 3, 5])), { message: "Cannot run slatFlow: cond is [3,3,5], it must be [2,3,5]" });
  free(model.params);
});
