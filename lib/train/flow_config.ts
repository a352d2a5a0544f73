/** What the configs of flow recipes share, and its translation from TRELLIS's. */
import { z } from "zod";
import type { TimeSchedule } from "../flow/path.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import type { Precision } from "./batch.ts";
import type { ConditionConfig } from "./condition.ts";
import { ConfigError, type Json } from "./config.ts";
import { COUNT, PATCH_ENCODER_ARGS } from "./schemas.ts";
import type { TrellisConfig } from "./trellis.ts";

/** How a flow is trained. */
export interface FlowSettings {
  /** The noise left at the data's end. */
  sigmaMin: number;
  schedule: TimeSchedule;
  /** How often the condition is dropped, so that guidance can be used. */
  pUncond: number;
}

/** How a trained flow samples unless the user says otherwise. */
export interface FlowSampler {
  steps: number;
  cfgStrength: number;
  cfgInterval: [number, number];
  rescaleT: number;
}

/** TRELLIS's values. */
export const FLOW_DEFAULTS: FlowSettings = { sigmaMin: 1e-5, schedule: { name: "logitNormal", mean: 1, std: 1 }, pUncond: 0.1 };

/** TRELLIS's values, with less guidance: right for small models. */
export const SAMPLER_DEFAULTS: FlowSampler = { steps: 25, cfgStrength: 3, cfgInterval: [0.5, 1], rescaleT: 3 };

/** Of {@linkcode FlowSettings}. */
export const FLOW_SCHEMA = z.strictObject({
  sigmaMin: z.number().min(0),
  schedule: z.discriminatedUnion("name", [
    z.strictObject({ name: z.literal("uniform") }),
    z.strictObject({ name: z.literal("logitNormal"), mean: z.number(), std: z.number().positive() }),
  ]),
  pUncond: z.number().min(0).max(1),
});

/** Of {@linkcode FlowSampler}. */
export const SAMPLER_SCHEMA: z.ZodType<FlowSampler> = z.strictObject({
  steps: COUNT,
  cfgStrength: z.number(),
  cfgInterval: z.tuple([z.number(), z.number()]),
  rescaleT: z.number().positive(),
});

/** Of `ConditionConfig`. */
export const CONDITION_SCHEMA: z.ZodType<ConditionConfig> = z.discriminatedUnion("encoder", [
  PATCH_ENCODER_ARGS.extend({ encoder: z.literal("patch") }),
  z.strictObject({ encoder: z.literal("dinov2_vitl14_reg"), weights: z.string(), image_size: COUNT, use_fp16: z.boolean().optional() }),
]);

/** The dtype of a model's blocks. */
export const FLOW_PRECISION_SCHEMA: z.ZodType<Precision> = z.enum(["auto", "f32", "f16", "bf16", "fp8", "fp8-all"]);

/** That of models without 8-bit layers. */
export const PRECISION_SCHEMA: z.ZodType<"auto" | FloatDType> = z.enum(["auto", "f32", "f16", "bf16"]);

/** Flow and condition of a TRELLIS config whose trainer must be `trainer`, conditioned on images. */
export function trellisFlow({ trainer: { name, args }, dataset }: TrellisConfig, trainer: string): { [key: string]: Json } {
  const { image_cond_model: image, t_schedule, sigma_min, p_uncond } = args;
  if (name !== trainer || (image ?? "dinov2_vitl14_reg") !== "dinov2_vitl14_reg") {
    throw new ConfigError(
      `Cannot use the TRELLIS config: its trainer is ${name} on ${image}, it must be ${trainer} on dinov2_vitl14_reg`,
    );
  }
  const schedule = t_schedule as { name: string; args?: { mean?: number; std?: number } } | undefined;
  return {
    condition: { encoder: "dinov2_vitl14_reg", weights: "dinov2_vitl14_reg.safetensors", image_size: dataset.args.image_size ?? 518 },
    flow: {
      sigmaMin: sigma_min ?? 1e-5,
      pUncond: p_uncond ?? 0.1,
      schedule: schedule?.name === "uniform"
        ? { name: "uniform" }
        : { name: "logitNormal", mean: schedule?.args?.mean ?? 0, std: schedule?.args?.std ?? 1 },
    },
  };
}
