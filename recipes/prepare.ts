/** Makes a dataset on disk of a folder of GLB, glTF and OBJ files, or of the built-in generator's objects: voxels and views of each. */
import { Command, Option } from "commander";
import {
  DINO_FEATURES,
  dinoPatches,
  extractViewFeatures,
  formatSeconds,
  freeLeaves,
  hasCuda,
  loadDino,
  openDataset,
  openDevice,
  prepareDataset,
  type PrepareOptions,
  type PrepareSummary,
  runRecipe,
  startProgress,
  UserError,
} from "../mod.ts";

interface Flags {
  input?: string;
  output: string;
  objects: number;
  views: number;
  size: number;
  renders?: number;
  renderSize: number;
  resolution: number;
  features?: string;
  dino?: string;
  visible: boolean;
  rank: number;
  worldSize: number;
  workers?: number;
  seed: number;
  device?: string;
}

function parseFlags(): Flags {
  return new Command("prepare").description(
    "Makes or completes a dataset. What is complete is left alone, so it can be started again at any time.",
  )
    .showHelpAfterError("(--help lists the options)")
    .requiredOption("--output <folder>", "the dataset")
    .option("--input <folder>", "GLB, glTF and OBJ files, folders below included (default: the built-in generator)")
    .option("--objects <count>", "objects of the generator", Number, 64)
    .option("--views <count>", "condition views of each object, 0 for none", Number, 24)
    .option("--size <pixels>", "size of a condition view", Number, 512)
    .addOption(
      new Option("--renders [count]", "views of each object to train the decoders of structured latents on (without a number 150)")
        .argParser(Number).preset(150),
    )
    .option("--render-size <pixels>", "size of one of those", Number, 512)
    .option("--resolution <voxels>", "voxels along a side", Number, 64)
    .option(
      "--features <names>",
      "voxel features to encode structured latents from, with commas between them: appearance, dinov2_vitl14_reg",
    )
    .option("--dino <file>", "the weights of dinov2_vitl14_reg (safetensors, under their published names), for features of that name")
    .option("--visible", "of those features, average a voxel's over the views that see it, instead of over all", false)
    .option("--rank <rank>", "this process's part of the objects", Number, Number(Deno.env.get("RANK") ?? 0))
    .option("--world-size <count>", "parts that the objects are shared out in", Number, Number(Deno.env.get("WORLD_SIZE") ?? 1))
    .option("--workers <count>", "processes to work in, 0 for this one (default: the cores, at most 4 on a GPU)", Number)
    .option("--device <device>", "cpu, cuda or auto (default: DEVICE, else auto)")
    .option("--seed <seed>", "chooses the generator's objects and the cameras", Number, 0)
    .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" })
    .opts<Flags>();
}

function describe({ total, made, skipped, failed, duplicates }: PrepareSummary, seconds: number): string {
  const parts = [`${made} made`, `${skipped} complete before`, `${duplicates.length} twice in the input`, `${failed.length} unusable`];
  return `${total} objects in ${formatSeconds(seconds)}: ${parts.join(", ")}`;
}

function chooseDevice(asked = Deno.env.get("DEVICE") ?? "auto"): "cpu" | "cuda" {
  if (asked === "auto") return hasCuda() ? "cuda" : "cpu";
  if (asked === "cpu" || asked === "cuda") return asked;
  throw new RangeError(`Cannot prepare a dataset: --device is ${asked}, it must be cpu, cuda or auto`);
}

/** What the image model says of the objects' training views, as features on their voxels. */
async function addDinoFeatures(
  { output, resolution, rank, worldSize, visible }: Flags,
  weights: string,
  signal: AbortSignal,
): Promise<void> {
  const { items } = openDataset(output, { require: ["voxelized", "rendered"] });
  const share = items.slice(Math.floor(items.length * rank / worldSize), Math.floor(items.length * (rank + 1) / worldSize));
  const model = loadDino(weights), progress = startProgress(DINO_FEATURES, share.length), faults: string[] = [];
  const made = await extractViewFeatures({ channels: model.args.embed_dim, encode: (pictures) => dinoPatches(model, pictures) }, share, {
    ...{ resolution, visible, signal, record: `feature_${DINO_FEATURES}_${rank}_of_${worldSize}` },
    onProgress: (done) => progress.update(done, `${faults.length} unusable`),
    onFault: ({ name }, error) => faults.push(`  unusable: ${name}: ${error.message}`),
  });
  progress.end();
  freeLeaves(model.params);
  console.log(
    `${DINO_FEATURES}: ${made} objects made, ${share.length - made - faults.length} complete before or left, ${faults.length} unusable`,
  );
  for (const fault of faults.slice(0, 10)) console.log(fault);
}

/** The names in `--features`: those made of the surface, and whether the image model's are asked for. */
function splitFeatures({ features, dino, renders = 0 }: Flags): { surface: PrepareOptions["features"]; image: boolean } {
  const names = features?.split(",").map((name) => name.trim()) ?? [], image = names.includes(DINO_FEATURES);
  if (image && !dino) {
    throw new UserError(
      `Cannot make ${DINO_FEATURES} features: --dino is missing, it must name the safetensors file with that model's weights`,
    );
  }
  if (image && renders === 0) {
    throw new UserError(`Cannot make ${DINO_FEATURES} features: there are 0 training views to look at, --renders must make some`);
  }
  return { surface: names.filter((name) => name !== DINO_FEATURES) as PrepareOptions["features"], image };
}

async function main(): Promise<void> {
  const flags = parseFlags(), start = performance.now(), stop = new AbortController();
  const { surface, image } = splitFeatures(flags), device = chooseDevice(flags.device);
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => stop.abort());
  let progress: ReturnType<typeof startProgress> | undefined;
  const summary = await prepareDataset({
    ...flags,
    features: surface,
    device,
    signal: stop.signal,
    onProgress: ({ total, made, skipped, failed, duplicates }) => {
      progress ??= startProgress("prepare", total);
      const done = made + skipped + failed.length + duplicates.length, rate = done / ((performance.now() - start) / 1000);
      progress.update(done, `${rate.toFixed(1)} objects/s${failed.length ? `  ${failed.length} unusable` : ""}`);
    },
  });
  progress?.end();
  console.log(describe(summary, (performance.now() - start) / 1000));
  for (const { name, reason } of summary.failed.slice(0, 10)) console.log(`  unusable: ${name}: ${reason}`);
  if (summary.failed.length > 10) console.log(`  ... all of them are in ${flags.output}/metadata.csv, column error`);
  if (image && !stop.signal.aborted) {
    openDevice(device);
    await addDinoFeatures(flags, flags.dino!, stop.signal);
  }
  if (stop.signal.aborted) {
    console.log("Stopped early; the same command goes on from here.");
    Deno.exit(130);
  }
}

if (import.meta.main) await runRecipe(main);
