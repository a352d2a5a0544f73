/**
 * Makes 3D shapes of pictures with a trained pipeline, ours or a published one's sparse-structure stage.
 *
 *   deno task generate -- picture.png [more pictures] --model runs/ss_flow/models --output out [--seed 1 --steps 25 --cfg 5 --samples 2 --faces 20000]
 *
 * Of each picture: asset.glb, voxels.ply, preview.png and viewer.html, in a folder with the picture's name, or in `--output` itself for a single one.
 */
import * as e from "../mod.ts";

/** What {@linkcode generate} makes, and how. */
export interface GenerateOptions {
  /** The folder of the pipeline: `models` of a train:ss-flow run, or a published one. */
  model: string;
  output: string;
  /** Chooses the noise; sample k of a picture has seed + k. By default 0. */
  seed?: number;
  /** Euler steps and strength of the guidance; by default what the pipeline says. */
  steps?: number;
  cfg?: number;
  /** Shapes of each picture; by default 1. */
  samples?: number;
  /** Triangles that a mesh is simplified to; by default it is left as it is. */
  faces?: number;
  /** Whether the mesh gets colours from the picture; by default true. */
  color?: boolean;
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
  vertices: number;
  triangles: number;
  /** How much of the outline of picture and mesh agrees, from the view that agrees best; null without colours. */
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

const PREVIEW_SIDE = 320, VIEWER_SIDE = 512, POOR_OUTLINE = 0.6, LEAKY = 1.3, EDGE = 3;
const START_VIEW = { yaw: -Math.PI / 3, pitch: 0.4 };

function expectOptions({ seed = 0, steps, cfg, samples = 1, faces }: GenerateOptions): void {
  const whole = (name: string, value: number | undefined, least: number): void => {
    if (value === undefined || (Number.isSafeInteger(value) && value >= least)) return;
    throw new RangeError(`Cannot generate: --${name} is ${value}, it must be a whole number from ${least} up`);
  };
  whole("seed", seed, 0);
  whole("steps", steps, 1);
  whole("samples", samples, 1);
  whole("faces", faces, 4);
  if (cfg !== undefined && !(cfg >= 0 && Number.isFinite(cfg))) {
    throw new RangeError(`Cannot generate: --cfg is ${cfg}, it must be a number from 0 up`);
  }
}

/** A prepared picture [3, S, S] as RGBA: transparent where it is black, and near to that, where the resized edge of the object mixes with black. */
function cutOutOf(data: Float32Array, S: number): e.Image {
  const out = new Uint8Array(S * S * 4), area = S * S;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) out[i * 4 + c] = Math.round(data[c * area + i] * 255);
    out[i * 4 + 3] = 255;
  }
  for (let i = 0; i < area; i++) {
    if (data[i] + data[area + i] + data[2 * area + i] > 0) continue;
    const x = i % S, y = Math.floor(i / S);
    for (let v = Math.max(0, y - EDGE); v <= Math.min(S - 1, y + EDGE); v++) {
      for (let u = Math.max(0, x - EDGE); u <= Math.min(S - 1, x + EDGE); u++) out[(v * S + u) * 4 + 3] = 0;
    }
  }
  return { width: S, height: S, channels: 4, data: out };
}

function readInput(path: string, names: Set<string>): Input {
  const image = e.readImage(path), side = Math.min(VIEWER_SIDE, Math.max(image.width, image.height));
  const { data, warning } = e.prepareImage(image, side);
  const stem = path.split("/").at(-1)!.replace(/\.[^.]*$/, "").replace(/^\.+/, "") || "picture";
  let name = stem;
  for (let k = 2; names.has(name); k++) name = `${stem}_${k}`;
  names.add(name);
  return { path, name, image, cutOut: warning === undefined ? image : cutOutOf(data, side), warning };
}

/** Occupancy logits [R, R, R] of a picture. */
function sampleLogits(
  pipeline: e.Pipeline,
  input: Input,
  seed: number,
  { options, timed }: { options: GenerateOptions; timed: Timer },
): Float32Array {
  const { condition, flow, decoder, sampler, normalization } = pipeline, S = condition.config.image_size;
  const { resolution: r, in_channels: C } = flow.args, steps = options.steps ?? sampler.steps;
  const progress = e.startProgress(`${input.name}: sampling`, steps);
  return e.step(() =>
    e.noGrad(() => {
      const cond = timed("condition", () => condition.encode(e.tensor(e.prepareImage(input.image, S).data, [1, 3, S, S])));
      const z = timed("sampling", () =>
        e.sampleEuler(
          (x, t, c) => e.ssFlow(flow, x, t, c),
          new e.Generator(seed).normal([1, C, r, r, r]),
          cond,
          e.zeros(cond.shape),
          {
            ...sampler,
            steps,
            cfgStrength: options.cfg ?? sampler.cfgStrength,
            onStep: (i) => progress.update(i + 1, e.formatBytes(e.device().memory.use().used)),
          },
        ));
      progress.end();
      return timed("decoding", () => e.ssDecode(decoder, e.denormalize(z, normalization)).read());
    })
  );
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

/** The mesh with colours from the picture, or as it is with a warning where that cannot be. */
function colorMesh(mesh: e.Mesh, cutOut: e.Image): { mesh: e.Mesh; fit: e.CameraFit | null; warning?: string } {
  try {
    const fit = e.fitCamera(mesh, cutOut), colors = e.projectColors(mesh, cutOut, fit.camera);
    const warning = `The mesh has the picture's outline from no side (IoU ${fit.iou.toFixed(2)} at best): its colours are a guess.`;
    return { mesh: { ...mesh, colors }, fit, ...(fit.iou < POOR_OUTLINE && { warning }) };
  } catch (error) {
    return { mesh, fit: null, warning: `The mesh has no colours: ${(error as Error).message}` };
  }
}

/** The picture as the model sees it, then the mesh from four sides; the first is the picture's where it is known. */
function previewOf(mesh: e.Mesh, image: e.Image, from: e.Direction = START_VIEW): e.Image {
  const size = PREVIEW_SIDE, picture = e.conditionPicture(e.prepareImage(image, size).data, size, size);
  return e.imageGrid([picture, ...e.meshPictures(mesh, { count: 4, from, size })], { columns: 5 });
}

type Timer = <T>(stage: string, body: () => T) => T;

/** One shape, from the picture to its files, which are all made before the first is written. */
async function generateOne(
  pipeline: e.Pipeline,
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
  const logits = sampleLogits(pipeline, input, seed, { options, timed }), resolution = Math.round(Math.cbrt(logits.length));
  const voxels = e.voxelsAbove(logits, resolution);
  if (voxels.length === 0) {
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    throw new e.UserError(
      `Cannot make a shape: of ${resolution}^3 voxels none is occupied, the largest logit is ${most.toFixed(2)} and one must be above 0; ` +
        "try another --seed, other --cfg or --steps, or train longer",
    );
  }
  let start = performance.now();
  let mesh = await meshOfLogits(logits, options), fit: e.CameraFit | null = null;
  since("mesh", start);
  if (options.color ?? true) {
    const colored = timed("colours", () => colorMesh(mesh, input.cutOut));
    ({ mesh, fit } = colored);
    if (colored.warning) warnings.push(colored.warning);
  }
  start = performance.now();
  const vertices = mesh.positions.length / 3,
    triangles = mesh.triangles.length / 3,
    scale = Math.min(1, VIEWER_SIDE / Math.max(input.cutOut.width, input.cutOut.height));
  const [width, height] = [input.cutOut.width, input.cutOut.height].map((side) => Math.max(1, Math.round(side * scale)));
  const glb = await e.glbBytes(mesh), picture = e.encodePng(e.resizeImage(input.cutOut, { width, height }));
  const info = {
    voxels: `${voxels.length / 3} of ${resolution}^3`,
    triangles: String(triangles),
    vertices: String(vertices),
    seed: String(seed),
  };
  const page = e.viewerHtml({ glb, title: input.name, picture, voxels: { coords: voxels, resolution }, info });
  const preview = e.encodePng(previewOf(mesh, input.image, fit ?? undefined));
  Deno.mkdirSync(folder, { recursive: true });
  e.writeVoxels(`${folder}/voxels.ply`, voxels, resolution);
  for (const [name, bytes] of [["asset.glb", glb], ["preview.png", preview], ["viewer.html", new TextEncoder().encode(page)]] as const) {
    e.writeFileAtomic(`${folder}/${name}`, bytes);
  }
  since("files", start);
  const peak = memory.use().peak;
  return { picture: input.path, folder, voxels, resolution, vertices, triangles, outlineIou: fit?.iou ?? null, warnings, seconds, peak };
}

/** Makes shapes of pictures. A picture that cannot be used, or of which nothing comes, is listed in `failed`; the others go on. */
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
  const start = performance.now(), pipeline = e.loadPipeline(options.model, options), { samples = 1, seed = 0 } = options;
  console.log(`${options.model} loaded on ${e.device().name} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  for (const input of inputs) {
    const base = pictures.length > 1 ? `${options.output}/${input.name}` : options.output;
    for (let k = 0; k < samples; k++) {
      try {
        const shape = await generateOne(pipeline, input, { folder: samples > 1 ? `${base}/sample_${k}` : base, seed: seed + k, options });
        result.made.push(shape);
        describe(shape);
      } catch (error) {
        fail(input.path, error);
      }
    }
  }
  return result;
}

function describe({ picture, folder, voxels, resolution, vertices, triangles, outlineIou, warnings, seconds, peak }: GeneratedShape): void {
  const stages = Object.entries(seconds).map(([stage, s]) => `${stage} ${s.toFixed(2)} s`);
  const outline = outlineIou === null ? "" : `, outline IoU with the picture ${outlineIou.toFixed(2)}`;
  console.log(`${picture} -> ${folder}`);
  console.log(`  ${voxels.length / 3} voxels of ${resolution}^3, ${vertices} vertices, ${triangles} triangles${outline}`);
  console.log(`  ${stages.join(", ")}`);
  console.log(`  peak memory: device ${e.formatBytes(peak)}, process ${e.formatBytes(Deno.memoryUsage().rss)}`);
  for (const warning of warnings) console.log(`  warning: ${warning}`);
}

if (import.meta.main) {
  await e.runRecipe(async () => {
    const command = e.recipeCommand("generate", "Makes 3D shapes of pictures.")
      .argument("<pictures...>", "PNG or JPEG files; best are cut-out objects (PNG with transparency)")
      .requiredOption("--model <folder>", "the pipeline: models/ of a train:ss-flow run, or a published one")
      .option("-o, --output <folder>", "where the shapes go", "out")
      .option("--seed <seed>", "chooses the noise", Number, 0)
      .option("--steps <count>", "Euler steps (default: the pipeline's)", Number)
      .option("--cfg <strength>", "strength of the guidance (default: the pipeline's)", Number)
      .option("--samples <count>", "shapes of each picture, with seeds that follow on each other", Number, 1)
      .option("--faces <count>", "triangles to simplify the mesh to (default: all)", Number)
      .option("--no-color", "leave the mesh without colours from the picture")
      .option("--dino <file>", "safetensors with the weights of dinov2_vitl14_reg, for a pipeline that uses it")
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" });
    const flags = command.opts<GenerateOptions & { device?: string; memoryLimit?: string }>();
    e.openDeviceFrom(flags);
    const { failed } = await generate(command.args, flags);
    if (failed.length) Deno.exit(1);
  });
}
