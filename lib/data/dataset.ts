/** Reading a prepared dataset. */
import { readImage } from "../io/image.ts";
import { readPly } from "../io/ply.ts";
import { conditionImage } from "./condition_image.ts";
import { assetPaths } from "./layout.ts";
import { compare, isTrue, mergeRecords, type MetadataRow, readMetadata, writeRecords } from "./metadata.ts";

/** One object of a dataset. */
export interface DatasetItem {
  root: string;
  sha256: string;
  /** The column `file_identifier`. */
  name: string;
  numVoxels: number;
  /** Where it stands in the order of names among all objects of the roots, those left out included: see {@linkcode holdOut}. */
  place: number;
  /** All its columns. */
  row: MetadataRow;
}

/** Which objects {@linkcode openDataset} lists. */
export interface DatasetOptions {
  /** Columns that must be true, such as `voxelized` and `cond_rendered`. */
  require?: readonly string[];
  /** Objects with a lower score are left out; those without a score stay. */
  minAestheticScore?: number;
  /** Objects with more voxels are left out. */
  maxVoxels?: number;
}

/** The objects of one or more dataset roots. */
export interface Dataset {
  /** In the order of their names. */
  items: DatasetItem[];
  /** How many each filter has left, root by root, to be shown. */
  counts: { root: string; filter: string; left: number }[];
}

/** Lists the objects of a dataset root, or of several with commas between them. Throws an Error where a root has no metadata.csv or nothing is left. */
export function openDataset(roots: string, { require = [], minAestheticScore, maxVoxels }: DatasetOptions = {}): Dataset {
  const filters: [string, (item: DatasetItem) => boolean][] = require.map((column) => [column, ({ row }) => isTrue(row[column])]);
  if (minAestheticScore !== undefined) {
    filters.push([
      `aesthetic score >= ${minAestheticScore}`,
      ({ row }) => !row.aesthetic_score || Number(row.aesthetic_score) >= minAestheticScore,
    ]);
  }
  if (maxVoxels !== undefined) filters.push([`voxels <= ${maxVoxels}`, (item) => item.numVoxels <= maxVoxels]);
  const counts: Dataset["counts"] = [], items: DatasetItem[] = [], all: DatasetItem[] = [];
  for (const root of roots.split(",").map((part) => part.trim())) {
    const metadata = readMetadata(root);
    if (metadata.size === 0) {
      throw new Error(`Cannot open the dataset ${root}: it has no metadata.csv with objects in it, \`deno task prepare\` makes one`);
    }
    let left = [...metadata.values()].map((row): DatasetItem => ({
      root,
      sha256: row.sha256,
      name: row.file_identifier ?? "",
      numVoxels: Number(row.num_voxels || 0),
      place: 0,
      row,
    }));
    for (const item of left) all.push(item);
    counts.push({ root, filter: "all", left: left.length });
    for (const [filter, keep] of filters) {
      left = left.filter(keep);
      counts.push({ root, filter, left: left.length });
    }
    for (const item of left) items.push(item); // not items.push(...left): a call takes about 100 000 arguments
  }
  if (items.length === 0) {
    throw new Error(
      `Cannot open the dataset ${roots}: no object is left (${
        counts.map(({ filter, left }) => `${filter}: ${left}`).join(", ")
      }); \`deno task prepare\` makes what is missing`,
    );
  }
  const byName = (a: DatasetItem, b: DatasetItem): number => compare(a.name, b.name) || compare(a.sha256, b.sha256);
  all.sort(byName).forEach((item, place) => item.place = place);
  return { items: items.sort(byName), counts };
}

/**
 * Splits objects by their places among all of the dataset: every `every`th is held out, whatever else was filtered, so that recipes with different
 * needs hold out the same objects. Throws a RangeError where either part would be empty.
 */
export function holdOut<T extends Pick<DatasetItem, "place">>(items: readonly T[], every = 10): { train: T[]; heldOut: T[] } {
  const isOut = ({ place }: T): boolean => (place + 1) % every === 0,
    heldOut = items.filter(isOut),
    train = items.filter((item) => !isOut(item));
  if (every < 2 || heldOut.length === 0 || train.length === 0) {
    throw new RangeError(
      `Cannot hold out one object in ${every} of ${items.length}: ${train.length} would be left to train on and ${heldOut.length} to test on; ` +
        "data.holdOut must be from 2 to the number of objects, or 0 to hold out none",
    );
  }
  return { train, heldOut };
}

/** The occupancy [R, R, R] (x slowest, 1 or 0) of an object; R may be the resolution it was prepared at, or one that divides it. */
export function loadVoxels({ root, sha256 }: DatasetItem, R: number): Uint8Array<ArrayBuffer> {
  const path = assetPaths(root, sha256).voxels, { vertex } = readPly(path).elements;
  const { x, y, z } = vertex?.columns ?? {};
  if (!x || !y || !z) throw new Error(`Cannot read ${path}: it has no vertex x, y and z`);
  const occupancy = new Uint8Array(R ** 3);
  const index = (p: number): number => Math.floor((p + 0.5) * R),
    onBorder = (p: number): boolean => Math.abs((p + 0.5) * R % 1 - 0.5) > 0.499;
  for (let i = 0; i < vertex.count; i++) {
    const a = index(x[i]), b = index(y[i]), c = index(z[i]);
    if (!(a >= 0 && a < R && b >= 0 && b < R && c >= 0 && c < R)) {
      throw new Error(`Cannot read ${path}: voxel ${i} lies at ${x[i]} ${y[i]} ${z[i]}, it must be between -0.5 and 0.5`);
    }
    if (onBorder(x[i]) || onBorder(y[i]) || onBorder(z[i])) {
      throw new Error(
        `Cannot read ${path} at resolution ${R}: voxel ${i} lies at ${x[i]} ${y[i]} ${
          z[i]
        }, on a border of cells; the resolution must be ` +
          "the one that the dataset was prepared at, or divide it",
      );
    }
    occupancy[(a * R + b) * R + c] = 1;
  }
  return occupancy;
}

/** The frames of an object's transforms.json. */
function framesOf({ root, sha256 }: DatasetItem): { transform_matrix?: number[][] }[] {
  const path = assetPaths(root, sha256).transforms;
  try {
    const { frames } = JSON.parse(Deno.readTextFileSync(path));
    if (Array.isArray(frames) && frames.length > 0) return frames;
    throw new Error("it has no frames");
  } catch (error) {
    throw new Error(`Cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** The number of condition views of an object, from its transforms.json. */
export function countViews(item: DatasetItem): number {
  return framesOf(item).length;
}

const CLEAR_ELEVATION = 25 * Math.PI / 180;

/** The view of an object that is seen from nearest to 25 degrees above: where a person would take its picture. The first of equals. */
export function clearestView(item: DatasetItem): number {
  const off = framesOf(item).map(({ transform_matrix: m }) => {
    const [x, y, z] = [0, 1, 2].map((d) => Number(m?.[d]?.[3] ?? NaN));
    return Math.abs(Math.atan2(z, Math.hypot(x, y)) - CLEAR_ELEVATION);
  });
  return Math.max(0, off.indexOf(Math.min(...off)));
}

/** View `view` of an object as an image condition: [3, size, size], see {@linkcode conditionImage}. */
export function loadCondition({ root, sha256 }: DatasetItem, view: number, size: number): Float32Array<ArrayBuffer> {
  const path = assetPaths(root, sha256).view(view);
  try {
    return conditionImage(readImage(path), size);
  } catch (error) {
    throw new Error(`Cannot use the view ${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** Sets a column of these objects to True in the metadata.csv of their roots. `record` names the work, for the file that hands it in. */
export async function markObjects(items: readonly DatasetItem[], column: string, record: string): Promise<void> {
  for (const [root, of] of Map.groupBy(items, (item) => item.root)) {
    writeRecords(root, record, of.map(({ row }) => ({ ...row, [column]: "True" })));
    await mergeRecords(root);
  }
}
