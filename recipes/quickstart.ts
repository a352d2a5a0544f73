/**
 * The whole way once, small: objects from the built-in generator, a dataset of them, two VAEs and two flow models, and a picture made into splats and
 * a coloured mesh.
 *
 *   deno task quickstart [-- --output out/quickstart --resume --device cpu]
 *
 * Everything is written to out/quickstart, and what an earlier quickstart left there is removed first. Minutes on two cores, a minute on a GPU.
 */
import * as e from "../mod.ts";
import { encode } from "./encode.ts";
import { generate, type GeneratedShape } from "./generate.ts";
import { SLAT_FLOW_SIZES, type SlatFlowConfig, trainSlatFlow } from "./slat_flow.ts";
import { SLAT_VAE_SIZES, type SlatVaeConfig, trainSlatVae } from "./slat_vae.ts";
import { SS_FLOW_SIZES, type SsFlowConfig, trainSsFlow } from "./ss_flow.ts";
import { SS_VAE_SIZES, type SsVaeConfig, trainSsVae } from "./ss_vae.ts";

/** Sizes of a quickstart. */
export interface QuickstartConfig {
  objects: number;
  views: number;
  /** Pixels of a view. */
  size: number;
  /** Views of each object that its Gaussians are trained on, of RENDER_SIDE pixels. */
  renders: number;
  vaeSteps: number;
  flowSteps: number;
  slatVaeSteps: number;
  slatFlowSteps: number;
  /** Euler steps of both flow models. */
  samplerSteps: number;
}

/** What {@linkcode quickstart} found. */
export interface QuickstartResult {
  /** Of the VAE's reconstructions. */
  vaeIou: number;
  /** Of pictures of the Gaussians that come back from the structured VAE, dB. */
  slatPsnr: number;
  /** Of the shape made of the picture with the object that it shows. */
  shapeIou: number;
  /** Of pictures of the Gaussians made of the picture with the object's, dB. */
  picturePsnr: number;
  shape: GeneratedShape;
  seconds: Record<string, number>;
  /** Bytes of the process: the most at the end of a step. */
  memory: number;
}

/** What takes about four minutes on two cores. */
export const QUICKSTART: QuickstartConfig = {
  ...{ objects: 48, views: 4, size: 128, renders: 12 },
  ...{ vaeSteps: 500, flowSteps: 1000, slatVaeSteps: 200, slatFlowSteps: 240 },
  samplerSteps: 25,
};

const R = 32, RENDER_SIDE = 64, LATENT = { latent_channels: 4 }, LEAN = { ...LATENT, num_res_blocks: 0 }, WIDTH = 96;

/** The tiny VAE made lean: no residual blocks outside of the middle, a latent of 4 channels and 8^3 cells. */
function vaeConfig({ vaeSteps: steps }: QuickstartConfig, root: string): SsVaeConfig {
  const { tiny } = SS_VAE_SIZES;
  return {
    ...tiny,
    data: { ...tiny.data, root, resolution: R, augment: false },
    encoder: { ...tiny.encoder, ...LEAN, channels: [8, 16, 32] },
    decoder: { ...tiny.decoder, ...LEAN, channels: [32, 16, 8] },
    loss: { type: "bce+dice", kl: 0.01 },
    steps,
    optimizer: { ...tiny.optimizer, lr: 0.005, warmup: 0 },
    log: { every: 10, sampleEvery: Math.ceil(steps / 2), saveEvery: Math.ceil(steps / 2), keep: 1 },
  };
}

/** The tiny flow model made lean: four narrow blocks, pictures of 32 pixels. */
function flowConfig({ flowSteps: steps, samplerSteps }: QuickstartConfig, root: string, vae: string): SsFlowConfig {
  const { tiny } = SS_FLOW_SIZES;
  return {
    ...tiny,
    data: { ...tiny.data, root, resolution: R },
    vae,
    model: { ...tiny.model, in_channels: 4, out_channels: 4, model_channels: WIDTH, cond_channels: WIDTH, num_blocks: 4, num_heads: 4 },
    condition: { encoder: "patch", image_size: 32, patch_size: 8, channels: WIDTH, num_blocks: 1, num_heads: 4 },
    flow: { ...tiny.flow, schedule: { name: "logitNormal", mean: 1, std: 1 } },
    sampler: { ...tiny.sampler, steps: samplerSteps },
    steps,
    batch: { size: 24, split: 1 },
    optimizer: { ...tiny.optimizer, lr: 0.003, warmup: 20, emaRates: [0.99] },
    log: { every: 10, sampleEvery: Math.ceil(steps / 2), saveEvery: Math.ceil(steps / 2), keep: 1 },
  };
}

/** The tiny structured VAE, on the pictures that were made. */
function slatVaeConfig({ slatVaeSteps: steps }: QuickstartConfig, root: string): SlatVaeConfig {
  const { tiny } = SLAT_VAE_SIZES, every = Math.ceil(steps / 2);
  return {
    ...tiny,
    data: { ...tiny.data, root, imageSize: RENDER_SIDE },
    steps,
    log: { every: 10, sampleEvery: every, saveEvery: every, keep: 1 },
  };
}

const SLAT_WIDTH = 64;

/** The tiny structured flow model made lean: two narrow blocks, pictures of 32 pixels. */
function slatFlowConfig(
  { slatFlowSteps: steps, samplerSteps }: QuickstartConfig,
  root: string,
  paths: Pick<SlatFlowConfig, "decoder" | "structure">,
): SlatFlowConfig {
  const { tiny } = SLAT_FLOW_SIZES, every = Math.ceil(steps / 2);
  return {
    ...tiny,
    ...paths,
    data: { ...tiny.data, root, latents: LATENTS },
    model: {
      ...tiny.model,
      ...{
        model_channels: SLAT_WIDTH,
        cond_channels: SLAT_WIDTH,
        num_blocks: 2,
        num_heads: 4,
        num_io_res_blocks: 1,
        io_block_channels: [16],
      },
    },
    condition: { encoder: "patch", image_size: 32, patch_size: 8, channels: SLAT_WIDTH, num_blocks: 1, num_heads: 4 },
    steps,
    sampler: { ...tiny.sampler, steps: samplerSteps },
    optimizer: { ...tiny.optimizer, lr: 3e-3, emaRates: [0.97] },
    log: { every: 10, sampleEvery: every, saveEvery: every, keep: 1 },
  };
}

const LATENTS = "appearance_slat_vae", MARKER = ".espalier-quickstart";

/** Makes `folder` empty and marks it. A folder with files that no quickstart made is left alone, with an error. */
export function openFolder(folder: string, resume: boolean): void {
  const marker = `${folder}/${MARKER}`;
  let names: string[] = [];
  try {
    names = [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  if (names.length && !names.includes(MARKER)) {
    throw new e.UserError(
      `Cannot start in ${folder}: it has files and no ${MARKER}, it must be a folder that a quickstart made; choose another --output`,
    );
  }
  if (names.length && !resume) Deno.removeSync(folder, { recursive: true });
  Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(marker, "The quickstart may remove this folder.\n");
}

function describeMachine(): string {
  const { name, memory } = e.device(),
    { total } = Deno.systemMemoryInfo(),
    cores = `${navigator.hardwareConcurrency} cores, ${e.formatBytes(total)} of memory`;
  return name === "cuda" ? `CUDA GPU with ${e.formatBytes(memory.limit)} to use; ${cores}` : `CPU: ${cores} (no GPU in use)`;
}

/** Reads a GLB back; throws unless it holds the shape's triangles, in the unit cube. */
async function verifyGlb(path: string, { triangles }: GeneratedShape): Promise<void> {
  const mesh = await e.importMesh(path), far = mesh.positions.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  if (mesh.triangles.length / 3 !== triangles || far > 0.51) {
    const got = `${mesh.triangles.length / 3} triangles up to ${far.toFixed(2)} from the middle`;
    throw new Error(`Cannot use ${path}: it reads back as ${got}, it must have ${triangles} within 0.5`);
  }
}

/** How like pictures of Gaussians are to an object's, on black: dB over its training views. */
function picturePsnr(item: e.DatasetItem, splats: e.SplatArrays, S: number): number {
  const cameras = e.renderCamerasOf(item), made = e.step(() => e.splatPictures(e.splatsOf([splats]), cameras, { size: S }));
  let sum = 0, count = 0;
  made.forEach(({ data }, view) => {
    const truth = e.loadRender(item, view, S), area = S * S; // [4, S, S] in bytes
    for (let i = 0; i < area; i++) {
      for (let c = 0; c < 3; c++) {
        sum += (data[4 * i + c] * data[4 * i + 3] / 255 ** 2 - truth[c * area + i] * truth[3 * area + i] / 255 ** 2) ** 2;
      }
    }
    count += 3 * area;
  });
  return -10 * Math.log10(Math.max(sum / count, 1e-10));
}

function curves(runs: Record<string, string>): string {
  const series = Object.entries(runs).flatMap(([name, folder]) =>
    Object.entries(e.readMetrics(`${folder}/metrics.jsonl`)).map(([key, values]) => [`${name}: ${key}`, values] as const)
  );
  return e.curvesHtml(Object.fromEntries(series), { title: "Quickstart" });
}

const RUNS = ["ss_vae", "ss_flow", "slat_vae", "slat_flow"];

/** Runs all steps in `output` and says what it does and finds. */
export async function quickstart(
  c: QuickstartConfig,
  { output, resume = false }: { output: string; resume?: boolean },
): Promise<QuickstartResult> {
  const steps = 8, seconds: Record<string, number> = {};
  let memory = 0;
  const stage = async <T>(name: string, text: string, body: () => T | Promise<T>): Promise<T> => {
    const start = performance.now(), number = Object.keys(seconds).length + 1;
    console.log(`\n[${number}/${steps}] ${text}`);
    const result = await body();
    seconds[name] = (performance.now() - start) / 1000;
    memory = Math.max(memory, Deno.memoryUsage().rss);
    console.log(`      ${e.formatSeconds(seconds[name])}, process ${e.formatBytes(Deno.memoryUsage().rss)}`);
    return result;
  };
  console.log(`Espalier quickstart in ${output}\n${describeMachine()}`);
  openFolder(output, resume);
  const root = `${output}/dataset`, [vaeRun, flowRun, slatVaeRun, slatFlowRun] = RUNS.map((name) => `${output}/${name}`);
  await stage(
    "dataset",
    `${c.objects} objects of the built-in generator: voxels at ${R}^3 with features, ${c.views} and ${c.renders} views`,
    async () => {
      const { objects, views, size, renders } = c, rendered = { renders, renderSize: RENDER_SIDE, features: ["appearance"] as const };
      const summary = await e.prepareDataset({ objects, views, size, ...rendered, resolution: R, output: root, device: e.device().name });
      console.log(`      ${summary.made} made, ${summary.skipped} there before, ${summary.failed.length} unusable`);
    },
  );
  const vae = await stage(
    "vae",
    `Training the sparse-structure VAE, ${c.vaeSteps} steps: ${R}^3 voxels to a small latent and back`,
    () => trainSsVae(vaeConfig(c, root), { output: vaeRun }),
  );
  const flow = await stage(
    "flow",
    `Training the flow model of structures, ${c.flowSteps} steps: a picture and noise to a latent`,
    () => trainSsFlow(flowConfig(c, root, vae.folder), { output: flowRun }),
  );
  const slatVae = await stage(
    "slat_vae",
    `Training the structured-latent VAE, ${c.slatVaeSteps} steps: what a voxel looks like to a latent, and this to Gaussians`,
    () => trainSlatVae(slatVaeConfig(c, root), { output: slatVaeRun }),
  );
  await stage(
    "encode",
    "Latents of all objects",
    () => encode({ data: root, slatEncoder: `${slatVae.folder}/encoder`, slatName: "slat_vae", again: true }),
  );
  const slatFlow = await stage(
    "slat_flow",
    `Training the flow model of structured latents, ${c.slatFlowSteps} steps: a picture, voxels and noise to latents`,
    () => trainSlatFlow(slatFlowConfig(c, root, { decoder: `${slatVae.folder}/decoder`, structure: flow.folder }), { output: slatFlowRun }),
  );
  const [item] = e.openDataset(root, { require: ["voxelized", "cond_rendered"] }).items,
    picture = e.assetPaths(root, item.sha256).view(c.views >> 1);
  const shape = await stage(
    "generate",
    `Splats and a mesh from a picture of ${item.name}, one of the objects it was trained on`,
    async () => {
      const { made, failed } = await generate([picture], { model: slatFlow.folder, output });
      if (failed.length) throw new e.UserError(`Cannot finish the quickstart: ${failed[0].reason}`);
      return made[0];
    },
  );
  const psnr = picturePsnr(item, shape.splats!, RENDER_SIDE);
  const shapeIou = e.voxelIou(e.voxelsAbove(e.loadVoxels(item, R), R), shape.voxels, R);
  await stage("check", "Reading the GLB back, drawing the curves", async () => {
    await verifyGlb(`${output}/asset.glb`, shape);
    e.writeFileAtomic(
      `${output}/curves.html`,
      new TextEncoder().encode(curves({ "SS-VAE": vaeRun, "SS-Flow": flowRun, "SLat-VAE": slatVaeRun, "SLat-Flow": slatFlowRun })),
    );
    const figures = {
      device: e.device().name,
      config: c,
      seconds,
      memory,
      ...{ vaeIou: vae.iou, slatPsnr: slatVae.psnr, shapeIou, picturePsnr: psnr },
      ...{ voxels: shape.voxels.length / 3, gaussians: shape.splats!.opacities.length },
    };
    e.writeFileAtomic(`${output}/results.json`, new TextEncoder().encode(JSON.stringify(figures, null, 4) + "\n"));
  });
  const total = Object.values(seconds).reduce((a, b) => a + b, 0);
  console.log(`
Done in ${e.formatSeconds(total)}; the process held ${e.formatBytes(memory)} at most.
  SS-VAE: IoU ${vae.iou.toFixed(3)} of reconstructed voxels with those of ${vae.objects} objects that it was trained on
  SLat-VAE: PSNR ${slatVae.psnr.toFixed(1)} dB of reconstructed Gaussians, drawn, with pictures of ${slatVae.objects} objects
  from the picture: IoU ${shapeIou.toFixed(3)} of the voxels and PSNR ${
    psnr.toFixed(1)
  } dB of the Gaussians, drawn, with the object that it shows
  (so little training memorises: a new picture needs a model trained on many objects, README.md says how)

  look at it     ${output}/viewer.html
  the asset      ${output}/asset.glb (mesh), asset.ply (Gaussians), voxels.ply, preview.png
  the training   ${output}/curves.html, ${RUNS.join("/samples, ")}/samples there
  more shapes    deno task generate -- PICTURE.png --model ${slatFlow.folder}`);
  return { vaeIou: vae.iou, slatPsnr: slatVae.psnr, shapeIou, picturePsnr: psnr, shape, seconds, memory };
}

if (import.meta.main) {
  await e.runRecipe(async () => {
    const flags = e.recipeCommand(
      "quickstart",
      "The whole way once, small: dataset, two VAEs, two flow models, and splats and a mesh from a picture.",
    )
      .option("-o, --output <folder>", "where everything goes", "out/quickstart")
      .option("--resume", "go on with what is there instead of starting afresh", false)
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" })
      .opts<{ output: string; resume: boolean; device?: string; memoryLimit?: string }>();
    e.openDeviceFrom(flags);
    await quickstart(QUICKSTART, flags);
  });
}
