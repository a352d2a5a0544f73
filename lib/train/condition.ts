/** The condition of a flow model: an image encoder, frozen or trained along, as a recipe sees it. */
import { loadParameters } from "../io/pretrained.ts";
import { type Dino, dinoCondition, dinoSpec, DINOV2_VITL14_REG } from "../models/image_encoder.ts";
import {
  patchCondition,
  type PatchEncoderArgs,
  type PatchEncoderSpec,
  patchEncoderSpec,
  volumeHead,
  volumeHeadSpec,
} from "../models/patch_encoder.ts";
import { mul } from "../ops/elementwise.ts";
import type { LinearSpec } from "../nn/linear.ts";
import { initialize, type Parameters } from "../nn/parameters.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { Generator } from "../tensor/random.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { joinBytes, type Precision, trainingDtype, unitRange } from "./batch.ts";

/** Which encoder, and its size. */
export type ConditionConfig =
  | ({ encoder: "patch" } & PatchEncoderArgs)
  | {
    encoder: "dinov2_vitl14_reg";
    weights: string;
    image_size: number;
    /**
     * Whether its blocks compute in f16 on a GPU where training does in f16, bf16 or 8 bits. In f32 they take almost
     * half of SS-Flow's step at full size. True by default; false is what TRELLIS does.
     */
    use_fp16?: boolean;
  };

/** An image encoder. */
export interface Condition {
  readonly config: ConditionConfig;
  /** Channels of the condition tokens. */
  readonly channels: number;
  /** What training moves; none for a frozen encoder. */
  readonly spec: PatchEncoderSpec | undefined;
  readonly trained: Parameters<PatchEncoderSpec> | undefined;
  /** Tokens [B, M, channels] of pictures [B, 3, S, S] in [0, 1], premultiplied on black. */
  encode(image: Tensor): Tensor;
  /** The same encoder with these trained parameters. */
  withParameters(trained: Parameters<PatchEncoderSpec> | undefined): Condition;
}

/** The patch encoder, once with parameters and before that without; by default in f16 on a GPU where `args` say use_fp16. */
export function patchEncoder(
  args: PatchEncoderArgs,
  params?: Parameters<PatchEncoderSpec>,
  dtype: FloatDType = trainingDtype("auto", args.use_fp16 ?? false),
): Condition {
  return {
    config: { encoder: "patch", ...args },
    channels: args.channels,
    spec: patchEncoderSpec(args, dtype),
    trained: params,
    encode(image) {
      if (!params) throw new TypeError("Cannot use the patch encoder: it has no parameters, withParameters() must give them");
      return patchCondition({ args, params }, image);
    },
    withParameters: (trained) => patchEncoder(args, trained, dtype),
  };
}

/** DINOv2 ViT-L/14 with registers from a safetensors file with the names of its published checkpoint, its blocks in `dtype`. */
export function loadDino(weights: string, dtype: FloatDType = "f32"): Dino {
  return { args: DINOV2_VITL14_REG, params: loadParameters(dinoSpec(DINOV2_VITL14_REG, dtype), weights) };
}

/** {@linkcode loadDino}, frozen. */
export function dinoEncoder(weights: string, imageSize: number): Condition {
  return frozenDino(loadDino(weights), { encoder: "dinov2_vitl14_reg", weights, image_size: imageSize });
}

/** The dtype of a frozen DINOv2's blocks where a flow model is trained in `precision`. */
function dinoDtype(precision: Precision, useFp16 = true): FloatDType {
  return precision === "f32" ? "f32" : trainingDtype("auto", useFp16);
}

function frozenDino(model: Dino, config: ConditionConfig): Condition {
  const condition: Condition = {
    config,
    channels: DINOV2_VITL14_REG.embed_dim,
    spec: undefined,
    trained: undefined,
    encode: (image) => noGrad(() => dinoCondition(model, image)),
    withParameters: () => condition,
  };
  return condition;
}

/** Opens the encoder that a config names; a patch encoder has no parameters yet, and is f32 unless `precision` or use_fp16 say otherwise. */
export function openCondition(config: ConditionConfig, precision: Precision = "auto"): Condition {
  if (config.encoder === "dinov2_vitl14_reg") return frozenDino(loadDino(config.weights, dinoDtype(precision, config.use_fp16)), config);
  const { encoder: _, ...args } = config;
  return patchEncoder(args, undefined, trainingDtype(precision, args.use_fp16 ?? false));
}

/** The same encoder with random weights: for what does not depend on them, such as a plan of memory. */
export function randomCondition(config: ConditionConfig, precision: Precision = "auto"): Condition {
  if (config.encoder === "patch") return openCondition(config, precision);
  const params = initialize(dinoSpec(DINOV2_VITL14_REG, dinoDtype(precision, config.use_fp16)), new Generator(0));
  return frozenDino({ args: DINOV2_VITL14_REG, params }, config);
}

/** A head for training alone: what latent the condition tokens say. A loss on it teaches the encoder directly what shape it looks at. */
export interface LatentHead {
  readonly spec: LinearSpec;
  /** The latent [B, channels, resolution, resolution, resolution] that condition tokens say. */
  guess(params: Parameters<LinearSpec>, tokens: Tensor): Tensor;
}

/** The head of a patch encoder with a grid of tokens, for latents [channels, resolution³]. Throws a RangeError where there is no such grid. */
export function latentHead(config: ConditionConfig, { channels, resolution }: { channels: number; resolution: number }): LatentHead {
  if (config.encoder !== "patch") {
    throw new RangeError(`Cannot guess latents: the encoder is ${config.encoder}, it must be patch with a grid_size (or guess.weight 0)`);
  }
  return {
    spec: volumeHeadSpec(config, channels, resolution),
    guess: (params, tokens) => volumeHead(params, config, tokens, resolution),
  };
}

/** The conditions of B samples on the device. */
export interface ConditionTensors {
  /** [B, 3, S, S] u8. */
  images: Tensor;
  /** [B, 3, 1, 1]: what the colour channels are multiplied by. */
  gains: Tensor;
  /** [B, 1, 1]: 0 where the condition is dropped, else 1. */
  kept: Tensor;
}

/** B pictures [3, S, S] in bytes, with `gains` [B, 3] and `kept` [B], on the device. */
export function conditionTensors(
  { images, gains, kept }: { images: Uint8Array[]; gains: number[]; kept: Float32Array<ArrayBuffer> },
): ConditionTensors {
  const B = images.length, S = Math.sqrt(images[0].length / 3);
  return { images: joinBytes(images, [B, 3, S, S]), gains: tensor(gains, [B, 3, 1, 1]), kept: tensor(kept, [B, 1, 1]) };
}

/** Tokens [B, M, channels] of B pictures. */
export function encodeDrawn(condition: Condition, { images, gains }: Pick<ConditionTensors, "images" | "gains">): Tensor {
  return condition.encode(mul(unitRange(images), gains));
}

/** Tokens [B, M, channels] times kept [B, 1, 1]: those of a dropped condition are zeros. */
export function dropTokens(tokens: Tensor, kept: Tensor): Tensor {
  return mul(tokens, kept);
}
