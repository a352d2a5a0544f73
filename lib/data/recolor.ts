/**
 * Other colours for an object, in its voxels' features and its pictures alike. From few objects a model learns which colours a shape has, and never
 * looks at the picture for them; where every shape comes in many colours only the picture tells.
 */
import { CHANNEL_ORDERS } from "./condition_image.ts";
import { chance, pick, type Random, uniform } from "./random.ts";

/** Colour channel c becomes `gains[c]` times channel `channels[c]`, in sRGB. */
export interface Recolor {
  channels: readonly number[];
  gains: readonly number[];
}

/** What {@linkcode drawRecolor} may draw. */
export interface RecolorOptions {
  /** Which part of the objects gets other colours. */
  part: number;
  /** Channels become darker by up to this part; gains are from 1 - gain to 1. */
  gain: number;
}

/** The colours as they are. */
export const SAME_COLORS: Recolor = { channels: [0, 1, 2], gains: [1, 1, 1] };
/** No object gets other colours. */
export const NO_RECOLOR: RecolorOptions = { part: 0, gain: 0 };

/** {@linkcode SAME_COLORS}, or the channels in any order and each darker by a random part. */
export function drawRecolor({ part, gain }: RecolorOptions, random: Random): Recolor {
  if (!part || !chance(random, part)) return SAME_COLORS;
  return { channels: pick(random, CHANNEL_ORDERS), gains: [0, 1, 2].map(() => uniform(random, 1 - gain, 1)) };
}

/** A picture whose first three planes of `area` bytes are its colours, with its channels exchanged; the gains are left to who multiplies anyway. */
export function exchangePlanes(planes: Uint8Array<ArrayBuffer>, { channels }: Recolor, area: number): Uint8Array<ArrayBuffer> {
  if (channels.every((from, c) => from === c)) return planes;
  const out = planes.slice();
  channels.forEach((from, c) => out.set(planes.subarray(from * area, (from + 1) * area), c * area));
  return out;
}

/** Features [N, C] of `appearanceFeatures`, whose first three columns are colours from -1 to 1, in other colours. */
export function recolorFeatures(feats: Float32Array<ArrayBuffer>, C: number, { channels, gains }: Recolor): Float32Array<ArrayBuffer> {
  const out = feats.slice();
  for (let n = 0; n < out.length; n += C) for (let c = 0; c < 3; c++) out[n + c] = (feats[n + channels[c]] + 1) * gains[c] - 1;
  return out;
}
