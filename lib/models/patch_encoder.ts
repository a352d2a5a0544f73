/**
 * The patch encoder: a small image encoder that is trained along with a flow model. Convolutions see edges and parts (few pictures suffice to
 * learn them), a transformer over the patches sees the object, and further tokens, one for each cube of the shape's volume, gather what the
 * picture says of their place: a loss on these teaches the encoder directly what shape it looks at.
 */
import { cast } from "../ops/cast.ts";
import { conv2d } from "../ops/conv2d.ts";
import { add, gelu, mul } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { broadcastTo, concat, permute, reshape, slice, unpatchify } from "../ops/movement.ts";
import { multiHeadSelfAttention, type SelfAttentionSpec, selfAttentionSpec } from "../nn/attention.ts";
import { type NormSpec, normSpec } from "../nn/block.ts";
import { applyLinear, feedForward, type FeedForwardSpec, feedForwardSpec, type LinearSpec, linearSpec } from "../nn/linear.ts";
import type { Init, Parameters, ParameterSpec } from "../nn/parameters.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { expectShape, type Tensor } from "../tensor/tensor.ts";

/** Size of the patch encoder. */
export interface PatchEncoderArgs {
  /** Side of the picture and of a patch, in pixels. */
  image_size: number;
  patch_size: number;
  /** Channels of the condition tokens. */
  channels: number;
  num_blocks: number;
  num_heads: number;
  /** Channels of convolutional stages before the transformer; each joins 2 x 2 cells, the last one's are the patches. None by default. */
  stem_channels?: number[];
  /** Side of a grid of further tokens for the cubes of the shape's volume; 0, the default, for none. */
  grid_size?: number;
  use_fp16?: boolean;
}

type ConvSpec = { weight: ParameterSpec; bias: ParameterSpec };
type ResBlockSpec = { norm1: NormSpec; conv1: ConvSpec; norm2: NormSpec; conv2: ConvSpec };
type StageSpec = { blocks: ResBlockSpec[]; merge: LinearSpec };
type PatchBlockSpec = { norm1: NormSpec; attn: SelfAttentionSpec; norm2: NormSpec; mlp: FeedForwardSpec };

/** Parameters of the patch encoder. */
export type PatchEncoderSpec = {
  proj: LinearSpec;
  stem: StageSpec[];
  pos_embed: ParameterSpec;
  grid_embed?: ParameterSpec;
  blocks: PatchBlockSpec[];
  norm: NormSpec;
};

/** A patch encoder: its size and its parameters. */
export interface PatchEncoder {
  args: PatchEncoderArgs;
  params: Parameters<PatchEncoderSpec>;
}

/** Residual blocks in a stage of the stem. */
const DEPTH = 2;
const EPS = 1e-6;

function resBlockSpec(C: number, dtype: FloatDType): ResBlockSpec {
  const conv = (init: Init): ConvSpec => ({
    weight: { shape: [C, C, 3, 3], dtype, init },
    bias: { shape: [C], dtype, init: { fill: 0 } },
  });
  return { norm1: normSpec(C), conv1: conv({ uniform: Math.sqrt(1 / (3 * C)) }), norm2: normSpec(C), conv2: conv({ fill: 0 }) };
}

/** Sines and cosines of the places in a grid with `axes` axes: [side^axes, C], C / (2 axes) wavelengths an axis from pi to 30 pi, then zeros. */
function sinePositions(side: number, axes: number, C: number): Float32Array<ArrayBuffer> {
  const n = Math.floor(C / (2 * axes)), out = new Float32Array(side ** axes * C);
  for (let i = 0; i < side ** axes; i++) {
    for (let axis = 0; axis < axes; axis++) {
      const p = Math.floor(i / side ** (axes - 1 - axis)) % side;
      for (let k = 0; k < n; k++) {
        const angle = 2 * p / 30 ** (k / n), at = i * C + 2 * n * axis + k;
        out[at] = Math.sin(angle);
        out[at + n] = Math.cos(angle);
      }
    }
  }
  return out;
}

/** The parameters of a patch encoder; `dtype` is that of its stages and blocks. */
export function patchEncoderSpec(
  { image_size, patch_size, channels: C, num_blocks, num_heads, stem_channels = [], grid_size: G = 0 }: PatchEncoderArgs,
  dtype: FloatDType = "f32",
): PatchEncoderSpec {
  if (image_size % patch_size !== 0) {
    throw new RangeError(`Cannot make the patch encoder: image_size is ${image_size}, it must be a multiple of patch_size, ${patch_size}`);
  }
  const cell = patch_size / 2 ** stem_channels.length, side = image_size / patch_size, widths = [...stem_channels, C];
  if (!Number.isInteger(cell)) {
    const stages = stem_channels.length;
    throw new RangeError(
      `Cannot make the patch encoder: patch_size is ${patch_size}, it must be a multiple of ${2 ** stages} for ${stages} stem_channels`,
    );
  }
  return {
    proj: linearSpec(3 * cell ** 2, widths[0], "f32"),
    stem: stem_channels.map((width, i) => ({
      blocks: Array.from({ length: DEPTH }, () => resBlockSpec(width, dtype)),
      merge: linearSpec(4 * width, widths[i + 1], dtype),
    })),
    pos_embed: { shape: [1, side ** 2, C], dtype: "f32", init: { values: () => sinePositions(side, 2, C) } },
    grid_embed: G ? { shape: [1, G ** 3, C], dtype: "f32", init: { values: () => sinePositions(G, 3, C) } } : undefined,
    blocks: Array.from({ length: num_blocks }, () => ({
      norm1: normSpec(C),
      attn: selfAttentionSpec(C, num_heads, { qkRmsNorm: true, dtype }),
      norm2: normSpec(C),
      mlp: feedForwardSpec(C, 4 * C, dtype),
    })),
    norm: normSpec(C),
  };
}

function norm(p: Parameters<NormSpec>, x: Tensor): Tensor {
  return layerNorm(x, { w: p.weight, b: p.bias, eps: EPS });
}

/** x [B, H, W, C] joined in squares of `side` cells: [B, H / side, W / side, side side C]. */
function squares(x: Tensor, side: number): Tensor {
  const [B, H, W, C] = x.shape, h = H / side, w = W / side;
  return reshape(permute(reshape(x, [B, h, side, w, side, C]), [0, 1, 3, 2, 4, 5]), [B, h, w, side * side * C]);
}

function resBlock(p: Parameters<ResBlockSpec>, x: Tensor): Tensor {
  const h = conv2d(gelu(norm(p.norm1, x)), p.conv1.weight, p.conv1.bias);
  return add(x, conv2d(gelu(norm(p.norm2, h)), p.conv2.weight, p.conv2.bias));
}

/** Condition tokens [B, (S/p)² + G³, C] f32 of pictures [B, 3, S, S] f32 in [0, 1]: those of the patches, then those of the volume. */
export function patchCondition({ args, params: p }: PatchEncoder, image: Tensor): Tensor {
  const { image_size: S, patch_size, channels: C, num_heads: H } = args, B = image.shape[0];
  const dtype = ((p.stem[0]?.merge ?? p.blocks[0]?.attn.to_out)?.weight.dtype ?? "f32") as FloatDType;
  expectShape("patchCondition", "image", image, [B, 3, S, S]);
  let x = tidy(() => {
    const pixels = permute(add(mul(image, 4), -2), [0, 2, 3, 1]); // [B, S, S, 3]
    return cast(applyLinear(p.proj, squares(pixels, patch_size / 2 ** p.stem.length)), dtype);
  });
  for (const { blocks, merge } of p.stem) {
    for (const block of blocks) x = replace(x, (x) => resBlock(block, x));
    x = replace(x, (x) => applyLinear(merge, squares(x, 2)));
  }
  x = replace(x, (x) => {
    const patches = add(cast(reshape(x, [B, (S / patch_size) ** 2, C]), "f32"), p.pos_embed);
    const tokens = p.grid_embed ? concat([patches, broadcastTo(p.grid_embed, [B, p.grid_embed.shape[1], C])], 1) : patches;
    return cast(tokens, dtype);
  });
  for (const block of p.blocks) {
    x = replace(x, (x) => {
      const h = add(x, multiHeadSelfAttention(block.attn, norm(block.norm1, x), H));
      return add(h, feedForward(block.mlp, norm(block.norm2, h)));
    });
  }
  return tidy(() => norm(p.norm, cast(x, "f32")));
}

/** `run(x)` alone; x goes where no backward pass needs it. */
function replace(x: Tensor, run: (x: Tensor) => Tensor): Tensor {
  const y = tidy(() => run(x));
  if (!y.requiresGrad) x.free();
  return y;
}

/** A head that says a volume [C, R, R, R] from the grid tokens: each token the cells of its own cube. It starts at zero. */
export function volumeHeadSpec({ channels, grid_size: G = 0 }: PatchEncoderArgs, C: number, R: number): LinearSpec {
  if (!(G > 0) || R % G !== 0) {
    throw new RangeError(`Cannot make the volume head: grid_size is ${G}, it must be above 0 and divide the volume's side, ${R}`);
  }
  return linearSpec(channels, C * (R / G) ** 3, "f32", { fill: 0 });
}

/** The volume [B, C, R, R, R] that the condition tokens [B, L + G³, X] of {@linkcode patchCondition} say. */
export function volumeHead(p: Parameters<LinearSpec>, { grid_size: G = 0 }: PatchEncoderArgs, tokens: Tensor, R: number): Tensor {
  const [B, L] = tokens.shape;
  return tidy(() => {
    const cubes = applyLinear(p, slice(tokens, 1, L - G ** 3, L)); // [B, G³, C (R/G)³]
    return unpatchify(reshape(permute(cubes, [0, 2, 1]), [B, p.weight.shape[0], G, G, G]), R / G);
  });
}
