/** Voxel features from an image model: what it says of the patches that a voxel is seen in, averaged over an object's training views. */
import { type Image, readImage, resizeImage } from "../io/image.ts";
import { readVoxels } from "../io/ply.ts";
import { add, mul } from "../ops/elementwise.ts";
import { reshape, slice } from "../ops/movement.ts";
import { gatherRows } from "../ops/rows.ts";
import { type Camera, projectPoint } from "../render/camera.ts";
import { renderVoxels } from "../render/render_voxels.ts";
import { device } from "../tensor/device.ts";
import { step, tidy } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../tensor/tensor.ts";
import { type DatasetItem, markObjects } from "./dataset.ts";
import { readFeatures, writeFeatures } from "./latents.ts";
import { assetPaths } from "./layout.ts";
import { renderCamerasOf } from "./renders.ts";

/** The name of TRELLIS's features. */
export const DINO_FEATURES = "dinov2_vitl14_reg";

/** The image model, frozen. */
export interface ViewEncoder {
  /** Channels of a patch. */
  channels: number;
  /** Pictures [B, 3, S, S] in [0, 1] on black to patches [B, P P, channels], row by row. */
  encode(pictures: Tensor): Tensor;
}

/** Options of {@linkcode extractViewFeatures}. */
export interface ViewFeatureOptions {
  /** Voxels along a side, as the objects were prepared. */
  resolution: number;
  /** The folder in `features/`; by default {@linkcode DINO_FEATURES}. */
  name?: string;
  /** Averages over the views that see a voxel, instead of over all as TRELLIS does; a voxel that none sees has the mean of all. */
  visible?: boolean;
  /** Pixels across and down that views are resized to; by default 518. */
  imageSize?: number;
  /** Views that pass the model at a time; by default 8. */
  together?: number;
  /** The name under which this work is handed in for metadata.csv; different for processes that share it out. */
  record?: string;
  /** Called after each object. */
  onProgress?: (done: number, total: number) => void;
  /** Stops the work after the object begun. */
  signal?: AbortSignal;
}

/** Side in pixels of the pictures in which visibility is looked for. */
const DEPTH_SIZE = 512;

/** For a map of P x P values that fills the picture: the four values around each of N places (u, v) and their weights. Outside of the map is 0. */
export function bilinearTaps(
  places: readonly { u: number; v: number }[],
  P: number,
): { rows: Int32Array; weights: Float32Array<ArrayBuffer> }[] {
  const taps = Array.from({ length: 4 }, () => ({ rows: new Int32Array(places.length), weights: new Float32Array(places.length) }));
  places.forEach(({ u, v }, n) => {
    const x = u * P - 0.5, y = v * P - 0.5, left = Math.floor(x), top = Math.floor(y), s = x - left, t = y - top;
    taps.forEach(({ rows, weights }, k) => {
      const i = left + (k & 1), j = top + (k >> 1);
      rows[n] = i >= 0 && i < P && j >= 0 && j < P ? j * P + i : -1;
      weights[n] = (k & 1 ? s : 1 - s) * (k >> 1 ? t : 1 - t);
    });
  });
  return taps;
}

/** The values of a map [P P, C] at N places, [N, C], each times `factor` [N]. */
export function sampleMap(map: Tensor, places: readonly { u: number; v: number }[], factor?: Float32Array): Tensor {
  const P = Math.round(Math.sqrt(map.shape[0])), N = places.length;
  return tidy(() =>
    bilinearTaps(places, P).map(({ rows, weights }) => {
      const by = factor ? weights.map((w, n) => w * factor[n]) : weights;
      return mul(gatherRows(map, tensor(rows, [N], { dtype: "i32" })), tensor(by, [N, 1]));
    }).reduce((a, b) => add(a, b))
  );
}

/** RGBA to [3, S, S] in [0, 1]: resized (Lanczos), colours times alpha. */
function pictureOf(image: Image, S: number): Float32Array {
  const { data, channels } = resizeImage(image, { width: S, height: S }), area = S * S, out = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    const alpha = channels === 4 ? data[i * 4 + 3] / 255 : 1;
    for (let c = 0; c < 3; c++) out[c * area + i] = data[i * channels + c] / 255 * alpha;
  }
  return out;
}

/** 1 where a camera sees a voxel's cube before others, else 0: the voxels themselves hide each other. [V][N]. */
export function seenVoxels(coords: Int32Array, R: number, cameras: readonly Camera[]): Float32Array[] {
  const views = renderVoxels(coords, R, cameras, { size: DEPTH_SIZE, samples: 1, depth: true, device: device().name });
  return views.map(({ depth }, i) =>
    Float32Array.from({ length: coords.length / 3 }, (_, n) => {
      const { u, v, depth: own } = projectPoint(cameras[i], centreOf(coords, n, R)), [x, y] = [u, v].map((c) => Math.floor(c * DEPTH_SIZE));
      if (Math.min(x, y) < 0 || Math.max(x, y) >= DEPTH_SIZE) return 0;
      const nearest = depth![y * DEPTH_SIZE + x];
      return nearest === 0 || own - nearest < 1 / R ? 1 : 0; // a cube's surface is at most sqrt(3) / 2 of its side before its centre
    })
  );
}

function centreOf(coords: Int32Array, n: number, R: number): number[] {
  return [0, 1, 2].map((d) => (coords[3 * n + d] + 0.5) / R - 0.5);
}

/** The features [N, C] of an object's voxels [N, 3]: the mean over `count` views, which `viewAt` reads. */
export function viewFeatures(
  encoder: ViewEncoder,
  coords: Int32Array,
  cameras: readonly Camera[],
  viewAt: (i: number) => Image,
  { resolution: R, visible = false, imageSize: S = 518, together = 8 }: ViewFeatureOptions,
): Float32Array<ArrayBuffer> {
  const N = coords.length / 3, C = encoder.channels;
  const seen = visible ? seenVoxels(coords, R, cameras) : undefined, counts = new Float32Array(N);
  for (const view of seen ?? []) view.forEach((s, n) => counts[n] += s);
  const factors = cameras.map((_, i) => Float32Array.from(counts, (count, n) => seen && count ? seen[i][n] / count : 1 / cameras.length));
  return step(() =>
    noGrad(() => {
      let sum = zeros([N, C]);
      for (let first = 0; first < cameras.length; first += together) {
        const before = sum, group = cameras.slice(first, first + together), B = group.length;
        sum = tidy(() => {
          const pictures = new Float32Array(B * 3 * S * S);
          group.forEach((_, k) => pictures.set(pictureOf(viewAt(first + k), S), k * 3 * S * S));
          const tokens = encoder.encode(tensor(pictures, [B, 3, S, S])), patches = tokens.shape[1];
          return group.map((camera, k) => {
            const places = Array.from({ length: N }, (_, n) => projectPoint(camera, centreOf(coords, n, R)));
            return sampleMap(reshape(slice(tokens, 0, k, k + 1), [patches, C]), places, factors[first + k]);
          }).reduce((a, b) => add(a, b), before);
        });
        before.free();
      }
      return sum.read() as Float32Array<ArrayBuffer>;
    })
  );
}

/** Whether the features are there, on the object's voxels. */
function isDone(path: string, { numVoxels }: DatasetItem): boolean {
  try {
    return readFeatures(path).coords.length === 3 * numVoxels;
  } catch {
    return false;
  }
}

/**
 * Makes `features/<name>/<sha256>.npz` of the objects that have none, from their voxels and training views, and marks them in metadata.csv. Returns how
 * many were made. Objects whose views cannot be used are given to `onFault` and left out.
 */
export async function extractViewFeatures(
  encoder: ViewEncoder,
  items: readonly DatasetItem[],
  options: ViewFeatureOptions & { onFault?: (item: DatasetItem, error: Error) => void },
): Promise<number> {
  const { name = DINO_FEATURES, resolution: R, record = `feature_${name}`, onProgress, onFault, signal } = options,
    done: DatasetItem[] = [];
  let made = 0;
  for (const [i, item] of items.entries()) {
    if (signal?.aborted) break;
    const paths = assetPaths(item.root, item.sha256), path = paths.features(name);
    if (!isDone(path, item)) {
      let rows: { coords: Int32Array<ArrayBuffer>; feats: Float32Array<ArrayBuffer> } | undefined;
      try {
        const coords = readVoxels(paths.voxels, R), cameras = renderCamerasOf(item);
        rows = { coords, feats: viewFeatures(encoder, coords, cameras, (v) => readImage(paths.renders.view(v)), options) };
      } catch (error) {
        if (!onFault || !(error instanceof Error)) throw error;
        onFault(item, error);
        continue;
      }
      writeFeatures(path, rows);
      made++;
    }
    done.push(item);
    onProgress?.(i + 1, items.length);
    await new Promise((resolve) => setTimeout(resolve)); // a signal is heard between two objects
  }
  if (done.length) await markObjects(done, `feature_${name}`, record);
  return made;
}
