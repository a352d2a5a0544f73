/**
 * The whole way once, small: objects from the built-in generator, a dataset of them, a VAE, a flow model, and a shape made of a picture.
 *
 *   deno task quickstart [-- --output out/quickstart --resume --device cpu]
 *
 * Everything is written to out/quickstart, and what an earlier quickstart left there is removed first. Minutes on two cores, a minute on a GPU.
 */
import * as e from "../mod.ts";
import { generate, type GeneratedShape } from "./generate.ts";
import { SS_FLOW_SIZES, trainSsFlow } from "./ss_flow.ts";
import { SS_VAE_SIZES, trainSsVae } from "./ss_vae.ts";

/** Sizes of a quickstart. */
export interface QuickstartConfig {
  objects: number;
  views: number;
  /** Pixels of a view, voxels along a side. */
  size: number;
  resolution: number;
  /** Every so-manieth object is kept for testing. */
  holdOut: number;
  vaeSteps: number;
  flowSteps: number;
  seed: number;
}

/** What {@linkcode quickstart} found. */
export interface QuickstartResult {
  /** Of the VAE's reconstructions of held-out objects. */
  vaeIou: number;
  /** Of the shape made of the picture with the object that it shows. */
  shapeIou: number;
  shape: GeneratedShape;
  seconds: Record<string, number>;
  /** Bytes of the process: the most at the end of a step. */
  memory: number;
}

/** By device: what takes about four minutes on two cores, and less than a minute and a half on a GPU. */
export const QUICKSTART: Record<"cpu" | "cuda", QuickstartConfig> = {
  cpu: { objects: 56, views: 4, size: 128, resolution: 32, holdOut: 8, vaeSteps: 300, flowSteps: 600, seed: 0 },
  cuda: { objects: 56, views: 4, size: 128, resolution: 32, holdOut: 8, vaeSteps: 600, flowSteps: 1500, seed: 0 },
};

const MARKER = ".espalier-quickstart";

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

function curves(runs: Record<string, string>): string {
  const series = Object.entries(runs).flatMap(([name, folder]) =>
    Object.entries(e.readMetrics(`${folder}/metrics.jsonl`)).map(([key, values]) => [`${name}: ${key}`, values] as const)
  );
  return e.curvesHtml(Object.fromEntries(series), { title: "Quickstart" });
}

/** Runs all steps in `output` and says what it does and finds. */
export async function quickstart(
  c: QuickstartConfig,
  { output, resume = false }: { output: string; resume?: boolean },
): Promise<QuickstartResult> {
  const steps = 5, seconds: Record<string, number> = {};
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
  const root = `${output}/dataset`, { resolution: R, seed, holdOut } = c, vaeRun = `${output}/ss_vae`, flowRun = `${output}/ss_flow`;

  await stage("dataset", `${c.objects} objects of the built-in generator: voxels at ${R}^3, ${c.views} views each`, async () => {
    const { made, skipped, failed } = await e.prepareDataset({ ...c, output: root, device: e.device().name });
    console.log(`      ${made} made, ${skipped} there before, ${failed.length} unusable`);
  });

  const tinyVae = SS_VAE_SIZES.tiny, tinyFlow = SS_FLOW_SIZES.tiny;
  const vae = await stage(
    "vae",
    `Training the sparse-structure VAE: ${R}^3 voxels to a small latent and back, ${c.vaeSteps} steps`,
    () => trainSsVae({ ...tinyVae, data: { ...tinyVae.data, root, resolution: R, holdOut }, steps: c.vaeSteps, seed }, { output: vaeRun }),
  );
  const flow = await stage(
    "flow",
    `Training the flow model: picture and noise to a latent, ${c.flowSteps} steps`,
    () =>
      trainSsFlow({ ...tinyFlow, data: { ...tinyFlow.data, root, resolution: R, holdOut }, vae: vae.folder, steps: c.flowSteps, seed }, {
        output: flowRun,
      }),
  );

  const [item] = e.openDataset(root, { require: ["voxelized", "cond_rendered"] }).items, picture = e.assetPaths(root, item.sha256).view(0);
  const shape = await stage("generate", `A shape from a picture of ${item.name}, which is in the training set`, async () => {
    const { made, failed } = await generate([picture], { model: flow.folder, output, seed });
    if (failed.length) throw new e.UserError(`Cannot finish the quickstart: ${failed[0].reason}`);
    return made[0];
  });
  const shapeIou = e.voxelIou(e.voxelsAbove(e.loadVoxels(item, R), R), shape.voxels, R);

  await stage("check", "Reading the GLB back, drawing the curves", async () => {
    await verifyGlb(`${output}/asset.glb`, shape);
    e.writeFileAtomic(`${output}/curves.html`, new TextEncoder().encode(curves({ "VAE": vaeRun, "flow": flowRun })));
    const figures = {
      device: e.device().name,
      config: c,
      seconds,
      memory,
      vaeIou: vae.iou,
      flowIou: flow.iou,
      shapeIou,
      voxels: shape.voxels.length / 3,
    };
    e.writeFileAtomic(`${output}/results.json`, new TextEncoder().encode(JSON.stringify(figures, null, 4) + "\n"));
  });
  const total = Object.values(seconds).reduce((a, b) => a + b, 0);
  console.log(`
Done in ${e.formatSeconds(total)}; the process held ${e.formatBytes(memory)} at most.
  VAE: IoU ${vae.iou.toFixed(3)} of reconstructed voxels, ${vae.objects} objects that it was not trained on
  shape from the picture: IoU ${shapeIou.toFixed(3)} with the object that the picture shows
${
    flow.iou
      ? `  shapes from pictures of ${flow.iou.objects} objects that it was not trained on: IoU ${flow.iou.generated.toFixed(3)}\n`
      : ""
  }
  look at it     ${output}/viewer.html
  the asset      ${output}/asset.glb, voxels.ply, preview.png
  the training   ${output}/curves.html, ${vaeRun}/samples, ${flowRun}/samples
  more shapes    deno task generate -- PICTURE.png --model ${flow.folder}`);
  return { vaeIou: vae.iou, shapeIou, shape, seconds, memory };
}

if (import.meta.main) {
  await e.runRecipe(async () => {
    const flags = e.recipeCommand("quickstart", "The whole way once, small: dataset, VAE, flow model, and a shape from a picture.")
      .option("-o, --output <folder>", "where everything goes", "out/quickstart")
      .option("--resume", "go on with what is there instead of starting afresh", false)
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" })
      .opts<{ output: string; resume: boolean; device?: string; memoryLimit?: string }>();
    e.openDeviceFrom(flags);
    await quickstart(QUICKSTART[e.device().name], flags);
  });
}
