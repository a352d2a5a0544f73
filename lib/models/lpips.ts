/** LPIPS (Zhang et al. 2018): the distance of two images in the features of a VGG-16, weighed by learned heads. */
import { cast } from "../ops/cast.ts";
import { conv2d } from "../ops/conv2d.ts";
import { add, affine, div, relu, sub } from "../ops/elementwise.ts";
import { maxPool2d } from "../ops/max_pool2d.ts";
import { reshape } from "../ops/movement.ts";
import { mean } from "../ops/reduce.ts";
import { unitDistance } from "../ops/unit_distance.ts";
import type { Parameters, ParameterSpec } from "../nn/parameters.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";
import { expectShape, type Tensor, tensor } from "../tensor/tensor.ts";

/** Output channels of the 3 x 3 convolutions of each level; the image is halved between two levels. */
export interface LpipsArgs {
  levels: number[][];
}

/** VGG-16. */
export const LPIPS_VGG: LpipsArgs = { levels: [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]] };

type ConvSpec = { weight: ParameterSpec; bias: ParameterSpec };

/**
 * Parameters under the names of the `lpips` package's state dict: `net.slice1.0.weight` [64, 3, 3, 3] and `.bias` to `net.slice5.28.weight` and
 * `.bias` (slice 1 has 0 and 2, slice 2 has 5 and 7, slice 3 has 10, 12 and 14, slice 4 has 17, 19 and 21, slice 5 has 24, 26 and 28), and the
 * heads `lin0.model.1.weight` [1, 64, 1, 1] to `lin4.model.1.weight` [1, 512, 1, 1].
 */
export type LpipsSpec =
  & { net: Record<`slice${number}`, Record<string, ConvSpec>> }
  & Record<`lin${number}`, { model: { 1: { weight: ParameterSpec } } }>;

/** A perceptual distance: its sizes and its parameters, which are not trained. */
export interface Lpips {
  args: LpipsArgs;
  dtype: FloatDType;
  params: Parameters<LpipsSpec>;
}

/** The parameters of an LPIPS; `dtype` is that of its convolutions. */
export function lpipsSpec({ levels }: LpipsArgs = LPIPS_VGG, dtype: FloatDType = "f32"): LpipsSpec {
  let inputs = 3, index = 0;
  const net: LpipsSpec["net"] = {}, heads: Record<`lin${number}`, LpipsSpec[`lin${number}`]> = {};
  levels.forEach((channels, level) => {
    const slice: Record<string, ConvSpec> = {};
    for (const C of channels) {
      const init = { uniform: Math.sqrt(6 / (9 * inputs)) };
      slice[index] = { weight: { shape: [C, inputs, 3, 3], dtype, init }, bias: { shape: [C], dtype, init: { fill: 0 } } };
      inputs = C;
      index += 2; // each is followed by a relu
    }
    index++; // and each level by a pooling
    net[`slice${level + 1}`] = slice;
    heads[`lin${level}`] = { model: { 1: { weight: { shape: [1, inputs, 1, 1], dtype: "f32", init: { fill: 1 / inputs } } } } };
  });
  return { net, ...heads };
}

/** Of the package: what images in [-1, 1] are shifted and scaled by. */
const SHIFT = [-0.030, -0.088, -0.188], SCALE = [0.458, 0.448, 0.450];

/** What each level ends with: [B, H, W, C], halved from one to the next. */
function features({ args: { levels }, dtype, params: { net } }: Lpips, image: Tensor): Tensor[] {
  const outputs: Tensor[] = [];
  let h = tidy(() => cast(div(sub(affine(cast(image, "f32"), { scale: 2, shift: -1 }), tensor(SHIFT, [3])), tensor(SCALE, [3])), dtype));
  levels.forEach((_, level) => {
    if (level > 0) h = maxPool2d(h);
    for (const p of Object.values(net[`slice${level + 1}`])) h = tidy(() => relu(conv2d(h, p.weight, p.bias)));
    outputs.push(h);
  });
  return outputs;
}

/**
 * The mean distance of images x and y [B, H, W, 3] in [0, 1], f32. `y` is the target: it gets no gradient. At each level the squared differences
 * of the features, brought to length 1 at each pixel, are weighed by the level's head and averaged over the pixels; the levels are added.
 */
export function lpips(model: Lpips, x: Tensor, y: Tensor): Tensor {
  const [B, H, W, C] = x.shape, least = 2 ** (model.args.levels.length - 1);
  expectShape("lpips", "y", y, x.shape);
  if (x.shape.length !== 4 || C !== 3 || Math.min(H, W) < least) {
    throw new RangeError(`Cannot run lpips: x is [${x.shape}], it must be [B, H, W, 3] with H and W from ${least} up`);
  }
  return tidy(() => {
    const targets = noGrad(() => tidy(() => features(model, y)));
    const distances = features(model, x).map((f, level) => {
      const rows = f.size / f.shape[3], head = reshape(model.params[`lin${level}`].model[1].weight, [f.shape[3]]);
      return mean(unitDistance(reshape(f, [rows, -1]), reshape(targets[level], [rows, -1]), head));
    });
    return B === 0 ? mean(x) : distances.reduce((sum, d) => add(sum, d));
  });
}
