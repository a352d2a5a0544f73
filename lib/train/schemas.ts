/** Schemas and defaults that the training configs share. */
import { z } from "zod";
import type { OptimizerConfig } from "../optim/optimizer.ts";
import type { LogConfig } from "./run.ts";

/** A whole number from 1 up. */
export const COUNT: z.ZodType<number> = z.int().min(1);

/** Of {@linkcode OptimizerConfig}. */
export const OPTIMIZER_SCHEMA: z.ZodType<OptimizerConfig> = z.strictObject({
  lr: z.number().positive(),
  weightDecay: z.number().min(0),
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]),
  eps: z.number().positive(),
  warmup: z.int().min(0),
  clip: z.strictObject({ maxNorm: z.number().positive().nullable(), percentile: z.number().gt(0).max(100).nullable() }),
  emaRates: z.array(z.number().gt(0).lt(1)).min(1),
  scaleGrowth: z.number().min(0),
});

/** Of {@linkcode LogConfig}. */
export const LOG_SCHEMA: z.ZodType<LogConfig> = z.strictObject({
  every: COUNT,
  sampleEvery: z.int().min(0),
  saveEvery: z.int().min(0),
  keep: COUNT,
});
