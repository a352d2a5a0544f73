/** The published encoder of condition pictures: DINOv2 ViT with registers (Oquab et al. 2023, Darcet et al. 2023). */
import { cast } from "../ops/cast.ts";
import { add, geluErf, mul } from "../ops/elementwise.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { linear } from "../ops/matmul.ts";
import { broadcastTo, concat, permute, reshape, slice } from "../ops/movement.ts";
import { resizeBicubic } from "../ops/resize.ts";
import { selfAttention } from "../ops/attention.ts";
import { type NormSpec, normSpec } from "../nn/block.ts";
import { applyLinear, type LinearSpec, linearSpec } from "../nn/linear.ts";
import type { Parameters, ParameterSpec } from "../nn/parameters.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { expectShape, type Tensor, tensor } from "../tensor/tensor.ts";

/** Means and standard deviations of ImageNet's channels, which DINOv2 was trained with. */
const IMAGE_MEAN = [0.485, 0.456, 0.406], IMAGE_STD = [0.229, 0.224, 0.225];

/** Size of a DINOv2 with registers. */
export interface DinoArgs {
  /** Side in pixels that the position embedding was made for, and of a patch. */
  img_size: number;
  patch_size: number;
  embed_dim: number;
  depth: number;
  num_heads: number;
  mlp_ratio: number;
  num_register_tokens: number;
}

/** dinov2_vitl14_reg. */
export const DINOV2_VITL14_REG: DinoArgs = {
  img_size: 518,
  patch_size: 14,
  embed_dim: 1024,
  depth: 24,
  num_heads: 16,
  mlp_ratio: 4,
  num_register_tokens: 4,
};

type DinoBlockSpec = {
  norm1: NormSpec;
  attn: { qkv: LinearSpec; proj: LinearSpec };
  ls1: { gamma: ParameterSpec };
  norm2: NormSpec;
  mlp: { fc1: LinearSpec; fc2: LinearSpec };
  ls2: { gamma: ParameterSpec };
};

/** Parameters of DINOv2, under its checkpoint's names. */
export type DinoSpec = {
  cls_token: ParameterSpec;
  pos_embed: ParameterSpec;
  register_tokens: ParameterSpec;
  mask_token: ParameterSpec;
  patch_embed: { proj: { weight: ParameterSpec; bias: ParameterSpec } };
  blocks: DinoBlockSpec[];
  norm: NormSpec;
};

/** A DINOv2: its size and its parameters. */
export interface Dino {
  args: DinoArgs;
  params: Parameters<DinoSpec>;
}

/** The parameters of a DINOv2, those of its blocks' dense layers in `dtype`, in which the blocks then compute. */
export function dinoSpec(
  { img_size, patch_size: p, embed_dim: C, depth, mlp_ratio, num_register_tokens }: DinoArgs,
  dtype: FloatDType = "f32",
): DinoSpec {
  const side = Math.floor(img_size / p), leaf = (shape: number[]): ParameterSpec => ({ shape, dtype: "f32", init: { fill: 0 } });
  const layerScale = (): ParameterSpec => ({ shape: [C], dtype, init: { fill: 1 } });
  return {
    cls_token: leaf([1, 1, C]),
    pos_embed: leaf([1, side * side + 1, C]),
    register_tokens: leaf([1, num_register_tokens, C]),
    mask_token: leaf([1, C]),
    patch_embed: { proj: { weight: { shape: [C, 3, p, p], dtype: "f32", init: { normal: 0.02 } }, bias: leaf([C]) } },
    blocks: Array.from({ length: depth }, () => ({
      norm1: normSpec(C),
      attn: { qkv: linearSpec(C, 3 * C, dtype), proj: linearSpec(C, C, dtype) },
      ls1: { gamma: layerScale() },
      norm2: normSpec(C),
      mlp: { fc1: linearSpec(C, C * mlp_ratio, dtype), fc2: linearSpec(C * mlp_ratio, C, dtype) },
      ls2: { gamma: layerScale() },
    })),
    norm: normSpec(C),
  };
}

/** Cuts images [B, 3, H, W] into patches [B, (H/p)(W/p), 3 p p], each in the order of a convolution's weight. */
function imagePatches(image: Tensor, p: number): Tensor {
  const [B, C, H, W] = image.shape, h = H / p, w = W / p;
  return reshape(permute(reshape(image, [B, C, h, p, w, p]), [0, 2, 4, 1, 3, 5]), [B, h * w, C * p * p]);
}

function normalizeImage(image: Tensor): Tensor {
  const scale = tensor(IMAGE_STD.map((s) => 1 / s), [1, 3, 1, 1]),
    shift = tensor(IMAGE_MEAN.map((m, i) => -m / IMAGE_STD[i]), [1, 3, 1, 1]);
  return add(mul(image, scale), shift);
}

/** Position embedding [1, 1 + h w, C] of the class token and an h x w grid of patches: bicubic, antialiased, from the trained grid. */
function dinoPositions(pos: Tensor, h: number, w: number): Tensor {
  const C = pos.shape[2], side = Math.round(Math.sqrt(pos.shape[1] - 1));
  if (h === side && w === side) return pos;
  const grid = reshape(slice(pos, 1, 1, pos.shape[1]), [1, side, side, C]);
  return concat([slice(pos, 1, 0, 1), reshape(resizeBicubic(grid, [h, w], { antialias: true }), [1, h * w, C])], 1);
}

function dinoBlock(p: Parameters<DinoBlockSpec>, x: Tensor, H: number): Tensor {
  const [B, L, C] = x.shape, norm = (n: Parameters<NormSpec>, x: Tensor) => layerNorm(x, { w: n.weight, b: n.bias, eps: 1e-6 });
  const qkv = reshape(applyLinear(p.attn.qkv, norm(p.norm1, x)), [B, L, 3, H, C / H]);
  x = add(x, mul(applyLinear(p.attn.proj, reshape(selfAttention(qkv), [B, L, C])), p.ls1.gamma));
  return add(x, mul(applyLinear(p.mlp.fc2, geluErf(applyLinear(p.mlp.fc1, norm(p.norm2, x)))), p.ls2.gamma));
}

/** The tokens before the final norm [B, 1 + registers + patches, C] f32 of images [B, 3, S, S] f32 that are normalised already. */
export function dinoTokens({ args, params: p }: Dino, image: Tensor): Tensor {
  const [B, , Hp, Wp] = image.shape, C = args.embed_dim, patch = args.patch_size;
  expectShape("dinoTokens", "image", image, [B, 3, Hp, Wp]);
  if (Hp % patch || Wp % patch) {
    throw new RangeError(`Cannot run dinoTokens: image is [${image.shape}], its sides must be multiples of ${patch}`);
  }
  let x = tidy(() => {
    const weight = reshape(p.patch_embed.proj.weight, [C, 3 * patch * patch]);
    const patches = linear(imagePatches(image, patch), weight, p.patch_embed.proj.bias); // [B, hw, C]
    const tokens = add(concat([broadcastTo(p.cls_token, [B, 1, C]), patches], 1), dinoPositions(p.pos_embed, Hp / patch, Wp / patch));
    const all = concat([
      slice(tokens, 1, 0, 1),
      broadcastTo(p.register_tokens, [B, args.num_register_tokens, C]),
      slice(tokens, 1, 1, tokens.shape[1]),
    ], 1);
    return cast(all, p.blocks[0].ls1.gamma.dtype as FloatDType);
  });
  for (const block of p.blocks) {
    const before = x;
    x = tidy(() => dinoBlock(block, before, args.num_heads));
    if (!x.requiresGrad) before.free();
  }
  const tokens = cast(x, "f32");
  if (tokens !== x && !x.requiresGrad) x.free();
  return tokens;
}

/** The final norm of DINOv2's tokens. */
export function dinoNorm({ params: p }: Dino, tokens: Tensor): Tensor {
  return layerNorm(tokens, { w: p.norm.weight, b: p.norm.bias, eps: 1e-6 });
}

/** The condition of a flow model: tokens before the final norm, layer-normed without affine. image [B, 3, S, S] in [0, 1] gives [B, M, C]. */
export function dinoCondition(model: Dino, image: Tensor): Tensor {
  return tidy(() => layerNorm(dinoTokens(model, normalizeImage(image)), { eps: 1e-5 }));
}

/** The tokens of the patches before the final norm: image [B, 3, S, S] in [0, 1] gives [B, (S / patch_size)², C], row by row. */
export function dinoPatches(model: Dino, image: Tensor): Tensor {
  return tidy(() => {
    const tokens = dinoTokens(model, normalizeImage(image));
    return slice(tokens, 1, 1 + model.args.num_register_tokens, tokens.shape[1]);
  });
}
