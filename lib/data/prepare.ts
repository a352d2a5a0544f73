/** A folder of assets, or the built-in generator, made into a dataset on disk. */
import { join, relative, resolve } from "node:path";
import { writeFileAtomic } from "../io/atomic.ts";
import { MESH_ENDINGS } from "./import_mesh.ts";
import { compare, mergeRecords, type MetadataRow, writeRecords } from "./metadata.ts";
import {
  type AssetOptions,
  type AssetResult,
  type AssetSource,
  FEATURE_NAMES,
  type FeatureName,
  lostRow,
  prepareAsset,
} from "./prepare_asset.ts";
import { type AssetWorker, startWorker, WorkerLost } from "./prepare_worker.ts";
import { proceduralObject } from "./procedural.ts";

/** Options of {@linkcode prepareDataset}. */
export interface PrepareOptions {
  /** The dataset root; made where it is not there. */
  output: string;
  /** A folder of GLB, glTF and OBJ files, folders below it included. Without it the built-in generator is used. */
  input?: string;
  /** Objects of the generator; by default 64. */
  objects?: number;
  /** Condition views of each object, 0 for none; by default 24. */
  views?: number;
  /** Pixels across and down of a condition view; by default 512. */
  size?: number;
  /** Views of each object to train decoders on, and its mesh beside them, 0 for none; by default 0. TRELLIS makes 150. */
  renders?: number;
  /** Pixels across and down of those; by default 512. */
  renderSize?: number;
  /** Voxels along a side; by default 64. */
  resolution?: number;
  /** Voxel features to make; by default none. */
  features?: readonly FeatureName[];
  /** This process's share of the objects: part `rank` of `worldSize`; by default all. */
  rank?: number;
  worldSize?: number;
  /** Processes to work in; 0 works in this one. By default as many as cores. */
  workers?: number;
  /** Seconds that one object may take in a worker; by default 300. */
  seconds?: number;
  /** Chooses the generator's objects and the cameras; by default 0. */
  seed?: number;
  /** By default "cpu". */
  device?: AssetOptions["device"];
  /** Stops the work after the objects begun; what is done is recorded. */
  signal?: AbortSignal;
  /** Called at the start and after each object. */
  onProgress?: (summary: PrepareSummary) => void;
}

/** What {@linkcode prepareDataset} has done. */
export interface PrepareSummary {
  /** Objects of this rank's share. */
  total: number;
  /** Objects made now. */
  made: number;
  /** Objects that were complete before. */
  skipped: number;
  /** Objects that cannot be used; metadata.csv has the reasons too. */
  failed: { name: string; reason: string }[];
  /** Files whose content another file has too; one of them is in the dataset. */
  duplicates: string[];
}

const FLUSH_SECONDS = 30;

function listAssets(folder: string): AssetSource[] {
  const out: AssetSource[] = [];
  const walk = (at: string): void => {
    for (const entry of Deno.readDirSync(at)) {
      const path = join(at, entry.name);
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory) walk(path);
      else if (MESH_ENDINGS.some((ending) => entry.name.toLowerCase().endsWith(ending))) {
        out.push({ name: relative(folder, path), path: resolve(path) });
      }
    }
  };
  try {
    walk(folder);
  } catch (error) {
    throw new Error(`Cannot prepare ${folder}: ${(error as Error).message}; --input must be a readable folder`, { cause: error });
  }
  if (out.length === 0) throw new Error(`Cannot prepare ${folder}: it has no file that ends with ${MESH_ENDINGS.join(", ")}`);
  return out.sort((a, b) => compare(a.name, b.name));
}

function listProcedural(count: number, seed: number): AssetSource[] {
  return Array.from({ length: count }, (_, index) => ({ name: `procedural/${seed}/${proceduralObject(seed, index).name}`, seed, index }));
}

function expectWhole(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`Cannot prepare a dataset: ${name} is ${value}, it must be a whole number from ${least} to ${most}`);
  }
}

function expectWritable(root: string): void {
  const probe = join(root, ".espalier-write-test");
  try {
    Deno.mkdirSync(root, { recursive: true });
    writeFileAtomic(probe, new Uint8Array(1));
    Deno.removeSync(probe);
  } catch (error) {
    throw new Error(`Cannot write the dataset ${root}: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Makes or completes the dataset `output`: voxels, views and metadata.csv (training layout of TRELLIS). Objects that are complete are
 * left as they are; those that cannot be used are named in metadata.csv with the reason. Throws only where nothing can go on: no input, a
 * dataset that cannot be written.
 */
export async function prepareDataset(options: PrepareOptions): Promise<PrepareSummary> {
  const {
    input,
    output,
    objects = 64,
    views = 24,
    size = 512,
    renders = 0,
    renderSize = 512,
    resolution = 64,
    rank = 0,
    worldSize = 1,
    seed = 0,
    features = [],
    device = "cpu",
    signal,
  } = options;
  const cores = navigator.hardwareConcurrency;
  const { workers = device === "cuda" ? Math.min(4, cores) : cores, seconds = 300 } = options;
  expectWhole("objects", objects, 1, 1e7);
  expectWhole("views", views, 0, 999);
  expectWhole("size", size, 1, 4096);
  expectWhole("renders", renders, 0, 999);
  expectWhole("renderSize", renderSize, 1, 4096);
  expectWhole("resolution", resolution, 1, 256);
  expectWhole("worldSize", worldSize, 1, 1e6);
  const unknown = features.find((name) => !FEATURE_NAMES.includes(name));
  if (unknown) throw new RangeError(`Cannot prepare a dataset: the feature is ${unknown}, it must be one of ${FEATURE_NAMES.join(", ")}`);
  expectWhole("rank", rank, 0, worldSize - 1);
  expectWhole("workers", workers, 0, 1024);
  const all = input === undefined ? listProcedural(objects, seed) : listAssets(input);
  expectWritable(output);
  await mergeRecords(output); // what a run that was cut off left

  const share = all.slice(Math.floor(all.length * rank / worldSize), Math.floor(all.length * (rank + 1) / worldSize));
  const asset: AssetOptions = { output, views, size, renders, renderSize, resolution, features, seed, device };
  const summary: PrepareSummary = { total: share.length, made: 0, skipped: 0, failed: [], duplicates: [] };
  const rows = new Map<string, MetadataRow>(), record = `prepared_${rank}_of_${worldSize}`;
  let flushed = performance.now();
  options.onProgress?.(summary);
  const note = ({ row, skipped }: AssetResult): void => {
    const twin = rows.get(row.sha256);
    if (twin) summary.duplicates.push(compare(twin.file_identifier, row.file_identifier) < 0 ? row.file_identifier : twin.file_identifier);
    else if (row.error) summary.failed.push({ name: row.file_identifier, reason: row.error });
    else summary[skipped ? "skipped" : "made"]++;
    if (!twin || compare(row.file_identifier, twin.file_identifier) < 0) rows.set(row.sha256, row);
    if (performance.now() - flushed > FLUSH_SECONDS * 1000) {
      writeRecords(output, record, rows.values());
      flushed = performance.now();
    }
    options.onProgress?.(summary);
  };

  const count = Math.min(workers, share.length), stop = new AbortController();
  const start = (): Promise<AssetWorker> => startWorker(asset, { threads: Math.max(1, Math.floor(cores / count)), seconds });
  let next = 0;
  const drain = async (): Promise<void> => {
    let worker = workers === 0 ? inThisProcess(asset) : await start();
    stop.signal.addEventListener("abort", () => worker.stop());
    try {
      while (next < share.length && !signal?.aborted && !stop.signal.aborted) {
        const source = share[next++];
        try {
          note(await worker.run(source));
        } catch (error) {
          if (!(error instanceof WorkerLost) || stop.signal.aborted) throw error;
          note({ skipped: false, row: await lostRow(source, error.message) });
          worker = await start();
        }
      }
    } finally {
      worker.stop();
    }
  };
  let failure: unknown;
  await Promise.all(Array.from({ length: Math.max(1, count) }, () =>
    drain().catch((error) => {
      failure ??= error;
      stop.abort();
    })));
  try {
    writeRecords(output, record, rows.values());
    await mergeRecords(output);
  } catch (error) {
    failure ??= error;
  }
  if (failure) throw failure;
  return summary;
}

function inThisProcess(asset: AssetOptions): AssetWorker {
  return { run: (source) => prepareAsset(source, asset), stop: () => {} };
}
