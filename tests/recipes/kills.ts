/** A real training run that is killed (SIGKILL) again and again at random moments, and goes on each time by the same command. */
import { SS_VAE_SIZES, type SsVaeConfig } from "../../recipes/ss_vae.ts";
import { createRandom, uniform } from "../../lib/data/random.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { checkpointPath, listCheckpoints, verifyCheckpoint } from "../../lib/train/checkpoint.ts";
import { stateOf } from "./cut_runs.ts";

/** The most steps that a kill may lose. */
export const INTERVAL = 2;

/** What the kills did. */
export interface KillCounts {
  kills: number;
  /** Kills after which the newest checkpoint was damaged, or none was there once one had been: none may be. */
  unusable: number;
  /** Kills while a file was being written: an unfinished one, or tensors without their manifest, lay there. */
  duringSave: number;
  /** Kills after which a newer checkpoint was there than after the one before. */
  progressed: number;
  /** Steps that were logged and had to be done again: at most, and on average. */
  mostLost: number;
  meanLost: number;
  /** Whether the run ended in the state of an uncut one, to the bit. */
  equal: boolean;
  steps: number;
}

function command(config: string, output: string, steps: number): Deno.Command {
  const recipe = new URL("../../recipes/ss_vae.ts", import.meta.url).pathname;
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-P=test", "--no-check", recipe, "--config", config, "--output", output, `--steps=${steps}`],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  });
}

/** The last step in a run's metrics, of whole lines. */
function lastLogged(output: string): number {
  try {
    const lines = Deno.readTextFileSync(`${output}/metrics.jsonl`).split("\n");
    return lines.length < 2 ? 0 : JSON.parse(lines[lines.length - 2]).step;
  } catch {
    return 0;
  }
}

function filesIn(folder: string): number {
  try {
    return [...Deno.readDirSync(folder)].length;
  } catch {
    return 0;
  }
}

/** A dataset of four objects in `folder` and a config of ss-vae's `tiny` that trains on it; the path of its file. */
async function makeRun(folder: string): Promise<string> {
  const { tiny } = SS_VAE_SIZES, file = `${folder}/config.json`;
  await prepareDataset({ output: `${folder}/data`, objects: 4, views: 1, size: 32, resolution: 16, workers: 0 });
  const config: SsVaeConfig = {
    ...tiny,
    data: { ...tiny.data, root: `${folder}/data`, resolution: 16 },
    batch: { size: 2, split: 2 },
    log: { every: 1, sampleEvery: 0, saveEvery: INTERVAL, keep: 2 },
  };
  Deno.writeTextFileSync(file, JSON.stringify(config));
  return file;
}

/** Starts a run in `folder`, sends it `signal` once it trains, and gives the status it ends with, the seconds that took, and the step it is at. */
export async function stopRun(
  folder: string,
  signal: Deno.Signal,
): Promise<{ code: number; seconds: number; logged: number; saved: number }> {
  const file = await makeRun(folder),
    output = `${folder}/stopped`,
    child = command(file, output, 1_000_000).spawn(),
    ended = child.output();
  while (lastLogged(output) < 3) await Promise.race([ended, new Promise((r) => setTimeout(r, 20))]);
  const began = performance.now();
  child.kill(signal);
  const { code } = await ended, seconds = (performance.now() - began) / 1000;
  return { code, seconds, logged: lastLogged(output), saved: verifyCheckpoint(checkpointPath(output, listCheckpoints(output)[0])).step };
}

/** Kills a run in `folder` `kills` times, lets it end, and compares with an uncut one. */
export async function killRuns(folder: string, kills: number, seed: number): Promise<KillCounts> {
  const random = createRandom(seed, 0), output = `${folder}/killed`, file = await makeRun(folder);
  const counts: KillCounts = { kills: 0, unusable: 0, duringSave: 0, progressed: 0, mostLost: 0, meanLost: 0, equal: false, steps: 0 };
  let newest = 0, lost = 0;
  while (counts.kills < kills) {
    const child = command(file, output, 1_000_000).spawn(), start = lastLogged(output), ended = child.output();
    const dead = ended.then(() => true),
      pause = (ms: number) => Promise.race([dead, new Promise<boolean>((r) => setTimeout(() => r(false), ms))]);
    let over = false;
    while (!over && lastLogged(output) === start) over = await pause(5);
    if (!over) over = await pause(uniform(random, 0, 800));
    if (over) throw new Error(`the run ended by itself: ${new TextDecoder().decode((await ended).stderr)}`);
    child.kill("SIGKILL");
    await ended;
    counts.kills++;
    const steps = listCheckpoints(output);
    counts.duringSave += Number(filesIn(`${output}/ckpts`) !== 2 * steps.length);
    try {
      const { step } = verifyCheckpoint(checkpointPath(output, steps[0]));
      counts.unusable += Number(step < newest);
      counts.progressed += Number(step > newest);
      newest = step;
    } catch {
      counts.unusable += Number(newest > 0);
    }
    lost += lastLogged(output) - newest;
    counts.mostLost = Math.max(counts.mostLost, lastLogged(output) - newest);
  }
  counts.meanLost = lost / kills;
  counts.steps = newest + 2 * INTERVAL;
  for (const folder of [output, `${output}_uncut`]) {
    const { success, stderr } = await command(file, folder, counts.steps).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  }
  const [killed, uncut] = [output, `${output}_uncut`].map((folder) => JSON.stringify(stateOf(folder)));
  counts.equal = killed === uncut;
  return counts;
}
