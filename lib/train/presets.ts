/** The config of a command line: a preset, a file laid over it, settings laid over both. */
import type { z } from "zod";
import { checkConfig, ConfigError, type Json, nearestName, overlay, parseOverrides, readJson } from "./config.ts";
import { isTrellisConfig } from "./trellis.ts";

/** Where a config comes from. */
export interface ConfigFlags {
  /** The preset to start from. */
  size: string;
  /** A JSON file laid over it: ours, or TRELLIS's. */
  file?: string;
  /** `key.key=value` settings laid over both. */
  overrides: string[];
}

/** A preset with a file and settings laid over it, checked. `fromTrellis` translates a TRELLIS config. */
export function resolveConfig<T>(
  schema: z.ZodType<T>,
  sizes: Record<string, T>,
  { size, file, overrides, fromTrellis }: ConfigFlags & { fromTrellis: (json: Json) => Json },
): T {
  if (!Object.hasOwn(sizes, size)) {
    const names = Object.keys(sizes);
    throw new ConfigError(`Cannot use the size ${size}: it must be one of ${names.join(", ")}; did you mean ${nearestName(size, names)}?`);
  }
  let config = structuredClone(sizes[size]) as Json;
  const known = config;
  if (file) {
    const json = readJson(file), trellis = isTrellisConfig(json);
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw new ConfigError(
        `Cannot use ${file}: it is ${JSON.stringify(json).slice(0, 60)}, it must be a JSON object with the config's keys`,
      );
    }
    config = overlay(trellis ? structuredClone(sizes.published) as Json : config, trellis ? fromTrellis(json) : json);
    if (overrides.length === 0) return checkConfig(schema, config, { known, source: file });
  }
  return checkConfig(schema, overlay(config, parseOverrides(overrides)), {
    known,
    source: overrides.length ? "the settings" : `the size ${size}`,
  });
}
