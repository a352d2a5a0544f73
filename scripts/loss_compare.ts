/**
 * Compares the losses of two runs: metrics.jsonl files (or the folders they are in), or text files with a loss, or a step and a loss, a line.
 *
 *   deno run -P=tools scripts/loss_compare.ts A B [--key=loss] [--assert-equal]
 *
 * Prints the largest relative difference; with --assert-equal, ends with status 1 at the first step that differs in any bit.
 */
import { readMetrics } from "../lib/train/metrics.ts";

/** Values by step. */
export type Losses = Map<number, number>;

/** A step at which two runs differ; undefined where one of them has no value. */
export interface Difference {
  step: number;
  a: number | undefined;
  b: number | undefined;
}

/** What {@linkcode compareLosses} finds. */
export interface Comparison {
  /** How many steps both have. */
  shared: number;
  /** The first step that is not the same to the bit. */
  first: Difference | null;
  /** The largest |a - b| / max(|a|, |b|) of the shared steps, infinite where one is no number, and where it is. */
  worst: { step: number; relative: number } | null;
}

/** Reads the losses of `path`; `key` names the series of a metrics file. */
export function readLosses(path: string, key = "loss"): Losses {
  const file = Deno.statSync(path).isDirectory ? `${path}/metrics.jsonl` : path;
  if (file.endsWith(".jsonl")) {
    const all = readMetrics(file), series = all[key];
    if (!series) throw new Error(`Cannot compare ${file}: it has no ${key}, it must be one of ${Object.keys(all).join(", ")}`);
    return new Map(series.step.map((step, i) => [step, series.value[i]]));
  }
  return new Map(
    Deno.readTextFileSync(file).trim().split("\n").map((line, i) => {
      const words = line.trim().split(/\s+/), numbers = words.map(Number);
      if (words.length > 2 || numbers.some((v, k) => Number.isNaN(v) && words[k] !== "NaN")) {
        throw new Error(`Cannot compare ${file}: line ${i + 1} is "${line.slice(0, 60)}", it must be a loss, or a step and a loss`);
      }
      return numbers.length === 2 ? [numbers[0], numbers[1]] : [i + 1, numbers[0]];
    }),
  );
}

/** Compares two runs step by step. */
export function compareLosses(a: Losses, b: Losses): Comparison {
  const found: Comparison = { shared: 0, first: null, worst: null };
  for (const step of [...new Set([...a.keys(), ...b.keys()])].sort((x, y) => x - y)) {
    const [x, y] = [a.get(step), b.get(step)];
    if (!Object.is(x, y)) found.first ??= { step, a: x, b: y };
    if (x === undefined || y === undefined) continue;
    found.shared++;
    const relative = Object.is(x, y) ? 0 : Math.abs(x - y) / Math.max(Math.abs(x), Math.abs(y)),
      size = Number.isNaN(relative) ? Infinity : relative;
    if (!found.worst || size > found.worst.relative) found.worst = { step, relative: size };
  }
  return found;
}

if (import.meta.main) {
  const args = Deno.args.filter((a) => a !== "--"), paths = args.filter((a) => !a.startsWith("--"));
  const key = args.find((a) => a.startsWith("--key="))?.slice("--key=".length) ?? "loss", equal = args.includes("--assert-equal");
  const unknown = args.find((a) => a.startsWith("--") && a !== "--assert-equal" && !a.startsWith("--key="));
  if (paths.length !== 2 || unknown) {
    console.error(`${unknown ? `unknown option ${unknown}\n` : ""}usage: scripts/loss_compare.ts A B [--key=loss] [--assert-equal]`);
    Deno.exit(2);
  }
  const [a, b] = paths.map((path) => readLosses(path, key)), { shared, first, worst } = compareLosses(a, b);
  if (equal && first) {
    console.error(`step ${first.step}: ${key} is ${first.a ?? "absent"} in ${paths[0]}, ${first.b ?? "absent"} in ${paths[1]}`);
    Deno.exit(1);
  }
  if (!worst) {
    console.error(`${paths[0]} and ${paths[1]} have no step in common`);
    Deno.exit(1);
  }
  console.log(
    first
      ? `${shared} steps in common, the largest relative difference is ${
        worst.relative.toExponential(2)
      } at step ${worst.step}; they differ from step ${first.step} on`
      : `${shared} steps, all equal to the bit`,
  );
}
