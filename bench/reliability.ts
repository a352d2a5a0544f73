/**
 * The long forms of the reliability tests, a section at a time, with their counts in bench/results/reliability.json.
 *
 *   deno run -P=test bench/reliability.ts damage | disk | kills [COUNT] | cuts [STEPS CUTS RECIPE RESOLUTION] | fuzz [COUNT TARGET] | growth [COUNT]
 */
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { device } from "../lib/tensor/device.ts";
import { compareCuts, drawCuts, tinyRuns } from "../tests/recipes/cut_runs.ts";
import { fuzzApart } from "../tests/fuzz/run.ts";
import { TARGETS } from "../tests/fuzz/targets.ts";
import { INTERVAL, killRuns } from "../tests/recipes/kills.ts";
import { damageCheckpoint } from "../tests/train/damage.ts";
import { sweepDisk } from "../tests/train/faulty_disk.ts";
import { killAt } from "../tests/train/killed_save.ts";
import { hasStrace, sweepCalls } from "../tests/train/traced_save.ts";

/** RELIABILITY_FILE names another one, so that sections can run beside each other. */
const FILE = Deno.env.get("RELIABILITY_FILE") ?? new URL("results/reliability.json", import.meta.url).pathname;

/** What a section counted, by name. */
type Counts = Record<string, unknown>;

const SECTIONS: Record<string, (folder: string, args: string[]) => Promise<Record<string, Counts>> | Record<string, Counts>> = {
  damage: (folder) => ({ damage: { ...damageCheckpoint(folder, { elements: 300, flips: 10_000 }) } }),
  disk: (folder) => ({
    disk: { ...sweepDisk(`${folder}/functions`, killAt) },
    ...(hasStrace() && { "disk system calls": { ...sweepCalls(`${folder}/calls`) } }),
  }),
  kills: async (folder, [count = "200"]) => ({ kills: { ...await killRuns(folder, Number(count), 1), interval: INTERVAL } }),
  fuzz: async (_, [count = "1000000", only]) => {
    const chunk = 50_000, found: Record<string, Counts> = {};
    for (const target of Object.keys(TARGETS).filter((name) => !only || only.split(",").includes(name))) {
      const sum = {
        executions: 0,
        accepted: 0,
        refused: 0,
        crashes: [] as unknown[],
        slowestMs: 0,
        peakMiB: 0,
        grownMiB: 0,
        hangs: [] as string[],
      };
      const began = performance.now();
      for (let first = 0; first < Number(count); first += chunk) {
        try {
          const [part] = await fuzzApart(target, { count: Math.min(chunk, Number(count) - first), seed: 3, first, timeoutMs: 300_000 });
          for (const key of ["executions", "accepted", "refused"] as const) sum[key] += part[key];
          sum.crashes.push(...part.crashes);
          sum.slowestMs = Math.max(sum.slowestMs, part.slowestMs);
          sum.peakMiB = Math.max(sum.peakMiB, part.peakMiB);
          sum.grownMiB = Math.max(sum.grownMiB, part.grownMiB);
        } catch (error) {
          sum.hangs.push((error as Error).message);
        }
      }
      found[`fuzz ${target}`] = { ...sum, target_seconds: Math.round((performance.now() - began) / 1000) };
      console.error(target, JSON.stringify(found[`fuzz ${target}`]).slice(0, 2000));
    }
    return found;
  },
  growth: async (_, [count = "50000"]) => {
    const found = await fuzzApart("all", { count: Number(count), seed: 3, timeoutMs: 3_600_000 });
    const list = found.map(({ target, grownMiB }) => [target, Math.round(100 * grownMiB) / 100]);
    return { "fuzz growth": { executions: Number(count), mostMiBOfAnInput: Object.fromEntries(list) } };
  },
  cuts: async (folder, [steps = "1000", cuts = "20", only, resolution = "32"]) => {
    const found: Record<string, Counts> = {};
    for (const run of (await tinyRuns(folder, { resolution: Number(resolution) })).filter(({ name }) => !only || name === only)) {
      const at = drawCuts(Number(steps), Number(cuts), 2), { uncut, cut } = compareCuts(run, folder, Number(steps), at);
      const { steps: done, applied } = JSON.parse(uncut.state).recipe.optimizer;
      found[`cuts ${run.name} ${device().name}`] = {
        steps: uncut.step,
        resolution: Number(resolution),
        cuts: at,
        equal: JSON.stringify(uncut) === JSON.stringify(cut),
        tensors_sha256: uncut.tensors,
        skipped_steps: done - applied,
      };
    }
    return found;
  },
};

if (import.meta.main) {
  const [section, ...args] = Deno.args, folder = Deno.makeTempDirSync({ prefix: "espalier-reliability-" }), began = performance.now();
  if (!Object.hasOwn(SECTIONS, section)) {
    console.error(`error: Cannot run ${section}: it must be one of ${Object.keys(SECTIONS).join(", ")}`);
    Deno.exit(1);
  }
  const found = await SECTIONS[section](folder, args), seconds = Math.round((performance.now() - began) / 100) / 10;
  Deno.removeSync(folder, { recursive: true });
  let results: Record<string, unknown> = {};
  try {
    results = JSON.parse(Deno.readTextFileSync(FILE));
  } catch { /* the first section */ }
  const date = new Date().toISOString().slice(0, 10), command = `deno run -P=test bench/reliability.ts ${Deno.args.join(" ")}`;
  for (const [name, counts] of Object.entries(found)) results[name] = { command, date, seconds, ...counts };
  writeFileAtomic(FILE, new TextEncoder().encode(JSON.stringify(results, null, 2) + "\n"));
  console.log(JSON.stringify(found, null, 2), `${seconds} s`);
}
