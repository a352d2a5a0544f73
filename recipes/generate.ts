/**
 * Makes 3D objects of pictures with a trained pipeline, ours or a published one: a picture to voxels, and where the pipeline has a structured-latent
 * stage, these to Gaussian splats and a mesh in their colours.
 *
 *   deno task generate -- picture.png [more pictures] --model runs/slat_flow/models --output out [--seed 1 --steps 25 --cfg 5 --samples 2]
 *
 * Of each picture: asset.glb, asset.ply, voxels.ply, preview.png, viewer.html and, where ffmpeg is installed, turntable.mp4 (`--formats` chooses), in a
 * folder with the picture's name, or in `--output` itself for a single one.
 */
import * as e from "../mod.ts";

/** What {@linkcode generate} can write: asset.glb, asset.ply (Gaussians), voxels.ply, preview.png, viewer.html, turntable.mp4. */
export const FORMATS = ["glb", "ply", "voxels", "preview", "viewer", "mp4"] as const;

/** One of {@linkcode FORMATS}. */
export type Format = typeof FORMATS[number];

/** What {@linkcode generate} makes, and how. */
export interface GenerateOptions {
  /** The folder of the pipeline: `models` of a train:slat-flow or train:ss-flow run, or a published one. */
  model: string;
  /** The folder of a pipeline whose structured-latent stage is used; by default `model` where it has one. */
  slat?: string;
  output: string;
  /** Chooses the noise; sample k of a picture has seed + k. By default 0. */
  seed?: number;
  /** Euler steps and strength of the guidance, of each stage; by default what the pipeline says. */
  steps?: number;
  cfg?: number;
  slatSteps?: number;
  slatCfg?: number;
  /** Whether the Gaussians get the picture's mean colour; by default what the pipeline says. */
  matchColors?: boolean;
  /** Shapes of each picture; by default 1. */
  samples?: number;
  /** Triangles that a mesh is simplified to; by default it is left as it is. */
  faces?: number;
  /** Whether the mesh gets colours, from the Gaussians or else from the picture; by default true. */
  color?: boolean;
  /** By default all that can be made. */
  formats?: readonly Format[];
  /** The safetensors file with the weights of DINOv2, for a pipeline that uses it. */
  dino?: string;
}

/** One shape on disk. */
export interface GeneratedShape {
  picture: string;
  folder: string;
  /** [N, 3], of a grid with `resolution` voxels a side. */
  voxels: Int32Array;
  resolution: number;
  /** The Gaussians, where the pipeline makes them. */
  splats: e.SplatArrays | null;
  vertices: number;
  triangles: number;
  /** How much of the outline of picture and mesh agrees, from the view that agrees best; null without colours from the picture. */
  outlineIou: number | null;
  /** What the user should hear. */
  warnings: string[];
  /** By stage. */
  seconds: Record<string, number>;
  /** Most bytes of device memory in use. */
  peak: number;
}

/** What came of the pictures. */
export interface GenerateResult {
  made: GeneratedShape[];
  failed: { picture: string; reason: string }[];
}

/** A picture as the stages need it. */
interface Input {
  path: string;
  name: string;
  image: e.Image;
  /** RGBA, for colours and the viewer. */
  cutOut: e.Image;
  warning?: string;
}

/** The loaded stages. */
interface Stages {
  structure: e.Pipeline;
  slat?: e.SlatStage;
}

const PREVIEW_SIDE = 320, VIEWER_SIDE = 512, POOR_OUTLINE = 0.6, LEAKY = 1.3;
/** Pictures of the Gaussians that the mesh is coloured from, and frames of the video. */
const BAKED = { views: 32, side: 384 }, FRAMES = 60;
const START_VIEW = { yaw: -Math.PI / 3, pitch: 0.4 };

function expectOptions({ seed = 0, steps, cfg, slatSteps, slatCfg, samples = 1, faces, formats = [] }: GenerateOptions): void {
  const whole = (name: string, value: number | undefined, least: number): void => {
    if (value === undefined || (Number.isSafeInteger(value) && value >= least)) return;
    throw new RangeError(`Cannot generate: --${name} is ${value}, it must be a whole number from ${least} up`);
  };
  whole("seed", seed, 0);
  whole("steps", steps, 1);
  whole("slat-steps", slatSteps, 1);
  whole("samples", samples, 1);
  whole("faces", faces, 4);
  for (const [name, value] of [["cfg", cfg], ["slat-cfg", slatCfg]] as const) {
    if (value !== undefined && !(value >= 0 && Number.isFinite(value))) {
      throw new RangeError(`Cannot generate: --${name} is ${value}, it must be a number from 0 up`);
    }
  }
  const unknown = formats.find((name) => !FORMATS.includes(name));
  if (unknown !== undefined) throw new RangeError(`Cannot generate: the format is "${unknown}", it must be one of ${FORMATS.join(", ")}`);
}

/** What to write: what was asked for, which must be possible, or all that is. */
function formatsOf({ formats }: GenerateOptions, hasSplats: boolean): ReadonlySet<Format> {
  const absent = new Map<Format, string>();
  if (!hasSplats) absent.set("ply", "the pipeline must have a structured-latent stage (--slat) to make Gaussians");
  if ((formats ?? FORMATS).includes("mp4") && !e.hasFfmpeg()) absent.set("mp4", "the program ffmpeg must be installed to write videos");
  const impossible = formats?.find((name) => absent.has(name));
  if (impossible) throw new e.UserError(`Cannot generate: the format is ${impossible}, and ${absent.get(impossible)}`);
  return new Set((formats ?? FORMATS).filter((name) => !absent.has(name)));
}

function readInput(path: string, names: Set<string>): Input {
  const image = e.readImage(path), side = Math.min(VIEWER_SIDE, Math.max(image.width, image.height));
  const { data, warning } = e.prepareImage(image, side);
  const stem = path.split("/").at(-1)!.replace(/\.[^.]*$/, "").replace(/^\.+/, "") || "picture";
  let name = stem;
  for (let k = 2; names.has(name); k++) name = `${stem}_${k}`;
  names.add(name);
  return { path, name, image, cutOut: warning === undefined ? image : e.cutOutOf(data, side), warning };
}

/** Loads what the options name. */
function loadStages(options: GenerateOptions): Stages {
  const structure = e.loadPipeline(options.model, options),
    folder = options.slat ?? (e.hasSlatStage(options.model) ? options.model : undefined);
  if (!folder) return { structure };
  const slat = e.loadSlatStage(folder, { ...options, shared: structure.condition });
  const side = structure.flow.args.resolution * 2 ** (structure.decoder.args.channels.length - 1);
  if (side !== slat.flow.args.resolution) {
    throw new e.UserError(
      `Cannot generate: the structure has ${side} voxels a side, the structured-latent stage in ${folder} must be for as many and is for ${slat.flow.args.resolution}`,
    );
  }
  return { structure, slat };
}

/** Occupancy logits [R, R, R] of a picture. */
function sampleLogits({ structure: pipeline }: Stages, input: Input, seed: number, { options, timed }: Work): Float32Array {
  const { condition, flow, decoder, sampler, normalization } = pipeline, S = condition.config.image_size;
  const { resolution: r, in_channels: C } = flow.args, steps = options.steps ?? sampler.steps;
  const progress = e.startProgress(`${input.name}: sampling voxels`, steps), cfgStrength = options.cfg ?? sampler.cfgStrength;
  const onStep = (i: number): void => progress.update(i + 1, e.formatBytes(e.device().memory.use().used));
  return e.step(() =>
    e.noGrad(() => {
      const cond = timed("condition", () => condition.encode(e.tensor(e.prepareImage(input.image, S).data, [1, 3, S, S])));
      const velocity = (x: e.Tensor, t: e.Tensor, c: e.Tensor): e.Tensor => e.ssFlow(flow, x, t, c);
      const noise = new e.Generator(seed).normal([1, C, r, r, r]);
      const z = timed(
        "voxels",
        () => e.sampleEuler(velocity, noise, cond, e.zeros(cond.shape), { ...sampler, steps, cfgStrength, onStep }),
      );
      progress.end();
      return timed("decoding", () => e.ssDecode(decoder, e.denormalize(z, normalization)).read());
    })
  );
}

/** What every splat gains on the screen. */
function blurOf({ decoder }: e.SlatStage): number {
  return decoder.args.representation_config["2d_filter_kernel_size"];
}

/** The Gaussians of a picture on its voxels. */
function sampleSplats(slat: e.SlatStage, input: Input, coords: Int32Array, seed: number, { options, timed }: Work): e.SplatArrays {
  const { condition, sampler, normalization: { mean, std }, decoder } = slat, S = condition.config.image_size, C = mean.length;
  const steps = options.slatSteps ?? sampler.steps, cfgStrength = options.slatCfg ?? sampler.cfgStrength;
  const progress = e.startProgress(`${input.name}: sampling latents`, steps), picture = e.prepareImage(input.image, S).data;
  const onStep = (i: number): void => progress.update(i + 1, e.formatBytes(e.device().memory.use().used));
  const [z] = timed("latents", () => e.sampleLatents(slat, [{ coords, picture, seed }], { ...sampler, steps, cfgStrength, onStep }));
  progress.end();
  return timed("gaussians", () =>
    e.step(() =>
      e.noGrad(() => {
        const latents = e.tensor(z.map((v, i) => v * std[i % C] + mean[i % C]), [z.length / C, C]),
          voxels = e.makeVoxels(e.batchCoords([coords]));
        const [splats] = e.readSplats(e.splatsOfLatents(decoder, { features: latents, voxels })), blur = blurOf(slat);
        return options.matchColors ?? slat.matchColors ? e.matchColors(splats, input.cutOut, { blur }) : splats;
      })
    ));
}

/** Logits [R, R, R] of a shell as those of its body. A shell with holes is closed first, where that makes the body much larger. */
function solidOf(logits: Float32Array, R: number): Float32Array {
  const solid = e.fillInterior(logits), closed = e.fillInterior(logits, { close: Math.ceil(R / 16) });
  const volume = (field: Float32Array): number => field.reduce((count, value) => count + (value > 0 ? 1 : 0), 0);
  return volume(closed) > LEAKY * volume(solid) ? closed : solid;
}

/** The surface of logits [R, R, R]: a body rather than a shell, without crumbs, the steps of its voxels smoothed away. */
export async function meshOfLogits(logits: Float32Array, { faces }: { faces?: number } = {}): Promise<e.Mesh> {
  const R = Math.round(Math.cbrt(logits.length)), solid = solidOf(logits, R);
  let surface = e.isoSurface(solid, { prefilter: 0.5 });
  if (surface.triangles.length === 0) surface = e.isoSurface(solid);
  const mesh = e.smoothMesh(e.removeSmallParts(surface, 0.01), { maxMove: 0.75 / R });
  return faces ? await e.simplifyMesh(mesh, { targetTriangles: faces }) : mesh;
}

/** A mesh with its colours, and what is known of where the picture was taken. */
interface Colored {
  mesh: e.Mesh;
  fit: e.CameraFit | null;
  warning?: string;
}

/** The mesh with colours from the picture, or as it is with a warning where that cannot be. */
function colorFromPicture(mesh: e.Mesh, cutOut: e.Image): Colored {
  try {
    const fit = e.fitCamera(mesh, cutOut), colors = e.projectColors(mesh, cutOut, fit.camera);
    const warning = `The mesh has the picture's outline from no side (IoU ${fit.iou.toFixed(2)} at best): its colours are a guess.`;
    return { mesh: { ...mesh, colors }, fit, ...(fit.iou < POOR_OUTLINE && { warning }) };
  } catch (error) {
    return { mesh, fit: null, warning: `The mesh has no colours: ${(error as Error).message}` };
  }
}

/** The mesh with the colours of Gaussians drawn all around it, or as it is with a warning where none of them covers it. */
function colorFromSplats(mesh: e.Mesh, draw: (cameras: e.Camera[], size: number) => e.Image[]): Colored {
  const cameras = e.renderCameras(BAKED.views, () => 0.5), pictures = draw(cameras, BAKED.side);
  try {
    const colors = e.bakeColors(mesh, pictures.map((picture, i) => ({ picture, camera: e.meshCamera(cameras[i]) })));
    return { mesh: { ...mesh, colors }, fit: null };
  } catch (error) {
    return { mesh, fit: null, warning: `The mesh has no colours: ${(error as Error).message}` };
  }
}

/** The picture as the model sees it, then the mesh from four sides, the first being the picture's where it is known; below, the Gaussians. */
function previewOf({ mesh, fit }: Colored, input: Input, draw?: (cameras: e.Camera[], size: number) => e.Image[]): e.Image {
  const size = PREVIEW_SIDE, from = fit ?? START_VIEW, views = e.meshPictures(mesh, { count: 4, from, size });
  const pictureAt = (image: e.Image): e.Image => e.conditionPicture(e.prepareImage(image, size).data, size, size);
  const first = pictureAt(input.image), blank = { ...first, data: new Uint8Array(size * size * 3).fill(255) };
  const second = draw ? [blank, ...draw(e.turntable(4, from), size).map(e.pictureOnWhite)] : [];
  return e.imageGrid([first, ...views, ...second], { columns: 5 });
}

type Timer = <T>(stage: string, body: () => T) => T;

interface Work {
  options: GenerateOptions;
  timed: Timer;
}

/** One object, from the picture to its files, which are all made before the first is written. */
async function generateOne(
  stages: Stages,
  input: Input,
  { folder, seed, options }: { folder: string; seed: number; options: GenerateOptions },
): Promise<GeneratedShape> {
  const seconds: Record<string, number> = {}, warnings = input.warning ? [input.warning] : [], { memory } = e.device();
  const since = (stage: string, start: number): void => void (seconds[stage] = (performance.now() - start) / 1000);
  const timed: Timer = (stage, body) => {
    const start = performance.now(), result = body();
    memory.synchronize();
    since(stage, start);
    return result;
  };
  memory.resetPeak();
  const work = { options, timed }, { slat } = stages, formats = formatsOf(options, slat !== undefined);
  const logits = sampleLogits(stages, input, seed, work), resolution = Math.round(Math.cbrt(logits.length));
  const voxels = e.voxelsAbove(logits, resolution);
  if (voxels.length === 0) {
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    throw new e.UserError(
      `Cannot make a shape: of ${resolution}^3 voxels none is occupied, the largest logit is ${most.toFixed(2)} and one must be above 0; ` +
        "try another --seed, other --cfg or --steps, or train longer",
    );
  }
  const splats = slat ? sampleSplats(slat, input, voxels, seed, work) : null;
  const blur = slat && blurOf(slat);
  const draw = splats
    ? (cameras: e.Camera[], size: number): e.Image[] => e.step(() => e.splatPictures(e.splatsOf([splats]), cameras, { size, blur }))
    : undefined;
  let start = performance.now();
  const surface = await meshOfLogits(logits, options);
  since("mesh", start);
  const colored: Colored = (options.color ?? true)
    ? timed("colours", () => draw ? colorFromSplats(surface, draw) : colorFromPicture(surface, input.cutOut))
    : { mesh: surface, fit: null };
  if (colored.warning) warnings.push(colored.warning);
  start = performance.now();
  const { mesh, fit } = colored, vertices = mesh.positions.length / 3, triangles = mesh.triangles.length / 3;
  const scale = Math.min(1, VIEWER_SIDE / Math.max(input.cutOut.width, input.cutOut.height));
  const [width, height] = [input.cutOut.width, input.cutOut.height].map((side) => Math.max(1, Math.round(side * scale)));
  const glb = await e.glbBytes(mesh), files = new Map<string, Uint8Array>();
  if (formats.has("glb")) files.set("asset.glb", glb);
  if (formats.has("preview")) files.set("preview.png", e.encodePng(previewOf(colored, input, draw)));
  if (formats.has("viewer")) {
    const info = {
      voxels: `${voxels.length / 3} of ${resolution}^3`,
      ...(splats && { gaussians: String(splats.opacities.length) }),
      ...{ triangles: String(triangles), vertices: String(vertices), seed: String(seed) },
    };
    const picture = e.encodePng(e.resizeImage(input.cutOut, { width, height })), cloud = splats ?? undefined;
    const page = e.viewerHtml({ glb, title: input.name, picture, voxels: { coords: voxels, resolution }, splats: cloud, info });
    files.set("viewer.html", new TextEncoder().encode(page));
  }
  const side = PREVIEW_SIDE, cameras = e.turntable(FRAMES, fit ?? START_VIEW);
  const frames = formats.has("mp4")
    ? draw ? draw(cameras, side).map(e.pictureOnWhite) : e.meshPictures(mesh, { count: FRAMES, from: fit ?? START_VIEW, size: side })
    : [];
  Deno.mkdirSync(folder, { recursive: true });
  if (formats.has("voxels")) e.writeVoxels(`${folder}/voxels.ply`, voxels, resolution);
  if (formats.has("ply") && splats) e.writeGaussians(`${folder}/asset.ply`, splats);
  for (const [name, bytes] of files) e.writeFileAtomic(`${folder}/${name}`, bytes);
  if (frames.length) await e.writeVideo(`${folder}/turntable.mp4`, frames);
  since("files", start);
  const outlineIou = fit?.iou ?? null, { peak } = memory.use();
  return { picture: input.path, folder, voxels, resolution, splats, vertices, triangles, outlineIou, warnings, seconds, peak };
}

/** Makes objects of pictures. A picture that cannot be used, or of which nothing comes, is listed in `failed`; the others go on. */
export async function generate(pictures: string[], options: GenerateOptions): Promise<GenerateResult> {
  expectOptions(options);
  const result: GenerateResult = { made: [], failed: [] }, inputs: Input[] = [], names = new Set<string>();
  const fail = (picture: string, error: unknown): void => {
    if (!(error instanceof Error) || error instanceof e.OutOfMemoryError) throw error;
    result.failed.push({ picture, reason: error.message });
    console.error(`${picture}: ${error.message}`);
  };
  for (const path of pictures) {
    try {
      inputs.push(readInput(path, names));
    } catch (error) {
      fail(path, error);
    }
  }
  if (inputs.length === 0) return result;
  try {
    Deno.mkdirSync(options.output, { recursive: true });
  } catch (error) {
    throw new e.UserError(`Cannot write to ${options.output}: ${(error as Error).message}; --output must be a folder`);
  }
  const start = performance.now(), stages = loadStages(options), { samples = 1, seed = 0 } = options;
  formatsOf(options, stages.slat !== undefined);
  console.log(`${options.model} loaded on ${e.device().name} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  for (const input of inputs) {
    const base = pictures.length > 1 ? `${options.output}/${input.name}` : options.output;
    for (let k = 0; k < samples; k++) {
      try {
        const shape = await generateOne(stages, input, { folder: samples > 1 ? `${base}/sample_${k}` : base, seed: seed + k, options });
        result.made.push(shape);
        describe(shape);
      } catch (error) {
        fail(input.path, error);
      }
    }
  }
  for (const s of [stages.structure, stages.slat]) e.freeLeaves(s && [s.flow.params, s.decoder.params, s.condition.trained]);
  return result;
}

function describe({ picture, folder, voxels, resolution, splats, vertices, triangles, ...shape }: GeneratedShape): void {
  const { outlineIou, warnings, seconds, peak } = shape, stages = Object.entries(seconds).map(([stage, s]) => `${stage} ${s.toFixed(2)} s`);
  const outline = outlineIou === null ? "" : `, outline IoU with the picture ${outlineIou.toFixed(2)}`;
  const gaussians = splats ? `, ${splats.opacities.length} Gaussians` : "";
  console.log(`${picture} -> ${folder}`);
  console.log(`  ${voxels.length / 3} voxels of ${resolution}^3${gaussians}, ${vertices} vertices, ${triangles} triangles${outline}`);
  console.log(`  ${stages.join(", ")}`);
  console.log(`  peak memory: device ${e.formatBytes(peak)}, process ${e.formatBytes(Deno.memoryUsage().rss)}`);
  for (const warning of warnings) console.log(`  warning: ${warning}`);
}

if (import.meta.main) {
  await e.runRecipe(async () => {
    const command = e.recipeCommand("generate", "Makes 3D objects of pictures.")
      .argument("<pictures...>", "PNG or JPEG files; best are cut-out objects (PNG with transparency)")
      .requiredOption("--model <folder>", "the pipeline: models/ of a train:slat-flow or train:ss-flow run, or a published one")
      .option("--slat <folder>", "the pipeline whose structured-latent stage is used (default: the same, where it has one)")
      .option("-o, --output <folder>", "where the objects go", "out")
      .option("--seed <seed>", "chooses the noise", Number, 0)
      .option("--steps <count>", "Euler steps for the voxels (default: the pipeline's)", Number)
      .option("--cfg <strength>", "strength of the guidance for the voxels (default: the pipeline's)", Number)
      .option("--slat-steps <count>", "Euler steps for the latents (default: the pipeline's)", Number)
      .option("--slat-cfg <strength>", "strength of the guidance for the latents (default: the pipeline's)", Number)
      .option("--match-colors", "give the Gaussians the picture's mean colour (default: as the pipeline says)")
      .option("--no-match-colors", "leave their colours as they were made")
      .option("--samples <count>", "objects of each picture, with seeds that follow on each other", Number, 1)
      .option("--faces <count>", "triangles to simplify the mesh to (default: all)", Number)
      .option("--no-color", "leave the mesh without colours")
      .option("--formats <names>", `what to write, with commas between: ${FORMATS.join(", ")} (default: all that can be made)`)
      .option("--dino <file>", "safetensors with the weights of dinov2_vitl14_reg, for a pipeline that uses it")
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" });
    const { formats, ...flags } = command.opts<GenerateOptions & { formats?: string; device?: string; memoryLimit?: string }>();
    e.openDeviceFrom(flags);
    const { failed } = await generate(command.args, { ...flags, formats: formats?.split(",") as Format[] | undefined });
    if (failed.length) Deno.exit(1);
  });
}
