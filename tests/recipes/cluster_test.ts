/** The Slurm script with the commands of a Slurm that is not there: srun starts two tasks here, scontrol writes down what it is told. */
import assert from "node:assert/strict";
import { SS_VAE_SIZES, type SsVaeConfig, trainSsVae } from "../../recipes/ss_vae.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { device } from "../../lib/tensor/device.ts";
import { listCheckpoints } from "../../lib/train/checkpoint.ts";
import { readMetrics } from "../../lib/train/metrics.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Starts the tasks of a step, and sends SIGUSR1 to all once the file STOP_ON is there, as Slurm does before the time limit. */
const SRUN = `#!/usr/bin/env bash
[ "$1" = --kill-on-bad-exit=1 ] || exit 64
shift
tasks=()
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 SLURM_STEP_ID=0 "$@" & tasks+=($!); done
if [ -n "\${STOP_ON:-}" ]; then while [ ! -e "$STOP_ON" ]; do sleep 0.05; done; kill -USR1 "\${tasks[@]}"; fi
status=0
for task in "\${tasks[@]}"; do wait "$task" || status=$?; done
exit $status
`;

const losses = (output: string): number[] => readMetrics(`${output}/metrics.jsonl`).loss.value;

const ON_CPU = device().name === "cpu",
  NAME = "recipes/cluster/slurm.sh trains in two tasks as one process does, and is queued again where its time ends";

Deno.test({ name: ON_CPU ? NAME : `${NAME} (skipped: its tasks are on the CPU)`, ignore: !ON_CPU, fn: trainUnderSlurm });

async function trainUnderSlurm(): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "espalier_slurm_" }), bin = `${folder}/bin`, { tiny } = SS_VAE_SIZES;
  const config = (changes: Partial<SsVaeConfig>): SsVaeConfig => ({
    ...tiny,
    data: { ...tiny.data, root: `${folder}/data`, resolution: 16 },
    steps: 4,
    precision: "f32",
    log: { every: 1, sampleEvery: 0, saveEvery: 2, keep: 2 },
    ...changes,
  });
  const slurm = async (output: string, c: SsVaeConfig, env: Record<string, string> = {}): Promise<{ code: number; said: string }> => {
    Deno.writeTextFileSync(`${folder}/config.json`, JSON.stringify(c));
    const { code, stderr } = await new Deno.Command("bash", {
      args: [
        ...["recipes/cluster/slurm.sh", "recipes/ss_vae.ts", "--config", `${folder}/config.json`],
        ...["--output", output, "--device", "cpu"],
      ],
      cwd: ROOT,
      env: {
        ...{ PATH: `${bin}:${Deno.env.get("PATH")}`, SLURM_JOB_ID: `${output.length}${Deno.pid}`, SLURM_JOB_NAME: "espalier" },
        ...{ SLURM_JOB_NODELIST: "localhost", ...env },
      },
    }).output();
    return { code, said: new TextDecoder().decode(stderr) };
  };
  try {
    Deno.mkdirSync(bin);
    Deno.symlinkSync(Deno.execPath(), `${bin}/deno`);
    for (const [name, text] of [["srun", SRUN], ["scontrol", `#!/bin/sh\necho "$@" >> "${folder}/told"\n`]]) {
      Deno.writeTextFileSync(`${bin}/${name}`, text, { mode: 0o755 });
    }
    await prepareDataset({ output: `${folder}/data`, objects: 4, views: 0, resolution: 16, workers: 0, device: "cpu" });
    trainSsVae(config({ batch: { size: 4, split: 2 } }), { output: `${folder}/one` });

    const whole = await slurm(`${folder}/two`, config({ batch: { size: 4, split: 1 } }));
    assert.equal(whole.code, 0, whole.said);
    const [one, two] = [losses(`${folder}/one`), losses(`${folder}/two`)];
    assert.equal(two.length, one.length);
    two.forEach((v, i) => assert.ok(Math.abs(v - one[i]) <= 1e-5 * one[i], `step ${i + 1}: ${v} and ${one[i]}`));
    assert.throws(() => Deno.statSync(`${folder}/told`), Deno.errors.NotFound); // nothing is queued again

    const output = `${folder}/stopped`, long = config({ steps: 100_000, batch: { size: 4, split: 1 } });
    const stopped = await slurm(output, long, { STOP_ON: `${output}/ckpts` });
    assert.equal(stopped.code, 130, stopped.said);
    assert.match(Deno.readTextFileSync(`${folder}/told`), /^requeue \d+\n$/);
    assert.deepEqual([listCheckpoints(output)[0]], readMetrics(`${output}/metrics.jsonl`).loss.step.slice(-1));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
