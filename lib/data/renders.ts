/** The views of a dataset's objects in numbers and bytes: cameras, and pictures of `renders/<sha256>/`. */
import { type Image, readImage, resizeImage } from "../io/image.ts";
import { type Camera, cameraOf, type TransformFrame } from "../render/camera.ts";
import type { DatasetItem } from "./dataset.ts";
import { assetPaths } from "./layout.ts";

/** The cameras of an object's training views, from their transforms.json. Throws an Error naming the file where it is damaged. */
export function renderCamerasOf({ root, sha256 }: DatasetItem): Camera[] {
  return readCameras(assetPaths(root, sha256).renders.transforms, "--renders");
}

/** The cameras of an object's condition views; see {@linkcode renderCamerasOf}. */
export function conditionCamerasOf({ root, sha256 }: DatasetItem): Camera[] {
  return readCameras(assetPaths(root, sha256).transforms, "--views");
}

function readCameras(path: string, flag: string): Camera[] {
  try {
    const { frames } = JSON.parse(Deno.readTextFileSync(path));
    if (!Array.isArray(frames) || frames.length === 0) throw new Error("it has no frames");
    return (frames as TransformFrame[]).map(cameraOf);
  } catch (error) {
    throw new Error(`Cannot read ${path}: ${(error as Error).message}; \`deno task prepare -- ${flag}\` makes it`, { cause: error });
  }
}

/** Channels `first` to `end` of an image. */
function channelsOf({ width, height, channels, data }: Image, first: number, end: number): Image {
  const n = end - first, out = new Uint8Array(width * height * n);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < n; c++) out[i * n + c] = data[i * channels + first + c];
  return { width, height, channels: n as 1 | 3, data: out };
}

/**
 * View `view` of an object in S x S pixels: [4, S, S] bytes, straight colours and alpha. Where the picture is of another size, colours and alpha
 * are resized (Lanczos) each for themselves, as the reference does.
 */
export function loadRender({ root, sha256 }: DatasetItem, view: number, S: number): Uint8Array<ArrayBuffer> {
  const path = assetPaths(root, sha256).renders.view(view), image = readImage(path);
  if (image.channels !== 4) throw new Error(`Cannot use the view ${path}: it has ${image.channels} channels, it must have 4 (RGBA)`);
  const parts = [channelsOf(image, 0, 3), channelsOf(image, 3, 4)], same = image.width === S && image.height === S;
  const [color, alpha] = same ? parts : parts.map((part) => resizeImage(part, { width: S, height: S }));
  const area = S * S, out = new Uint8Array(4 * area);
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) out[c * area + i] = color.data[i * 3 + c];
  out.set(alpha.data, 3 * area);
  return out;
}

const SIDES = [45, 135, 225, 315].map((degrees) => degrees * Math.PI / 180), SIDE_PITCH = 20 * Math.PI / 180;

/** The cameras that look most nearly from 20 degrees above, from each of four sides: four indices, in their order around the object. */
export function fourSides(cameras: readonly Camera[]): number[] {
  return SIDES.map((yaw) => {
    const toward = [Math.cos(yaw) * Math.cos(SIDE_PITCH), Math.sin(yaw) * Math.cos(SIDE_PITCH), Math.sin(SIDE_PITCH)];
    const nearness = cameras.map(({ cameraToWorld: m }) => {
      const eye = [0, 1, 2].map((d) => m[d][3]);
      return eye.reduce((dot, x, d) => dot + x * toward[d], 0) / Math.hypot(...eye);
    });
    return nearness.indexOf(Math.max(...nearness));
  });
}
