/** The SLat-VAE's recipe, small: golden losses, exact resumption, no leaks, TRELLIS's config. */
import assert from "node:assert/strict";
import { TRELLIS_CONFIGS } from "../../bench/trellis_configs.ts";
import { SLAT_VAE_SIZES, type SlatVaeConfig, slatVaeConfig, trainSlatVae } from "../../recipes/slat_vae.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import { readImage } from "../../lib/io/image.ts";
import { savePretrained } from "../../lib/io/pretrained.ts";
import { LPIPS_VGG, lpipsSpec } from "../../lib/models/lpips.ts";
import { freeLeaves, initialize } from "../../lib/nn/parameters.ts";
import { LINEAR_MEMORY_DEFAULTS } from "../../lib/memory/linear_controller.ts";
import { device } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { readMetrics } from "../../lib/train/metrics.ts";
import { loadSlatEncoder, loadSlatGaussianDecoder } from "../../lib/train/trained_models.ts";

const FOLDER = Deno.makeTempDirSync({ prefix: "espalier_slat_vae_" }), DATA = `${FOLDER}/data`;
const ON_CPU = device().name === "cpu";

function config(changes: Partial<SlatVaeConfig> = {}): SlatVaeConfig {
  const { tiny } = SLAT_VAE_SIZES, shape = { resolution: 16, model_channels: 32, num_blocks: 2, num_heads: 2 };
  return {
    ...tiny,
    data: { ...tiny.data, root: DATA, resolution: 16, imageSize: 24 },
    encoder: { ...tiny.encoder, ...shape },
    decoder: { ...tiny.decoder, ...shape },
    steps: 8,
    batch: { size: 3, views: 2, split: 2 },
    log: { every: 1, sampleEvery: 8, saveEvery: 4, keep: 2 },
    ...changes,
  };
}

function losses(folder: string, name = "loss"): number[] {
  const { step, value } = readMetrics(`${folder}/metrics.jsonl`)[name];
  assert.deepEqual(step, step.toSorted((a, b) => a - b));
  return value;
}

/** Compares with a committed curve, to the bit on the CPU; ESPALIER_GOLDEN=write writes it. */
function expectGolden(name: string, curve: number[]): void {
  const file = new URL(`../golden/${name}.txt`, import.meta.url);
  if (Deno.env.get("ESPALIER_GOLDEN") === "write") return Deno.writeTextFileSync(file, curve.map((v) => `${v}\n`).join(""));
  const want = Deno.readTextFileSync(file).trim().split("\n").map(Number);
  if (ON_CPU) assert.deepEqual(curve, want);
  else curve.forEach((v, i) => assert.ok(Math.abs(v - want[i]) <= 0.02 * Math.abs(want[i]), `step ${i + 1}: ${v}, on the CPU ${want[i]}`));
}

/** Weights for LPIPS that mean nothing. */
function writeLpips(path: string): void {
  const params = initialize(lpipsSpec(LPIPS_VGG), new Generator(1));
  savePretrained(path, { name: "LPIPS", args: {} }, params);
  freeLeaves(params);
}

Deno.test("trainSlatVae() trains, evaluates and exports on a dataset of four objects", async (t) => {
  const features = ["appearance"] as const, renders = { renders: 6, renderSize: 24 };
  await prepareDataset({ output: DATA, objects: 4, views: 0, ...renders, resolution: 16, features, workers: 0, device: "cpu" });
  await t.step("it repeats its golden losses, and writes models and pictures", () => {
    const { psnr, ssim, objects, folder } = trainSlatVae(config(), { output: `${FOLDER}/run` });
    assert.ok(psnr > 5 && psnr < 60 && ssim > -1 && ssim <= 1 && objects === 4);
    expectGolden("slat_vae_tiny", losses(`${FOLDER}/run`));
    const encoder = loadSlatEncoder(`${folder}/encoder`), decoder = loadSlatGaussianDecoder(`${folder}/decoder`);
    assert.deepEqual([encoder.args.in_channels, decoder.args.representation_config.num_gaussians], [9, 4]);
    freeLeaves(encoder.params), freeLeaves(decoder.params);
    const { width, height } = readImage(`${FOLDER}/run/contact_sheet.png`);
    assert.ok(width >= 8 * 24 && height >= 4 * 24);
  });
  await t.step("a run that stops after four steps and goes on has the losses of an uncut one, to the bit", () => {
    trainSlatVae(config({ steps: 4 }), { output: `${FOLDER}/cut` });
    trainSlatVae(config(), { output: `${FOLDER}/cut` });
    assert.deepEqual(losses(`${FOLDER}/cut`), losses(`${FOLDER}/run`));
  });
  await t.step("objects in other colours: a cut run goes on to the bit, and it is another run; other features are refused", () => {
    const recolor = { part: 0.6, gain: 0.5 };
    trainSlatVae(config({ recolor }), { output: `${FOLDER}/colors` });
    trainSlatVae(config({ recolor, steps: 4 }), { output: `${FOLDER}/colors_cut` });
    trainSlatVae(config({ recolor }), { output: `${FOLDER}/colors_cut` });
    assert.deepEqual(losses(`${FOLDER}/colors_cut`), losses(`${FOLDER}/colors`));
    assert.notDeepEqual(losses(`${FOLDER}/colors`), losses(`${FOLDER}/run`));
    const data = { ...config().data, features: "dinov2_vitl14_reg" };
    assert.throws(
      () => trainSlatVae(config({ recolor, data }), { output: `${FOLDER}/refused` }),
      /Cannot recolor objects: .* it must be appearance/,
    );
  });
  await t.step("blocks that are computed again change nothing, to the bit", () => {
    trainSlatVae(config({ recompute: 2 }), { output: `${FOLDER}/again` });
    assert.deepEqual(losses(`${FOLDER}/again`), losses(`${FOLDER}/run`));
    const linear = { policy: "linear", ...LINEAR_MEMORY_DEFAULTS, maxMemRatioStart: 1, updateEvery: 6 } as const;
    trainSlatVae(config({ steps: 4, memory: linear }), { output: `${FOLDER}/linear` });
    trainSlatVae(config({ memory: linear }), { output: `${FOLDER}/linear` });
    assert.deepEqual(losses(`${FOLDER}/linear`), losses(`${FOLDER}/run`));
    assert.ok(losses(`${FOLDER}/linear`, "remade_share").some((share) => share > 0));
  });
  await t.step("plans that keep to a budget lead to the same losses, and their peaks are nearly as predicted", () => {
    trainSlatVae(config({ memory: { policy: "planned" } }), { output: `${FOLDER}/planned` });
    assert.deepEqual(losses(`${FOLDER}/planned`), losses(`${FOLDER}/run`));
    const [peaks, predicted] = ["memory", "memory_predicted"].map((name) => losses(`${FOLDER}/planned`, name));
    peaks.slice(1).forEach((peak, i) =>
      assert.ok(Math.abs(predicted[i + 1] / peak - 1) < 0.05, `${predicted[i + 1]} predicted, ${peak} measured`)
    );
  });
  await t.step("eighty steps lower the loss, memory in use stays the same, and all is given back at the end", () => {
    const before = device().memory.use().used, log = { every: 10, sampleEvery: 0, saveEvery: 0, keep: 1 };
    trainSlatVae(config({ steps: 80, log }), { output: `${FOLDER}/long` });
    const curve = losses(`${FOLDER}/long`), used = losses(`${FOLDER}/long`, "memory_used");
    assert.ok(curve.at(-1)! < 0.75 * curve[0], `${curve}`);
    assert.equal(new Set(used).size, 1);
    assert.equal(device().memory.use().used, before);
  });
  await t.step("LPIPS and L2 are losses that are asked for; without weights it says how to get them", () => {
    const { loss } = config(), one = { steps: 1, batch: { size: 1, views: 1, split: 1 } };
    writeLpips(`${FOLDER}/lpips`);
    const perceptual = { ...loss, type: "l2", lpips: 0.2, lpipsWeights: `${FOLDER}/lpips.safetensors` } as const;
    trainSlatVae(config({ ...one, loss: perceptual }), { output: `${FOLDER}/lpips_run` });
    const [rec, l2, ssim, lpips] = ["rec", "l2", "ssim", "lpips"].map((name) => losses(`${FOLDER}/lpips_run`, name)[0]);
    assert.ok(lpips > 0 && Math.abs(rec - (l2 + 0.2 * ssim + 0.2 * lpips)) < 1e-5);
    assert.throws(() => trainSlatVae(config({ ...one, loss: { ...loss, lpips: 0.2 } }), { output: `${FOLDER}/none` }), {
      message: /^Cannot use LPIPS: no weights are named, loss\.lpipsWeights must name .* To make the file: python -c/,
    });
    const other = { ...loss, lpips: 0.2, lpipsWeights: `${FOLDER}/run/models/encoder.safetensors` };
    assert.throws(
      () => trainSlatVae(config({ ...one, loss: other }), { output: `${FOLDER}/none` }),
      /Cannot use LPIPS: .*missing net\.slice1\.0\.weight/,
    );
  });
  await t.step("networks that do not fit each other or the dataset are refused before anything is written", () => {
    const { encoder } = config(), output = `${FOLDER}/refused`;
    assert.throws(() => trainSlatVae(config({ encoder: { ...encoder, latent_channels: 3 } }), { output }), /the encoder's latent_channels/);
    assert.throws(
      () => trainSlatVae(config({ data: { ...config().data, maxVoxels: 1 } }), { output }),
      /no object is left \(.*voxels <= 1: 0\)/,
    );
    assert.throws(() => trainSlatVae(config({ data: { ...config().data, features: "dinov2" } }), { output }), /no object is left/);
    assert.throws(() => Deno.statSync(output));
  });
  Deno.removeSync(FOLDER, { recursive: true });
});

const TRELLIS = TRELLIS_CONFIGS.slat_vae,
  LINEAR = { policy: "linear", ...LINEAR_MEMORY_DEFAULTS, targetRatio: 0.75, maxMemRatioStart: 0.5 };

Deno.test("slatVaeConfig() takes TRELLIS's config, which is the published size", () => {
  const file = Deno.makeTempFileSync({ suffix: ".json" }),
    read = (json: unknown) => {
      Deno.writeTextFileSync(file, JSON.stringify(json));
      return slatVaeConfig({ size: "tiny", file, overrides: [] });
    };
  const { published } = SLAT_VAE_SIZES;
  assert.deepEqual(read(TRELLIS), { ...published, memory: LINEAR });
  assert.deepEqual([published.loss.volume, published.loss.opacity, published.loss.kl, published.batch], [1e4, 1e-3, 1e-6, {
    size: 4,
    views: 1,
    split: 2,
  }]);
  const { args } = TRELLIS.trainer,
    trainer = (changes: object, name = "SLatVaeGaussianTrainer") => ({ ...TRELLIS, trainer: { name, args: { ...args, ...changes } } });
  assert.deepEqual(read(trainer({ regularizations: {}, elastic: null })), {
    ...published,
    loss: { ...published.loss, volume: 0, opacity: 0 },
  });
  assert.throws(() => read(trainer({ regularizations: { lambda_area: 1 } })), /regularizations has lambda_area/);
  assert.throws(
    () => read(trainer({}, "SLatVaeMeshDecoderTrainer")),
    /its trainer is SLatVaeMeshDecoderTrainer, it must be SLatVaeGaussianTrainer/,
  );
  Deno.removeSync(file);
});
