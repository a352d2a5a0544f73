/**
 * Trains a small SS-Flow over 2,000 steps in bf16 and with linear layers in fp8, with several seeds each, as processes that share the GPU: whether fp8's
 * loss is higher in the mean over the seeds (paired: runs of one seed have the same draws and first parameters), with the standard error of that mean;
 * and how far its curves are from bf16's of the same seed, beside how far those of two seeds are apart. Writes bench/results/fp8_loss.json.
 *
 *   deno task bench bench/fp8_loss_bench.ts
 */
import { benchmark, type Findings, type Row, row } from "./harness.ts";
import { WINDOW } from "./fp8_loss_run.ts";

const STEPS = 2000, SEEDS = 4, AT_ONCE = 4;
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

/** All runs, a few at a time; `found` is called with the curves of each further seed whose two runs have ended. */
async function runAll(found: (bf16: number[][], fp8: number[][]) => void): Promise<void> {
  const seeds = Array.from({ length: SEEDS }, (_, i) => i), of = { bf16: [] as number[][], fp8: [] as number[][] };
  const left = seeds.flatMap((i) => [["bf16", i], ["fp8", i]] as ["bf16" | "fp8", number][]);
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [precision, i] = next, curve = of[precision][i] = await run(precision, i + 1);
      console.log(`${precision.padEnd(5)} ${curve.map((v) => v.toFixed(4)).join(" ")}`);
      const both = seeds.filter((k) => of.bf16[k] && of.fp8[k]);
      if (both.includes(i) && both.length > 1) found(both.map((k) => of.bf16[k]), both.map((k) => of.fp8[k]));
    }
  }));
}

function findings(bf16: number[][], fp8: number[][]): Findings {
  const name = `small SS-Flow, ${STEPS} steps, ${bf16.length} seeds`, last = (list: number[][]): number => mean(list.map((c) => c.at(-1)!));
  const pairs = bf16.flatMap((a, i) => bf16.slice(i + 1).map((b) => above(a, b))), paired = fp8.map((c, i) => above(c, bf16[i]));
  const means = paired.map(mean), ends = paired.map((d) => d.at(-1)!);
  const of = (what: string, metric: string, ours: number, peer?: number, peer_name?: string): Row =>
    row({ case: `${name}: ${what}`, metric, unit: "", ours, ...(peer !== undefined && { peer, peer_name, ratio: peer / ours }) });
  return {
    rows: [
      of(`mean loss of the last ${WINDOW}, fp8`, "loss", last(fp8), last(bf16), "bf16"),
      of("fp8 above bf16 of the same seed, mean over windows and seeds", "relative difference", mean(means)),
      of("standard error of that mean over seeds", "relative difference", error(means)),
      of("the same in the last window", "relative difference", mean(ends)),
      of("its standard error", "relative difference", error(ends)),
      of(
        `distance of the curves in windows of ${WINDOW}, fp8 from bf16 of the same seed`,
        "relative RMS",
        rms(paired.flat()),
        rms(pairs.flat()),
        "two seeds in bf16",
      ),
    ],
    curves: { bf16, fp8 },
  };
}

benchmark("fp8_loss", async (save) => {
  let latest: Findings = { rows: [] };
  await runAll((bf16, fp8) => save(latest = findings(bf16, fp8)));
  for (const { case: name, ours, peer } of latest.rows) {
    console.log(`${name}: ${ours.toPrecision(4)}${peer === null ? "" : ` (${peer.toPrecision(4)})`}`);
  }
  return latest;
});
