/** Makes a dataset on disk of a folder of GLB, glTF and OBJ files, or of the built-in generator's objects: voxels and views of each. */
import { Command, Option } from "commander";
import { formatSeconds, hasCuda, prepareDataset, type PrepareOptions, type PrepareSummary, runRecipe, startProgress } from "../mod.ts";

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
    .option("--features <names>", "voxel features to encode structured latents from, with commas between them: appearance")
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

async function main(): Promise<void> {
  const { device, features, ...flags } = parseFlags(), start = performance.now(), stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => stop.abort());
  let progress: ReturnType<typeof startProgress> | undefined;
  const summary = await prepareDataset({
    ...flags,
    features: features?.split(",") as PrepareOptions["features"],
    device: chooseDevice(device),
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
  if (stop.signal.aborted) {
    console.log("Stopped early; the same command goes on from here.");
    Deno.exit(130);
  }
}

if (import.meta.main) await runRecipe(main);
