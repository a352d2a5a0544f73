/**
 * The four training recipes at TRELLIS's full size, each as a user starts it: with the config that TRELLIS publishes, for STEPS (by default 100) steps.
 * The data are synthetic and of full size: eight objects of 15,192 voxels (a sphere shell at 64^3) with random features and latents, pictures of 518
 * and 512 pixels, and random weights for DINOv2, LPIPS and the SS-VAE that SS-Flow is trained with. Records time a step and peak memory. Writes bench/results/full_size.json.
 * A recipe is cut after SECONDS (by default 600); what it had done by then is recorded. With ONLY, what other recipes found before is kept.
 *
 *   [STEPS=100] [ONLY=slat_vae,slat_flow] [SECONDS=600] deno task bench bench/full_size_bench.ts
 */
import { assetPaths } from "../lib/data/layout.ts";
import { writeFeatures, writeLatents } from "../lib/data/latents.ts";
import { type MetadataRow, writeMetadata } from "../lib/data/metadata.ts";
import { writeViews } from "../lib/data/prepare_views.ts";
import { proceduralObject } from "../lib/data/procedural.ts";
import { createRandom } from "../lib/data/random.ts";
import { writeVoxels } from "../lib/io/ply.ts";
import { savePretrained } from "../lib/io/pretrained.ts";
import { dinoSpec, DINOV2_VITL14_REG } from "../lib/models/image_encoder.ts";
import { LPIPS_VGG, lpipsSpec } from "../lib/models/lpips.ts";
import { PUBLISHED_SS_DECODER, PUBLISHED_SS_ENCODER } from "../lib/models/published.ts";
import { ssDecoderSpec, ssEncoderSpec } from "../lib/models/ss_vae.ts";
import { freeLeaves, initialize } from "../lib/nn/parameters.ts";
import { conditionCameras, renderCameras } from "../lib/render/camera.ts";
import { normalizeMesh } from "../lib/render/mesh.ts";
import { Generator } from "../lib/tensor/random.ts";
import { readMetrics } from "../lib/train/metrics.ts";
import { benchmark, type Findings, measured, type Row } from "./harness.ts";
import { shells } from "./shells.ts";
import { TRELLIS_CONFIGS } from "./trellis_configs.ts";

const STEPS = Number(Deno.env.get("STEPS") ?? 100), ONLY = Deno.env.get("ONLY")?.split(","), SECONDS = Deno.env.get("SECONDS") ?? "600";
const OBJECTS = 8, VIEWS = 4, R = 64, EVERY = 10, LATENTS = "dinov2_vitl14_reg_slat_enc_swin8_B_64l8_fp16";

/** [N, C] of normal numbers. */
function normal(seed: number, N: number, C: number): Float32Array<ArrayBuffer> {
  const drawn = new Generator(seed).normal([N, C]), values = drawn.read() as Float32Array<ArrayBuffer>;
  drawn.free();
  return values;
}

function writeDataset(root: string): number {
  const rows = shells([R]),
    N = rows.length / 4,
    coords = Int32Array.from({ length: 3 * N }, (_, i) => rows[4 * Math.floor(i / 3) + 1 + i % 3]);
  const metadata = new Map<string, MetadataRow>();
  for (let i = 0; i < OBJECTS; i++) {
    const sha256 = String(i).padStart(64, "0"), paths = assetPaths(root, sha256), mesh = normalizeMesh(proceduralObject(0, i).mesh);
    Deno.mkdirSync(`${root}/voxels`, { recursive: true });
    writeVoxels(paths.voxels, coords, R);
    const first = assetPaths(root, "0".repeat(64)), features = paths.features("dinov2_vitl14_reg"); // one set of random numbers serves all
    if (i === 0) writeFeatures(features, { coords, feats: normal(1, N, 1024) });
    else Deno.copyFileSync(first.features("dinov2_vitl14_reg"), features);
    writeLatents(paths.latents(LATENTS), { coords, feats: normal(100 + i, N, 8) });
    const condition = { folder: paths.views, transforms: paths.transforms, view: paths.view };
    writeViews(paths.renders, mesh, renderCameras(VIEWS, createRandom(i)), { size: 512, device: "cuda" });
    writeViews(condition, mesh, conditionCameras(VIEWS, createRandom(i)), { size: 518, device: "cuda" });
    const made = ["voxelized", "rendered", "cond_rendered", "feature_dinov2_vitl14_reg", `latent_${LATENTS}`];
    metadata.set(sha256, {
      ...{ sha256, file_identifier: `shell ${i}`, num_voxels: String(N) },
      ...Object.fromEntries(made.map((column) => [column, "True"])),
    });
  }
  writeMetadata(root, metadata);
  return N;
}

/** Random weights under published names. */
function writeWeights(path: string, spec: unknown, described: { name: string; args: object } = { name: "random", args: {} }): void {
  const params = initialize(spec, new Generator(1));
  savePretrained(path, described as Parameters<typeof savePretrained>[1], params);
  freeLeaves(params);
}

/** What each recipe is told besides its config. */
function settingsOf(folder: string): Record<keyof typeof TRELLIS_CONFIGS, string[]> {
  const dino = `--condition.weights=${folder}/dino.safetensors`;
  return {
    ss_vae: [],
    ss_flow: ["--vae", `${folder}/vae`, dino],
    slat_vae: [`--loss.lpipsWeights=${folder}/lpips.safetensors`],
    slat_flow: [dino, "--decoder=null", "--structure=null", "--sampler.steps=2"],
  };
}

function runRecipe(folder: string, name: keyof typeof TRELLIS_CONFIGS): void {
  const config = `${folder}/${name}.json`, recipe = new URL(`../recipes/${name}.ts`, import.meta.url).pathname;
  Deno.writeTextFileSync(config, JSON.stringify(TRELLIS_CONFIGS[name], null, 2));
  const log = [`--log.every=${EVERY}`, "--log.sampleEvery=0", "--log.saveEvery=0"];
  const args = ["--config", config, "--data", `${folder}/data`, "--output", `${folder}/${name}`, "--device", "cuda", `--steps=${STEPS}`];
  const { success } = new Deno.Command("timeout", {
    args: [
      "-s",
      "KILL",
      SECONDS,
      Deno.execPath(),
      "run",
      "-q",
      "-P=train",
      "--no-check",
      recipe,
      ...args,
      ...log,
      ...settingsOf(folder)[name],
    ],
    stdout: "inherit",
    stderr: "inherit",
  }).outputSync();
  if (!success) console.error(`${name} was cut or failed`);
}

const NAMES = Object.keys(TRELLIS_CONFIGS), recipeOf = (row: Row): string => row.case.split(",")[0];
const placeOf = (row: Row): number => NAMES.indexOf(recipeOf(row));

/** What the recipes that are not run now found before. */
function foundBefore(): { rows: Row[]; curves: Record<string, number[]> } {
  const others = (name: string): boolean => !ONLY?.includes(name);
  try {
    const { rows, curves } = JSON.parse(Deno.readTextFileSync(new URL("results/full_size.json", import.meta.url)));
    return {
      rows: rows.filter((row: Row) => others(recipeOf(row))),
      curves: Object.fromEntries(Object.entries(curves).filter(([name]) => others(name))) as Record<string, number[]>,
    };
  } catch {
    return { rows: [], curves: {} };
  }
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function measure(): Findings {
  const folder = Deno.makeTempDirSync({ prefix: "full_size_" }),
    rows: Row[] = [],
    curves: Record<string, number[]> = {},
    failed: string[] = [];
  const before = ONLY ? foundBefore() : { rows: [], curves: {} };
  rows.push(...before.rows), Object.assign(curves, before.curves);
  try {
    const N = writeDataset(`${folder}/data`);
    if (!ONLY || ONLY.some((name) => name.endsWith("flow"))) writeWeights(`${folder}/dino`, dinoSpec(DINOV2_VITL14_REG));
    if (!ONLY || ONLY.includes("slat_vae")) writeWeights(`${folder}/lpips`, lpipsSpec(LPIPS_VGG));
    if (!ONLY || ONLY.includes("ss_flow")) {
      const { encoder, decoder } = { encoder: PUBLISHED_SS_ENCODER, decoder: PUBLISHED_SS_DECODER };
      Deno.mkdirSync(`${folder}/vae`);
      writeWeights(`${folder}/vae/encoder`, ssEncoderSpec(encoder), { name: "SparseStructureEncoder", args: { ...encoder } });
      writeWeights(`${folder}/vae/decoder`, ssDecoderSpec(decoder), { name: "SparseStructureDecoder", args: { ...decoder } });
    }
    console.error("data and weights are there");
    for (const name of Object.keys(TRELLIS_CONFIGS) as (keyof typeof TRELLIS_CONFIGS)[]) {
      if (ONLY && !ONLY.includes(name)) continue;
      runRecipe(folder, name);
      let metrics: ReturnType<typeof readMetrics> = {};
      try {
        metrics = readMetrics(`${folder}/${name}/metrics.jsonl`);
      } catch { /* it never began */ }
      if ((metrics.loss?.step.length ?? 0) < 3) {
        failed.push(name);
        continue;
      }
      const { samples_per_second, memory_peak, loss } = metrics;
      const { args } = TRELLIS_CONFIGS[name].trainer, batch = args.batch_size_per_gpu, split = "batch_split" in args ? args.batch_split : 1;
      const what = `${name}, TRELLIS's config: batch ${batch}${split > 1 ? ` in ${split} parts` : ""}, f16`;
      curves[name] = loss.value;
      const found = [
        measured({ case: what, metric: "time a step", unit: "ms", ours: 1000 * batch / median(samples_per_second.value.slice(1)) }),
        measured({ case: what, metric: "peak memory", unit: "GiB", ours: Math.max(...memory_peak.value) / 2 ** 30 }),
        measured({ case: what, metric: `loss after ${loss.step.at(-1)} steps`, unit: "", ours: loss.value.at(-1)! }),
      ];
      for (const { case: name, metric, ours, unit } of found) console.error(`${name}: ${metric} ${Number(ours.toPrecision(4))} ${unit}`);
      rows.push(...found);
      Deno.removeSync(`${folder}/${name}`, { recursive: true }); // checkpoints of 9 GB
    }
    rows.sort((a, b) => placeOf(a) - placeOf(b));
    return {
      rows,
      notes: [
        `Synthetic data of full size: ${OBJECTS} objects of ${N} voxels, random features, latents, DINOv2, LPIPS and (for ss_flow) SS-VAE weights. Losses say nothing but that they fall.`,
        "Each recipe ran as a process of its own with --config; time a step is the median over runs of ten steps, loading of pictures included.",
      ],
      failed,
      curves,
    };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

benchmark("full_size", measure);
