import assert from "node:assert/strict";
import {
  type Posterior,
  samplePosterior,
  ssDecode,
  type SsDecoderArgs,
  ssDecoderSpec,
  ssEncode,
  type SsEncoderArgs,
  ssEncoderSpec,
} from "../../lib/models/ss_vae.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { concat } from "../../lib/ops/movement.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";

const SHARED = { latent_channels: 2, num_res_blocks: 1, num_res_blocks_middle: 1 };
const ENCODER: SsEncoderArgs = { in_channels: 1, ...SHARED, channels: [8, 10] };
const DECODER: SsDecoderArgs = { out_channels: 1, ...SHARED, channels: [6, 4] };
const x = tensor(random(70, 2 * 4 ** 3).map((v) => v > 0.3 ? 1 : 0), [2, 1, 4, 4, 4], { requiresGrad: true });
const z = tensor(random(71, 2 * 2 * 2 ** 3), [2, 2, 2, 2, 2], { requiresGrad: true });

function free(params: unknown): void {
  for (const [, t] of leaves<Tensor>(params)) t.free();
}

/** A posterior as one tensor. */
function both({ mean, logvar }: Posterior): Tensor {
  return concat([mean, logvar], 1);
}

Deno.test("ssEncode() gives the posterior of a smaller grid, and its gradient its differences", () => {
  const spec = ssEncoderSpec(ENCODER),
    params = initialize(spec, new Generator(1)),
    model = { args: ENCODER, dtype: "f32", params } as const;
  randomize(params, spec);
  step(() => {
    const { mean, logvar } = ssEncode(model, x);
    assert.deepEqual([mean.shape, logvar.shape], [[2, 2, 2, 2, 2], [2, 2, 2, 2, 2]]);
  });
  checkGradients({ ...trained(params, spec), x }, () => both(ssEncode(model, x)));
  free(params);
});

Deno.test("ssDecode() gives logits of a larger grid, and its gradient its differences", () => {
  const spec = ssDecoderSpec(DECODER),
    params = initialize(spec, new Generator(2)),
    model = { args: DECODER, dtype: "f32", params } as const;
  randomize(params, spec);
  step(() => assert.deepEqual(ssDecode(model, z).shape, [2, 1, 4, 4, 4]));
  checkGradients({ ...trained(params, spec), z }, () => ssDecode(model, z));
  free(params);
});

Deno.test("ssEncode() and ssDecode() with a group norm before the output have gradients that are their differences", () => {
  const args = { ...SHARED, num_res_blocks: 0, num_res_blocks_middle: 0, norm_type: "group" } as const;
  const encoder = { in_channels: 1, ...args, channels: [64] }, decoder = { out_channels: 1, ...args, channels: [64] };
  const specE = ssEncoderSpec(encoder),
    specD = ssDecoderSpec(decoder),
    e = initialize(specE, new Generator(1)),
    d = initialize(specD, new Generator(2));
  randomize(e, specE);
  randomize(d, specD);
  checkGradients({ ...trained(e, specE), x }, () => both(ssEncode({ args: encoder, dtype: "f32", params: e }, x)));
  checkGradients({ ...trained(d, specD), z }, () => ssDecode({ args: decoder, dtype: "f32", params: d }, z));
  free(e);
  free(d);
});

Deno.test("the residual blocks start as the identity: ssDecode() at first is its outer layers alone", () => {
  const make = (blocks: number) => ({ ...DECODER, channels: [6], num_res_blocks: blocks, num_res_blocks_middle: blocks });
  const deep = initialize(ssDecoderSpec(make(2)), new Generator(1)), flat = initialize(ssDecoderSpec(make(0)), new Generator(1));
  const copy = new Map(leaves<Tensor>(deep));
  for (const [path, t] of leaves<Tensor>(flat)) t.write(copy.get(path)!.read());
  const logits = (blocks: number, params: typeof deep) =>
    step(() => noGrad(() => ssDecode({ args: make(blocks), dtype: "f32", params }, z).read()));
  assert.deepEqual(logits(2, deep), logits(0, flat));
  free(deep);
  free(flat);
});

Deno.test("samplePosterior() is mean + exp(logvar / 2) ε with the generator's normal numbers", () => {
  step(() => {
    const mean = tensor(random(1, 8), [1, 1, 2, 2, 2]), logvar = tensor(random(2, 8), [1, 1, 2, 2, 2]);
    const y = samplePosterior({ mean, logvar }, new Generator(9)),
      noise = new Generator(9).normal([8]).read(),
      [m, l] = [mean.read(), logvar.read()];
    assertClose("sample", y.read(), Array.from(m, (v, i) => v + Math.exp(l[i] / 2) * noise[i]));
  });
});

Deno.test({
  name: "ssEncode() and ssDecode() keep one activation at a time where no backward pass is to come",
  ignore: device().name !== "cpu", // a GPU frees in its own time
  fn: () => {
    const use = (blocks: number): number[] => {
      const shared = { ...SHARED, num_res_blocks: blocks, channels: [8, 8] },
        encoder = { in_channels: 1, ...shared },
        decoder = { out_channels: 1, ...shared };
      const e = initialize(ssEncoderSpec(encoder), new Generator(1)), d = initialize(ssDecoderSpec(decoder), new Generator(2));
      const peak = (run: () => unknown): number =>
        step(() =>
          noGrad(() => {
            device().memory.resetPeak();
            const before = device().memory.use().used;
            run();
            return device().memory.use().peak - before;
          })
        );
      const peaks = [
        peak(() => ssEncode({ args: encoder, dtype: "f32", params: e }, x)),
        peak(() => ssDecode({ args: decoder, dtype: "f32", params: d }, z)),
      ];
      free(e);
      free(d);
      return peaks;
    };
    assert.deepEqual(use(6), use(2));
  },
});

Deno.test("ssEncode() and ssDecode() name the input that does not fit", () => {
  const e = initialize(ssEncoderSpec(ENCODER), new Generator(1)), d = initialize(ssDecoderSpec(DECODER), new Generator(2));
  const encode = (...shape: number[]) => () => step(() => void ssEncode({ args: ENCODER, dtype: "f32", params: e }, zeros(shape)));
  assert.throws(encode(1, 2, 4, 4, 4), /^RangeError: Cannot run ssEncode: x is \[1,2,4,4,4\], it must be \[1,1,4,4,4\]/);
  assert.throws(encode(1, 1, 4, 5, 4), /^RangeError: Cannot run ssEncode: x is \[1,1,4,5,4\], its sides must be multiples of 2/);
  assert.throws(
    () => step(() => void ssDecode({ args: DECODER, dtype: "f32", params: d }, zeros([1, 3, 2, 2, 2]))),
    /ssDecode: z is \[1,3,2,2,2\], it must be \[1,2,/,
  );
  free(e);
  free(d);
});
