/** The condition pictures of a training batch: which views, how they are varied, and where the condition is dropped. */
import { drawVariation, type ImageVariation, type VariationOptions, varyImage } from "./condition_image.ts";
import { clearestView, countViews, type DatasetItem, loadCondition } from "./dataset.ts";
import { remember } from "./occupancy.ts";
import { integer, type Random, uniform } from "./random.ts";

/** The pictures of a list of objects, in bytes, kept in memory once they are read. */
export interface ConditionPictures {
  /** Pixels across and down. */
  readonly size: number;
  /** How many views object k has. */
  readonly views: readonly number[];
  /** View v of object k: [3, S, S]. */
  picture(k: number, view: number): Uint8Array;
}

/** The pictures of `items` at `size` pixels, as {@linkcode loadCondition} gives them. */
export function conditionPictures(items: readonly DatasetItem[], size: number): ConditionPictures {
  const views = items.map((item) => countViews(item)), most = views.reduce((a, b) => Math.max(a, b), 1);
  const read = remember((key) => bytesOf(loadCondition(items[Math.floor(key / most)], key % most, size)));
  return { size, views, picture: (k, view) => read(k * most + view) };
}

/** Each object's clearest view, [3, size, size] in 0 to 1: what it is tested on. */
export function clearestPictures(items: readonly DatasetItem[], size: number): Float32Array<ArrayBuffer>[] {
  return items.map((item) => loadCondition(item, clearestView(item), size));
}

function bytesOf(values: Float32Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(values, (v) => Math.round(v * 255));
}

/** How pictures are varied in training. */
export interface PictureVariation extends VariationOptions {
  /** How much brighter or darker a colour channel gets, at most. */
  gain: number;
}

/** No variation. */
export const PLAIN_PICTURES: PictureVariation = { mirror: false, shift: 0, gain: 0, exchange: 0 };

/** The conditions of B samples. */
export interface DrawnConditions {
  /** [3, S, S] each, varied. */
  images: Uint8Array[];
  variations: ImageVariation[];
  /** [B, 3]: what the colour channels are multiplied by. */
  gains: number[];
  /** [B]: 0 where the condition is dropped, else 1. */
  kept: Float32Array<ArrayBuffer>;
}

/** Draws a view of each of the objects `indices`, how it is varied, and whether it is dropped, which happens with probability `pUncond`. */
export function drawConditions(
  { picture, views, size }: ConditionPictures,
  indices: readonly number[],
  { pUncond, augment, random }: { pUncond: number; augment: PictureVariation; random: Random },
): DrawnConditions {
  const shown = indices.map((k) => picture(k, integer(random, 0, views[k] - 1)));
  const kept = Float32Array.from(indices, () => random() < pUncond ? 0 : 1);
  const variations = indices.map(() => drawVariation(augment, size, random)), { gain } = augment;
  const gains = indices.flatMap(() => [0, 1, 2].map(() => gain ? uniform(random, 1 - gain, 1 + gain) : 1));
  return { images: shown.map((bytes, b) => varyImage(bytes, size, variations[b])), variations, gains, kept };
}
