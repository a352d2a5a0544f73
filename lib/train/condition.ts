/** The condition of a flow model: an image encoder, frozen or trained along, as a recipe sees it. */
import { loadParameters } from "../io/pretrained.ts";
import {
  type Dino,
  dinoCondition,
  dinoSpec,
  DINOV2_VITL14_REG,
  patchCondition,
  type PatchEncoderArgs,
  type PatchEncoderSpec,
  patchEncoderSpec,
} from "../models/image_encoder.ts";
import type { Parameters } from "../nn/parameters.ts";
import { noGrad } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Which encoder, and its size. */
export type ConditionConfig =
  | ({ encoder: "patch" } & PatchEncoderArgs)
  | { encoder: "dinov2_vitl14_reg"; weights: string; image_size: number };

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

/** The patch encoder, once with parameters and before that without. */
export function patchEncoder(args: PatchEncoderArgs, params?: Parameters<PatchEncoderSpec>): Condition {
  return {
    config: { encoder: "patch", ...args },
    channels: args.channels,
    spec: patchEncoderSpec(args),
    trained: params,
    encode(image) {
      if (!params) throw new TypeError("Cannot use the patch encoder: it has no parameters, withParameters() must give them");
      return patchCondition({ args, params }, image);
    },
    withParameters: (trained) => patchEncoder(args, trained),
  };
}

/** DINOv2 ViT-L/14 with registers, frozen, from a safetensors file with the names of its published checkpoint. */
export function dinoEncoder(weights: string, imageSize: number): Condition {
  const model: Dino = { args: DINOV2_VITL14_REG, params: loadParameters(dinoSpec(DINOV2_VITL14_REG), weights) };
  const condition: Condition = {
    config: { encoder: "dinov2_vitl14_reg", weights, image_size: imageSize },
    channels: DINOV2_VITL14_REG.embed_dim,
    spec: undefined,
    trained: undefined,
    encode: (image) => noGrad(() => dinoCondition(model, image)),
    withParameters: () => condition,
  };
  return condition;
}

/** Opens the encoder that a config names; a patch encoder has no parameters yet. */
export function openCondition(config: ConditionConfig): Condition {
  if (config.encoder === "dinov2_vitl14_reg") return dinoEncoder(config.weights, config.image_size);
  const { encoder: _, ...args } = config;
  return patchEncoder(args);
}
