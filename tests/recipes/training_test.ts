/** The training recipes, small: golden losses, exact resumption, no leaks. */
import assert from "node:assert/strict";
import { SS_FLOW_SIZES, type SsFlowConfig, trainSsFlow } from "../../recipes/ss_flow.ts";
import { SS_VAE_SIZES, type SsVaeConfig, trainSsVae } from "../../recipes/ss_vae.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { device } from "../../lib/tensor/device.ts";
import { countGpus, hasMpirun } from "../dist/ranks.ts";
import { readMetrics } from "../../lib/train/metrics.ts";
import { expectGolden } from "../golden.ts";

const FOLDER = Deno.makeTempDirSync({ prefix: "espalier_training_" }), DATA = `${FOLDER}/data`;
const ON_CPU = device().name === "cpu";

const histogramsOf = (output: string): string => Deno.readTextFileSync(`${output}/histograms.jsonl`);

function vaeConfig(changes: Partial<SsVaeConfig> = {}): SsVaeConfig {
  const { tiny } = SS_VAE_SIZES;
  return {
    ...tiny,
    data: { ...tiny.data, root: DATA, resolution: 16 },
    steps: 8,
    batch: { size: 2, split: 1 },
    log: { every: 1, sampleEvery: 8, saveEvery: 4, keep: 2, histogramEvery: 3 },
    ...changes,
  };
}

function flowConfig(changes: Partial<SsFlowConfig> = {}): SsFlowConfig {
  const { tiny } = SS_FLOW_SIZES;
  return {
    ...tiny,
    data: { ...tiny.data, root: DATA, resolution: 16, holdOut: 2 },
    vae: `${FOLDER}/vae/models`,
    model: { ...tiny.model, resolution: 4, patch_size: 1, model_channels: 32, cond_channels: 32, num_blocks: 2, num_heads: 2 },
    condition: {
      encoder: "patch",
      ...{ image_size: 16, patch_size: 8, stem_channels: [8], channels: 32, num_blocks: 1, num_heads: 2, grid_size: 2, use_fp16: true },
    },
    guess: { weight: 1, alone: 3 },
    augment: { mirror: true, shift: 1 / 8, gain: 0.3, exchange: 0.3 },
    sampler: { ...tiny.sampler, steps: 2 },
    steps: 8,
    batch: { size: 4, split: 2 },
    log: { every: 1, sampleEvery: 8, saveEvery: 4, keep: 2 },
    ...changes,
  };
}

function existing(path: string): boolean {
  try {
    return [...Deno.readDirSync(path)].length > 0;
  } catch {
    return false;
  }
}

function losses(folder: string): number[] {
  const { step, value } = readMetrics(`${folder}/metrics.jsonl`).loss;
  assert.deepEqual(step, step.toSorted((a, b) => a - b));
  return value;
}

Deno.test("the recipes train, evaluate and export on a dataset of four objects", async (t) => {
  await prepareDataset({ output: DATA, objects: 4, views: 2, size: 48, resolution: 16, workers: 0, device: "cpu" });
  await t.step("trainSsVae() repeats its golden losses", () => {
    const { iou } = trainSsVae(vaeConfig(), { output: `${FOLDER}/vae` });
    assert.ok(iou >= 0 && iou <= 1);
    expectGolden("ss_vae_tiny", losses(`${FOLDER}/vae`));
  });
  await t.step("trainSsFlow() repeats its golden losses", () => {
    trainSsFlow(flowConfig(), { output: `${FOLDER}/flow` });
    expectGolden("ss_flow_tiny", losses(`${FOLDER}/flow`));
  });
  await t.step("a run that stops after four steps and goes on has the losses of an uncut one, to the bit", () => {
    trainSsVae(vaeConfig({ steps: 4 }), { output: `${FOLDER}/vae_cut` });
    trainSsVae(vaeConfig(), { output: `${FOLDER}/vae_cut` });
    assert.deepEqual(losses(`${FOLDER}/vae_cut`), losses(`${FOLDER}/vae`));
    assert.equal(histogramsOf(`${FOLDER}/vae_cut`), histogramsOf(`${FOLDER}/vae`));
    trainSsFlow(flowConfig({ steps: 4 }), { output: `${FOLDER}/flow_cut` });
    trainSsFlow(flowConfig(), { output: `${FOLDER}/flow_cut` });
    assert.deepEqual(losses(`${FOLDER}/flow_cut`), losses(`${FOLDER}/flow`));
  });
  await t.step("one whose passes are recorded has the losses and parameters of one that runs them, to the bit", () => {
    const plain = { record: false };
    trainSsVae(vaeConfig(), { output: `${FOLDER}/vae_plain`, ...plain });
    trainSsFlow(flowConfig(), { output: `${FOLDER}/flow_plain`, ...plain });
    const { stderr } = Deno, write = stderr.writeSync, said: string[] = [];
    stderr.writeSync = (bytes) => said.push(new TextDecoder().decode(bytes)) && bytes.length;
    try {
      trainSsVae(vaeConfig(), { output: `${FOLDER}/vae_recorded`, record: true });
      trainSsFlow(flowConfig(), { output: `${FOLDER}/flow_recorded`, record: true });
    } finally {
      stderr.writeSync = write;
    }
    assert.equal(said.filter((text) => text === "a step's passes run from a recording from now on\n").length, 2, said.join(""));
    for (const [run, models] of [["vae", ["encoder", "decoder"]], ["flow", ["flow"]]] as const) {
      for (const kind of ["", "_plain"]) assert.deepEqual(losses(`${FOLDER}/${run}_recorded`), losses(`${FOLDER}/${run}${kind}`));
      for (const model of models) {
        const [a, b] = ["_plain", "_recorded"].map((kind) => Deno.readFileSync(`${FOLDER}/${run}${kind}/models/${model}.safetensors`));
        assert.deepEqual(a, b);
      }
    }
  });
  await t.step("so it has in fp8, whose losses are near those without, and the same where a step's parts are computed again", () => {
    const precision = "fp8", folder = (name: string): string => `${FOLDER}/flow_fp8${name}`;
    trainSsFlow(flowConfig({ precision }), { output: folder("") });
    trainSsFlow(flowConfig({ precision, steps: 4 }), { output: folder("_cut") });
    trainSsFlow(flowConfig({ precision }), { output: folder("_cut") });
    const { model } = flowConfig();
    trainSsFlow(flowConfig({ precision, model: { ...model, use_checkpoint: true } }), { output: folder("_again") });
    for (const name of ["_cut", "_again"]) assert.deepEqual(losses(folder(name)), losses(folder("")));
    losses(folder("")).forEach((v, i) => assert.ok(Math.abs(v / losses(`${FOLDER}/flow`)[i] - 1) < 0.1));
    assert.notDeepEqual(losses(folder("")), losses(`${FOLDER}/flow`));
  });
  await t.step("a killed run goes on with the losses of an uncut one, to the bit", async () => {
    const output = `${FOLDER}/vae_killed`, config = `${FOLDER}/killed.json`, metrics = `${output}/metrics.jsonl`;
    Deno.writeTextFileSync(config, JSON.stringify(vaeConfig({ log: { every: 1, sampleEvery: 0, saveEvery: 2, keep: 2 } })));
    const recipe = new URL("../../recipes/ss_vae.ts", import.meta.url).pathname;
    const run = () =>
      new Deno.Command(Deno.execPath(), {
        args: ["run", "-q", "-P=test", "--no-check", recipe, "--config", config, "--output", output, "--device", device().name],
        stdout: "null",
        stderr: "null",
      }).spawn();
    const first = run();
    const lines = () => {
      try {
        return Deno.readTextFileSync(metrics).split("\n").length - 1;
      } catch {
        return 0;
      }
    };
    const ended = first.status.then(() => true);
    while (lines() < 3 && !(await Promise.race([ended, new Promise((r) => setTimeout(() => r(false), 2))])));
    try {
      first.kill("SIGKILL");
    } catch { /* it was quicker than the watch: then the second run has nothing left to do */ }
    await first.status;
    assert.ok((await run().status).success);
    assert.deepEqual(losses(output), losses(`${FOLDER}/vae`));
  });
  await t.step({
    name: "two processes with a spread optimizer have the losses of one with twice the split, and start again where one was killed",
    ignore: !ON_CPU && countGpus() < 2, // each rank needs a GPU of its own
    fn: async () => {
      const log = { every: 1, sampleEvery: 0, saveEvery: 2, keep: 2 }, precision = "f32", config = `${FOLDER}/ranks.json`;
      trainSsVae(vaeConfig({ log, precision, batch: { size: 4, split: 2 } }), { output: `${FOLDER}/vae_split` });
      const optimizer = { ...SS_VAE_SIZES.tiny.optimizer, shard: true };
      Deno.writeTextFileSync(config, JSON.stringify(vaeConfig({ log, precision, optimizer, batch: { size: 4, split: 1 } })));
      const output = `${FOLDER}/vae_ranks`, recipe = new URL("../../recipes/ss_vae.ts", import.meta.url).pathname;
      const launch = new URL("../../scripts/launch.ts", import.meta.url).pathname;
      const child = new Deno.Command(Deno.execPath(), {
        args: [
          ...["run", "-q", "-P=launch", "--no-check", launch, "--nproc", "2", "--max-restarts", "1"],
          ...[recipe, "--config", config, "--output", output, "--device", device().name],
        ],
        stdout: "null",
        stderr: "piped",
      }).spawn();
      const [first, all] = child.stderr.tee(), text = new Response(all).text(), ended = child.status.then(() => true);
      const [, pid] = new TextDecoder().decode((await first.getReader().read()).value).match(/^ranks 0 to 1 are the processes \d+, (\d+)/)!;
      while (!existing(`${output}/ckpts`) && !(await Promise.race([ended, new Promise((r) => setTimeout(() => r(false), 2))])));
      try {
        Deno.kill(Number(pid), "SIGKILL");
      } catch { /* the run was quicker than the watch: nothing has to start again */ }
      assert.ok((await child.status).success, await text);
      const split = losses(`${FOLDER}/vae_split`), ranks = losses(output);
      assert.equal(ranks.length, split.length);
      ranks.forEach((v, i) =>
        assert.ok(Math.abs(v - split[i]) <= (ON_CPU ? 1e-5 : 1e-4) * split[i], `step ${i + 1}: ${v} and ${split[i]}`)
      );
    },
  });
  await t.step({
    name: "four processes under mpirun have the losses of one, which goes on from their checkpoint, spread optimizer or not",
    ignore: !ON_CPU || !hasMpirun(), // Debian's, with CPU ranks
    fn: async () => {
      const log = { every: 1, sampleEvery: 0, saveEvery: 2, keep: 2 },
        split = vaeConfig({ log, precision: "f32", steps: 6, batch: { size: 4, split: 4 } });
      trainSsVae(split, { output: `${FOLDER}/vae_four` });
      const four = losses(`${FOLDER}/vae_four`), recipe = new URL("../../recipes/ss_vae.ts", import.meta.url).pathname;
      for (const shard of [false, true]) {
        const output = `${FOLDER}/vae_mpi_${shard}`, config = `${FOLDER}/mpi.json`, optimizer = { ...split.optimizer, shard };
        Deno.writeTextFileSync(config, JSON.stringify({ ...split, steps: 4, optimizer, batch: { size: 4, split: 1 } }));
        const { success, stderr } = await new Deno.Command("mpirun", {
          args: [
            ...["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "4"],
            ...[Deno.execPath(), "run", "-q", "-P=test", "--no-check", recipe, "--config", config, "--output", output, "--device", "cpu"],
          ],
        }).output();
        assert.ok(success, new TextDecoder().decode(stderr));
        trainSsVae(split, { output });
        const ranks = losses(output);
        assert.equal(ranks.length, 6);
        ranks.forEach((v, i) => assert.ok(Math.abs(v - four[i]) <= 1e-5 * four[i], `step ${i + 1}: ${v} and ${four[i]}`));
      }
    },
  });
  await t.step("memory in use is the same after ten steps and after sixty, and all given back at the end", () => {
    const before = device().memory.use().used, log = { every: 10, sampleEvery: 0, saveEvery: 0, keep: 1 };
    trainSsVae(vaeConfig({ steps: 60, log }), { output: `${FOLDER}/leak_vae` });
    trainSsFlow(flowConfig({ steps: 60, log, guess: { weight: 1, alone: 0 } }), { output: `${FOLDER}/leak_flow` }); // recordings of a phase that is over go later
    for (const run of ["vae", "flow"]) {
      const { value } = readMetrics(`${FOLDER}/leak_${run}/metrics.jsonl`).memory_used;
      assert.deepEqual([value.length, new Set(value).size], [6, 1]);
    }
    assert.equal(device().memory.use().used, before);
  });
  Deno.removeSync(FOLDER, { recursive: true });
});
