/** How a recipe's config says what to do about memory, and its translation from TRELLIS's. */
import { z } from "zod";
import { readDriver } from "../../ffi/cuda_driver.ts";
import { cardFor } from "../memory/cards.ts";
import { type ElasticMemory, plannedMemory } from "../memory/elastic.ts";
import { LINEAR_MEMORY_DEFAULTS, linearMemory, type LinearMemoryOptions } from "../memory/linear_controller.ts";
import { device } from "../tensor/device.ts";
import { ConfigError, type Json } from "./config.ts";

/**
 * planned: as much is made again in backward passes as keeps them within `--memory-limit`, decided for each micro-batch; with `offload` some of it waits in the host's memory instead. linear: TRELLIS's
 * LinearMemoryController, which decides how many blocks are computed again.
 */
export type MemoryConfig = { policy: "planned"; offload?: boolean } | ({ policy: "linear" } & LinearMemoryOptions);

/** Plans. */
export const MEMORY_DEFAULTS: MemoryConfig = { policy: "planned" };

const LINEAR = LINEAR_MEMORY_DEFAULTS;

/** Of the linear policy, TRELLIS's defaults for what is not said. */
const LINEAR_MEMORY_SCHEMA = z.strictObject({
  policy: z.literal("linear"),
  bufferSize: z.int().min(2).default(LINEAR.bufferSize),
  updateEvery: z.int().min(1).default(LINEAR.updateEvery),
  targetRatio: z.number().gt(0).max(1).default(LINEAR.targetRatio),
  availableMemory: z.number().positive().nullable().default(LINEAR.availableMemory),
  maxMemRatioStart: z.number().min(0).max(1).default(LINEAR.maxMemRatioStart),
  params: z.tuple([z.number(), z.number()]).default(LINEAR.params),
});

/** Of {@linkcode MemoryConfig}. */
export const MEMORY_SCHEMA: z.ZodType<MemoryConfig> = z.discriminatedUnion("policy", [
  z.strictObject({ policy: z.literal("planned"), offload: z.boolean().optional() }),
  LINEAR_MEMORY_SCHEMA,
]);

/** Makes what a config describes; the model has so many `blocks`. */
export function openMemory(
  config: MemoryConfig,
  { blocks, seed, say }: { blocks: number; seed: number; say: (text: string) => void },
): ElasticMemory {
  if (config.policy === "linear") return linearMemory(config, { blocks, seed, say });
  return plannedMemory({ offload: config.offload, card: device().name === "cuda" ? cardFor(readDriver().gpus[0]?.name) : undefined, say });
}

/** What a log shows of the last micro-batch: its peak and what was expected in GiB, and the part of all that can be made again that was. */
export function memoryValues({ report }: ElasticMemory): Record<string, number> {
  return { memory: report.peak / 2 ** 30, memory_predicted: report.predicted / 2 ** 30, remade_share: report.share };
}

const KEYS: Record<string, keyof LinearMemoryOptions> = {
  ...{ buffer_size: "bufferSize", update_every: "updateEvery", target_ratio: "targetRatio", available_memory: "availableMemory" },
  ...{ max_mem_ratio_start: "maxMemRatioStart", params: "params" },
};

/** TRELLIS's `elastic` in our terms. */
export function trellisMemory(elastic: Json | undefined): { [key: string]: Json } {
  if (!elastic) return { ...MEMORY_DEFAULTS };
  const { name, args = {} } = elastic as { name?: string; args?: { [key: string]: Json } };
  if (name !== "LinearMemoryController") {
    throw new ConfigError(`Cannot use the TRELLIS config: elastic is ${JSON.stringify(name)}, it must be LinearMemoryController`);
  }
  const options: { [key: string]: Json } = { policy: "linear", ...LINEAR_MEMORY_DEFAULTS };
  for (const [key, value] of Object.entries(args)) {
    if (key === "device") continue;
    if (!KEYS[key]) {
      throw new ConfigError(
        `Cannot use the TRELLIS config: the key is elastic.args.${key}, it must be one of ${Object.keys(KEYS).join(", ")}`,
      );
    }
    options[KEYS[key]] = value;
  }
  return options;
}
