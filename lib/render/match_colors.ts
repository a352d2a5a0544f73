/**
 * The colours of a picture for Gaussians that were made of it. A model of few objects makes shapes of a picture's kind in colours that such shapes
 * often have; which colours the picture has is known.
 */
import { step } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Camera, orbitCamera } from "./camera.ts";
import { type SplatArrays, splatsOf } from "./gaussians.ts";
import { rasterize } from "./splat.ts";

/** A picture whose alpha cuts out its object: RGBA, 8 bits. */
export interface CutOut {
  width: number;
  height: number;
  data: Uint8Array;
}

const DEGREE = Math.PI / 180, S = 64, YAWS = 24, PITCHES = [5, 25, 45, 65], BEST = 4;
const CAMERAS = PITCHES.flatMap((pitch) =>
  Array.from({ length: YAWS }, (_, k) => orbitCamera({ yaw: 2 * Math.PI * k / YAWS, pitch: pitch * DEGREE }, 2, 40 * DEGREE))
);
/** Cells across and down of the outlines that are compared, and the zeroth spherical harmonic. */
const CELLS = 24, HARMONIC = 0.28209479177387814;

/** What a picture shows: its outline, laid out on the square about its box, and the object's mean colour, 0 to 1. */
interface Seen {
  outline: Uint8Array;
  color: number[];
}

/** What pixels with `alpha` from 0 to 1 and the colours `colorAt(pixel, channel)` show; null where none is covered. */
function seenIn(alpha: ArrayLike<number>, width: number, colorAt: (pixel: number, channel: number) => number): Seen | null {
  let left = width, right = -1, top = Infinity, bottom = -1, count = 0;
  const sums = [0, 0, 0];
  for (let i = 0; i < alpha.length; i++) {
    if (!(alpha[i] >= 0.5)) continue;
    const x = i % width, y = Math.floor(i / width);
    left = Math.min(left, x), right = Math.max(right, x), top = Math.min(top, y), bottom = Math.max(bottom, y), count++;
    for (let c = 0; c < 3; c++) sums[c] += colorAt(i, c);
  }
  if (count === 0) return null;
  const side = Math.max(right - left, bottom - top) + 1, height = alpha.length / width;
  const outline = Uint8Array.from({ length: CELLS ** 2 }, (_, cell) => {
    const x = Math.floor((left + right + 1) / 2 + side * ((cell % CELLS + 0.5) / CELLS - 0.5));
    const y = Math.floor((top + bottom + 1) / 2 + side * ((Math.floor(cell / CELLS) + 0.5) / CELLS - 0.5));
    return x >= 0 && y >= 0 && x < width && y < height && alpha[y * width + x] >= 0.5 ? 1 : 0;
  });
  return { outline, color: sums.map((sum) => sum / count) };
}

function outlineIou(a: Uint8Array, b: Uint8Array): number {
  let both = 0, either = 0;
  for (let i = 0; i < a.length; i++) both += a[i] & b[i], either += a[i] | b[i];
  return both / either;
}

/**
 * The same Gaussians with one colour added to all, so that their mean colour is the picture's from the sides on which their outline is most like its
 * own. `blur` is that of rasterize. They stay as they are where the picture or they are empty.
 */
export function matchColors(splats: SplatArrays, { width, height, data }: CutOut, { blur }: { blur?: number } = {}): SplatArrays {
  const picture = seenIn(
    Float32Array.from({ length: width * height }, (_, i) => data[4 * i + 3] / 255),
    width,
    (i, c) => data[4 * i + c] / 255,
  );
  if (!picture || splats.opacities.length === 0) return splats;
  const views = viewsOf(splats, blur).map((seen) => ({ ...seen, iou: outlineIou(seen.outline, picture.outline) }));
  if (views.length === 0) return splats;
  const best = views.sort((a, b) => b.iou - a.iou).slice(0, BEST), { colors } = splats, K = colors.length / splats.opacities.length / 3;
  const added = picture.color.map((wanted, c) => (wanted - best.reduce((sum, { color }) => sum + color[c] / best.length, 0)) / HARMONIC);
  const limit = K === 1 ? 0.5 / HARMONIC : Infinity; // without higher harmonics colours stay within what can be shown
  return {
    ...splats,
    colors: colors.map((value, i) => i % (3 * K) < 3 ? Math.min(limit, Math.max(-limit, value + added[i % 3])) : value),
  };
}

/** What the Gaussians show from all around. */
function viewsOf(splats: SplatArrays, blur?: number): Seen[] {
  const area = S * S;
  return PITCHES.flatMap((_, p) => {
    const cameras: Camera[] = CAMERAS.slice(p * YAWS, (p + 1) * YAWS);
    const y = step(() => noGrad(() => rasterize(splatsOf([splats]), [cameras], { size: S, blur }).read())); // [V, 5, S, S]
    return cameras.flatMap((_, v) => {
      const plane = (c: number): Float32Array => y.subarray((5 * v + c) * area, (5 * v + c + 1) * area), alpha = plane(3);
      const planes = [0, 1, 2].map(plane), seen = seenIn(alpha, S, (i, c) => Math.min(1, planes[c][i] / alpha[i]));
      return seen ? [seen] : [];
    });
  });
}
