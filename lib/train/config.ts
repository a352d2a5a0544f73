/** Typed configs: presets, JSON files and dotted overrides, checked against a schema; a wrong key is answered with the nearest right one. */
import { z } from "zod";

/** A config cannot be used; the message names the key, what it is and what it must be. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

/** Plain JSON values. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The number of single-character edits from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + Number(a[i - 1] !== b[j - 1])));
    row = next;
  }
  return row[b.length];
}

/** The name among `names` that is nearest to `wrong`. */
export function nearestName(wrong: string, names: string[]): string {
  return names.reduce((best, name) => editDistance(wrong, name) < editDistance(wrong, best) ? name : best, names[0] ?? "");
}

/** Keys whose text says which kind of record one is: the others of two kinds do not mix. */
const KINDS = ["name", "encoder", "policy"];

/** A config with `overrides` laid over it: records are merged key by key, those of another `name`, `encoder` or `policy` and everything else are replaced. */
export function overlay(base: Json, overrides: Json): Json {
  if (!isRecord(base) || !isRecord(overrides)) return overrides;
  if (KINDS.some((kind) => isText(base[kind]) && isText(overrides[kind]) && base[kind] !== overrides[kind])) return overrides;
  const out = { ...base };
  for (const [key, value] of Object.entries(overrides)) out[key] = key in base ? overlay(base[key], value) : value;
  return out;
}

function isText(value: Json | undefined): value is string {
  return typeof value === "string";
}

function isRecord(value: Json | undefined): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Overrides as on a command line, such as `optimizer.lr=1e-4`, as a tree. A value is JSON, or else text. */
export function parseOverrides(settings: string[]): { [key: string]: Json } {
  const tree: { [key: string]: Json } = {};
  for (const setting of settings) {
    const at = setting.indexOf("="), path = setting.slice(0, at).split("."), text = setting.slice(at + 1);
    if (at < 1 || path.some((p) => !p || p === "__proto__")) {
      throw new ConfigError(`Cannot read the setting "${setting}": it must be key.key=value`);
    }
    let value: Json;
    try {
      value = JSON.parse(text);
    } catch {
      value = text;
    }
    let node = tree;
    for (const key of path.slice(0, -1)) {
      if (!isRecord(node[key])) node[key] = {};
      node = node[key] as { [key: string]: Json };
    }
    node[path.at(-1)!] = value;
  }
  return tree;
}

/** The keys of `known` at the place `path`. */
function keysAt(known: Json, path: PropertyKey[]): string[] {
  let node: Json | undefined = known;
  for (const key of path) node = isRecord(node) ? node[String(key)] : undefined;
  return isRecord(node) ? Object.keys(node) : [];
}

function valueAt(value: Json, path: PropertyKey[]): Json | undefined {
  let node: Json | undefined = value;
  for (const key of path) node = typeof node === "object" && node !== null ? (node as { [key: string]: Json })[String(key)] : undefined;
  return node;
}

/** Checks `value` against `schema`. `known` is a full config, whose keys are proposed for wrong ones; `source` says where the value is from. */
export function checkConfig<T>(schema: z.ZodType<T>, value: Json, { known, source }: { known: Json; source: string }): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0], place = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const wrong = issue.keys[0], names = keysAt(known, issue.path), full = [...issue.path.map(String), wrong].join(".");
    throw new ConfigError(
      `Cannot use ${source}: the key is ${full}, it must be one of ${names.join(", ")}${
        names.length ? `; did you mean ${nearestName(wrong, names)}?` : ""
      }`,
    );
  }
  const got = valueAt(value, issue.path);
  throw new ConfigError(
    `Cannot use ${source}: ${place || "the config"} is ${
      got === undefined ? "missing" : JSON.stringify(got)
    }, it must satisfy: ${issue.message}`,
  );
}

/** Reads a JSON file. */
export function readJson(path: string): Json {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    throw new ConfigError(`Cannot read ${path}: ${(error as Error).message}, it must be a readable JSON file`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`Cannot read ${path}: ${(error as Error).message}, it must be JSON`);
  }
}

/** `key.key = value` lines of a config, for --help. */
export function describeConfig(config: Json, prefix = ""): string[] {
  if (!isRecord(config)) return [`  --${prefix}=${JSON.stringify(config)}`];
  return Object.entries(config).flatMap(([key, value]) => describeConfig(value, prefix ? `${prefix}.${key}` : key));
}
