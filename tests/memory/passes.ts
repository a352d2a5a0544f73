/** Forward and backward passes of small models, dense and sparse, for the tests of memory. */
import { slatFlow, slatFlowSpec } from "../../lib/models/slat_flow.ts";
import { ssFlow, ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { initialize, type Parameters } from "../../lib/nn/parameters.ts";
import { mse } from "../../lib/ops/loss.ts";
import { flattenParameters, freeParameters } from "../../lib/optim/parameters.ts";
import type { PassOptions } from "../../lib/memory/elastic.ts";
import { makeVoxels } from "../../lib/sparse/voxels.ts";
import { device } from "../../lib/tensor/device.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";
import { randomize } from "../gradients.ts";
import { scatter } from "../voxels.ts";

const COMMON = { in_channels: 4, out_channels: 4, model_channels: 32, cond_channels: 32, num_heads: 2, num_blocks: 6, qk_rms_norm: true };

/** A model under training. */
export interface Trained {
  /** A pass over samples of these sizes (dense: as many samples; sparse: voxels of each), in a step with what it needs; `around` runs it. */
  run(sizes: number[], around: (pass: (options?: PassOptions) => number) => number): number;
  /** The gradients so far; sets them to 0. */
  takeGradients(): Float32Array;
  free(): void;
}

function trained<S>(spec: S, seed: number): { params: Parameters<S>; takeGradients(): Float32Array; free(): void } {
  const made = initialize(spec, new Generator(seed));
  randomize(made, spec);
  const { flat, params } = flattenParameters(spec, made);
  return {
    params,
    takeGradients() {
      const grads = flat.grad.read();
      device().memory.zero(flat.grad.addr, flat.grad.bytes);
      return grads;
    },
    free: () => freeParameters(flat, params),
  };
}

/** A dense flow model. */
export function denseModel(dtype: FloatDType = "f32", fp8: boolean | "all" = false): Trained {
  const args = { ...COMMON, resolution: 8, patch_size: 2 }, { params, ...rest } = trained(ssFlowSpec(args, dtype), 1);
  return {
    ...rest,
    run: (sizes, around) =>
      around((options = {}) =>
        step(() => {
          const B = sizes.length, draw = new Generator(B), noise = draw.normal([B, 4, 8, 8, 8]), cond = draw.normal([B, 20, 32]);
          const t = tensor(Float32Array.from(sizes, (_, i) => 100 * i), [B]);
          const loss = mse(ssFlow({ args, dtype, fp8, params }, draw.normal(noise.shape), t, cond, options), noise);
          backward(loss);
          return loss.item();
        })
      ),
  };
}

/** A sparse flow model, with convolutions that halve and double the grid. */
export function sparseModel(dtype: FloatDType = "f32", fp8: boolean | "all" = false): Trained {
  const args = { ...COMMON, resolution: 16, patch_size: 2, io_block_channels: [16], num_io_res_blocks: 2 };
  const { params, ...rest } = trained(slatFlowSpec(args, dtype), 2);
  return {
    ...rest,
    run: (sizes, around) =>
      step(() => {
        const voxels = makeVoxels(scatter(1, sizes, 16)), { N, B } = voxels;
        return around((options = {}) =>
          step(() => {
            const features = tensor(random(3, 4 * N), [N, 4]),
              target = tensor(random(4, 4 * N), [N, 4]),
              cond: Tensor = new Generator(5).normal([B, 20, 32]);
            const t = tensor(Float32Array.from(sizes, (_, i) => 100 * i), [B]);
            const loss = mse(slatFlow({ args, dtype, fp8, params }, { features, voxels }, t, cond, options), target);
            backward(loss);
            return loss.item();
          })
        );
      }),
  };
}

/** Both, by name. */
export const MODELS: Record<string, () => Trained> = { dense: denseModel, sparse: sparseModel };

/** Both with linear layers in fp8, and the dense one with all of their products, by name. */
export const FP8_MODELS: typeof MODELS = Object.fromEntries(
  ([["dense fp8", denseModel, true], ["sparse fp8", sparseModel, true], ["dense fp8-all", denseModel, "all"]] as const).map((
    [name, make, fp8],
  ) => [
    name,
    () => make(device().name === "cuda" ? "bf16" : "f32", fp8),
  ]),
);

/** Whole numbers from `low` to `high`, reproducible. */
export function draws(seed: number, count: number, low: number, high: number): number[] {
  return Array.from(random(seed, count), (v) => low + Math.floor((v + 1) / 2 * (high - low + 1)));
}
