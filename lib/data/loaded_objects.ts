/** Objects of a dataset as decoders are trained on them: voxels with features, cameras and pictures, read when first asked for. */
import type { Camera } from "../render/camera.ts";
import type { DatasetItem } from "./dataset.ts";
import { readFeatures, type VoxelRows } from "./latents.ts";
import { assetPaths } from "./layout.ts";
import { remember } from "./occupancy.ts";
import { loadRender, renderCamerasOf } from "./renders.ts";

/** One object; what was read stays in memory, of pictures as much as fits in 8 GiB. */
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
  /** Pixels across and down of the pictures. */
  size: number;
}

/** Views of an object are below this. */
const MOST_VIEWS = 1000;

/** The objects of a dataset. Their functions throw an Error naming the file that cannot be used. */
export function openObjects(items: readonly DatasetItem[], { features, channels, size }: LoadedObjectOptions): LoadedObject[] {
  const pictures = remember((key) => loadRender(items[Math.floor(key / MOST_VIEWS)], key % MOST_VIEWS, size));
  return items.map((item, i) => {
    let rows: VoxelRows | undefined, cameras: Camera[] | undefined;
    return {
      item,
      rows() {
        if (rows) return rows;
        const path = assetPaths(item.root, item.sha256).features(features),
          read = readFeatures(path),
          C = read.feats.length / read.coords.length * 3;
        if (C !== channels) {
          throw new Error(`Cannot use ${path}: it has ${C} channels, the encoder's in_channels must say so and is ${channels}`);
        }
        return rows = read;
      },
      cameras: () => cameras ??= renderCamerasOf(item),
      picture: (view) => pictures(i * MOST_VIEWS + view),
    };
  });
}
