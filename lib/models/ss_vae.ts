/** SparseStructureEncoder and SparseStructureDecoder: the VAE over occupancy grids. Volumes are channels-last inside, [B, X, Y, Z, C]. */
import { cast } from "../ops/cast.ts";
import { conv3d } from "../ops/conv3d.ts";
import { add, exp, mul, silu } from "../ops/elementwise.ts";
import { groupNorm } from "../ops/group_norm.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { permute, pixelShuffle3d, reshape, slice } from "../ops/movement.ts";
import { type NormSpec, normSpec } from "../nn/block.ts";
import type { Parameters, ParameterSpec } from "../nn/parameters.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { Generator } from "../tensor/random.ts";
import { tidy } from "../tensor/scope.ts";
import { expectShape, type Tensor } from "../tensor/tensor.ts";

/** Options that both halves share, named as in TRELLIS's configs. */
interface SharedArgs {
  latent_channels: number;
  num_res_blocks: number;
  /** Channels of each level; the encoder halves the grid between two, the decoder doubles it. */
  channels: number[];
  num_res_blocks_middle?: number;
  /** The norm before the output convolution; all others are layer norms over channels. */
  norm_type?: "layer" | "group";
  use_fp16?: boolean;
}

/** Constructor options of the encoder. */
export interface SsEncoderArgs extends SharedArgs {
  in_channels: number;
}

/** Constructor options of the decoder. */
export interface SsDecoderArgs extends SharedArgs {
  out_channels: number;
}

type ConvSpec = { weight: ParameterSpec; bias: ParameterSpec };
type ResBlockSpec = { norm1: NormSpec; norm2: NormSpec; conv1: ConvSpec; conv2: ConvSpec };
type ResampleSpec = { conv: ConvSpec };

/** Parameters of either half, under the checkpoint's names. */
export type SsVaeSpec = {
  input_layer: ConvSpec;
  blocks: (ResBlockSpec | ResampleSpec)[];
  middle_block: ResBlockSpec[];
  out_layer: { 0: NormSpec; 2: ConvSpec };
};

/** One half of the VAE: its options, the dtype of its blocks, and its parameters. */
export interface SsVaeHalf<A> {
  args: A;
  dtype: FloatDType;
  params: Parameters<SsVaeSpec>;
}

/** The encoder. */
export type SsEncoder = SsVaeHalf<SsEncoderArgs>;
/** The decoder. */
export type SsDecoder = SsVaeHalf<SsDecoderArgs>;

const EPS = 1e-5, GROUPS = 32;

function convSpec(inputs: number, outputs: number, k: number, dtype: FloatDType, zero = false): ConvSpec {
  const init = zero ? { fill: 0 } : { uniform: 1 / Math.sqrt(inputs * k ** 3) };
  return { weight: { shape: [outputs, inputs, k, k, k], dtype, init }, bias: { shape: [outputs], dtype, init } };
}

function resBlockSpec(C: number, dtype: FloatDType): ResBlockSpec {
  return { norm1: normSpec(C), norm2: normSpec(C), conv1: convSpec(C, C, 3, dtype), conv2: convSpec(C, C, 3, dtype, true) };
}

function repeat<T>(count: number, make: () => T): T[] {
  return Array.from({ length: count }, make);
}

/** The encoder's parameters; `dtype` is that of its blocks. */
export function ssEncoderSpec(args: SsEncoderArgs, dtype: FloatDType = args.use_fp16 ? "f16" : "f32"): SsVaeSpec {
  const { channels, num_res_blocks, num_res_blocks_middle = 2 } = args, last = channels.at(-1)!;
  return {
    input_layer: convSpec(args.in_channels, channels[0], 3, "f32"),
    blocks: channels.flatMap((C, i) => [
      ...repeat(num_res_blocks, () => resBlockSpec(C, dtype)),
      ...(i + 1 < channels.length ? [{ conv: convSpec(C, channels[i + 1], 2, dtype) }] : []),
    ]),
    middle_block: repeat(num_res_blocks_middle, () => resBlockSpec(last, dtype)),
    out_layer: { 0: normSpec(last), 2: convSpec(last, 2 * args.latent_channels, 3, "f32") },
  };
}

/** The decoder's parameters; `dtype` is that of its blocks. */
export function ssDecoderSpec(args: SsDecoderArgs, dtype: FloatDType = args.use_fp16 ? "f16" : "f32"): SsVaeSpec {
  const { channels, num_res_blocks, num_res_blocks_middle = 2 } = args, last = channels.at(-1)!;
  return {
    input_layer: convSpec(args.latent_channels, channels[0], 3, "f32"),
    blocks: channels.flatMap((C, i) => [
      ...repeat(num_res_blocks, () => resBlockSpec(C, dtype)),
      ...(i + 1 < channels.length ? [{ conv: convSpec(C, 8 * channels[i + 1], 3, dtype) }] : []),
    ]),
    middle_block: repeat(num_res_blocks_middle, () => resBlockSpec(channels[0], dtype)),
    out_layer: { 0: normSpec(last), 2: convSpec(last, args.out_channels, 3, "f32") },
  };
}

function conv(p: Parameters<ConvSpec>, x: Tensor): Tensor {
  return conv3d(x, p.weight, p.bias, { padding: 1 });
}

function norm(p: Parameters<NormSpec>, x: Tensor): Tensor {
  return layerNorm(x, { w: p.weight, b: p.bias, eps: EPS });
}

function resBlock(p: Parameters<ResBlockSpec>, x: Tensor): Tensor {
  const h = conv(p.conv1, silu(norm(p.norm1, x)));
  return add(conv(p.conv2, silu(norm(p.norm2, h))), x);
}

/** What `block` makes of h, which is freed at once where no backward pass is to come. */
function pass(h: Tensor, block: (h: Tensor) => Tensor): Tensor {
  const y = tidy(() => block(h));
  if (!y.requiresGrad) h.free();
  return y;
}

function outLayer(p: Parameters<SsVaeSpec>["out_layer"], x: Tensor, norm_type: "layer" | "group" = "layer"): Tensor {
  return tidy(() => {
    const C = x.shape.at(-1)!, h = cast(x, "f32");
    const normed = norm_type === "layer"
      ? norm(p[0], h)
      : reshape(groupNorm(reshape(h, [h.shape[0], -1, C]), GROUPS, { w: p[0].weight, b: p[0].bias, eps: EPS }), h.shape);
    return conv(p[2], silu(normed));
  });
}

/** The posterior of a latent: mean and log-variance, [B, latent, r, r, r]. */
export interface Posterior {
  mean: Tensor;
  logvar: Tensor;
}

/** The posterior of occupancy x [B, in, R, R, R] f32. */
export function ssEncode({ args, dtype, params: p }: SsEncoder, x: Tensor): Posterior {
  const [B, , X, Y, Z] = x.shape, factor = 2 ** (args.channels.length - 1);
  expectShape("ssEncode", "x", x, [B, args.in_channels, X, Y, Z]);
  if ([X, Y, Z].some((d) => d % factor !== 0)) {
    throw new RangeError(`Cannot run ssEncode: x is [${x.shape}], its sides must be multiples of ${factor}`);
  }
  let h = tidy(() => cast(conv(p.input_layer, permute(x, [0, 2, 3, 4, 1])), dtype));
  for (const block of [...p.blocks, ...p.middle_block]) {
    h = pass(h, (h) => "conv" in block ? conv3d(h, block.conv.weight, block.conv.bias, { stride: 2 }) : resBlock(block, h));
  }
  return tidy(() => {
    const out = permute(outLayer(p.out_layer, h, args.norm_type), [0, 4, 1, 2, 3]), L = args.latent_channels; // [B, 2 latent, r, r, r]
    return { mean: slice(out, 1, 0, L), logvar: slice(out, 1, L, 2 * L) };
  });
}

/** A sample `mean + exp(logvar / 2) ε` of a posterior; ε is drawn from a generator, or given, of the mean's shape. */
export function samplePosterior({ mean, logvar }: Posterior, random: Generator | Tensor): Tensor {
  return tidy(() => add(mean, mul(exp(mul(logvar, 0.5)), random instanceof Generator ? random.normal(mean.shape) : random)));
}

/** Occupancy logits [B, out, R, R, R] f32 of a latent z [B, latent, r, r, r] f32: a voxel is occupied where the logit is above 0. */
export function ssDecode({ args, dtype, params: p }: SsDecoder, z: Tensor): Tensor {
  const [B, , X, Y, Z] = z.shape;
  expectShape("ssDecode", "z", z, [B, args.latent_channels, X, Y, Z]);
  let h = tidy(() => cast(conv(p.input_layer, permute(z, [0, 2, 3, 4, 1])), dtype));
  for (const block of [...p.middle_block, ...p.blocks]) {
    h = pass(h, (h) => "conv" in block ? pixelShuffle3d(conv(block.conv, h), 2) : resBlock(block, h));
  }
  return tidy(() => permute(outLayer(p.out_layer, h, args.norm_type), [0, 4, 1, 2, 3]));
}
