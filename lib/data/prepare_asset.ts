/** One object's way into a dataset: voxels, condition views, and what metadata.csv says of it. */
import { dirname } from "node:path";
import { writeFileAtomic } from "../io/atomic.ts";
import { writePng } from "../io/image.ts";
import { readVoxels, writeVoxels } from "../io/ply.ts";
import { conditionCameras, frameOf } from "../render/camera.ts";
import { type Normalized, normalizeMesh, type RenderMesh } from "../render/mesh.ts";
import { renderMesh } from "../render/render_mesh.ts";
import { occupiedVoxels, voxelize } from "../render/voxelize.ts";
import type { OpenDevice } from "../tensor/device.ts";
import { DEFAULT_IMPORT_LIMITS } from "./import_files.ts";
import { importMesh } from "./import_mesh.ts";
import { type AssetPaths, assetPaths, viewName } from "./layout.ts";
import type { MetadataRow } from "./metadata.ts";
import { appearanceFeatures } from "./appearance.ts";
import { readFeatures, writeFeatures } from "./latents.ts";
import { proceduralObject } from "./procedural.ts";
import { createRandom } from "./random.ts";

/** An asset file, `name` being its path in the input folder; or an object of the built-in generator. */
export type AssetSource = { name: string; path: string } | { name: string; seed: number; index: number };

/** Voxel features that need no image model: see {@linkcode appearanceFeatures}. */
export const FEATURE_NAMES = ["appearance"] as const;

/** One of {@linkcode FEATURE_NAMES}. */
export type FeatureName = typeof FEATURE_NAMES[number];

/** What is made of each object. */
export interface AssetOptions {
  /** The dataset root. */
  output: string;
  /** Condition views; 0 makes none. */
  views: number;
  /** Pixels across and down of a view. */
  size: number;
  /** Voxels along a side. */
  resolution: number;
  /** Voxel features. */
  features?: readonly FeatureName[];
  /** Chooses the cameras, together with the object's hash. */
  seed: number;
  /** Where it is voxelized and rendered. */
  device: OpenDevice["name"];
}

/** What became of an object: its row for metadata.csv, and whether all of it was there before. */
export interface AssetResult {
  row: MetadataRow;
  skipped: boolean;
}

/** The dataset cannot be written (a full disk, a folder without permission): no object will fare better. */
export class OutputError extends Error {
  override name = "OutputError";
}

function writing<T>(write: () => T): T {
  try {
    return write();
  } catch (error) {
    throw new OutputError((error as Error).message, { cause: error });
  }
}

async function sha256Of(source: AssetSource): Promise<string> {
  const text = (words: string): Promise<ArrayBuffer> => crypto.subtle.digest("SHA-256", new TextEncoder().encode(words));
  if (!("path" in source)) return new Uint8Array(await text(`espalier procedural 1 ${source.seed} ${source.index}`)).toHex();
  try {
    const { isFile, size } = await Deno.stat(source.path);
    if (!isFile || size > DEFAULT_IMPORT_LIMITS.fileBytes) throw new Error("not a file of a sensible size");
    return new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(source.path))).toHex();
  } catch {
    return new Uint8Array(await text(`unreadable ${source.name}`)).toHex(); // importing says why
  }
}

/** The number of voxels of a finished object, else undefined. */
function countVoxels(path: string, resolution: number): number | undefined {
  try {
    return readVoxels(path, resolution).length / 3;
  } catch {
    return undefined; // absent, cut short, or of another resolution: made anew
  }
}

/** Whether the views are all there at the size wanted; transforms.json is written last, so it vouches for the pictures. */
function hasViews(paths: AssetPaths, { views, size }: AssetOptions): boolean {
  try {
    const { frames } = JSON.parse(Deno.readTextFileSync(paths.transforms));
    if (!Array.isArray(frames) || frames.length !== views) return false;
    using file = Deno.openSync(paths.view(0));
    const header = new Uint8Array(24);
    return file.readSync(header) === 24 && new DataView(header.buffer).getUint32(16) === size; // IHDR's width
  } catch {
    return false;
  }
}

/** Whether the features are there, on as many voxels. */
function hasFeatures(path: string, voxels: number | undefined): boolean {
  try {
    return readFeatures(path).coords.length === 3 * voxels!;
  } catch {
    return false;
  }
}

function cameraRandom(seed: number, sha256: string): () => number {
  return createRandom(seed, 3, ...Array.from({ length: 4 }, (_, i) => parseInt(sha256.slice(i * 8, i * 8 + 8), 16)));
}

function renderViews({ mesh, scale, offset }: Normalized<RenderMesh>, sha256: string, options: AssetOptions): void {
  const paths = assetPaths(options.output, sha256), cameras = conditionCameras(options.views, cameraRandom(options.seed, sha256));
  const views = renderMesh(mesh, cameras, { size: options.size, device: options.device });
  writing(() => {
    removeIfThere(paths.transforms);
    Deno.mkdirSync(paths.views, { recursive: true });
    views.forEach(({ rgba }, i) => writePng(paths.view(i), { width: options.size, height: options.size, channels: 4, data: rgba }));
    const frames = cameras.map((camera, i) => frameOf(camera, viewName(i)));
    const text = JSON.stringify({ aabb: [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]], scale, offset, frames }, null, 1);
    writeFileAtomic(paths.transforms, new TextEncoder().encode(text));
    for (let i = views.length; removeIfThere(paths.view(i)); i++);
  });
}

function removeIfThere(path: string): boolean {
  try {
    Deno.removeSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function rowOf(source: AssetSource, sha256: string): MetadataRow {
  const local_path = "path" in source ? source.path : "";
  return { sha256, file_identifier: source.name, local_path, voxelized: "False", num_voxels: "0", error: "" };
}

function makeFeatures(mesh: RenderMesh, paths: AssetPaths, R: number, names: readonly FeatureName[]): void {
  const coords = readVoxels(paths.voxels, R);
  for (const name of names) {
    const feats = appearanceFeatures(mesh, coords, R);
    writing(() => writeFeatures(paths.features(name), { coords, feats }));
  }
}

/**
 * Makes what is missing of one object: `voxels/<sha256>.ply`, `renders_cond/<sha256>/`, `features/<name>/<sha256>.npz`. An object that cannot be used gives a row with the
 * reason in `error`; only a dataset that cannot be written throws ({@linkcode OutputError}).
 */
export async function prepareAsset(source: AssetSource, options: AssetOptions): Promise<AssetResult> {
  const sha256 = await sha256Of(source), paths = assetPaths(options.output, sha256);
  const row = rowOf(source, sha256);
  try {
    let count = countVoxels(paths.voxels, options.resolution);
    const rendered = options.views === 0 || hasViews(paths, options), names = options.features ?? [];
    const missing = names.filter((name) => !hasFeatures(paths.features(name), count));
    const skipped = count !== undefined && rendered && missing.length === 0;
    if (!skipped) {
      const raw = "path" in source ? await importMesh(source.path) : proceduralObject(source.seed, source.index).mesh;
      const normalized = normalizeMesh(raw);
      if (count === undefined) {
        const voxels = occupiedVoxels(voxelize(normalized.mesh, options.resolution, { device: options.device }), options.resolution);
        writing(() => {
          Deno.mkdirSync(dirname(paths.voxels), { recursive: true });
          writeVoxels(paths.voxels, voxels, options.resolution);
        });
        count = voxels.length / 3;
      }
      if (!rendered) renderViews(normalized, sha256, options);
      if (missing.length) makeFeatures(normalized.mesh, paths, options.resolution, missing);
    }
    for (const name of names) row[`feature_${name}`] = "True";
    if (options.views > 0) row.cond_rendered = "True";
    return { skipped, row: { ...row, voxelized: "True", num_voxels: String(count) } };
  } catch (error) {
    if (error instanceof OutputError) throw error;
    return { skipped: false, row: { ...row, cond_rendered: "False", error: (error as Error).message } };
  }
}

/** The row of an object that its worker did not survive. */
export async function lostRow(source: AssetSource, reason: string): Promise<MetadataRow> {
  return { ...rowOf(source, await sha256Of(source)), cond_rendered: "False", error: reason };
}
