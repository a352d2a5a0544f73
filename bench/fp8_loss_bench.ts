/**
 * Trains a small SS-Flow over 2,000 steps in bf16, in fp8 and in fp8 with the forward products of the MLPs too, with several seeds each, as processes
 * that share the GPU: by how much fp8's loss is above bf16's of the same seed (same draws, same first parameters), in the mean over the seeds, with the
 * standard error of that mean; and how far its curves are from bf16's, beside two kinds of noise: a second run in bf16 whose learning rate is
 * 1e-4 of itself higher, and another seed. Writes bench/results/fp8_loss.json.
 *
 *   deno task bench bench/fp8_loss_bench.ts
 */
import { benchmark, type Findings, type Row, row } from "./harness.ts";
import { type Variant, WINDOW } from "./fp8_loss_run.ts";

const STEPS = 2000, SEEDS = 4, AT_ONCE = 8, VARIANTS: Variant[] = ["bf16", "fp8", "bf16-again", "fp8-all"];
const ROOT = new URL("../", import.meta.url).pathname;

const mean = (list: number[]): number => list.reduce((a, b) => a + b, 0) / list.length;
const rms = (list: number[]): number => Math.sqrt(mean(list.map((v) => v * v)));
/** The standard error of a mean. */
const error = (list: number[]): number => Math.sqrt(mean(list.map((v) => (v - mean(list)) ** 2)) / (list.length - 1));
/** By how much the curve a is above b, window by window. */
const above = (a: number[], b: number[]): number[] => a.map((v, i) => v / b[i] - 1);

async function run(precision: string, seed: number): Promise<number[]> {
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-q",
      "-P=train",
      "--no-check",
      "--config",
      `${ROOT}deno.json`,
      `${ROOT}bench/fp8_loss_run.ts`,
      precision,
      `${seed}`,
      `${STEPS}`,
    ],
    env: { DEVICE: "cuda" },
  }).output();
  if (!success) throw new Error(`Cannot train in ${precision}: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

type Curves = Record<Variant, number[][]>;

/** All runs, a few at a time; `found` is called with the curves of all seeds whose runs have ended, in each variant that has them. */
async function runAll(found: (curves: Curves) => void): Promise<void> {
  const seeds = Array.from({ length: SEEDS }, (_, i) => i), of = Object.fromEntries(VARIANTS.map((v) => [v, []])) as unknown as Curves;
  const left = seeds.flatMap((i) => VARIANTS.map((v) => [v, i] as const));
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [variant, i] = next, curve = of[variant][i] = await run(variant, i + 1);
      console.log(`${variant.padEnd(10)} ${curve.map((v) => v.toFixed(4)).join(" ")}`);
      const whole = seeds.filter((k) => VARIANTS.every((v) => of[v][k]));
      if (whole.includes(i) && whole.length > 1) found(Object.fromEntries(VARIANTS.map((v) => [v, whole.map((k) => of[v][k])])) as Curves);
    }
  }));
}

function findings(curves: Curves): Findings {
  const { bf16 } = curves,
    name = `small SS-Flow, ${STEPS} steps, ${bf16.length} seeds`,
    last = (list: number[][]): number => mean(list.map((c) => c.at(-1)!));
  const of = (what: string, metric: string, ours: number, peer?: number, peer_name?: string): Row =>
    row({ case: `${name}: ${what}`, metric, unit: "", ours, ...(peer !== undefined && { peer, peer_name, ratio: peer / ours }) });
  const rows = VARIANTS.slice(1).flatMap((variant): Row[] => {
    const paired = curves[variant].map((c, i) => above(c, bf16[i])), means = paired.map(mean), ends = paired.map((d) => d.at(-1)!);
    return [
      of(`mean loss of the last ${WINDOW}, ${variant}`, "loss", last(curves[variant]), last(bf16), "bf16"),
      of(`${variant} above bf16 of the same seed, mean over windows and seeds`, "relative difference", mean(means)),
      of(`${variant}: standard error of that mean over seeds`, "relative difference", error(means)),
      of(`${variant}: the same in the last window`, "relative difference", mean(ends)),
      of(`${variant}: its standard error`, "relative difference", error(ends)),
      of(`distance of the curves in windows of ${WINDOW}, ${variant} from bf16 of the same seed`, "relative RMS", rms(paired.flat())),
    ];
  });
  const pairs = bf16.flatMap((a, i) => bf16.slice(i + 1).map((b) => above(a, b)));
  rows.push(of(`distance of the curves in windows of ${WINDOW}, two seeds in bf16`, "relative RMS", rms(pairs.flat())));
  return { rows, curves };
}

benchmark("fp8_loss", async (save) => {
  let latest: Findings = { rows: [] };
  await runAll((curves) => save(latest = findings(curves)));
  for (const { case: name, ours, peer } of latest.rows) {
    console.log(`${name}: ${ours.toPrecision(4)}${peer === null ? "" : ` (${peer.toPrecision(4)})`}`);
  }
  return latest;
});
