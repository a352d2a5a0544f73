/**
 * Writes the latents of a dataset's objects, in TRELLIS's layout, for flow models to be trained on.
 *
 *   deno task encode -- --data DATASET --ss-encoder runs/ss_vae/models/encoder
 *   deno task encode -- --data DATASET --slat-encoder runs/slat_vae/models/encoder [--features appearance]
 *
 * Sparse-structure latents go to ss_latents/NAME/ID.npz (`mean` f32 [C, r, r, r]); structured latents to latents/FEATURES_NAME/ID.npz (`coords` u8
 * [N, 3], `feats` f32 [N, C]) with stats.json, the mean and deviation of each channel. Both are the posterior's mean, not normalised. NAME is by
 * default that of the run the encoder is from. What is there already is left alone, so the work can be stopped and started again.
 */
import * as e from "../mod.ts";

/** What {@linkcode encode} makes of which objects. */
export interface EncodeOptions {
  /** The dataset root, or several with commas between them. */
  data: string;
  /** The path of a SparseStructureEncoder pair, without its ending. */
  ssEncoder?: string;
  /** The name of its latents; by default that of the encoder's run. */
  ssName?: string;
  /** Side of the grid that it encodes; by default 64. */
  resolution?: number;
  /** The path of an SLatEncoder pair. */
  slatEncoder?: string;
  slatName?: string;
  /** The voxel features that it encodes; by default appearance. */
  features?: string;
  /** Objects with more voxels get no structured latents; by default 32768. */
  maxVoxels?: number;
  /** Makes latents of this name anew instead of going on with them. */
  again?: boolean;
}

/** What {@linkcode encode} has made: the latents' names, and how many objects have them. */
export interface EncodeResult {
  ss?: { name: string; objects: number };
  slat?: { name: string; objects: number; statistics: e.LatentStatistics };
}

/** Objects that statistics are taken of, at most. */
const COUNTED = 50_000;

/** "x" of runs/x/models/encoder, and of x/encoder; else the last part of the path. */
function nameOf(path: string): string {
  const parts = path.split("/").filter((part) => part && part !== ".");
  while (parts.length > 1 && ["encoder", "models"].includes(parts.at(-1)!)) parts.pop();
  return parts.at(-1) ?? path;
}

/** Refuses a folder with latents of another encoder; notes in it whose latents it has. */
async function claimFolder(folder: string, encoder: string, again: boolean): Promise<void> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(`${encoder}.safetensors`)), note = `${folder}/encoder.json`;
  const sha256 = new Uint8Array(digest).toHex();
  let entries: string[] = [], before: { sha256?: string } = {};
  try {
    if (again) Deno.removeSync(folder, { recursive: true });
    entries = [...Deno.readDirSync(folder)].map(({ name }) => name);
    before = JSON.parse(Deno.readTextFileSync(note));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  if (entries.length && before.sha256 !== sha256) {
    throw new e.UserError(
      `Cannot encode into ${folder}: its latents are of another encoder, they must be of ${encoder}; choose another name, or --again to replace them`,
    );
  }
  Deno.mkdirSync(folder, { recursive: true });
  e.writeFileAtomic(note, new TextEncoder().encode(JSON.stringify({ encoder, sha256 }, null, 4) + "\n"));
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Encodes the objects that have no file yet one by one, so that latents do not hang on what is encoded beside them, and marks all in metadata.csv. */
async function encodeAll(
  items: e.DatasetItem[],
  { label, encoder, folder, path, column, again, write }: {
    label: string;
    encoder: string;
    folder: (root: string) => string;
    path: (item: e.DatasetItem) => string;
    column: string;
    again: boolean;
    write: (item: e.DatasetItem) => void;
  },
): Promise<void> {
  for (const root of new Set(items.map((item) => item.root))) await claimFolder(folder(root), encoder, again);
  const missing = items.filter((item) => !isFile(path(item)));
  const progress = e.startProgress(label, missing.length);
  for (const [i, item] of missing.entries()) {
    e.step(() => e.noGrad(() => write(item)));
    progress.update(i + 1, e.formatBytes(e.device().memory.use().used));
  }
  progress.end();
  await e.markObjects(items, column, column);
  console.log(`${label}: ${missing.length} objects encoded, ${items.length - missing.length} there before`);
}

async function encodeStructures(o: EncodeOptions, path: string): Promise<NonNullable<EncodeResult["ss"]>> {
  const { resolution: R = 64, ssName: name = nameOf(path), again = false } = o,
    { items } = e.openDataset(o.data, { require: ["voxelized"] });
  const encoder = e.loadSsEncoder(path), C = encoder.args.latent_channels;
  const fileOf = (item: e.DatasetItem): string => e.assetPaths(item.root, item.sha256).ssLatents(name);
  await encodeAll(items, {
    ...{ label: `ss_latents/${name}`, encoder: path, folder: (root) => `${root}/ss_latents/${name}`, path: fileOf, again },
    column: `ss_latent_${name}`,
    write(item) {
      const grid = e.occupancyBatch([e.voxelsAbove(e.loadVoxels(item, R), R)], R);
      e.writeSsLatent(fileOf(item), e.ssEncode(encoder, e.tensor(grid, [1, 1, R, R, R])).mean.read(), C);
    },
  });
  e.freeLeaves(encoder.params);
  return { name, objects: items.length };
}

async function encodeSurfaces(o: EncodeOptions, path: string): Promise<NonNullable<EncodeResult["slat"]>> {
  const { features = "appearance", slatName = nameOf(path), maxVoxels = 32_768, again = false } = o, name = `${features}_${slatName}`;
  const { items } = e.openDataset(o.data, { require: [`feature_${features}`], maxVoxels });
  const encoder = e.loadSlatEncoder(path), { in_channels, latent_channels: C } = encoder.args;
  const fileOf = (item: e.DatasetItem): string => e.assetPaths(item.root, item.sha256).latents(name);
  await encodeAll(items, {
    ...{ label: `latents/${name}`, encoder: path, folder: (root) => `${root}/latents/${name}`, path: fileOf, again },
    column: `latent_${name}`,
    write(item) {
      const { coords, feats } = e.readFeatures(e.assetPaths(item.root, item.sha256).features(features));
      const voxels = e.makeVoxels(e.batchCoords([coords])), channels = feats.length / voxels.N;
      if (channels !== in_channels) {
        throw new e.UserError(
          `Cannot encode ${features}: it has ${channels} channels, the encoder ${path} must have as many and has ${in_channels}`,
        );
      }
      const { mean } = e.slatEncode(encoder, { features: e.tensor(feats, [voxels.N, channels]), voxels });
      e.writeLatents(fileOf(item), { coords, feats: mean.read() });
    },
  });
  e.freeLeaves(encoder.params);
  const sum = e.sumStatistics(C), every = Math.max(1, Math.ceil(items.length / COUNTED));
  for (let i = 0; i < items.length; i += every) sum.add(e.readLatents(fileOf(items[i])).feats);
  const statistics = sum.result();
  for (const root of new Set(items.map((item) => item.root))) e.writeStatistics(root, name, statistics);
  return { name, objects: items.length, statistics };
}

/** Encodes what the options name; marks the objects in metadata.csv (`ss_latent_NAME`, `latent_NAME`). */
export async function encode(options: EncodeOptions): Promise<EncodeResult> {
  const { ssEncoder, slatEncoder } = options, result: EncodeResult = {};
  if (!ssEncoder && !slatEncoder) {
    throw new e.UserError("Cannot encode: neither --ss-encoder nor --slat-encoder is given, it must be one of them or both");
  }
  if (ssEncoder) result.ss = await encodeStructures(options, ssEncoder);
  if (slatEncoder) result.slat = await encodeSurfaces(options, slatEncoder);
  return result;
}

if (import.meta.main) {
  await e.runRecipe(async () => {
    const flags = e.recipeCommand("encode", "Writes the latents of a dataset's objects.")
      .requiredOption("--data <roots>", "the dataset, or several with commas between them")
      .option("--ss-encoder <path>", "a SparseStructureEncoder: runs/ss_vae/models/encoder, without its ending")
      .option("--ss-name <name>", "the name of its latents (default: that of the encoder's run)")
      .option("--resolution <voxels>", "side of the grid that it encodes", Number, 64)
      .option("--slat-encoder <path>", "an SLatEncoder: runs/slat_vae/models/encoder, without its ending")
      .option("--slat-name <name>", "the name of its latents, after that of the features (default: that of the encoder's run)")
      .option("--features <name>", "the voxel features that it encodes", "appearance")
      .option("--max-voxels <count>", "objects with more get no structured latents", Number, 32_768)
      .option("--again", "make latents of this name anew instead of going on with them", false)
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" })
      .opts<EncodeOptions & { device?: string; memoryLimit?: string }>();
    e.openDeviceFrom(flags);
    await encode(flags);
  });
}
