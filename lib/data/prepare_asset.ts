/** One object's way into a dataset: voxels, condition views, and what metadata.csv says of it. */
import { dirname } from "node:path";
import { readVoxels, writePly, writeVoxels } from "../io/ply.ts";
import { type Camera, conditionCameras, renderCameras } from "../render/camera.ts";
import { normalizeMesh, type RenderMesh } from "../render/mesh.ts";
import { occupiedVoxels, voxelize } from "../render/voxelize.ts";
import type { OpenDevice } from "../tensor/device.ts";
import { DEFAULT_IMPORT_LIMITS } from "./import_files.ts";
import { importMesh } from "./import_mesh.ts";
import { type AssetPaths, assetPaths, type RenderPaths, type ViewPaths } from "./layout.ts";
import type { MetadataRow } from "./metadata.ts";
import { OutputError, writing } from "./output_error.ts";
import { hasViews, writeViews } from "./prepare_views.ts";
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
  /** Pixels across and down of a condition view. */
  size: number;
  /** Views to train decoders on, and the mesh beside them; by default none. */
  renders?: number;
  /** Pixels across and down of those; by default 512. */
  renderSize?: number;
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

/** Whether the features are there, on as many voxels. */
function hasFeatures(path: string, voxels: number | undefined): boolean {
  try {
    return readFeatures(path).coords.length === 3 * voxels!;
  } catch {
    return false;
  }
}

/** Draws the cameras of an object; `use` tells condition views (3) from training views (4). */
function cameraRandom(seed: number, use: number, sha256: string): () => number {
  return createRandom(seed, use, ...Array.from({ length: 4 }, (_, i) => parseInt(sha256.slice(i * 8, i * 8 + 8), 16)));
}

/** A set of views of an object: which folder, how many and how large, and from where. */
interface ViewSet {
  paths: ViewPaths;
  views: number;
  size: number;
  cameras: () => Camera[];
}

function conditionViews({ views, size, seed }: AssetOptions, { views: folder, transforms, view }: AssetPaths, sha256: string): ViewSet {
  return { paths: { folder, transforms, view }, views, size, cameras: () => conditionCameras(views, cameraRandom(seed, 3, sha256)) };
}

function trainingViews({ renders = 0, renderSize = 512, seed }: AssetOptions, { renders: paths }: AssetPaths, sha256: string): ViewSet {
  return { paths, views: renders, size: renderSize, cameras: () => renderCameras(renders, cameraRandom(seed, 4, sha256)) };
}

function writeMesh({ folder, mesh }: RenderPaths, { positions, triangles }: RenderMesh): void {
  const axis = (d: number): Float32Array<ArrayBuffer> =>
    Float32Array.from({ length: positions.length / 3 }, (_, i) => positions[3 * i + d]);
  Deno.mkdirSync(folder, { recursive: true });
  writePly(mesh, { vertex: { x: axis(0), y: axis(1), z: axis(2) }, faces: triangles });
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
 * Makes what is missing of one object: `voxels/<sha256>.ply`, `renders_cond/<sha256>/`, `renders/<sha256>/`, `features/<name>/<sha256>.npz`. An
 * object that cannot be used gives a row with the reason in `error`; only a dataset that cannot be written throws ({@linkcode OutputError}).
 */
export async function prepareAsset(source: AssetSource, options: AssetOptions): Promise<AssetResult> {
  const sha256 = await sha256Of(source), paths = assetPaths(options.output, sha256);
  const row = rowOf(source, sha256);
  try {
    let count = countVoxels(paths.voxels, options.resolution);
    const sets = [conditionViews(options, paths, sha256), trainingViews(options, paths, sha256)], names = options.features ?? [];
    const unseen = sets.filter((set) => set.views > 0 && !hasViews(set.paths, set));
    const missing = names.filter((name) => !hasFeatures(paths.features(name), count));
    const skipped = count !== undefined && unseen.length === 0 && missing.length === 0;
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
      for (const { paths: to, cameras, size } of unseen) {
        if (to === paths.renders) writing(() => writeMesh(paths.renders, normalized.mesh));
        writeViews(to, normalized, cameras(), { size, device: options.device });
      }
      if (missing.length) makeFeatures(normalized.mesh, paths, options.resolution, missing);
    }
    for (const name of names) row[`feature_${name}`] = "True";
    if (options.views > 0) row.cond_rendered = "True";
    if (options.renders) row.rendered = "True";
    return { skipped, row: { ...row, voxelized: "True", num_voxels: String(count) } };
  } catch (error) {
    if (error instanceof OutputError) throw error;
    return { skipped: false, row: { ...row, rendered: "False", cond_rendered: "False", error: (error as Error).message } };
  }
}

/** The row of an object that its worker did not survive. */
export async function lostRow(source: AssetSource, reason: string): Promise<MetadataRow> {
  return { ...rowOf(source, await sha256Of(source)), rendered: "False", cond_rendered: "False", error: reason };
}
