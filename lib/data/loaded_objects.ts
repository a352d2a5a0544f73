/** Objects of a dataset as decoders are trained on them: voxels with features, cameras and pictures, read when first asked for. */
import type { Camera } from "../render/camera.ts";
import type { DatasetItem } from "./dataset.ts";
import { coarsenRows, readFeatures, type VoxelRows } from "./latents.ts";
import { assetPaths } from "./layout.ts";
import { remember } from "./occupancy.ts";
import { loadRender, renderCamerasOf } from "./renders.ts";

/** One object; what was read stays in memory, up to 8 GiB of pictures and as much of features. */
export interface LoadedObject {
  item: DatasetItem;
  /** Its voxels and their features. */
  rows(): VoxelRows;
  /** Of its training views. */
  cameras(): Camera[];
  /** Training view `view`: [4, S, S] bytes, see {@linkcode loadRender}. */
  picture(view: number): Uint8Array<ArrayBuffer>;
}

/** What {@linkcode openObjects} reads. */
export interface LoadedObjectOptions {
  /** The name of the voxel features. */
  features: string;
  /** How many values a voxel they must have. */
  channels: number;
  /** Side of the grid that the objects were prepared at, and of the model's, which divides it: its voxels have the means of those in them. */
  resolution: { prepared: number; model: number };
  /** Pixels across and down of the pictures. */
  size: number;
}

/** Views of an object are below this. */
const MOST_VIEWS = 1000;

/**
 * The objects of a dataset. Their functions throw an Error naming the file that cannot be used; throws a RangeError where the model's grid does not
 * divide that of the objects.
 */
export function openObjects(items: readonly DatasetItem[], options: LoadedObjectOptions): LoadedObject[] {
  const { features, channels, size, resolution: { prepared, model } } = options, factor = prepared / model;
  if (!Number.isInteger(factor)) {
    throw new RangeError(`Cannot use objects prepared at ${prepared}: the model's resolution is ${model}, it must divide that`);
  }
  const pictures = remember((key) => loadRender(items[Math.floor(key / MOST_VIEWS)], key % MOST_VIEWS, size));
  const rows = remember(
    (i) => {
      const path = assetPaths(items[i].root, items[i].sha256).features(features), read = readFeatures(path);
      const C = 3 * read.feats.length / read.coords.length, outside = read.coords.find((x) => x >= prepared);
      if (C !== channels) {
        throw new Error(`Cannot use ${path}: it has ${C} channels, the encoder's in_channels must say so and is ${channels}`);
      }
      if (outside !== undefined) {
        throw new Error(`Cannot use ${path}: a voxel index is ${outside}, it must be below ${prepared}, what data.resolution says`);
      }
      return factor === 1 ? read : coarsenRows(read, factor);
    },
    undefined,
    ({ coords, feats }) => coords.byteLength + feats.byteLength,
  );
  return items.map((item, i) => {
    let cameras: Camera[] | undefined;
    return {
      item,
      rows: () => rows(i),
      cameras: () => cameras ??= renderCamerasOf(item),
      picture: (view) => pictures(i * MOST_VIEWS + view),
    };
  });
}
